"""Rollouts from an engine of its own that takes each version of the weights from files: vLLM's interface, imitated."""

import pytest
from prh.harness.errors import ModelError, StoreError, UsageError
from prh.harness.store import read_journal
from prh.tests.models import fake_vllm
from prh.tests.training import bandit
from prh.tests.training.test_grpo_run import end, made, told
from prh.training import checkpoints, speaking

VLLM = ("rollout.engine=vllm", "optim.lr=5e-3", "advantage.uniform=0.01")


@pytest.fixture
def started(monkeypatch):
    bandit.register()
    return fake_vllm.install(monkeypatch)


def names(engine):
    return [name for name, _, _ in engine.calls]


def test_every_round_is_drawn_with_the_learners_weights(tmp_path, started):
    out = tmp_path / "out"
    made(out, *VLLM)
    rows = [row for row in told(out) if "loss" in row]
    firsts = [row["logprob_gap"] for row in rows if row["step"] % 2]
    assert len(firsts) == 3
    assert max(firsts) < 1e-4, "of the update that follows a round at once"
    assert min(row["drift"] for row in rows if row["step"] % 2 == 0) > 1e-3, "weights move with every update"
    held = [one for path in out.rglob("records.jsonl") for one in read_journal(path).records]
    assert {one["round"]: one["version"] for one in held} == {0: 0, 1: 2, 2: 4}
    (engine,) = started
    forget = ["reset_prefix_cache", "reset_encoder_cache"]
    taken = ["sleep", "wake_up", *forget, "collective_rpc", *forget]
    assert names(engine) == [*taken, *taken, "sleep", "wake_up", *forget, "shutdown"]
    assert not (out / ".spoken").exists()


def test_going_on_takes_the_version_that_was_reached(tmp_path, started):
    out = tmp_path / "out"
    made(out, *VLLM, "train.rounds=1")
    made(out, *VLLM, "train.rounds=1")
    assert names(started[1])[-1] == "shutdown"
    assert [row["step"] for row in told(out) if "loss" in row] == [1, 2]


def test_an_engine_that_dies_ends_it_by_name_and_is_closed(tmp_path, started, monkeypatch):
    real = fake_vllm.Llm.generate

    def generate(self, *args, **given):
        if "collective_rpc" in names(self):
            self.plan = [fake_vllm.EngineDeadError("lost")]
        return real(self, *args, **given)

    monkeypatch.setattr(fake_vllm.Llm, "generate", generate)
    with pytest.raises(ModelError, match="engine_dead"):
        made(tmp_path / "out", *VLLM)
    assert end(tmp_path / "out") == ("engine_dead", 2)
    assert names(started[0])[-1] == "shutdown"


def test_adapters_are_given_room_and_handed_over(tmp_path, started):
    made(tmp_path / "out", *VLLM, "lora.rank=4", "train.rounds=2", "optim.lr=2e-2")
    rows = [row for row in told(tmp_path / "out") if "loss" in row]
    assert max(row["logprob_gap"] for row in rows if row["step"] % 2) < 1e-4
    assert rows[1]["drift"] > 1e-4, "the adapter moves"
    (engine,) = started
    assert (engine.args.enable_lora, engine.args.max_lora_rank) == (True, 8)
    used = [given["lora_request"] for _, _, given in engine.requests]
    assert [one and one.lora_int_id for one in used] == [None] * 8 + [2] * 8


def test_nothing_is_drawn_with_another_version_than_the_rounds(tmp_path, started, monkeypatch):
    monkeypatch.setattr(speaking.Apart, "sync", lambda self, step: self._together(self._aside.aclose))
    with pytest.raises(ModelError, match="the engine has version 0 of the weights, and the round is of 2"):
        made(tmp_path / "out", *VLLM)


def test_an_engine_that_cannot_be_put_aside_ends_it_by_name(tmp_path, started, monkeypatch):
    async def sleep(self, level):
        raise fake_vllm.EngineDeadError("out of\nmemory")

    monkeypatch.setattr(fake_vllm.Llm, "sleep", sleep, raising=False)
    with pytest.raises(
        ModelError, match=r"engine_dead.*the engine could not be put aside: EngineDeadError: out of memory"
    ):
        made(tmp_path / "out", *VLLM)
    assert end(tmp_path / "out") == ("engine_dead", 0)
    assert names(started[0])[-1] == "shutdown"


def test_a_disk_that_is_full_when_weights_are_handed_over_ends_it_by_name(tmp_path, started, monkeypatch):
    begin = checkpoints.begin

    def full(target):
        if target.name == speaking.SPOKEN and checkpoints.read_log(target.parent):
            raise StoreError("cannot write: No space left on device")
        return begin(target)

    monkeypatch.setattr(checkpoints, "begin", full)
    with pytest.raises(ModelError, match=r"engine_dead\) after step 2: cannot write: No space left on device"):
        made(tmp_path / "out", *VLLM)
    assert end(tmp_path / "out") == ("engine_dead", 2)
    assert names(started[0])[-1] == "shutdown"


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (("train.deterministic=true",), "deterministic"),
        (("rollout.copy=true",), "leave it out with rollout.engine"),
        (("rollout.options={gpus=2}",), "the engine vllm has no option 'gpus'"),
        (("rollout.engine=transformers",), "takes no weights while it runs"),
        (("rollout.engine=none",), "none"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, started, sets, message):
    with pytest.raises(UsageError, match=message):
        made(tmp_path / "out", *VLLM, *sets)
