"""Rollouts from a running ``vllm serve``, imitated: drawn with the weights it loaded, or ended by name."""

import json

import pytest
from prh.harness.errors import ModelError, UsageError
from prh.harness.store import read_journal
from prh.tests.models.fake_server import ENVIRONMENT
from prh.tests.models.fake_vllm_serve import FakeServe
from prh.tests.training import bandit
from prh.tests.training.test_grpo_run import end, made, told
from prh.training import checkpoints

SERVED = ("rollout.engine=vllm", "optim.lr=5e-3", "advantage.uniform=0.01")
QUICK = "rollout.options={retries=1, first_wait=0.001}"


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    bandit.register()
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serve():
    from prh.models.checkpoint import resolve_model

    with FakeServe(resolve_model("tiny-init").folder) as server:
        yield server
        assert server.faults == []


def reinforced(out, server, *sets):
    return made(out, *SERVED, QUICK, f"rollout.server={server.url}", *sets)


def gaps(out):
    """How far sampler and learner are apart in the update that follows a round at once, round by round."""
    rows = [row for row in told(out) if "loss" in row]
    return [row["logprob_gap"] for row in rows if row["step"] % 2]


def held(out):
    return [one for path in sorted(out.rglob("records.jsonl")) for one in read_journal(path).records]


def posts(server):
    return [path for method, path, _ in server.calls if method == "POST"]


def test_every_round_is_drawn_with_the_learners_weights(tmp_path, serve):
    out = tmp_path / "out"
    reinforced(out, serve)
    assert len(gaps(out)) == 3
    assert max(gaps(out)) < 1e-4
    drifts = [row["drift"] for row in told(out) if "loss" in row and row["step"] % 2 == 0]
    assert min(drifts) > 1e-3, "weights move with every update"
    assert {one["round"]: one["version"] for one in held(out)} == {0: 0, 1: 2, 2: 4}
    drawn = list(dict.fromkeys(label for label, _ in serve.drawn))
    assert [label.rpartition("-")[2] for label in drawn] == ["default", "0", "2", "4"], "the base's too is handed over"
    assert "/sleep?level=1&mode=wait" not in posts(serve)
    assert not (out / ".spoken").exists()


def test_a_server_that_loads_nothing_shows(tmp_path, serve):
    """What makes the test before this one one: lost weights are far from the learner's."""
    serve.deaf = True
    out = tmp_path / "out"
    reinforced(out, serve)
    assert gaps(out)[0] < 1e-4
    assert min(gaps(out)[1:]) > 1e-3


def test_adapters_are_handed_over(tmp_path, serve):
    out = tmp_path / "out"
    reinforced(out, serve, "lora.rank=4", "optim.lr=2e-2")
    assert max(gaps(out)) < 1e-4
    drawn = list(dict.fromkeys(name for _, name in serve.drawn))
    assert [name.rpartition("-")[2] for name in drawn] == ["served", "0", "2", "4"]
    assert [name.rpartition("-")[2] for name in serve.adapters] == ["4"], "older ones are unloaded"
    assert "/collective_rpc" not in posts(serve)


def test_a_server_that_shares_the_gpu_sleeps_while_the_learner_works(tmp_path, serve):
    out = tmp_path / "out"
    reinforced(out, serve, "rollout.options={sleep=true}", "train.rounds=2")
    asleep = [path.partition("?")[0] for path in posts(serve) if path.startswith(("/sleep", "/wake_up", "/coll"))]
    assert asleep == ["/collective_rpc", "/sleep", "/wake_up", "/collective_rpc", "/sleep", "/wake_up"]
    assert not serve.asleep, "it is left as it was found"


def dies(server):
    server.die()


def restarts(server):
    server.again()


def is_taken(server):
    server.label = "prh-other-2"


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (dies, "cannot be reached"),
        (restarts, "has the weights 'default' where '.*-2' were handed over"),
        (is_taken, "has the weights 'prh-other-2'"),
    ],
)
def test_what_befalls_the_server_amid_a_round_ends_it_by_name_and_it_goes_on(tmp_path, serve, act, message):
    """Every rollout that counts is of the weights it says it is of; it goes on with a new server and more patience."""
    out = tmp_path / "out"
    serve.at[2 + 8 + 3] = act
    with pytest.raises(ModelError, match=rf"engine_dead\) after step 2: .*{message}") as caught:
        reinforced(out, serve, "rollout.concurrency=1")
    assert "\n" not in str(caught.value)
    assert end(out) == ("engine_dead", 2)
    assert (checkpoints.place(out, 2) / checkpoints.STATE).is_dir()
    assert not (out / ".spoken").exists()
    kept = [one for one in held(out) if one["end"] != "engine_error"]
    assert 8 < len(kept) < 16
    if act is not dies:
        assert all(label.endswith(("default", "-0", "-2")) for label, _ in serve.drawn)
    with FakeServe(serve.folder) as other:
        reinforced(out, other, "rollout.options={retries=3, timeout=900}")
        assert {label.rpartition("-")[2] for label, _ in other.drawn} == {"default", "2", "4"}
        assert other.faults == []
    assert max(gaps(out)) < 1e-4
    again = held(out)
    assert [one for one in again if one in kept] == kept, "what was drawn is not drawn again"


def test_a_server_that_is_gone_when_weights_are_due(tmp_path, serve):
    """Too late for the round that it drew, whose updates are kept."""
    serve.at[2 + 8 - 1] = lambda server: setattr(server, "without", {"/pause"})
    out = tmp_path / "out"
    with pytest.raises(ModelError, match=r"engine_dead\) after step 2: version 2 of the weights could not be taken: "):
        reinforced(out, serve, "train.save=0")
    assert end(out) == ("engine_dead", 2)
    assert checkpoints.place(out, 2).is_dir()


@pytest.mark.parametrize(
    ("sets", "error", "message"),
    [
        (("rollout.server=http://127.0.0.1:9",), ModelError, "http://127.0.0.1:9: cannot be reached"),
        (("rollout.server=http://127.0.0.1:9", "rollout.engine="), UsageError, 'it needs rollout.engine = "vllm"'),
        (("rollout.options={memory=0.4}",), UsageError, "the engine vllm with a server has no option 'memory'"),
        (("train.deterministic=true",), UsageError, "deterministic"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_drawn(tmp_path, serve, sets, error, message):
    with pytest.raises(error, match=message):
        reinforced(tmp_path / "out", serve, *sets)
    assert len(serve.drawn) <= 2


# -- two processes ---------------------------------------------------------------------------------------------------


def two(out, *sets, kind="whole"):
    """What two processes made and said."""
    from prh.tests.training import grpo_ranks
    from prh.tests.training.test_layouts import launch

    out.mkdir()
    done = launch(grpo_ranks.__file__, out / "run", kind, *sets)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((out / "run" / f"rank-{rank}.json").read_text()) for rank in range(2)]


def groups(out):
    """The repeats of each question, round by round, and the ids that were said."""
    found = {}
    for one in held(out):
        said = [turn["ids"] for turn in one["segments"] if "ids" in turn]
        found.setdefault((one["round"], one["id"]), {})[one["repeat"]] = said
    return found


def assert_alike(one, many):
    """A training on one process and on several: the same rollouts, in whole groups, and the same losses."""
    assert groups(many) == groups(one)
    assert all(sorted(group) == [0, 1, 2, 3] for group in groups(many).values())
    shards = {path.name for path in many.glob("rollouts/*/*/shards/*")}
    assert shards == {"rank-000", "rank-001"}
    here, there = ([row for row in told(out) if "loss" in row] for out in (one, many))
    assert [row["reward"] for row in there] == pytest.approx([row["reward"] for row in here], abs=1e-6)
    assert [row["loss"] for row in there] == pytest.approx([row["loss"] for row in here], abs=1e-5)
    assert max(row["logprob_gap"] for row in there) < 1e-4


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same on one process with an engine of its own: its folder, and what was asked of the engine."""
    from prh.tests.training import grpo_ranks

    out = tmp_path_factory.mktemp("alone") / "out"
    return out, grpo_ranks.run(out)


@pytest.mark.parametrize("kind", ["whole", "sharded"])
def test_two_processes_with_an_engine_each_draw_what_one_draws(tmp_path, alone, kind):
    out, one = alone
    first, second = two(tmp_path / "two", kind=kind)
    assert (first["error"], second["error"]) == ("", "")
    assert [name for name, *_ in first["calls"]] == [name for name, *_ in second["calls"]] == [name for name, *_ in one]
    assert sum(name == "collective_rpc" for name, *_ in one) == 1
    assert_alike(out, tmp_path / "two" / "run")


def test_two_processes_draw_from_one_server_that_is_handed_weights_once(tmp_path, serve, alone):
    for said in two(tmp_path / "two", QUICK, f"rollout.server={serve.url}"):
        assert said == {"calls": [], "error": ""}
    assert posts(serve).count("/collective_rpc") == 2
    assert_alike(alone[0], tmp_path / "two" / "run")


def test_two_processes_end_together_where_the_server_fails_one(tmp_path, serve):
    """The first hands weights over and cannot; the second learns of it and waits for nothing."""
    serve.at[4 + 8 - 1] = lambda server: setattr(server, "without", {"/pause"})
    first, second = two(tmp_path / "two", QUICK, f"rollout.server={serve.url}")
    assert first["error"] == second["error"]
    assert "engine_dead) after step 1: process 0: version 1 of the weights could not be taken" in first["error"]
    assert end(tmp_path / "two" / "run") == ("engine_dead", 1)
    assert checkpoints.place(tmp_path / "two" / "run", 1).is_dir()


def test_two_processes_end_together_where_one_cannot_open_its_engine(tmp_path):
    first, second = two(tmp_path / "two", kind="open")
    assert first["error"] == second["error"] == "process 1: there is no GPU for it"
    assert first["calls"][-1] == ["shutdown"], "what the other opened is closed"


def test_two_processes_end_together_where_the_first_cannot_write_for_the_engine(tmp_path):
    first, second = two(tmp_path / "two", kind=".spoken")
    assert first["error"] == second["error"]
    assert "engine_dead) after step 1: process 0: cannot write .spoken: No space left" in first["error"]
    assert end(tmp_path / "two" / "run") == ("engine_dead", 1)
    assert [said["calls"][-1] for said in (first, second)] == [["shutdown"]] * 2


def test_two_processes_end_together_where_the_first_cannot_write_a_checkpoint(tmp_path):
    for said in two(tmp_path / "two", kind="step-000001"):
        assert said["error"] == "cannot write step-000001: No space left on device"
