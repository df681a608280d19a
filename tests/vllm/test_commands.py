"""Whole commands with the installed vLLM, where it can start: an evaluation both ways, `prh doctor`, a training."""

import pytest
from prh.harness.store import read_records
from prh.tests.training import bandit
from prh.tests.training.test_grpo_run import made, told
from prh.tests.vllm.conftest import NOWHERE, number, prh, sleeps
from prh.tests.vllm.interface import missing_served
from prh.tests.vllm.serving import CONTEXT, serving

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # vLLM warns as it is imported
    pytest.mark.skipif(bool(NOWHERE), reason=NOWHERE),
]
TASK = ("--task", "vstar-mini", "--limit", "4", "--set", "limits.new_tokens=16")
HERE = {"eager": "true", "memory": "0.2", "context": str(CONTEXT)}


def test_an_evaluation_in_this_process(folder, tmp_path):
    out = tmp_path / "run"
    words = [word for name, value in HERE.items() for word in ("--set", f"engine.{name}={value}")]
    prh("eval", "--model", str(folder), "--engine", "vllm", "--dtype", "float32", *TASK, *words, "--out", str(out))
    records = read_records(out)
    assert len(records) == 4
    assert "engine_error" not in {record["end"] for record in records}
    assert all(record["usage"]["new_tokens"] for record in records)


def test_an_evaluation_of_a_server_and_what_doctor_says_of_it(folder, installed, tmp_path):
    if missing_served(installed):
        pytest.skip(f"the command of the docs needs a newer vLLM than {number()}")
    out = tmp_path / "run"
    with serving(folder, 0, tmp_path / "log.txt") as url:
        said = prh("doctor", f"{url}/v1", codes=(0, 2)).stdout  # so small a model need not name colours
        prh("eval", "--model", f"{url}/v1", *TASK, "--out", str(out))
    assert f"by vllm, context of {CONTEXT:,} tokens" in said
    assert "--enable-auto-tool-choice --tool-call-parser hermes" in said, "what the docs' command leaves out"
    records = read_records(out)
    assert len(records) == 4
    assert "engine_error" not in {record["end"] for record in records}


@pytest.mark.parametrize("served", [False, True], ids=["in this process", "from a server"])
def test_every_round_of_a_training_is_drawn_with_the_learners_weights(folder, installed, tmp_path, served):
    if served and missing_served(installed):
        pytest.skip(f"rollouts from a server need a newer vLLM than {number()}")
    if not served and not sleeps():
        pytest.skip("this build of vLLM cannot be put aside while the learner works")
    bandit.register()
    sets = ["rollout.engine=vllm", "optim.lr=5e-3", "advantage.uniform=0.01", f"model.base={folder}"]
    if served:
        with serving(folder, 0, tmp_path / "log.txt") as url:
            made(tmp_path / "out", *sets, f"rollout.server={url}")
    else:
        options = ", ".join(f"{name}={value}" for name, value in HERE.items())
        made(tmp_path / "out", *sets, f"rollout.options={{{options}}}")
    rows = [row for row in told(tmp_path / "out") if "loss" in row]
    firsts = [row["logprob_gap"] for row in rows if row["step"] % 2]
    assert len(firsts) == 3
    assert max(firsts) < 0.01, "of the update that follows a round at once"
    assert min(row["drift"] for row in rows if row["step"] % 2 == 0) > max(firsts), "weights move with every update"
