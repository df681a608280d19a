"""The making of a checkpoint from nothing: towers that learn to see, drills that go on where they ended."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from prh.harness.errors import StoreError, UsageError
from prh.harness.settings import resolve
from prh.harness.task import Mark
from prh.harness.types import Box, Size
from prh.tests.models.support import noise
from prh.training import checkpoints
from prh.training.config import build, read_recipe
from prh.training.glances import BEFORE, BEHIND, COLUMNS, ROOM, Labels, glance
from prh.training.learner import FEATURES, look
from prh.training.pictures import Album
from prh.training.practice import PARTS, Pool, PracticeConfig, PracticeFeed, Stage, practise
from prh.training.schedule import Optimisation
from prh.training.sight import Gallery, SightConfig, train_sight
from prh.training.tiny import TinyConfig
from prh.training.trainable import open_trainable

MUON = Optimisation("muon", 2e-3, 0.02, "hold", 2, 0.1, 0.01, (0.9, 0.98))
SIGHT = SightConfig({"vstar-mini": 3, "mvbench-mini": 1}, 6, MUON, windows=2, batch=4, editions=2, turn=2, save=3)
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
    from prh.training import probe, sight

    kept = probe.LOOKED, sight.HELD
    probe.LOOKED, sight.HELD = 2, 8
    yield
    probe.LOOKED, sight.HELD = kept


def seen(made, labels, size):
    """What a glance says, as (row, column of tokens, what)."""
    wide = size.width // 28
    marks = {number: label for label, number in labels.marks.items()}
    words = {number: text for text, number in labels.words.items()}
    points = made.marks.reshape(len(made.words), COLUMNS, ROOM)
    found = {(*divmod(int(t), wide), int(k), marks[int(n)]) for t, k, n in np.argwhere(points)}
    return found, {(*divmod(int(t), wide), words[int(n)]) for t, n in np.argwhere(made.words)}


def test_a_glance_says_what_each_token_shows_and_where():
    labels = Labels()
    picture = Image.new("RGB", (112, 56))
    marks = [
        Mark("7", Box(30, 10, 30, 10), legible=True),
        Mark("dot", Box(60, 40, 60, 40), legible=True),
        Mark("dot", Box(61, 45, 61, 45), legible=True),
        Mark("9", Box(100, 40, 100, 40), legible=False),
        Mark("red square", Box(0, 0, 56, 56), legible=True),
        Mark("blue circle", Box(56, 28, 84, 56), legible=True),
    ]
    size = Size(112, 56)
    made = glance(picture, marks, Box(0, 0, *size), size, labels, close=False)
    points, words = seen(made, labels, size)
    assert (0, 1, 0, "7") in points
    assert (1, 2, 0, "dot 2") in points
    assert not any(name == "9" for *_, name in points)
    square = {(row, column) for row in (0, 1) for column in (0, 1)}
    assert {(row, column) for row, column, text in words if text == " red square"} == square
    assert {(row, column) for row, column, text in words if text == " 7"} == square
    assert {text for row, column, text in words if (row, column) == (1, 2)} == {" blue circle", " 2"}
    # tenths: the square from 0, 0 to 5, 10 and tokens from 0, 2, 5, 7 across and 0, 5 down; the circle 5, 5 to 8, 10
    edges = made.edges.reshape(2, 4, 4).astype(int) - BEFORE
    assert edges[0, 0].tolist() == [0, 0, 5, 10 - (10 - BEHIND)]
    assert edges[1, 1].tolist() == [-2, -5, 3, 5]
    assert edges[1, 2].tolist() == [0, 0, 3, 5]
    assert (made.edges.reshape(2, 4, 4)[:, 3] == -1).all()
    assert made.whole
    near = Size(56, 56)
    close = glance(picture, marks, Box(84, 28, 112, 56), near, labels, close=True)
    assert [label for *_, label in seen(close, labels, near)[0]] == ["9"]
    assert close.image.size == near
    assert not close.whole
    assert (close.edges == -1).all()


def test_print_is_read_where_all_of_it_is_to_be_seen():
    labels, size = Labels(), Size(112, 28)
    picture = Image.new("RGB", size)
    marks = [
        Mark("47%", Box(28, 0, 84, 28), legible=False),
        *(Mark(glyph, Box(x, 14, x, 14), legible=False) for glyph, x in (("7", 50), ("4", 40), ("%", 60))),
        Mark("corn", Box(84, 0, 112, 28), legible=True),
        *(Mark(glyph, Box(x, 14, x, 14), legible=True) for glyph, x in zip("CORN", (90, 95, 100, 105), strict=True)),
    ]
    _, overview = seen(glance(picture, marks, Box(0, 0, *size), size, labels, close=False), labels, size)
    assert overview == {(0, 3, " corn")}
    _, close = seen(glance(picture, marks, Box(0, 0, *size), size, labels, close=True), labels, size)
    assert close == overview | {(0, column, text) for column in (1, 2) for text in (" 4", "7", "%")}
    _, cut = seen(glance(picture, marks, Box(45, 0, 101, 28), Size(56, 28), labels, close=True), labels, Size(56, 28))
    assert cut == set()


@given(st.floats(0, 110), st.floats(0, 110), st.floats(5, 112), st.floats(5, 112))
def test_every_thing_has_a_token_of_its_own(left, top, width, height):
    box = Box(left, top, min(140.0, left + width), min(140.0, top + height))
    made = glance(
        Image.new("RGB", (140, 140)),
        [Mark("red square", box, legible=True)],
        Box(0, 0, 140, 140),
        Size(140, 140),
        Labels(),
        close=False,
    )
    assert made.words.any()
    assert ((made.edges >= 0).all(1) == made.words.any(1)).all()


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


def test_sight_changes_the_tower_and_words_alone(tmp_path):
    engine, setting, layers = opened()
    before = {name: value.clone() for name, value in engine.module.state_dict().items()}
    train_sight(SIGHT, engine, setting, tmp_path, layers, lambda _: None)
    after = engine.module.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    words = {name for name in changed if "visual" not in name}
    assert len(changed) > len(words) > 0
    assert all("embed" in name or "lm_head" in name for name in words)
    (rows,) = {tuple((after[name] != before[name]).any(1).nonzero().flatten().tolist()) for name in words}
    said = {engine.processor.decode([row]) for row in rows}
    assert said
    assert all(text.strip().replace(" ", "").isalnum() for text in said)


def test_sight_is_not_learned_by_a_checkpoint_without_words_for_what_is_seen(tmp_path, monkeypatch):
    engine, setting, layers = opened()
    monkeypatch.setattr(engine.processor, "encode", lambda text, opening: [1, 2])
    with pytest.raises(UsageError, match="is 2 tokens of this checkpoint"):
        train_sight(SIGHT, engine, setting, tmp_path, layers, lambda _: None)


def test_new_pictures_take_the_place_of_old_ones():
    engine, setting, _ = opened()
    config = replace(SIGHT, pictures={"vstar-mini": 2}, editions=2, turn=3)
    first, second = Gallery(config, setting, engine, Labels()), Gallery(config, setting, engine, Labels())
    looked = []
    for step in range(7):
        first.advance(step)
        looked.append([one.image.tobytes() for one in first.held])
    assert looked[0] == looked[2]
    assert set(looked[0]) & set(looked[3])
    assert not set(looked[0]) & set(looked[6])
    apart = {one.image.tobytes() for one in first.edition(0)}
    assert not apart & {image for some in looked for image in some}
    second.advance(6)
    assert [one.image.tobytes() for one in second.held] == looked[6]


SIDES = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=6)


@settings(max_examples=20)
@given(SIDES, st.integers(0, 99))
def test_a_quickened_tower_computes_what_it_always_did(sides, seed):
    engine, _, _ = opened()
    tower = engine.module.model.visual
    images = [noise((28 * wide, 28 * high), seed + number) for number, (wide, high) in enumerate(sides)]
    made = []
    for how in (nullcontext(), engine.quickened()):
        tower.zero_grad()
        with how:
            features = look(engine, images)
            features.square().mean().backward()
        made.append([features.detach(), *(weight.grad.clone() for weight in tower.parameters())])
    for plain, quick in zip(*made, strict=True):
        assert torch.allclose(plain, quick, rtol=1e-4, atol=1e-5)
    assert "forward" not in vars(tower.patch_embed)
    assert tower.config._attn_implementation == "eager"


STAGES = (Stage(3, MIX, tower=0.0), Stage(3, MIX, rate=0.5, anew=True, fresh=2))


# The tower is frozen from step 2 on, and step 3 stands in the middle of that.
FREEZING = (Stage(2, MIX), Stage(4, MIX, tower=0.0))


@pytest.mark.parametrize("stages", [PRACTICE.stages, STAGES, FREEZING])
def test_practice_goes_on_to_the_same_weights(stages, tmp_path):
    config = replace(PRACTICE, stages=stages)
    whole = practise(config, tmp_path / "whole", lambda _: None)
    with pytest.raises(Ended):
        practise(config, tmp_path / "cut", ending("step 6"))
    assert checkpoints.latest(tmp_path / "cut")[0] == 3
    assert weights(practise(config, tmp_path / "cut", lambda _: None)) == weights(whole)
    assert steps(tmp_path / "cut") == steps(tmp_path / "whole") == [3, 6]


def test_a_frozen_tower_is_looked_through_when_it_has_learned_what_it_will(monkeypatch):
    from prh.training import practice

    engine, setting, _ = opened()
    config = replace(PRACTICE, stages=FREEZING)
    seen = []

    class Learner:
        """Says when a step is taken, and how."""

        share = None

        def pace(self, rate, share):
            self.share = share

        def update(self, step, batches):
            frozen = [FEATURES in batch.inputs for batch in batches]
            seen.append((step, self.share, set(frozen)))
            return SimpleNamespace(loss=0.0)

    looks = []
    pool = Pool(config, engine, setting)
    feed = PracticeFeed(pool, engine, config)
    monkeypatch.setattr(practice, "look", lambda *given: looks.append(len(seen)) or look(*given))
    assert [done for done, _ in practice._steps(config, Learner(), feed, 0)] == [1, 2, 3, 4, 5, 6]
    assert seen == [(0, 1.0, {False}), (1, 1.0, {False}), *((step, 0.0, {True}) for step in (2, 3, 4, 5))]
    assert looks
    assert min(looks) == 2


def test_another_recipe_does_not_go_on_with_what_is_there(tmp_path):
    practise(replace(PRACTICE, stages=(Stage(3, MIX),)), tmp_path / "practice", lambda _: None)
    practise(replace(PRACTICE, stages=(Stage(3, MIX),), save=1, micro=500), tmp_path / "practice", lambda _: None)
    with pytest.raises(UsageError, match="begun with another stages"):
        practise(PRACTICE, tmp_path / "practice", lambda _: None)
    engine, setting, layers = opened()
    sight = replace(SIGHT, steps=2, save=1)
    train_sight(sight, engine, setting, tmp_path / "sight", layers, lambda _: None)
    with pytest.raises(UsageError, match="begun with another batch: 4, now 5"):
        train_sight(replace(sight, batch=5), engine, setting, tmp_path / "sight", layers, lambda _: None)
    (checkpoints.place(tmp_path / "sight", 2) / checkpoints.MANIFEST).unlink()
    with pytest.raises(StoreError, match="does not say what was trained"):
        train_sight(sight, engine, setting, tmp_path / "sight", layers, lambda _: None)


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
    stages = [*made.practice.stages, *made.further.stages]
    assert all(key.split("/")[1] in PARTS for stage in stages for key in stage.mix)
