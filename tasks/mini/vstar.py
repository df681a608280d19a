"""The questions of the synthetic miniature of V*, and their files in V*'s original layout.

115 questions about a detail of one object (category ``direct_attributes``) and 76 about which of two
objects is to the left (``relative_position``). Whether a detail is legible in the overview is drawn for
the picture and cannot be told from the question. Answers are balanced in blocks: every set of options is
shown once with each of its members right, and once with the right one at each letter, so that no constant
answer and no constant letter is better than chance.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, islice, product
from pathlib import Path

from ...harness import task
from ...harness.task import Asked, Illustration
from ...harness.types import Box, Evidence, Json
from ..options import shuffled
from .compose import any_detail, detail, named, scene
from .marks import VALUES, Detail, Kind
from .scene import Scene, Thing, marks_of, picture
from .store import ensure, write_json

VERSION = 1
DIRECT, RELATIVE = 115, 76
# Blocks of four questions by kind of detail, and how many of them are legible; the last one is cut short.
BLOCKS: dict[Kind, tuple[int, int]] = {"dot": (10, 4), "count": (10, 4), "digit": (9, 4)}
ASKED: dict[Kind, str] = {
    "dot": "What is the colour of the dot on the {}?",
    "count": "How many dots are on the {}?",
    "digit": "Which digit is on the {}?",
}
# How many other named objects a picture holds, by category.
DISTRACTORS = {
    "direct_attributes": (0,) * 69 + (1,) * 23 + (2,) * 14 + (3,) * 9,
    "relative_position": (0,) * 52 + (1,) * 15 + (2,) * 9,
}
HIDDEN_ELSEWHERE = 0.6
BESIDE = 100


@dataclass(frozen=True, slots=True)
class Item:
    """One question and its scene; its file has its name, in the folder of its category.

    Attributes:
        options: the right one first, as V* has it.
        asked: how many of the scene's objects, from the first, the question names.
    """

    category: str
    name: str
    scene: Scene[Detail]
    question: str
    options: tuple[str, ...]
    asked: int

    @property
    def id(self) -> str:
        """The id of the sample that is read from its files."""
        return f"{self.category}/{self.name}"

    @property
    def targets(self) -> tuple[Thing[Detail], ...]:
        """The objects that the question names, in its order."""
        return self.scene.things[: self.asked]

    @property
    def slices(self) -> tuple[str, ...]:
        """``needs_operation`` where the overview does not show the answer, and the number of distractors."""
        hidden = self.asked == 1 and not self.targets[0].detail.legible
        distractors = f"distractors-{len(self.scene.things) - self.asked}"
        return ("needs_operation", distractors) if hidden else (distractors,)

    def annotation(self) -> dict[str, Json]:
        """The JSON beside the picture: V*'s four keys and ``slices``."""
        boxes = [thing.box for thing in self.targets]
        return {
            "target_object": [thing.name for thing in self.targets],
            "bbox": [[box.left, box.top, box.right - box.left, box.bottom - box.top] for box in boxes],
            "question": self.question,
            "options": list(self.options),
            "slices": list(self.slices),
        }


def items(split: str, editions: int = 1) -> list[Item]:
    """The questions of a split with their scenes: 115 and 76 an edition, the first edition's first."""
    made: list[Item] = []
    numbers = count()
    for edition in range(editions):
        rng = random.Random(f"vstar-mini {split} {edition}")  # noqa: S311 - pictures, not secrets
        made += _direct(rng, numbers)
        made += _relative(rng, numbers)
    return made


def illustrations(seed: int) -> list[Callable[[], Illustration]]:
    """Pictures and questions of no split, an edition of them for each seed."""
    return [partial(illustrate, item) for item in items(f"practice {seed}")]


def illustrate(item: Item) -> Illustration:
    """What an item shows and asks."""
    things = tuple(
        task.Thing(thing.name, thing.box, thing.detail.kind, thing.detail.value, thing.detail.legible)
        for thing in item.scene.things
    )
    names = tuple(thing.name for thing in item.targets)
    legible = item.asked > 1 or item.targets[0].detail.legible
    evidence = Evidence(1, item.targets[0].box)
    asked = Asked(item.question, item.options, item.options[0], names, evidence, legible)
    return Illustration((picture(item.scene),), (marks_of(item.scene),), things, (asked,))


def _names(category: str, places: Iterable[int], options: int, numbers: Iterator[int]) -> Iterator[str]:
    """A file name for each question, under which the loader's shuffle puts the right option at this place.

    It does so at seed 0; at any other the letters are as chance has it. Numbers that suit no question are
    left out.
    """
    suited: dict[int, list[str]] = {place: [] for place in range(options)}
    for place in places:
        while not suited[place]:
            name = f"{next(numbers):04}"
            suited[shuffled([str(index) for index in range(options)], f"0:{category}/{name}").index("0")].append(name)
        yield suited[place].pop(0)


def _blocks(rng: random.Random) -> Iterator[tuple[Kind, tuple[str, ...], bool, int]]:
    """Kind, options with the right one first, legibility and place of the right one, of each direct question."""
    for kind, (blocks, legible) in BLOCKS.items():
        for block in range(blocks):
            shown = rng.sample(VALUES[kind], 4)
            for value, place in zip(rng.sample(shown, 4), rng.sample(range(4), 4), strict=True):
                yield kind, (value, *(other for other in shown if other != value)), block < legible, place


def _distractors(rng: random.Random, category: str) -> list[int]:
    counts = DISTRACTORS[category]
    return rng.sample(counts, len(counts))


def _direct(rng: random.Random, numbers: Iterator[int]) -> Iterator[Item]:
    category = "direct_attributes"
    plan = list(islice(_blocks(rng), DIRECT))
    rng.shuffle(plan)
    files = _names(category, [place for *_, place in plan], 4, numbers)
    for (kind, options, legible, _), others, name in zip(plan, _distractors(rng, category), files, strict=True):
        details = [detail(rng, kind, options[0], legible), *_others(rng, others)]
        made = scene(rng, list(zip(named(rng, 1 + others), details, strict=True)))
        yield Item(category, name, made, ASKED[kind].format(made.things[0].name), options, 1)


def _relative(rng: random.Random, numbers: Iterator[int]) -> Iterator[Item]:
    category = "relative_position"
    plan = list(product(("left", "right"), (0, 1))) * (RELATIVE // 4)
    rng.shuffle(plan)
    files = _names(category, [place for _, place in plan], 2, numbers)
    for (side, _), others, name in zip(plan, _distractors(rng, category), files, strict=True):
        things = list(zip(named(rng, 2 + others), _others(rng, 2 + others), strict=True))
        made = scene(rng, things, _beside(side))
        one, other = (thing.name for thing in made.things[:2])
        sides = (side, "right" if side == "left" else "left")
        options = tuple(f"The {one} is on the {where} side of the {other}." for where in sides)
        yield Item(category, name, made, f"Is the {one} on the left or right side of the {other}?", options, 2)


def _others(rng: random.Random, count: int) -> list[Detail]:
    return [any_detail(rng, HIDDEN_ELSEWHERE) for _ in range(count)]


def _beside(side: str) -> Callable[[Sequence[Box]], bool]:
    """Whether the first box is clearly on this side of the second."""
    sign = 1 if side == "right" else -1
    return lambda boxes: sign * (boxes[0].left + boxes[0].right - boxes[1].left - boxes[1].right) >= 2 * BESIDE


def make(split: str, editions: int = 1, progress: Callable[[int, int], None] | None = None) -> Path:
    """The folder of a split in the cache, drawn where it is not there yet.

    Raises:
        DataError: the cache cannot be written.
    """
    made = items(split, editions)
    identity: dict[str, Json] = {"synthetic": "vstar-mini", "version": VERSION, "split": split, "items": len(made)}
    return ensure(f"vstar-{split}-{editions}", identity, lambda folder: write(folder, made, progress))


def write(folder: Path, made: Sequence[Item], progress: Callable[[int, int], None] | None = None) -> None:
    """Write pictures and annotations below a folder, in V*'s layout."""
    for done, item in enumerate(made, 1):
        below = folder / item.category
        below.mkdir(parents=True, exist_ok=True)
        picture(item.scene).save(below / f"{item.name}.png", compress_level=6)
        write_json(below / f"{item.name}.json", item.annotation())
        if progress:
            progress(done, len(made))
