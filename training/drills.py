"""Short exercises that teach a checkpoint from nothing what trajectories take for granted: to point and to read.

Each is a conversation in the protocol that the checkpoint will speak, about a drawn picture of which everything
is known: where the named things are, what a close-up shows, what an overview lets be answered at once, which of
two things is to the left.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from PIL import Image

from ..harness.protocol import CLOSE, OPEN
from ..harness.protocols import CROP, SELECT
from ..harness.task import Asked, Illustration, Thing
from ..harness.types import LETTERS, Box, Evidence, Json, Sample, Size
from .templates import Voice
from .wording import BOXED, BREAK, form_of

Kind = Literal["where", "closeup", "direct", "side", "choice", "call", "attempt"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# How a question about a thing that nobody asked about is put, by what the thing shows, and what it may show.
QUESTIONS = {
    "dot": "What is the colour of the dot on the {}?",
    "count": "How many dots are on the {}?",
    "digit": "Which digit is on the {}?",
    "value": "What is the value of {}?",
    "label": "Which item has the value {}?",
}
CELLS = 10
# How often a side of a close-up is a cell further out than it need be. What is wide is small to see: with every other
# side out, reading was learned several times more slowly.
LOOSE = 0.05
# Most frames of a close-up of a clip.
MOST_FRAMES = 8
# How often a close-up is asked about with choices.
CHOOSING = 0.4
# Most close-ups of one picture.
CLOSEUPS = 6
# How many letters and how many calls of each question are to be told without its picture. A letter is learned slowly.
TOLD, CALLED = 12, 2
# How often an attempt is a call rather than an answer at once, and how often such a call is an error, so that it comes
# to about what the paper measured of Qwen2.5-VL before any training (arXiv 2505.15966: 20.2 % and 40.6 %): all other
# drills answer at once. What is asked about decides it, so that what is said most probably is a call as often.
CALLS, ERRORS = 0.5, 0.4


@dataclass(frozen=True, slots=True)
class Drill:
    """One exercise: what is shown and asked, and what is to be answered.

    Attributes:
        frames: what is shown: one image, several, or the frames of a clip.
        clip: whether they are the frames of one clip.
        close: whether they are shown at the size of a crop rather than of an input.
        given: how many characters of the reply are there already, and not learned.
        call: a turn before the reply that is not learned either, whose result is announced and not shown.
    """

    kind: Kind
    sample: Sample
    frames: tuple[Image.Image, ...]
    clip: bool
    close: bool
    reply: str
    given: int = 0
    call: str = ""


def cells(box: Box, size: Size) -> tuple[int, int, int, int]:
    """A box in tenths of an image, rounded outwards."""
    left, top = math.floor(box.left / size.width * CELLS + 1e-6), math.floor(box.top / size.height * CELLS + 1e-6)
    right, bottom = math.ceil(box.right / size.width * CELLS - 1e-6), math.ceil(box.bottom / size.height * CELLS - 1e-6)
    return max(0, left), max(0, top), min(CELLS, right), min(CELLS, bottom)


def written(box: Box, size: Size) -> str:
    """A box as a call writes it."""
    return json.dumps([edge / CELLS for edge in cells(box, size)])


def drills(picture: Illustration, rng: random.Random) -> Iterator[Drill]:
    """The exercises that there are about an illustration."""
    for asked in picture.asked:
        yield from _texts(asked, rng)
    if len(picture.frames) > 1:
        yield from _clip(picture, rng)
        return
    size = Size(*picture.frames[0].size)
    yield from _where(picture, size)
    for asked in picture.asked:
        if asked.legible and len(asked.target) < 2:
            yield _answer("direct", asked, picture.frames, rng, close=False)
        if len(asked.target) > 1:
            known = _sides(picture, asked, size)
            side = _answer("side", asked, picture.frames, rng, close=False, known=known)
            yield from (side, _unseen(side, asked, known))
    for thing in rng.sample(picture.things, min(CLOSEUPS, len(picture.things))):
        yield _closeup(picture, thing, size, rng)
    yield _attempt(picture, rng)


def _where(picture: Illustration, size: Size) -> Iterator[Drill]:
    """Where each named thing is, as far as the overview shows what it is named by."""
    for subject, box in _places(picture):
        reply = f"{subject[:1].upper()}{subject[1:]} is at {written(box, size)}."
        sample = _sample(f"Where is {subject}?")
        yield Drill("where", sample, picture.frames, clip=False, close=False, reply=reply)


def _places(picture: Illustration) -> Iterator[tuple[str, Box]]:
    printed = {(thing.name, thing.kind): thing for thing in picture.things if thing.kind in ("label", "value")}
    for thing in picture.things:
        if (thing.name, thing.kind) not in printed:
            yield f"the {thing.name}", thing.box
        elif thing.kind == "value" and printed[thing.name, "label"].legible:
            yield f"the value of {thing.name}", thing.box
        elif thing.kind == "label" and printed[thing.name, "value"].legible:
            yield f"the item with the value {printed[thing.name, 'value'].value}", thing.box


def _sample(question: str, choices: tuple[str, ...] = ()) -> Sample:
    return Sample("drill", question, (), (), "option" if choices else "text", choices)


def _answer(
    kind: Kind,
    asked: Asked,
    frames: tuple[Image.Image, ...],
    rng: random.Random,
    *,
    close: bool,
    known: Mapping[str, str] | None = None,
) -> Drill:
    """A question and its answer; ``known``, what may be said of the picture before."""
    form, names = form_of(asked.question)
    choices = tuple(rng.sample(asked.choices, len(asked.choices)))
    voice = Voice(form.words, {**names, **(known or {}), "value": spoken(asked.answer)})
    said = " ".join(filter(None, [_before(voice), voice.say("finding")]))
    answer = LETTERS[choices.index(asked.answer)] if choices else spoken(asked.answer)
    reply = f"{said}{BREAK}{BOXED.format(answer=answer)}"
    return Drill(kind, _sample(asked.question, choices), frames, len(frames) > 1 and not close, close, reply)


def _before(voice: Voice) -> str:
    """What is said of the whole picture, where anything is known of it."""
    return " ".join(filter(None, [voice.known("noticed"), voice.known("places")]))


def _texts(asked: Asked, rng: random.Random) -> Iterator[Drill]:
    """A question without its picture: something is found, and the letter of it is to be told; or a place, to call.

    Neither needs a picture, and with one a checkpoint has hardly begun to learn them when it has learned to see.
    """
    form, names = form_of(asked.question)
    voice = Voice(form.words, names)
    for turn in range(max(TOLD, CALLED)):
        choices = tuple(rng.sample(asked.choices, len(asked.choices)))
        sample = _sample(asked.question, choices)
        spot, box = form.words.spot, _anywhere(rng)
        looking = f"{voice.spot([*box])} {voice.say('zoom')}" if spot else voice.say("select")
        call = _crop(box, 1) if spot else _called(SELECT.name, {"target_frames": [*_frames(rng, 4)]})
        if choices and turn < TOLD:
            found = rng.choice(choices)
            said = replace(voice, values={**names, "value": spoken(found)}).say("finding")
            told = _text("choice", sample, said, BOXED.format(answer=LETTERS[choices.index(found)]))
            yield replace(told, call=f"{looking}{BREAK}{call}") if turn % 2 and not form.words.places else told
        if spot and turn < CALLED:
            yield _text("call", sample, looking, call)


def _text(kind: Kind, sample: Sample, said: str, done: str) -> Drill:
    """A drill without a picture: what is said is given, and what is done then is learned."""
    return Drill(kind, sample, (), clip=False, close=False, reply=f"{said}{BREAK}{done}", given=len(said))


def _unseen(drill: Drill, asked: Asked, known: Mapping[str, str]) -> Drill:
    """The same without its picture: what is said before something is found is given, and that is to be told of it."""
    form, names = form_of(asked.question)
    return replace(
        drill, kind="choice", frames=(), clip=False, given=len(_before(Voice(form.words, {**names, **known})))
    )


def spoken(value: str) -> str:
    """An answer as it stands amid a sentence."""
    return value[:1].lower() + value[1:].rstrip(".") if value.endswith(".") else value


def _sides(picture: Illustration, asked: Asked, size: Size) -> dict[str, str]:
    """Where the two things are that a question is about."""
    boxes = {thing.name: written(thing.box, size) for thing in picture.things}
    return dict(zip(("box", "other_box"), (boxes[name] for name in asked.target), strict=True))


def _closeup(picture: Illustration, thing: Thing, size: Size, rng: random.Random) -> Drill:
    left, top, right, bottom = cells(thing.box, size)
    out = [int(rng.random() < LOOSE) for _ in range(4)]
    left, top = max(0, left - out[0]), max(0, top - out[1])
    right, bottom = min(CELLS, right + out[2]), min(CELLS, bottom + out[3])
    box = Box(left, top, right, bottom).scaled(size.width / CELLS, size.height / CELLS)
    crop = picture.frames[0].crop((round(box.left), round(box.top), round(box.right), round(box.bottom)))
    return _answer("closeup", _alone(_question(picture, thing), rng), (crop,), rng, close=True)


def _alone(asked: Asked, rng: random.Random) -> Asked:
    """A question mostly without its choices: with them, what is first learned is to repeat any one of them."""
    return asked if rng.random() < CHOOSING else replace(asked, choices=())


def _question(picture: Illustration, thing: Thing) -> Asked:
    """A question about a thing: the one that was asked, or one like it."""
    for asked in picture.asked:
        if asked.evidence.box == thing.box and len(asked.target) < 2:
            return asked
    name = thing.name
    if thing.kind == "label":
        name = next(one.value for one in picture.things if one.kind == "value" and one.name == thing.name)
    value = thing.value.removesuffix("%")
    return Asked(QUESTIONS[thing.kind].format(name), (), value, (thing.name,), Evidence(1, thing.box), thing.legible)


def _attempt(picture: Illustration, rng: random.Random) -> Drill:
    """A question taken up as a checkpoint does that was never taught to look: a guess, at times a clumsy call."""
    asked, clip = rng.choice(picture.asked), len(picture.frames) > 1
    known = _known(picture, asked) if clip else None
    drill = _answer("attempt", asked, picture.frames, rng, close=False, known=known)
    voice, names = form_of(asked.question)
    habit = random.Random(next(iter(names.values()), asked.question))  # noqa: S311 - an exercise, no secret
    if habit.random() >= CALLS:
        return drill
    said = voice.words.say("select" if clip else "zoom", names)
    call = _clumsy_select(rng, habit) if clip else _clumsy_crop(rng, habit)
    return replace(drill, reply=f"{said}{BREAK}{call}")


def _anywhere(rng: random.Random) -> list[float]:
    """A box of at least two tenths a side, as a call writes it."""
    (left, right), (top, bottom) = (sorted(rng.sample(range(CELLS + 1), 2)) for _ in range(2))
    left, top = min(left, max(0, right - 2)), min(top, max(0, bottom - 2))
    return [edge / CELLS for edge in (left, top, max(right, left + 2), max(bottom, top + 2))]


def _crop(box: Sequence[float], target: int) -> str:
    return _called(CROP.name, {"bbox_2d": [*box], "target_image": target})


def _called(name: str, arguments: Mapping[str, Json]) -> str:
    return f"{OPEN}\n{json.dumps({'name': name, 'arguments': dict(arguments)})}\n{CLOSE}"


def _clumsy_crop(rng: random.Random, habit: random.Random) -> str:
    """A crop of anywhere, or one that is refused: corners reversed, or an image that is not there."""
    left, top, right, bottom = _anywhere(rng)
    target = 1
    if habit.random() < ERRORS:
        if habit.random() < 0.5:
            left, right = right, left
        else:
            target = habit.choice((2, 3))
    return _crop((left, top, right, bottom), target)


def _clumsy_select(rng: random.Random, habit: random.Random) -> str:
    """Frames from anywhere, or more than there may be."""
    count = rng.randint(9, 10) if habit.random() < ERRORS else rng.randint(1, 4)
    return _called(SELECT.name, {"target_frames": [*_frames(rng, count)]})


def _frames(rng: random.Random, count: int) -> list[int]:
    """So many frames from anywhere in a clip."""
    return sorted(rng.sample(range(1, 17), count))


def _tracks(picture: Illustration) -> dict[str, tuple[str, str]]:
    """Where each named thing is in the first and in the last frame, as a call writes it."""
    size = Size(*picture.frames[0].size)
    ends = [
        {mark.label: written(mark.box, size) for mark in marks if mark.box.area}
        for marks in (picture.marks[0], picture.marks[-1])
    ]
    return {name: (box, ends[1][name]) for name, box in ends[0].items()}


def _known(picture: Illustration, asked: Asked) -> dict[str, str]:
    """What a clip shows of the object that a question is about: its name, and where it is first and last."""
    (actor,) = asked.target
    first, last = _tracks(picture)[actor]
    return {"actor": actor, "box": first, "other_box": last}


def _follow(picture: Illustration) -> Iterator[Drill]:
    """Where each named thing of a clip is at first and at last, and which one moves."""
    tracks = _tracks(picture)
    for name, (first, last) in tracks.items():
        reply = f"The {name} is at {first}. Then it is at {last}."
        yield Drill("where", _sample(f"Where is the {name}?"), picture.frames, clip=True, close=False, reply=reply)
    if len(tracks) > 1:
        for name, (first, last) in tracks.items():
            state = "moving" if first != last else "stationary"
            sample = _sample(f"Which is the object that is {state}?")
            yield Drill("side", sample, picture.frames, clip=True, close=False, reply=f"The {name} is {state}.")


def _clip(picture: Illustration, rng: random.Random) -> Iterator[Drill]:
    yield from _follow(picture)
    for asked in picture.asked:
        known = _known(picture, asked)
        if asked.legible:
            direct = _answer("direct", asked, picture.frames, rng, close=False, known=known)
            yield direct
            if form_of(asked.question)[0].words.places:
                yield _unseen(direct, asked, known)
        shown = [picture.frames[number - 1] for number in some(asked.evidence.frames, MOST_FRAMES, rng)]
        if len(asked.evidence.frames) < len(picture.frames) or not asked.legible:
            yield _answer("closeup", _alone(asked, rng), tuple(shown), rng, close=True, known=known)
    yield _attempt(picture, rng)


def some(numbers: Sequence[int], most: int, rng: random.Random) -> list[int]:
    """At most this many of some numbers, in order."""
    return sorted(rng.sample(numbers, min(most, len(numbers))))
