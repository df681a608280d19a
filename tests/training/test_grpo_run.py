"""The trainer as a whole: it learns, it ends safely, and ended anywhere it goes on to the same weights."""

import json
import multiprocessing
import random
import signal
import tomllib
from pathlib import Path

import click.testing
import numpy as np
import pytest
import torch
from prh.harness.commands import show_command
from prh.harness.errors import ModelError, PrhError, StoreError
from prh.harness.record import canonical, key_of
from prh.harness.store import read_journal, read_json
from prh.tests.models import support
from prh.tests.training import bandit
from prh.tests.training.grpo_driver import POINTS, run
from prh.training import checkpoints, grpo, grpo_run, loop
from prh.training.config import build, override
from prh.training.grpo_config import GrpoConfig
from prh.training.learner import Learner
from prh.training.watcher import Watcher
from safetensors.torch import load_file

EXACT = ("train.deterministic=true",)
# Ten steps of them at most; each variant keeps something else.
VARIANTS = {
    "plain": EXACT,
    "replay": (*EXACT, "replay.fill=0.5", "replay.age=1", "train.batch=2", "train.save=1"),
    "corrected": (*EXACT, "loss.correction=truncate", "lora.rank=4", "lora.dropout=0.1", "optim.lr=1e-2"),
    "waves": (*EXACT, "rollout.waves=2", "advantage.uniform=0.12", "loss.beta=0.05", "train.save=2"),
}


@pytest.fixture(autouse=True)
def _reward():
    bandit.register()


@pytest.fixture(scope="session")
def grpo_prh(tmp_path_factory):
    """Runs ``prh`` in a process forked from one that has loaded everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["prh.tests.training.driver", "prh.tests.training.grpo_driver"])
    log = tmp_path_factory.mktemp("prh") / "log"

    def call(*arguments, point="", codes=(0, -signal.SIGKILL)):
        log.write_text("")
        process = context.Process(target=run, args=(arguments, point, log))
        process.start()
        process.join(120)
        assert process.exitcode in codes, log.read_text()[-2000:]
        return process.exitcode

    return call


def command(path, out, sets):
    return ["train", "grpo", path, "--out", out, *(word for one in sets for word in ("--set", one))]


def made(out, *sets, watcher=Watcher):
    """A training in this process; its configuration with some of it changed."""
    values = override(tomllib.loads(bandit.CONFIG), sets)
    return grpo.train(build(GrpoConfig, values), out, Path(), watcher)


def weights(folder):
    name = "adapter_model.safetensors" if (folder / "adapter_config.json").exists() else "model.safetensors"
    return load_file(folder / name)


TIMED = ("seconds", "tokens_per_second")


def told(out):
    return [{k: v for k, v in row.items() if not k.endswith(TIMED)} for row in checkpoints.read_log(out)]


def records(out):
    found = {}
    for path in sorted(out.glob("rollouts/*/*/records.jsonl")):
        rows = {key_of(one): one for one in read_journal(path).records}
        found |= {(path.parts[-3], *key): (canonical(one), spoken(one)) for key, one in rows.items()}
    return found


def spoken(record):
    return [turn["logprobs"] for turn in record["segments"] if "logprobs" in turn]


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_anywhere_it_ends_with_the_same_weights(grpo_prh, tmp_path, variant):
    path, sets = bandit.config(tmp_path), VARIANTS[variant]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert grpo_prh(*command(path, whole, sets)) == 0
    rng = random.Random(variant)
    points = rng.sample(POINTS, 8 if variant == "plain" else 4)
    ended = []
    for point in points:
        before = records(parts) if parts.is_dir() else {}
        ended.append(grpo_prh(*command(path, parts, sets), point=point))
        kept = records(parts)
        assert {key: kept[key] for key in before} == before, point
    assert -signal.SIGKILL in ended
    assert grpo_prh(*command(path, parts, sets)) == 0
    right, found = weights(whole / "final"), weights(parts / "final")
    assert right.keys() == found.keys()
    assert all(torch.equal(right[name], found[name]) for name in right)
    assert told(whole) == told(parts)
    assert records(whole) == records(parts)
    assert sorted(entry.name for entry in parts.iterdir()) == sorted(entry.name for entry in whole.iterdir())


def test_killed_at_any_time_it_loses_no_record(grpo_prh, tmp_path):
    """As it usually runs, several rollouts at once: what was recorded stays and is learned from."""
    path, out = bandit.config(tmp_path), tmp_path / "out"
    context = multiprocessing.get_context("forkserver")
    journal = out / "rollouts/round-000001/vstar-mini/records.jsonl"
    for size in (1, 4000):
        process = context.Process(target=run, args=(command(path, out, ()), "", tmp_path / "log"))
        process.start()
        while process.is_alive() and not (journal.exists() and journal.stat().st_size >= size):
            process.join(0.002)
        process.kill()
        process.join()
    before = records(out)
    assert grpo_prh(*command(path, out, ())) == 0
    after = records(out)
    assert {key: after[key] for key in before} == before
    assert [row["step"] for row in told(out)] == [1, 2, 3, 4, 5, 6]


LEARNS = ("train.rounds=18", "train.batch=16", "rollout.queries=4", "optim.lr=3e-3", "train.save=18")


def test_it_learns_what_pays(tmp_path):
    """Random weights say even and odd ids alike; a few updates, and they say mostly even ones."""
    out = tmp_path / "out"
    made(out, *LEARNS, "loss.kind=grpo")
    rows = told(out)
    assert rows[0]["reward"] < 0.6
    assert np.mean([row["reward"] for row in rows[-3:]]) > 0.75
    assert rows[0]["reward.even"] == rows[0]["reward"]
    learned = [row for row in rows if row["rows"]]  # at the end some rounds have nothing but even ids
    assert len(learned) > 9
    assert max(row["logprob_gap"] for row in learned) < 1e-5
    assert all(0 <= row["clip_share"] < 0.5 and row["entropy"] > 0 for row in learned)


@pytest.mark.parametrize("variant", ["loss.kind=gspo", "advantage.scale=std", "replay.fill=1.0"])
def test_every_way_of_it_learns(tmp_path, variant):
    made(tmp_path / "out", *LEARNS, variant)
    rewards = [row["reward"] for row in told(tmp_path / "out")]
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 0.08


def test_rollouts_are_runs_to_look_at(tmp_path):
    out = tmp_path / "out"
    made(out, "train.rounds=1")
    folder = out / "rollouts/round-000000/vstar-mini"
    shown = click.testing.CliRunner().invoke(show_command, [str(folder)])
    assert shown.exit_code == 0
    assert "8 episodes" in shown.output
    metrics = read_json(folder / "metrics.json")
    assert metrics["n"] == 8
    (row, _) = told(out)
    assert row["rapr"] == metrics["metrics"]["rapr"]["value"]
    assert row["accuracy"] == metrics["metrics"]["accuracy"]["value"]


def documented():
    """The keys that the module's docstring names."""
    lines = grpo.__doc__.partition("nothing to tell:\n")[2].partition("\nAn evaluation's line")[0].splitlines()
    names = ",".join(line[4:50] for line in lines).split(",")
    return {name.strip() for name in names} - {"", "...", "rapr.needs_operation"}


def test_every_key_of_the_log_is_documented(tmp_path):
    made(tmp_path / "out", "train.rounds=1")
    keys = {key for row in checkpoints.read_log(tmp_path / "out") for key in row}
    plain = {key.removesuffix(".needs_operation") for key in keys}
    assert {"reward.TERM" if key.startswith("reward.") else key for key in plain} == documented()


# -- safe ends -------------------------------------------------------------------------------------------------


def end(out):
    (row,) = [row for row in checkpoints.read_log(out) if "end" in row]
    return row["end"], row["step"]


def test_a_loss_that_is_no_number_ends_it_and_keeps_everything(tmp_path, monkeypatch):
    out, real = tmp_path / "out", Learner.update

    def update(self, step, batches, idle=None):
        if step == 3:
            raise ModelError("step 4 has a loss of nan")
        return real(self, step, batches, idle)

    monkeypatch.setattr(Learner, "update", update)
    with pytest.raises(ModelError, match=r"not_finite.*after step 3.*nan"):
        made(out, "train.save=2")
    assert end(out) == ("not_finite", 3)
    assert checkpoints.latest(out) == (3, out / "step-000003")
    monkeypatch.undo()
    bandit.register()
    made(out, "train.save=2")
    assert [row["step"] for row in told(out) if "loss" in row] == [1, 2, 3, 4, 5, 6]


def test_nothing_to_learn_ends_it_by_name(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ModelError, match=r"nothing_to_learn.*2 rounds in a row"):
        made(out, "advantage.uniform=9", "train.patience=2", "train.rounds=9")
    assert end(out) == ("nothing_to_learn", 4)
    rows = [row for row in told(out) if "loss" in row]
    assert [(row["rows"], row["loss"], row["groups_filtered"]) for row in rows] == [(0, None, 2)] * 4
    first, last = (load_file(out / name / "model.safetensors") for name in ("step-000001", "step-000004"))
    assert all(torch.equal(first[name], last[name]) for name in first)


def test_an_engine_that_dies_ends_it_by_name(tmp_path, monkeypatch):
    out, real = tmp_path / "out", grpo_run.Sampler.turn

    async def turn(self, conversation, spec):
        if self.engine.forgotten > 1:
            raise ModelError("the device fell off")
        return await real(self, conversation, spec)

    def forget(self):
        self.forgotten = getattr(self, "forgotten", 0) + 1

    from prh.models.transformers_engine import TransformersEngine

    monkeypatch.setattr(TransformersEngine, "forget", forget)
    monkeypatch.setattr(grpo_run.Sampler, "turn", turn)
    with pytest.raises(ModelError, match=r"engine_dead.*8 of 8.*the device fell off"):
        made(out)
    assert end(out) == ("engine_dead", 2)
    monkeypatch.undo()
    bandit.register()
    made(out)
    assert [row["step"] for row in told(out) if "loss" in row] == [1, 2, 3, 4, 5, 6]


# -- weights and the engine ------------------------------------------------------------------------------------


class Spy(Watcher):
    training = None

    def opened(self, training, first):
        Spy.training = training


@pytest.mark.parametrize("variant", [(), ("lora.rank=4", "lora.dropout=0.2", "optim.lr=2e-2"), ("rollout.copy=true",)])
def test_after_updates_the_engine_says_what_the_learner_would(tmp_path, variant, monkeypatch):
    """Greedily, on prompts that it has read before; and each round says which weights sampled it."""
    runs = []
    real = grpo_run.GrpoRun._end
    monkeypatch.setattr(grpo_run.GrpoRun, "_end", lambda self: runs.append(self) or real(self))
    made(tmp_path / "out", "optim.lr=5e-3", *variant)
    (run_,) = runs
    run_._sync()
    module = run_.accelerator.unwrap_model(run_.learner.model)
    base = run_.training.engine._checkpoint.folder
    moved = 0
    for seed in range(5):
        talk = support.conversation(f"c{seed}")
        support.say(talk, "system", "Look.")
        support.say(talk, "user", support.noise((84, 56), seed), f"What is it, {seed}?")
        (said,) = support.turns(run_.speaker, [(talk, spec(run_.speaker))])
        prompt = support.prompt_ids(base, talk, 28)
        assert prompt == list(run_.training.engine.encode(talk).ids)
        support.reply(talk, said)
        logits = support.full_logits(base, talk, [*prompt, *said.ids], module)[len(prompt) - 1 : -1]
        greedy = logits.index_fill(-1, torch.tensor(sorted(run_.speaker.vision_ids)), float("-inf")).argmax(-1)
        assert greedy.tolist() == list(said.ids)
        before = support.full_logits(base, talk, [*prompt, *said.ids])[len(prompt) - 1 : -1]
        moved += int((before - logits).abs().max() > 1e-3)
    assert moved == 5
    journals = (read_journal(path).records for path in (tmp_path / "out").rglob("records.jsonl"))
    versions = {one["round"]: one["version"] for held in journals for one in held}
    assert versions == {0: 0, 1: 2, 2: 4}


def spec(engine):
    from prh.harness.engine import TurnSpec

    return TurnSpec(8, banned_ids=tuple(sorted(engine.vision_ids)))


def test_replayed_rollouts_keep_their_old_log_probabilities(tmp_path):
    """Later updates of a round, and rounds after it, are off policy, and say so."""
    out = tmp_path / "out"
    many = ("rollout.queries=4", "train.batch=8", "train.rounds=4")
    made(out, "replay.fill=1.0", "replay.age=2", "advantage.uniform=0.12", "optim.lr=2e-3", *many)
    rows = told(out)
    assert any(row["replayed"] for row in rows)
    assert all(row["drift"] > 1e-6 for row in rows if row["step"] % 2 == 0 and row["loss"] is not None)


# -- evaluation, folders, configurations -----------------------------------------------------------------------


def test_the_best_checkpoint_is_kept(tmp_path, monkeypatch):
    values = iter([0.2, 0.7, 0.7, 0.1])
    seen = {"vstar-mini.rapr": 0.0}
    monkeypatch.setattr(loop.Evaluator, "__call__", lambda *_: {**seen, "vstar-mini.accuracy": next(values)})
    out = tmp_path / "out"
    made(out, "train.rounds=2", "eval.tasks=['vstar-mini']", "eval.every=1", "train.save=4")
    assert read_json(out / "best.json")["step"] == 2
    assert read_json(out / "best.json")["value"] == 0.7
    assert read_json(out / "best/training.json")["step"] == 2
    assert (out / "best/model.safetensors").is_file()
    assert read_json(out / "final/training.json")["step"] == 4


def test_it_is_evaluated_as_it_goes(tmp_path):
    path = bandit.config(tmp_path)
    from prh.training.train_commands import train_group

    out = tmp_path / "out"
    words = [
        "grpo",
        str(path),
        "--out",
        str(out),
        "--set",
        "train.rounds=1",
        "--eval",
        "vstar-mini",
        "--eval-every",
        "2",
    ]
    done = click.testing.CliRunner().invoke(train_group, [*words, "--set", "eval.limit=2"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "RaPR" in done.output
    rows = [row for row in checkpoints.read_log(out) if "vstar-mini.accuracy" in row]
    assert [row["step"] for row in rows] == [2]
    assert (out / "evals/step-000002/vstar-mini/metrics.json").is_file()
    assert read_json(out / "best.json")["metrics"] == ["vstar-mini.accuracy"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("loss.kind=ppo", "loss.kind"),
        ("data=[]", r"no \[\[data\]\]"),
        ("rollout.top_p=0.9", "top_p"),
        ("rollout.queries=400", "data hold 191"),
        ("train.batch=9", "a round has 8"),
        ("reward.odd={}", "reward"),
        ("model.base=oracle", "no weights to train"),
        ("data=[{task='vstar'}]", "split"),
        ("data=[{task='vstar-mini', slices=['none']}]", "slices"),
        ("data=[{task='vstar-mini'}, {task='vstar-mini'}]", "twice"),
        ("lora.dropout=1.0", "lora.dropout"),
        ("train.layout=wide", "train.layout"),
        ("rollout.profile=odd", "profile"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(tmp_path, change, message):
    with pytest.raises(PrhError, match=message) as error:
        made(tmp_path / "out", change)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A training that has ended."""
    bandit.register()
    out = tmp_path_factory.mktemp("begun") / "out"
    made(out, "train.rounds=1")
    return out


@pytest.mark.parametrize(
    "change",
    [
        "loss.kind=grpo",
        "reward.even.weight=2",
        "rollout.group=3",
        "train.seed=1",
        "advantage.uniform=0.2",
        "optim.lr=1.0",
    ],
)
def test_a_changed_configuration_is_refused_by_name(begun, change):
    with pytest.raises(PrhError, match=f"another `{change.split('=')[0]}`"):
        made(begun, "train.rounds=1", change)


def test_how_a_step_is_computed_may_change(begun):
    made(begun, "train.rounds=1", "train.micro=300", "train.layout=padded", "rollout.batch=2", "train.save=2")


def test_a_damaged_state_is_told_in_a_line(tmp_path):
    out = tmp_path / "out"
    made(out, "train.rounds=1", "train.save=1")
    state = out / "step-000002/state/grpo.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "round": "x"}))
    with pytest.raises(StoreError, match=r"grpo\.json"):
        made(out, "train.rounds=1", "train.save=1")


def test_lost_rollouts_are_told_in_a_line(tmp_path, monkeypatch):
    """Amid a round its rollouts cannot be sampled again: the weights have moved on."""
    out = tmp_path / "out"

    class Stops(Watcher):
        def saved(self, path):
            if path.name == "step-000003":
                raise RuntimeError

    with pytest.raises(RuntimeError):
        made(out, watcher=Stops)
    journal = out / "rollouts/round-000001/vstar-mini/records.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:5]))
    with pytest.raises(StoreError, match="5 rollouts of 8"):
        made(out)


def test_old_rounds_are_dropped_where_asked(tmp_path):
    out = tmp_path / "out"
    made(out, "train.rounds=4", "rollout.keep=1", "train.save=2")
    kept = sorted(path.name for path in (out / "rollouts").iterdir())
    assert kept == ["round-000003"]
    assert [row["step"] for row in told(out)] == list(range(1, 9))
