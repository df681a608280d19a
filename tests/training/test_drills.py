"""Exercises about drawn pictures: what they say is true of the picture, and short for the tokenizer."""

import json
import math
import random
import re

import numpy as np
import pytest
from prh.harness.evaluate import load_task
from prh.harness.settings import resolve
from prh.harness.task import DataOptions
from prh.harness.types import LETTERS, Box, Size
from prh.models.tiny import build_tokenizer
from prh.training import wording
from prh.training.drills import cells, drills
from prh.training.exercises import exercise
from prh.training.pictures import Album
from prh.training.trainable import open_trainable

MINIATURES = ("vstar-mini", "tallyqa-complex-mini", "infographicsvqa-mini", "mvbench-mini")
BOX = re.compile(r"is at (\[[^]]*\])")


@pytest.fixture(scope="module", params=MINIATURES)
def pictures(request):
    album = Album(request.param, 5)
    return [album(number) for number in range(12)]


def made(pictures):
    rng = random.Random(1)
    return [(picture, drill) for picture in pictures for drill in drills(picture, rng)]


def test_a_place_is_that_of_the_thing_in_tenths_rounded_outwards(pictures):
    for picture, drill in made(pictures):
        if drill.kind != "where" or drill.clip:
            continue
        left, top, right, bottom = json.loads(BOX.search(drill.reply)[1])
        size = picture.frames[0].size
        held = [
            thing
            for thing in picture.things
            if left * size[0] <= thing.box.left + 1e-6 and right * size[0] >= thing.box.right - 1e-6
            if top * size[1] <= thing.box.top + 1e-6 and bottom * size[1] >= thing.box.bottom - 1e-6
        ]
        named = drill.sample.question.removeprefix("Where is ").removesuffix("?")
        values = {thing.name: thing.value for thing in picture.things if thing.kind == "value"}
        assert any(thing.name in named or values.get(thing.name, "-") in named for thing in held)
        assert all(right - left <= (thing.box.right - thing.box.left) / size[0] + 0.21 for thing in held[:1])


def test_a_track_is_where_a_thing_of_a_clip_is_in_its_first_and_last_frame():
    album = Album("mvbench-mini", 5)
    tracked = [(picture, drill) for picture, drill in made([album(n) for n in range(12)]) if drill.kind == "where"]
    for picture, drill in tracked:
        size = picture.frames[0].size
        for marks, text in zip((picture.marks[0], picture.marks[-1]), BOX.findall(drill.reply), strict=True):
            (box,) = (mark.box for mark in marks if mark.box.area and mark.label in drill.sample.question)
            written = json.loads(text)
            assert [math.floor(edge / size[0] * 10 + 1e-6) for edge in box[:2]] == [round(10 * e) for e in written[:2]]
            assert [math.ceil(edge / size[0] * 10 - 1e-6) for edge in box[2:]] == [round(10 * e) for e in written[2:]]
    assert tracked


def test_what_moves_is_what_is_elsewhere_at_last():
    album = Album("mvbench-mini", 5)
    asked = [(picture, drill) for picture, drill in made([album(n) for n in range(40)]) if drill.kind == "side"]
    for picture, drill in asked:
        ends = [{mark.label: mark.box for mark in marks if mark.box.area} for marks in picture.marks]
        (name,) = (name for name in ends[0] if name in drill.reply)
        assert ("moving" in drill.reply) == (ends[0][name] != ends[-1][name]) == ("moving" in drill.sample.question)
    assert {"moving", "stationary"} <= {word for _, drill in asked for word in drill.reply.rstrip(".").split()}


def test_an_answer_is_the_right_one_and_its_letter_that_of_its_choice(pictures):
    for picture, drill in made(pictures):
        boxed = re.search(r"\\boxed\{(.*)\}", drill.reply)
        if boxed is None or not drill.sample.choices or not drill.frames:
            continue
        chosen = drill.sample.choices[LETTERS.index(boxed[1])]
        assert chosen in {asked.answer for asked in picture.asked} | {thing.value for thing in picture.things}


def test_what_an_overview_hides_is_never_asked_of_it(pictures):
    for picture, drill in made(pictures):
        if drill.kind == "direct":
            assert any(asked.question == drill.sample.question and asked.legible for asked in picture.asked)


def test_an_overview_answers_to_relations_after_the_places_of_both(pictures):
    for _, drill in made(pictures):
        if drill.kind == "side" and not drill.clip:
            assert drill.reply.count("is at [") == 2


def test_without_a_picture_the_letter_is_that_of_what_is_said_and_the_call_that_of_the_place(pictures):
    found = {"choice": 0, "call": 0}
    for _, drill in made(pictures):
        if drill.kind not in found:
            continue
        assert not drill.frames
        given, learned = drill.reply[: drill.given], drill.reply[drill.given :]
        found[drill.kind] += 1
        if drill.kind == "call":
            call = json.loads(learned.strip().removeprefix("<tool_call>").removesuffix("</tool_call>"))
            assert call["arguments"]["bbox_2d"] == json.loads(BOX.search(given)[1])
            continue
        letter = re.search(r"\\boxed\{(.*)\}", learned)[1]
        said = drill.sample.choices[LETTERS.index(letter)].rstrip(".").lower()
        assert said in drill.reply.lower()
        others = [choice.rstrip(".").lower() for choice in drill.sample.choices]
        last = drill.reply.split("\n")[0].split(". ")[-1].lower()
        assert [other for other in others if re.search(rf"\b{re.escape(other)}\b", last)] == [said]
    assert any(found.values())


def test_relations_are_told_from_given_places_without_a_picture(pictures):
    for picture, drill in made(pictures):
        if drill.kind == "choice" and drill.reply[: drill.given].count("is at [") == 2:
            assert "\n" in drill.reply[drill.given :].strip()  # the answer in words and the letter, both learned
            (asked,) = (one for one in picture.asked if one.question == drill.sample.question)
            letter = re.search(r"\\boxed\{(.*)\}", drill.reply)[1]
            assert drill.sample.choices[LETTERS.index(letter)] == asked.answer


@pytest.mark.parametrize("how", ["tokens", "turns"])
def test_what_is_given_of_a_reply_is_not_learned(how):
    engine, layers = open_trainable("tiny-init", "float32", "eager")
    setting = resolve([("prh.json", layers)], 0)
    drawn = list(drills(Album("vstar-mini", 5)(0), random.Random(3)))
    assert {"choice", "call"} <= {drill.kind for drill in drawn}
    for drill in drawn:
        example = exercise("one", drill, engine, setting, how)
        learned = engine.processor.decode(example.ids[example.weights > 0].tolist())
        assert learned.startswith(drill.reply[drill.given :])
        given = engine.processor.decode(example.ids[example.weights == 0].tolist())
        assert drill.call in given
        if how == "turns":
            assert example.weights.sum() == pytest.approx(1)
    assert any(drill.call for drill in drawn)


def test_the_same_seed_gives_the_same_exercises():
    for name in MINIATURES:
        first, second = ([drill.reply for drill in drills(Album(name, 2)(4), random.Random(9))] for _ in range(2))
        assert first == second
        assert first


def test_pictures_to_learn_from_are_in_no_split():
    for name in MINIATURES[:2]:
        album = Album(name, 0)
        drawn = {album(number).frames[0].tobytes() for number in range(20)}
        task = load_task(name)
        for split in ("test", "train"):
            from prh.harness.media import load_image

            samples = task.load(DataOptions(split=split)).samples[:40]
            assert not drawn & {load_image(sample.media[0]).image.convert("RGB").tobytes() for sample in samples}


def test_marks_lie_where_the_ink_is():
    album = Album("vstar-mini", 8)
    for number in range(10):
        picture = album(number)
        pixels = np.asarray(picture.frames[0]).astype(int)
        for mark in picture.marks[0]:
            if mark.box.area == 0:
                x, y = round(mark.box.left), round(mark.box.top)
                near = pixels[max(0, y - 12) : y + 12, max(0, x - 12) : x + 12]
                assert abs(near - 128).max() > 40


def test_cells_never_leave_the_image():
    assert cells(Box(-5, 0, 640, 700), Size(640, 640)) == (0, 0, 10, 10)
    assert cells(Box(64, 128, 128, 192), Size(640, 640)) == (1, 2, 2, 3)


def test_every_phrase_of_the_trajectories_is_few_tokens():
    tokenizer = build_tokenizer()
    long = {}
    for phrase in wording.phrases():
        text = f"{phrase}[" if phrase.endswith(" at ") else phrase.rstrip()
        count = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        if count > 3:
            long[phrase] = count
    # a poster is no video, and the generic form is not the miniatures'
    assert all("frames" in phrase or phrase == wording.UNNAMED for phrase in long), long
