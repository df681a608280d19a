"""Where calls point and how trajectories go: geometry by property, texts to the letter."""

import json
import math
import random
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from prh.harness.errors import OperationError, UsageError
from prh.harness.protocols import PixelReasoner, PixelReasonerReleased
from prh.harness.types import Box, Evidence, Size
from prh.tests.training.making import film, image_seed, made, scene, setting, video_seed
from prh.training import synthesis
from prh.training.gates import Refused
from prh.training.geometry import (
    SLACK,
    WIDER,
    Canvas,
    Cells,
    Grid,
    elsewhere,
    holds,
    other_frames,
    runs,
    spread,
    union,
    wider,
)
from prh.training.recipe import SourcePart
from prh.training.teachers.base import voice_of
from prh.training.templates import IMAGE_MIX, KINDS, VIDEO_MIX, Analyses, Plan, call, draw, write
from prh.training.wording import FORMS, GENERIC, form_of, phrases

GRIDS = (0.1, 0.05, 0.025, 0.01, 0.2)


class Thousandths(PixelReasoner):
    coordinates = "per-mille"


class Pixels(PixelReasoner):
    coordinates = "original"


@st.composite
def canvases(draw_):
    """An image, a protocol and a box that is evidence in it."""
    size = Size(draw_(st.integers(60, 3000)), draw_(st.integers(60, 3000)))
    kind = draw_(st.sampled_from([PixelReasoner, Thousandths, Pixels]))
    protocol = kind((), draw_(st.sampled_from([0.0, 0.1])))
    left, top = draw_(st.integers(0, size.width - 2)), draw_(st.integers(0, size.height - 2))
    right, bottom = draw_(st.integers(left + 1, size.width)), draw_(st.integers(top + 1, size.height))
    canvas = Canvas(size, Grid.of(draw_(st.sampled_from(GRIDS))), protocol)
    return canvas, Box(left, top, right, bottom)


def cut(canvas, cells):
    return canvas.protocol.read_box({"bbox_2d": canvas.written(cells)}, canvas.size)[1]


@given(canvases())
def test_the_cue_holds_the_evidence_and_the_protocol_cuts_it(made_):
    canvas, box = made_
    cells = canvas.around(box)
    assert cells is not None  # 60 pixels are more than any protocol's least side
    assert 0 <= cells.left < cells.right <= canvas.grid.cells
    assert 0 <= cells.top < cells.bottom <= canvas.grid.cells
    shown = cut(canvas, cells)
    assert holds(shown, box)
    assert min(shown.right - shown.left, shown.bottom - shown.top) > canvas.protocol.min_side - 1


@given(canvases())
def test_the_cue_is_the_evidence_rounded_outwards_where_that_is_large_enough(made_):
    canvas, box = made_
    count = canvas.grid.cells
    across = [Fraction(int(edge) * count, canvas.size.width) for edge in (box.left, box.right)]
    down = [Fraction(int(edge) * count, canvas.size.height) for edge in (box.top, box.bottom)]
    tight = Cells(math.floor(across[0]), math.floor(down[0]), math.ceil(across[1]), math.ceil(down[1]))
    cells = canvas.around(box)
    if canvas.cut(tight) is not None:
        assert cells == tight
    else:
        assert cells.width >= tight.width
        assert cells.height >= tight.height
        assert not cells.apart(tight)


@given(canvases(), st.integers(0, 99))
def test_a_wrong_box_shows_nothing_of_the_evidence(made_, seed):
    canvas, box = made_
    cue = canvas.around(box)
    first = elsewhere(canvas, cue, [box], random.Random(seed))
    assume(first is not None)
    second = elsewhere(canvas, cue, [box], random.Random(seed + 1), [first])
    assert second != first
    for wrong in filter(None, (first, second)):
        assert wrong.apart(cue)
        assert cut(canvas, wrong).intersection(box).area == 0
        assert min(wrong.left, wrong.top) >= 0
        assert max(wrong.right, wrong.bottom) <= canvas.grid.cells


def test_there_is_a_wrong_box_wherever_there_is_room():
    canvas = Canvas(Size(640, 640), Grid.of(0.1), PixelReasoner((), 0.0))
    cue = Cells(0, 0, 9, 10)
    assert elsewhere(canvas, cue, [Box(0, 0, 576, 640)], random.Random(0)).left == 9
    assert elsewhere(canvas, Cells(0, 0, 10, 10), [Box(0, 0, 640, 640)], random.Random(0)) is None


@given(canvases(), st.integers(0, 99))
def test_an_over_large_box_holds_the_cue_and_is_not_the_image(made_, seed):
    canvas, box = made_
    cue = canvas.around(box)
    wide = wider(canvas, cue, random.Random(seed))
    assume(wide is not None)
    assert wide.left <= cue.left < cue.right <= wide.right
    assert wide.top <= cue.top < cue.bottom <= wide.bottom
    outer, inner = cut(canvas, wide), cut(canvas, cue)
    assert holds(outer, inner)
    assert outer.area >= WIDER[0] * inner.area
    assert outer.area < canvas.size.width * canvas.size.height


@given(canvases())
def test_coordinates_have_few_digits(made_):
    canvas, box = made_
    for number in canvas.written(canvas.around(box)):
        if canvas.protocol.coordinates == "unit":
            assert isinstance(number, float)
            assert len(json.dumps(number)) <= 5
        else:
            assert isinstance(number, int)


def test_tenths_as_they_are_written():
    canvas = Canvas(Size(640, 640), Grid.of(0.1), PixelReasoner((), 0.0))
    assert canvas.written(canvas.around(Box(130, 260, 310, 445))) == [0.2, 0.4, 0.5, 0.7]


@pytest.mark.parametrize("share", [0.3, 0.0, 0.5, -0.1, 0.0001, 0.07])
def test_a_grid_that_does_not_fill_the_image_is_refused(share):
    with pytest.raises(UsageError, match="grid"):
        Grid.of(share)


@given(st.lists(st.integers(1, 16), min_size=1, unique=True), st.integers(1, 8), st.integers(0, 99))
def test_frames_right_and_wrong(evidence, most, seed):
    evidence = sorted(evidence)
    chosen = spread(evidence, most)
    assert 1 <= len(chosen) <= most
    assert set(chosen) <= set(evidence)
    assert list(chosen) == sorted(set(chosen))
    assert len(chosen) == min(most, len(evidence))
    wrong = other_frames(16, evidence, len(chosen), random.Random(seed))
    if len(evidence) == 16:
        assert wrong is None
    else:
        assert not set(wrong) & set(evidence)
        assert 1 <= len(wrong) <= len(chosen)
        assert set(wrong) <= set(range(1, 17))
    assert sorted(frame for run in runs(evidence) for frame in run) == evidence
    assert all(run == list(range(run[0], run[-1] + 1)) for run in runs(evidence))


def test_the_union_of_boxes():
    assert union([Box(5, 6, 7, 8), Box(1, 7, 3, 9)]) == Box(1, 6, 7, 9)


# -- scripts -----------------------------------------------------------------------------------------------------


def script(kind, seed, number=0, chosen=None, overview="Look."):
    shown = scene(seed, chosen=chosen or setting(padding=0.0))
    plan = draw(kind, shown, random.Random(number))
    return write(plan, Analyses(overview, "It is blue."), voice_of(seed), seed.sample, shown.protocol), plan


def test_a_trajectory_word_for_word():
    said, _ = script("single-pass", image_seed(question="How many dots are on the red square?"))
    assert [turn.text for turn in said] == [
        "Look. The red square is at [0.3, 0.3, 0.5, 0.5]. Now I will zoom in to look closer at the red square.\n"
        "<tool_call>\n"
        '{"name": "crop_image_normalized", "arguments": {"bbox_2d": [0.3, 0.3, 0.5, 0.5], "target_image": 1}}\n'
        "</tool_call>",
        "It is blue.\n\\boxed{B}",
    ]


@pytest.mark.parametrize(
    ("kind", "parts", "trained"),
    [
        ("single-pass", ["cue"], [True, True]),
        ("recrop-once", ["wrong", "cue"], [False, True, True]),
        ("recrop-twice", ["wrong", "wrong", "cue"], [False, False, True, True]),
        ("further-zoom", ["wide", "cue"], [True, True, True]),
        ("failed-once", ["failing", "cue"], [False, True, True]),
        ("text-only", [], [True]),
    ],
)
def test_erroneous_turns_are_not_trained_and_all_others_are(kind, parts, trained):
    said, plan = script(kind, image_seed())
    assert [step.part for step in plan.steps] == parts
    assert [turn.trained for turn in said] == trained


def test_frames_are_selected_again(tmp_path):
    said, plan = script("reselect", video_seed(film(tmp_path / "clip")))
    wrong, right = (set(step.arguments["target_frames"]) for step in plan.steps)
    assert right == {5, 6, 7}
    assert not wrong & right
    assert [turn.trained for turn in said] == [False, True, True]
    assert "These frames do not show it. Now I will select some frames" in said[1].text


@pytest.mark.parametrize("number", range(12))
def test_a_call_that_is_to_fail_is_one_that_the_protocol_refuses(number):
    for protocol in (PixelReasoner((), 0.0), Thousandths((), 0.0), Pixels((), 0.0)):
        chosen = setting(padding=0.0)
        shown = scene(image_seed(), chosen=chosen)
        object.__setattr__(shown, "protocol", type(protocol)(chosen.protocol.operations, 0.0))
        step = draw("failed-once", shown, random.Random(number)).steps[0]
        if step.arguments["target_image"] == 1:
            with pytest.raises(OperationError) as caught:
                shown.protocol.read_box(step.arguments, shown.sizes[0])
            assert caught.value.kind == "out_of_bounds"
        else:
            assert step.arguments["target_image"] > 1


def test_a_question_whose_answer_the_overview_hides_is_not_answered_from_it():
    hidden = image_seed(slices=("needs_operation",))
    assert draw("text-only", scene(hidden), random.Random(0)) is None
    assert draw("text-only", scene(image_seed()), random.Random(0)) is not None


def test_without_evidence_or_the_operation_there_is_no_call(tmp_path):
    assert draw("single-pass", scene(image_seed(box=None)), random.Random(0)) is None
    assert draw("single-pass", scene(image_seed(), chosen=setting("direct")), random.Random(0)) is None


def test_the_name_of_a_call_is_the_one_that_the_protocol_presents():
    shown = scene(image_seed())
    step = draw("single-pass", shown, random.Random(0)).steps[0]
    assert '"crop_image_normalized"' in call(step, shown.protocol)


# -- mixes -------------------------------------------------------------------------------------------------------


def test_the_mix_of_the_paper(tmp_path):
    tally, records = made(tmp_path / "run", [image_seed(number) for number in range(60)])
    kinds = Counter(record["provenance"]["template"] for record in records)
    assert sum(kinds.values()) == len(records) == 60
    for kind, share in IMAGE_MIX.items():
        assert abs(kinds[kind] / 60 - share / 100) <= 1 / 60
    assert tally.made == kinds


def test_what_a_kind_has_no_room_for_is_made_good_by_other_seeds(tmp_path):
    """Every third cue is too large for a wrong box or a wider one; the mix holds all the same."""
    box = {True: (2, 2, 318, 238), False: (100, 80, 140, 110)}
    seeds = [image_seed(number, box[number % 3 == 0]) for number in range(60)]
    mix = {"single-pass": 50, "recrop-once": 50}
    _, records = made(tmp_path / "run", seeds, SourcePart("test", mix=mix))
    kinds = Counter(record["provenance"]["template"] for record in records)
    assert len(records) == 60
    assert abs(kinds["recrop-once"] - 30) <= 1


def test_kinds_of_the_other_modality_do_not_count(tmp_path):
    seeds = [video_seed(film(tmp_path / f"clip{number}", number), number=number) for number in range(10)]
    mix = {**VIDEO_MIX, **IMAGE_MIX, "reselect": 30}
    tally, _ = made(tmp_path / "run", seeds, SourcePart("test", mix=mix))
    assert tally.made == {"single-pass": 5, "reselect": 5}


@pytest.mark.parametrize("mix", [{"single": 1}, {"single-pass": -1}, {"single-pass": "many"}, {"recrop-once": 0}])
def test_a_mix_that_is_none_is_refused(mix):
    with pytest.raises(UsageError):
        SourcePart("test", mix=mix).weights()


# -- wording -----------------------------------------------------------------------------------------------------


def test_each_question_of_the_miniatures_has_a_form():
    from prh.tasks.mini import infographicsvqa, mvbench, tallyqa, vstar

    asked = [*vstar.ASKED.values(), tallyqa.ASKED, infographicsvqa.ASKED_VALUE, infographicsvqa.ASKED_ITEM]
    asked += [text.replace("{}", "first", 1) if text.count("{}") == 2 else text for text in mvbench.ASKED.values()]
    asked = [text.replace("object that is {}", "object that is moving") for text in asked]
    asked.append("Is the {} on the left or right side of the blue circle?")
    for text in asked:
        form, named = form_of(text.format("red square"))
        assert form is not GENERIC, text
        assert named["target"] in ("red square", "object that is moving")


def test_every_sentence_is_made_of_the_listed_phrases():
    values = dict.fromkeys(("target", "value", "other", "place", "box", "other_box", "actor", "state"), "\0")
    for form in (*FORMS, GENERIC):
        for name in form.words.sentences().keys() - {"spot"}:  # it has pieces that are known, though not as one
            text = form.words.say(name, values)
            pieces = [piece for piece in text.split("\0") if len(piece.strip()) > 1]
            assert all(any(piece.casefold() == known.casefold() for known in phrases()) for piece in pieces), text


def test_one_is_said_in_the_singular():
    words = form_of("How many dots are on the red square?")[0].words
    assert words.say("finding", {"value": "1"}) == "There is 1 dot."
    assert words.say("finding", {"value": "3"}) == "There are 3 dots."


def test_an_option_that_is_a_sentence_is_said_as_one():
    question = "Is the red square on the left or right side of the blue circle?"
    text = "The red square is on the left side of the blue circle."
    seed = image_seed(question=question, choices=(text.replace("left", "right"), text), gold=("B",))
    assert voice_of(seed).say("finding") == text
    assert voice_of(seed).say("zoom").endswith("at the red square and the blue circle.")


def test_where_things_are_is_said_in_an_answer_at_once_and_only_there():
    question = "Is the red square on the left or right side of the blue circle?"
    text = "The red square is on the left side of the blue circle."
    boxes = (Evidence(1, Box(64, 64, 128, 128)), Evidence(1, Box(150, 30, 190, 90)))
    seed = image_seed(question=question, choices=(text.replace("left", "right"), text), gold=("B",))
    seed = replace(seed, sample=replace(seed.sample, evidence=boxes))
    shown = scene(seed)
    voice = voice_of(seed, shown.places())
    assert shown.places().keys() == {"box", "other_box"}
    at_once = write(Plan("text-only"), Analyses("", text), voice, seed.sample, shown.protocol)
    assert at_once[0].text.startswith(f"The red square is at {shown.places()['box']}. The blue circle is at [")
    plan = draw("single-pass", shown, random.Random(0))
    assert not any(
        " is at " in said.text for said in write(plan, Analyses("", text), voice, seed.sample, shown.protocol)
    )
    assert voice_of(seed).known("places") == ""


def asked_of_a_clip(folder, question, **notes):
    seed = video_seed(film(folder / "clip"), notes=notes)
    return replace(seed, sample=replace(seed.sample, question=question))


def test_what_is_known_of_a_clip_beyond_its_question_is_said_before_anything_else(tmp_path):
    seed = asked_of_a_clip(tmp_path, "Which digit is on the object that is moving?", actor="red square")
    shown = scene(seed)
    plan = draw("single-pass", shown, random.Random(0))
    first = write(plan, Analyses("", "x"), voice_of(seed), seed.sample, shown.protocol)[0]
    assert first.text.startswith("The red square is moving. Now I will select some frames")
    unknown = voice_of(replace(seed, notes={}))
    assert write(Plan("text-only"), Analyses("", "x"), unknown, seed.sample, shown.protocol)[0].text.startswith("x")


def test_where_something_goes_is_said_of_a_clip_whose_notes_know_it(tmp_path):
    question = "What direction is the red square moving within the video?"
    seed = asked_of_a_clip(tmp_path, question, boxes=[[0.0, 0.0, 0.26, 0.3], [0.5, 0.0, 0.8, 0.3]])
    said = voice_of(seed, scene(seed).places()).known("places")
    assert said == "The red square is at [0.0, 0.0, 0.3, 0.3]. Then it is at [0.5, 0.0, 0.8, 0.3]."
    assert voice_of(seed).known("places") == ""
    # pixels of frames that nobody has seen yet are unknown
    shown = scene(seed)
    shown.protocol.coordinates = "seen"
    assert shown.places() == {}


@settings(max_examples=30)
@given(st.sampled_from(KINDS), st.integers(0, 1000))
def test_chance_decides_by_its_seed_alone(kind, number):
    one, two = (draw(kind, scene(image_seed()), random.Random(number)) for _ in range(2))
    assert one == two


def test_the_released_protocol_cuts_from_what_was_resized():
    released = PixelReasonerReleased((), 0.1)
    canvas = Canvas(Size(640, 480), Grid.of(0.01), released)
    box = Box(600, 440, 639, 479)
    cue = canvas.around(box)
    assert cue is None or holds(cut(canvas, cue), box)
    assert SLACK == 1.0


def test_what_the_gates_refuse_is_made_good_in_its_own_kind(tmp_path, monkeypatch):
    """Every other wrong crop is refused; the mix holds all the same."""
    real, count = synthesis.check_performed, Counter()

    def strict(trajectory, plan, shown):
        count[plan.kind] += 1
        if plan.kind == "recrop-once" and count[plan.kind] % 2:
            raise Refused("unseen", "for the test")
        real(trajectory, plan, shown)

    monkeypatch.setattr(synthesis, "check_performed", strict)
    part = SourcePart("test", count=20, mix={"single-pass": 50, "recrop-once": 50})
    tally, _ = made(tmp_path / "run", [image_seed(number) for number in range(60)], part, concurrency=1)
    assert tally.made == {"single-pass": 10, "recrop-once": 10}
