"""The worked examples of docs/servers.md and docs/many-machines.md, as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import metadata_load
from prh.harness.record import canonical, key_of
from prh.harness.store import read_records
from prh.tests.models.fake_server import ENVIRONMENT
from prh.tests.models.test_probe import Seeing

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```sh test=(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = {
    name: text for page in ("servers.md", "many-machines.md") for name, text in BLOCK.findall((DOCS / page).read_text())
}
SITE = Path(sys.executable).parent


def shell(text, cwd):
    plain = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    environment = {**plain, "PATH": f"{SITE}:{plain['PATH']}", "OMP_NUM_THREADS": "1"}
    command = ["sh", "-e", "-c", text.replace("accelerate launch", "python -m accelerate.commands.launch")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def records(folder):
    return {key_of(record): canonical(record) for record in read_records(folder)}


def test_every_example_is_known():
    assert set(BLOCKS) == {"transformers", "server", "ranks", "ray", "card"}, "ray is run by `make test-ray`"


def test_the_embedded_checkpoint_in_one_process_and_in_two_ranks(cache, tmp_path):
    shell(BLOCKS["transformers"], tmp_path)
    shell(BLOCKS["ranks"], tmp_path)
    assert records(tmp_path / "runs" / "ranks") == records(tmp_path / "runs" / "tiny")
    assert len(records(tmp_path / "runs" / "tiny")) == 4


def test_a_server(cache, tmp_path):
    with Seeing() as server:
        said = shell(BLOCKS["server"].replace("PORT", str(server.port)), tmp_path)
        assert server.faults == []
    assert said.count("ok      ") >= 5
    assert {record["end"] for record in read_records(tmp_path / "runs" / "server")} == {"answered"}


def test_a_model_card(cache, tmp_path):
    shell(BLOCKS["card"], tmp_path)
    assert metadata_load(tmp_path / "README.md")["model-index"]


@pytest.mark.parametrize("page", ["servers.md", "many-machines.md", "lmms-eval.md"])
def test_options_that_are_named_exist(page):
    from prh.models.openai_server import Settings
    from prh.models.ray_executor import Options
    from prh.models.vllm_settings import Settings as Vllm

    known = {*Settings.__slots__, *Vllm.__slots__, "key"}
    text = (DOCS / page).read_text()
    assert set(re.findall(r"engine\.([a-z_]+)=", text)) <= known
    assert set(re.findall(r"executor\.([a-z_]+)=", text)) <= set(Options.__slots__)
