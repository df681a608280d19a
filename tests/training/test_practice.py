"""The making of a checkpoint from nothing: towers that learn to see, drills that go on where they ended."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prh.harness.errors import StoreError, UsageError
from prh.harness.settings import resolve
from prh.harness.task import Mark
from prh.harness.types import Box, Size
from prh.training import checkpoints
from prh.training.config import build, read_recipe
from prh.training.pictures import Album
from prh.training.practice import PARTS, Pool, PracticeConfig, Stage, practise
from prh.training.schedule import Optimisation
from prh.training.sight import COLUMNS, ROOM, Labels, SightConfig, glance, train_sight
from prh.training.tiny import TinyConfig
from prh.training.trainable import open_trainable

MUON = Optimisation("muon", 2e-3, 0.02, "hold", 2, 0.1, 0.01, (0.9, 0.98))
SIGHT = SightConfig({"vstar-mini": 3, "mvbench-mini": 1}, 6, MUON, windows=2, batch=4, save=3)
MIX = {"vstar-mini/overview": 2, "vstar-mini/closeup": 1, "infographicsvqa-mini/overview": 1}
PRACTICE = PracticeConfig(
    "tiny-init", (Stage(6, MIX),), MUON, batch=4, micro=600, fresh=1, pool=4, probe=3, save=3, precision="no"
)


def opened():
    engine, defaults = open_trainable("tiny-init", "float32", "eager")
    return engine, resolve([("prh.json", defaults)], 0), defaults


def weights(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


@pytest.fixture(scope="module", autouse=True)
def one_look(cache):
    """Few pictures to look at, so that a test is quick."""
    from prh.training import practice, sight

    kept = practice.LOOKED, sight.HELD
    practice.LOOKED, sight.HELD = 2, 8
    yield
    practice.LOOKED, sight.HELD = kept


def test_a_glance_says_what_each_token_shows_and_where():
    from PIL import Image

    labels = Labels()
    picture = Image.new("RGB", (112, 56))
    marks = [
        Mark("7", Box(30, 10, 30, 10), legible=True),
        Mark("dot", Box(60, 40, 60, 40), legible=True),
        Mark("dot", Box(61, 45, 61, 45), legible=True),
        Mark("9", Box(100, 40, 100, 40), legible=False),
        Mark("red square", Box(0, 0, 56, 56), legible=True),
    ]
    made = glance(picture, marks, Box(0, 0, 112, 56), Size(112, 56), labels, ROOM, close=False)
    seen = made.targets.reshape(2, 4, COLUMNS, ROOM)
    names = {number: name for name, number in labels.numbers.items()}
    found = {(int(r), int(c), int(k), names[int(n)]) for r, c, k, n in np.argwhere(seen)}
    assert (0, 1, 0, "7") in found
    assert (1, 2, 0, "dot 2") in found
    assert not any(name == "9" for *_, name in found)
    assert {(r, c) for r, c, _, name in found if name == "red square"} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    close = glance(picture, marks, Box(84, 28, 112, 56), Size(56, 56), labels, ROOM, close=True)
    assert close.targets.reshape(2, 2, COLUMNS, ROOM)[..., labels("9")].sum() == 1
    assert close.image.size == (56, 56)


class Ended(Exception):  # noqa: N818 - what a test does to a training
    """The training was ended here."""


def ending(word):
    def say(text):
        if word in text:
            raise Ended

    return say


def steps(out):
    return [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]


def test_sight_goes_on_to_the_same_weights(tmp_path):
    def run(out, say=lambda _: None):
        engine, setting, layers = opened()
        return train_sight(SIGHT, engine, setting, out, layers, say)

    whole = run(tmp_path / "whole")
    with pytest.raises(Ended):
        run(tmp_path / "cut", ending("step 6"))
    assert checkpoints.latest(tmp_path / "cut")[0] == 3
    assert weights(run(tmp_path / "cut")) == weights(whole)
    assert steps(tmp_path / "cut") == steps(tmp_path / "whole") == [3, 6]


def test_sight_changes_the_tower_alone(tmp_path):
    engine, setting, layers = opened()
    before = {name: value.clone() for name, value in engine.module.state_dict().items()}
    train_sight(SIGHT, engine, setting, tmp_path, layers, lambda _: None)
    changed = {name for name, value in engine.module.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("visual" in name for name in changed)


STAGES = (Stage(3, MIX, tower=0.0), Stage(3, MIX, rate=0.5, anew=True, fresh=2))


@pytest.mark.parametrize("stages", [PRACTICE.stages, STAGES])
def test_practice_goes_on_to_the_same_weights(stages, tmp_path):
    config = replace(PRACTICE, stages=stages)
    whole = practise(config, tmp_path / "whole", lambda _: None)
    with pytest.raises(Ended):
        practise(config, tmp_path / "cut", ending("step 6"))
    assert checkpoints.latest(tmp_path / "cut")[0] == 3
    assert weights(practise(config, tmp_path / "cut", lambda _: None)) == weights(whole)
    assert steps(tmp_path / "cut") == steps(tmp_path / "whole") == [3, 6]


def test_nothing_is_begun_again_over_checkpoints_that_are_there(tmp_path):
    practise(PRACTICE, tmp_path, lambda _: None)
    held = weights(checkpoints.place(tmp_path, 3))
    shutil.rmtree(checkpoints.place(tmp_path, 6))
    with pytest.raises(StoreError, match="and none can be gone on from"):
        practise(PRACTICE, tmp_path, lambda _: None)
    assert weights(checkpoints.place(tmp_path, 3)) == held
    assert steps(tmp_path) == [3, 6]


def test_a_stage_that_begins_anew_does_not_depend_on_what_optimizers_remember(tmp_path):
    made = {}
    for anew in (False, True):
        config = replace(PRACTICE, stages=(STAGES[0], replace(STAGES[1], anew=anew)))
        for kept in (False, True):
            out = tmp_path / f"{anew}-{kept}"
            with pytest.raises(Ended):
                practise(config, out, ending("step 6"))
            step, folder = checkpoints.latest(out)
            if not kept:
                checkpoints.save_states(folder / checkpoints.STATE, [], step)
            made[anew, kept] = weights(practise(config, out, lambda _: None))
    assert made[True, True] == made[True, False]
    assert made[False, True] != made[False, False]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5)), min_size=1, max_size=5), st.integers(1, 4))
def test_pictures_are_drawn_for_the_stage_that_needs_them(sizes, fresh):
    stages = tuple(Stage(steps, MIX, fresh=own) for steps, own in sizes)
    config = replace(PRACTICE, stages=stages, fresh=fresh)
    drawn = 0
    for step in range(config.steps):
        stage = config.stage(step)
        for number in range(drawn, config.last(step)):
            assert config.drawing(number) is stage
        assert config.last(step) - drawn == (stage.fresh or fresh)
        drawn = config.last(step)


def test_what_a_step_learns_from_does_not_depend_on_where_it_began():
    engine, setting, _ = opened()
    first, second = Pool(PRACTICE, engine, setting), Pool(PRACTICE, engine, setting)
    for step in range(4):
        last = first.choose(step)
    alone = second.choose(3)
    assert [[one.ids.tolist() for one in bundle] for bundle in last] == [
        [one.ids.tolist() for one in bundle] for bundle in alone
    ]


def test_a_benchmark_that_draws_nothing_is_refused():
    with pytest.raises(UsageError, match="draws no pictures"):
        Album("vstar", 0)


def test_an_album_is_endless_and_never_the_same_picture_twice():
    album = Album("infographicsvqa-mini", 1)
    drawn = {album(number).frames[0].tobytes() for number in (0, 1, 59, 60, 61, 125)}
    assert len(drawn) == 6


def test_the_recipe_of_the_embedded_checkpoints_is_one():
    values, _ = read_recipe("tiny")
    made = build(TinyConfig, values)
    assert made.practice.steps > 1000
    assert all(key.split("/")[1] in PARTS for stage in made.practice.stages for key in stage.mix)
