"""A training ended with kill -9 anywhere goes on to the weights, bit for bit, that it would have had."""

import json
import multiprocessing
import random
import signal
import tomllib

import pytest
import torch
from prh.harness.errors import PrhError
from prh.tests.training.driver import POINTS, run
from prh.tests.training.lessons import config, lesson
from prh.training import checkpoints, sft
from prh.training.config import SftConfig, build, override
from safetensors.torch import load_file

VARIANTS = {
    "adamw": (),
    "muon": ("optim.optimizer=muon", "model.saved=bfloat16"),
    "lora": ("lora.rank=4", "lora.dropout=0.1", "model.freeze=['model.visual.*']"),
    "lora-muon": ("lora.rank=4", "optim.optimizer=muon", "model.checkpointing=true"),
}


def command(path, out, sets):
    return ["train", "sft", path, "--out", out, *(word for one in sets for word in ("--set", one))]


def weights(folder):
    name = "adapter_model.safetensors" if (folder / "adapter_config.json").exists() else "model.safetensors"
    return load_file(folder / name)


def losses(out):
    return [(row["step"], row["loss"]) for row in checkpoints.read_log(out)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_anywhere_it_ends_with_the_same_weights(prh, school, tmp_path, variant):
    path, sets = config(tmp_path, school), VARIANTS[variant]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert prh(*command(path, whole, sets)) == 0
    # All points in the first variant, some in the others, in any order: what has happened by then differs each time.
    rng = random.Random(variant)
    points = rng.sample(sorted(POINTS), len(POINTS) if variant == "adamw" else 2)
    ended = [prh(*command(path, parts, sets), point=point) for point in points]
    assert -signal.SIGKILL in ended
    assert prh(*command(path, parts, sets)) == 0
    right, found = weights(whole / "final"), weights(parts / "final")
    assert right.keys() == found.keys()
    assert all(torch.equal(right[name], found[name]) for name in right)
    assert losses(whole) == losses(parts)
    assert [step for step, _ in losses(parts)] == [1, 2, 3, 4]
    assert sorted(entry.name for entry in parts.iterdir()) == sorted(entry.name for entry in whole.iterdir())
    state = [path.name for _, path in checkpoints.checkpoints(parts) if (path / checkpoints.STATE).is_dir()]
    assert state == ["step-000004"]


def test_killed_at_any_time_too(prh, school, tmp_path):
    """Not at points that we thought of, but when its log has so many bytes."""
    path, out = config(tmp_path, school), tmp_path / "out"
    context = multiprocessing.get_context("forkserver")
    rng = random.Random(4)
    for size in sorted(rng.sample(range(1, 800), 2)):
        process = context.Process(target=run, args=(command(path, out, ()), "", tmp_path / "log"))
        process.start()
        log = out / checkpoints.LOG
        while process.is_alive() and not (log.exists() and log.stat().st_size >= size):
            process.join(0.002)
        process.kill()
        process.join()
    assert prh(*command(path, out, ())) == 0
    assert [step for step, _ in losses(out)] == [1, 2, 3, 4]


@pytest.fixture(scope="module")
def begun(prh, school, tmp_path_factory):
    """A training that ended after its first checkpoint, and its configuration."""
    folder = tmp_path_factory.mktemp("begun")
    path = config(folder, school)
    assert prh(*command(path, folder / "out", ()), point="after a step") < 0
    return path, folder / "out"


def refusal(path, out, *sets):
    values = override(tomllib.loads(path.read_text()), sets)
    with pytest.raises(PrhError) as error:
        sft.train(build(SftConfig, values), out, path.parent)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("optim.lr=2e-3", "optim.lr"),
        ("train.seed=1", "train.seed"),
        ("train.batch=5", "train.batch"),
        ("train.epochs=3", "train.epochs"),
        ("data.mask=last-two", "data.mask"),
        ("lora.rank=2", "lora.rank"),
        ("model.freeze=['model.visual.*']", "model.freeze"),
        ("setting.limits.turns=3", "setting.limits.turns"),
    ],
)
def test_a_changed_configuration_is_refused_by_name(begun, change, field):
    assert f"another `{field}`" in refusal(*begun, change)


def test_changed_data_are_refused(begun, tmp_path):
    from prh.tests.training import lessons

    lessons.write(tmp_path / "others", 7)
    assert "another `trajectories`" in refusal(*begun, f"data.lessons=['{tmp_path / 'others'}']")


def test_another_base_is_refused(begun, qwen3):
    assert "another `base`" in refusal(*begun, f"model.base={qwen3}")


def test_how_a_step_is_computed_may_change(begun):
    path, out = begun
    values = tomllib.loads(path.read_text())
    more = ["train.micro=300", "train.save=1", "train.keep=1", "data.longest=900", "data.cache=0"]
    sft.train(build(SftConfig, override(values, more)), out, path.parent)
    assert [step for step, _ in losses(out)] == [1, 2, 3, 4]
    assert [step for step, _ in checkpoints.checkpoints(out)] == [3, 4]


def test_a_damaged_state_is_told_in_a_line(begun, school, prh, tmp_path):
    path, out = config(tmp_path, school), tmp_path / "out"
    assert prh(*command(path, out, ()), point="after a step") < 0
    (out / "step-000002/state/optimizer.safetensors").write_bytes(b"no")
    assert "begin again" in refusal(path, out)


def test_two_trainings_cannot_share_a_folder(begun):
    path, out = begun
    with checkpoints.claimed(out):
        assert "another training is writing" in refusal(path, out)


def test_digests_follow_what_is_said_and_shown():
    from dataclasses import replace

    one = lesson(1)
    others = [
        replace(one, script=(replace(one.script[0], trained=True), *one.script[1:])),
        replace(one, sample=replace(one.sample, media=lesson(2).sample.media)),
        replace(one, sample=replace(one.sample, choices=("red", "green"))),
    ]
    assert len({sft.digest([made]) for made in (one, *others)}) == 4
    assert json.dumps(sft.digest([one])) == json.dumps(sft.digest([lesson(1)]))
