"""The clips and questions of the synthetic miniature of MVBench, and their files in the layout of its branch ``video``.

Five of MVBench's subtasks, 48 questions each. Which way an object moves can always be seen in the overview. What
is on an object that moves or stands still, what a dot's colour changes to, how often a dot flashes and which of
two letters comes first: whether that is legible in the frames of the overview is drawn for the clip and cannot be
told from the question. Every set of candidates is shown once with each of them right, and once with the right
one at each letter. Names of files are used twice, once in each folder, as they are in MVBench.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, cast

from PIL import Image

from ...harness.task import Asked, Illustration, Thing
from ...harness.types import Evidence, Json, Size
from ...harness.video import uniform
from .clips import BEATS, SIDE, SIGNS, SIZES, Clip, Kind, Sign, draw, marks_of
from .films import write_film
from .moves import Motion, Part, clip
from .store import ensure, write_json

VERSION = 1
NAME = "mvbench-mini"
EACH = 48
Subtask = Literal["moving_direction", "moving_attribute", "state_change", "action_count", "character_order"]
FOLDERS: dict[Subtask, str] = {
    "moving_direction": "clevrer/video_validation",
    "moving_attribute": "clevrer/video_validation",
    "state_change": "perception/videos",
    "action_count": "perception/videos",
    "character_order": "perception/videos",
}
# How many candidates a question has.
OPTIONS: dict[Subtask, int] = {
    "moving_direction": 4,
    "moving_attribute": 3,
    "state_change": 3,
    "action_count": 3,
    "character_order": 3,
}
SHOWN = 16
LENGTHS = (16, 24, 32, 40)
DIRECTIONS: dict[str, Motion] = {"Up.": "up", "Down.": "down", "To the left.": "left", "To the right.": "right"}
ASKED = {
    "direction": "What direction is the {} moving within the video?",
    "digit": "Which digit is on the object that is {}?",
    "dot": "What is the colour of the dot on the object that is {}?",
    "change": "What does the colour of the dot on the {} change to?",
    "count": "How many times does a dot flash on the {}?",
    "order": "Which letter is shown {} on the {}?",
}
COUNTS = ("1", "2", "3")
# How often a clip in which nothing moves has another object.
OTHER = 0.3
# The forms of each subtask's questions, and what the candidates of a form are drawn from.
FORMS: dict[Subtask, tuple[str, ...]] = {
    "moving_direction": ("direction",),
    "moving_attribute": ("digit moving", "dot moving", "digit stationary", "dot stationary"),
    "state_change": ("change",),
    "action_count": ("count",),
    "character_order": ("first", "last"),
}
VALUES: dict[str, tuple[str, ...]] = {
    "direction": tuple(DIRECTIONS),
    "digit moving": SIGNS["digit"],
    "digit stationary": SIGNS["digit"],
    "dot moving": SIGNS["dot"],
    "dot stationary": SIGNS["dot"],
    "change": SIGNS["dot"],
    "count": COUNTS,
    "first": SIGNS["letter"],
    "last": SIGNS["letter"],
}


@dataclass(frozen=True, slots=True)
class Item:
    """One question and its clip.

    Attributes:
        candidates: as they are shown; ``answer`` is one of them.
        asked: the signs that show the answer; none where it is how the object moves.
    """

    subtask: Subtask
    name: str
    clip: Clip
    question: str
    candidates: tuple[str, ...]
    answer: str
    asked: tuple[Sign, ...] = ()

    @property
    def evidence(self) -> list[int]:
        """The frames of the overview, from 1, in which the answer is to be seen."""
        beats = [self.clip.beat(frame) for frame in uniform(0, self.clip.frames - 1, SHOWN)]
        spans = [(sign.start, sign.stop) for sign in self.asked] or [(0, BEATS)]
        return [number for number, beat in enumerate(beats, 1) if any(a <= beat < b for a, b in spans)]

    @property
    def slices(self) -> tuple[str, ...]:
        """``needs_operation`` where the overview does not show the answer, and the number of distractors."""
        hidden = any(not sign.legible for sign in self.asked)
        distractors = f"distractors-{len(self.clip.actors) - 1}"
        return ("needs_operation", distractors) if hidden else (distractors,)

    def row(self) -> dict[str, Json]:
        """The item of ``test.json``: MVBench's four keys, and slices and evidence."""
        return {
            "video": self.name,
            "question": self.question,
            "candidates": list(self.candidates),
            "answer": self.answer,
            "slices": list(self.slices),
            "evidence_frames": list(self.evidence),
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What a question is to be: its form, its candidates in their order, the right one, and whether it is legible."""

    form: str
    candidates: tuple[str, ...]
    answer: str
    legible: bool


@dataclass(frozen=True, slots=True)
class Draft:
    """A question before it has a file."""

    clip: Clip
    question: str
    asked: tuple[Sign, ...] = ()


def items(split: str, editions: int = 1) -> list[Item]:
    """The questions of a split with their clips: 240 an edition, the first edition's first."""
    made: list[Item] = []
    numbers: Counter[str] = Counter()
    for edition in range(editions):
        rng = random.Random(f"{NAME} {split} {edition}")  # noqa: S311 - pictures, not secrets
        for subtask, folder in FOLDERS.items():
            plans = list(_blocks(rng, subtask))
            rng.shuffle(plans)
            for plan in plans:
                draft = DRAFTS[subtask](rng, plan)
                name = f"video_{10000 + numbers[folder]}.mp4"
                numbers[folder] += 1
                made.append(Item(subtask, name, draft.clip, draft.question, plan.candidates, plan.answer, draft.asked))
    return made


def notes(item: Item) -> dict[str, Json]:
    """What is known of the object that an item asks about: its name, and what it covers of the first and last frame."""
    actor = item.clip.actors[0]
    boxes = [[edge / SIDE for edge in actor.box(place)] for place in (actor.begin, actor.end)]
    return {"actor": actor.name, "boxes": cast(Json, boxes)}


def illustrations(seed: int) -> list[Callable[[], Illustration]]:
    """Clips and questions of no split, an edition of them for each seed."""
    return [partial(illustrate, item) for item in items(f"practice {seed}")]


def illustrate(item: Item) -> Illustration:
    """What an item shows and asks."""
    drawn = list(draw(item.clip))
    numbers = uniform(0, item.clip.frames - 1, SHOWN)
    frames = tuple(Image.fromarray(drawn[number]) for number in numbers)
    marks = tuple(marks_of(item.clip, number) for number in numbers)
    things = tuple(
        Thing(actor.name, actor.path, sign.kind, sign.value, sign.legible)
        for actor in item.clip.actors
        for sign in actor.signs
    )
    legible = all(sign.legible for sign in item.asked)
    evidence = Evidence(1, None, tuple(item.evidence))
    names = (item.clip.actors[0].name,)
    asked = Asked(item.question, item.candidates, item.answer, names, evidence, legible)
    return Illustration(frames, marks, things, (asked,))


def _blocks(rng: random.Random, subtask: Subtask) -> Iterator[Plan]:
    """The questions of a subtask: each set of candidates once with each of them right."""
    forms, size = FORMS[subtask], OPTIONS[subtask]
    for block in range(EACH // size):
        form = forms[block % len(forms)]
        shown = rng.sample(VALUES[form], size)
        for answer, place in zip(rng.sample(shown, size), rng.sample(range(size), size), strict=True):
            others = [other for other in shown if other != answer]
            candidates = (*others[:place], answer, *others[place:])
            yield Plan(form, candidates, answer, subtask == "moving_direction" or block // len(forms) % 2 == 0)


def _sign(rng: random.Random, kind: Kind, value: str, legible: bool, start: int = 0, stop: int = BEATS) -> Sign:
    return Sign(kind, value, rng.choice(SIZES[kind]), legible, start, stop)


def _any_sign(rng: random.Random) -> tuple[Sign, ...]:
    kind = rng.choice(tuple(SIGNS))
    return (_sign(rng, kind, rng.choice(SIGNS[kind]), rng.random() < 0.5),)


def _still(rng: random.Random, part: Part, frames: int) -> Clip:
    """A clip in which nothing moves, at times with another object."""
    return clip(rng, [part, Part(_any_sign(rng))] if rng.random() < OTHER else [part], frames)


def _direction(rng: random.Random, plan: Plan) -> Draft:
    made = clip(rng, [Part(_any_sign(rng), DIRECTIONS[plan.answer])], rng.choice(LENGTHS))
    return Draft(made, ASKED["direction"].format(made.actors[0].name))


def _attribute(rng: random.Random, plan: Plan) -> Draft:
    kind: Kind = "digit" if plan.form.startswith("digit") else "dot"
    state = plan.form.split()[1]
    asked = _sign(rng, kind, plan.answer, plan.legible)
    other = _sign(rng, kind, rng.choice([one for one in plan.candidates if one != plan.answer]), plan.legible)
    motion = rng.choice(tuple(DIRECTIONS.values()))
    motions: tuple[Motion, Motion] = (motion, "none") if state == "moving" else ("none", motion)
    made = clip(rng, [Part((asked,), motions[0]), Part((other,), motions[1])], rng.choice(LENGTHS))
    return Draft(made, ASKED[kind].format(state), (asked,))


def _change(rng: random.Random, plan: Plan) -> Draft:
    (before,) = set(SIGNS["dot"]) - set(plan.candidates)
    beat, size = rng.randint(5, 11), rng.choice(SIZES["dot"])
    first = Sign("dot", before, size, plan.legible, 0, beat)
    second = Sign("dot", plan.answer, size, plan.legible, beat, BEATS)
    made = _still(rng, Part((first, second)), rng.choice(LENGTHS))
    return Draft(made, ASKED["change"].format(made.actors[0].name), (second,))


def _count(rng: random.Random, plan: Plan) -> Draft:
    value, size, times = rng.choice(SIGNS["dot"]), rng.choice(SIZES["dot"]), int(plan.answer)
    # a flash lasts two beats and so does at least the dark after it: every other frame sees all of both
    pauses = sorted(rng.randint(0, BEATS - 1 - 4 * times) for _ in range(times))
    starts = [1 + 4 * flash + pause for flash, pause in enumerate(pauses)]
    flashes = tuple(Sign("dot", value, size, plan.legible, start, start + 2) for start in starts)
    made = _still(rng, Part(flashes), BEATS)
    return Draft(made, ASKED["count"].format(made.actors[0].name), flashes)


def _order(rng: random.Random, plan: Plan) -> Draft:
    other = rng.choice([letter for letter in plan.candidates if letter != plan.answer])
    spans = [(start, start + rng.randint(4, 5)) for start in (rng.randint(1, 3), rng.randint(9, 11))]
    shown = (plan.answer, other) if plan.form == "first" else (other, plan.answer)
    signs = tuple(_sign(rng, "letter", letter, plan.legible, *span) for letter, span in zip(shown, spans, strict=True))
    made = _still(rng, Part(signs, bare=True), rng.choice(LENGTHS))
    return Draft(made, ASKED["order"].format(plan.form, made.actors[0].name), (signs[plan.form == "last"],))


DRAFTS: dict[Subtask, Callable[[random.Random, Plan], Draft]] = {
    "moving_direction": _direction,
    "moving_attribute": _attribute,
    "state_change": _change,
    "action_count": _count,
    "character_order": _order,
}


def make(split: str, editions: int = 1, progress: Callable[[int, int], None] | None = None) -> Path:
    """The folder of a split in the cache, drawn where it is not there yet.

    Raises:
        DataError: the cache cannot be written.
        Prerequisite: PyAV is not installed.
    """
    made = items(split, editions)
    identity: dict[str, Json] = {"synthetic": NAME, "version": VERSION, "split": split, "items": len(made)}
    return ensure(f"{NAME}-{split}-{editions}", identity, lambda folder: write(folder, made, progress))


def write(folder: Path, made: Sequence[Item], progress: Callable[[int, int], None] | None = None) -> None:
    """Write clips and questions below a folder: ``test.json`` at the top, a folder for each source of videos."""
    meta: dict[str, Json] = {subtask: [item.row() for item in made if item.subtask == subtask] for subtask in FOLDERS}
    for done, item in enumerate(made, 1):
        path = folder / FOLDERS[item.subtask] / item.name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_film(path, draw(item.clip), Size(SIDE, SIDE))
        if progress:
            progress(done, len(made))
    write_json(folder / "test.json", {"root": {task: f"{prefix}/" for task, prefix in FOLDERS.items()}, "meta": meta})
