"""The engine ``lmms`` over a stand-in for lmms-eval, in a process of its own: no key anywhere, and what it refuses."""

import json

import pytest
from prh.harness.engine import EngineOptions
from prh.harness.errors import UsageError
from prh.harness.store import read_json, read_records
from prh.models.lmms_engine import LmmsFactory, model_args
from prh.tests.harness.test_cli import prh
from prh.tests.lmms.local import examples, shell
from prh.tests.models.fake_lmms import write_package

KEY = "sk-secret-0123456789abcdef"
WORDS = ["eval", "--model", "some-model", "--engine", "lmms:prh_echo", "--task", "vstar-mini", "--limit", "4"]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return write_package(tmp_path_factory.mktemp("site"))


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_stand_in_answers(cache, package, tmp_path):
    prh(*WORDS, "--out", str(tmp_path / "run"), "--set", "engine.say=A", **package)
    assert {record["end"] for record in read_records(tmp_path / "run")} == {"answered"}
    assert read_json(tmp_path / "run" / "run.json")["engine"]["args"] == "pretrained=some-model,say=A"


def test_the_example_of_the_docs(cache, package, tmp_path, monkeypatch):
    """With the stand-in's model on a miniature; the other examples of the page need lmms-eval: `make test-lmms`."""
    for name, value in package.items():
        monkeypatch.setenv(name, value)
    blocks = examples()
    assert set(blocks) == {"inside", "tasks", "engine"}
    names = {"Qwen/Qwen2.5-VL-7B-Instruct": "no-file", "qwen2_5_vl": "prh_echo", "vstar": "vstar-mini --limit 2"}
    shell(blocks["engine"], tmp_path, names)
    assert len(read_records(tmp_path / "runs" / "qwen-lmms")) == 2


@pytest.mark.parametrize(
    ("setting", "variable"),
    [
        (f"engine.api_key={KEY}", "OPENAI_API_KEY"),
        (f"engine.API_KEY='{KEY}'", "OPENAI_API_KEY"),
        (f'engine={{hf_token="{KEY}"}}', "HF_TOKEN"),
        (f"engine.client.secret={KEY}", "SECRET"),
        (f"sampling.password={KEY}", "PASSWORD"),
    ],
)
def test_a_secret_among_the_settings_is_refused_and_written_nowhere(cache, package, tmp_path, setting, variable):
    done = prh(*WORDS, "--set", setting, cwd=tmp_path, code=2, **package)
    assert f"environment variable {variable}" in done.stderr
    assert done.stderr.count("\n") == 1
    assert KEY not in done.stdout + done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_secret_in_the_settings_file_is_refused(cache, package, tmp_path):
    (tmp_path / "prh.toml").write_text(f"[engine]\napi_key = {json.dumps(KEY)}\n")
    done = prh(*WORDS, cwd=tmp_path, code=2, **package)
    assert "prh.toml: `engine.api_key` looks like a secret" in done.stderr
    assert KEY not in done.stdout + done.stderr
    assert not (tmp_path / "runs").exists()


def test_arguments_are_no_secrets_and_hold_none():
    assert model_args("m", {"key": "model_version", "token": "True"}) == "model_version=m,token=True"
    with pytest.raises(UsageError, match="`api_key` looks like a secret"):
        model_args("m", {"api_key": KEY})


def test_a_revision_is_refused():
    with pytest.raises(UsageError, match="takes no model_revision"):
        LmmsFactory("prh_echo").open("some-model", EngineOptions(revision="v1"))


def test_a_key_that_a_model_of_lmms_eval_tells_is_nowhere(cache, package, tmp_path):
    """In replies, in failed requests and in what it raises."""
    sets = ["engine.say=key", "batch=1", "max_error_share=1"]
    words = ["--out", str(tmp_path / "run"), *(word for text in sets for word in ("--set", text))]
    done = prh(*WORDS, *words, OPENAI_API_KEY=KEY, **package)
    records = read_records(tmp_path / "run")
    assert {record["end"] for record in records} == {"answered", "engine_error"}
    errors = [str(record["error"]) for record in records if record["error"]]
    assert any("RuntimeError: the headers were Bearer [key]" in error for error in errors)
    assert any("gave a turn up: [LMMS_EVAL_REQUEST_FAILED after 5 retries] [key]" in error for error in errors)
    assert KEY not in done.stdout + done.stderr
    assert files(tmp_path / "run")
    assert not [path for path in files(tmp_path / "run") if KEY.encode() in path.read_bytes()]
