"""The images and questions of the synthetic miniature of TallyQA, and their files in the layout of its parquet copy.

A picture holds one to three named objects, and a plate on each shows one to six dots on a square of nine
places. ``How many dots are on the red square?`` is a complex question: whether the dots are legible in the
overview is drawn for the plate and cannot be told from the words. No plate is empty, because an overview
cannot tell that from hidden dots: with a zero among the answers, nothing to be seen would not be nothing
known. Simple questions, about the objects themselves, stand between the complex ones as they do in TallyQA.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import ClassVar

from ...harness import task
from ...harness.task import Asked, Illustration, Mark
from ...harness.types import Evidence, Json
from .compose import Name, named, scene
from .hiding import Array, conceal
from .marks import INKS, point
from .patterns import discs, snapped, specks
from .scene import SHAPES, Scene, Shape, Thing, marks_of, picture
from .store import ensure
from .tables import Column, png, write_table

VERSION = 1
NAME = "tallyqa-complex-mini"
COUNTS = ("1", "2", "3", "4", "5", "6")
# How many questions have each count for an answer, legible ones and hidden ones.
LEGIBLE, HIDDEN = 20, 16
COMPLEX = len(COUNTS) * (LEGIBLE + HIDDEN)
# How many pictures have one, two and three objects that are asked about, and how many have simple questions alone.
OBJECTS = (1,) * 72 + (2,) * 36 + (3,) * 24
SIMPLE_ALONE = 12
ASKED, ASKED_SIMPLE = "How many dots are on the {}?", "How many coloured {}s are there?"
WIDTHS: dict[Shape, tuple[int, int]] = {
    "square": (124, 150),
    "circle": (142, 166),
    "triangle": (210, 226),
    "diamond": (196, 212),
}
# The distance between neighbouring dots in pixels.
APART = {True: (26, 28), False: (18, 20, 22, 24)}
PLATE = 84
PLACES = tuple(product((-1, 0, 1), repeat=2))


@dataclass(frozen=True, slots=True)
class Tally:
    """Dots on a plate.

    Attributes:
        value: how many.
        apart: distance between neighbours in pixels.
        legible: whether the overview shows them.
        order: in which order they take the nine places.
        side: of the plate.
    """

    value: str
    apart: int
    legible: bool
    order: tuple[int, ...]
    side: ClassVar[int] = PLATE

    def ink(self) -> tuple[int, int, int]:
        """White."""
        return INKS["white"]

    def marks(self, left: int, top: int) -> list[Mark]:
        """The dots, where the plate lies at this place."""
        middle = PLATE / 2
        return [point("dot", left + middle + x, top + middle + y, self.legible) for x, y in self._places()]

    def _places(self) -> list[tuple[int, int]]:
        chosen = [PLACES[place] for place in self.order[: int(self.value)]]
        return [(x * self.apart, y * self.apart) for x, y in chosen]

    def pattern(self, left: int, top: int) -> Array:
        """How much ink each pixel of the plate gets, from -1 to 1, where the plate lies at this place."""
        places = self._places()
        if self.legible:
            return discs((PLATE, PLATE), places, self.apart * 0.6)
        return conceal(specks((PLATE, PLATE), snapped(places, left, top, PLATE), 2.5), left, top)


@dataclass(frozen=True, slots=True)
class Query:
    """One question about a picture; a simple one has no object whose plate it is about."""

    question: str
    answer: int
    thing: Thing[Tally] | None

    def row(self, others: int) -> dict[str, object]:
        """TallyQA's three keys, and slices and evidence."""
        row: dict[str, object] = {"question": self.question, "answer": self.answer, "is_simple": self.thing is None}
        if self.thing is None:
            return {**row, "slices": [], "evidence": []}
        box, distractors = self.thing.box, f"distractors-{others}"
        slices = [distractors] if self.thing.detail.legible else ["needs_operation", distractors]
        return {**row, "slices": slices, "evidence": [[box.left, box.top, box.right - box.left, box.bottom - box.top]]}


@dataclass(frozen=True, slots=True)
class Item:
    """One picture with its questions, in the order of the file."""

    name: str
    scene: Scene[Tally]
    queries: tuple[Query, ...]

    def row(self) -> dict[str, object]:
        """The row of the parquet table."""
        asked = [query.row(len(self.scene.things) - 1) for query in self.queries]
        return {"image": {"bytes": png(picture(self.scene)), "path": self.name}, "qa": asked}


def items(split: str, editions: int = 1) -> list[Item]:
    """The pictures of a split with their questions: 216 complex ones an edition, the first edition's first."""
    made: list[Item] = []
    for edition in range(editions):
        rng = random.Random(f"{NAME} {split} {edition}")  # noqa: S311 - pictures, not secrets
        for scene_, asked in _scenes(rng):
            made.append(Item(f"{len(made):06}.png", scene_, tuple(_queries(rng, scene_, asked=asked))))
    return made


def illustrations(seed: int) -> list[Callable[[], Illustration]]:
    """Pictures and complex questions of no split, an edition of them for each seed."""
    asked = (item for item in items(f"practice {seed}") if any(query.thing for query in item.queries))
    return [partial(illustrate, item) for item in asked]


def illustrate(item: Item) -> Illustration:
    """What an item shows and asks."""
    things = tuple(
        task.Thing(thing.name, thing.box, "count", thing.detail.value, thing.detail.legible)
        for thing in item.scene.things
    )
    asked = tuple(
        Asked(query.question, (), str(query.answer), (thing.name,), Evidence(1, thing.box), thing.detail.legible)
        for query in item.queries
        if (thing := query.thing) is not None
    )
    return Illustration((picture(item.scene),), (marks_of(item.scene),), things, asked)


def _scenes(rng: random.Random) -> Iterator[tuple[Scene[Tally], bool]]:
    """Scenes, and whether there are complex questions about them."""
    plan = list(product(COUNTS, (True,) * LEGIBLE + (False,) * HIDDEN))
    rng.shuffle(plan)
    deck = iter(plan)
    pictures = [(count, True) for count in OBJECTS] + [(rng.randint(1, 3), False) for _ in range(SIMPLE_ALONE)]
    rng.shuffle(pictures)
    for count, asked in pictures:
        shown = [next(deck) if asked else (rng.choice(COUNTS), True) for _ in range(count)]
        names: list[Name] = named(rng, count)
        yield scene(rng, list(zip(names, [_tally(rng, *one) for one in shown], strict=True)), widths=WIDTHS), asked


def _tally(rng: random.Random, value: str, legible: bool) -> Tally:
    return Tally(value, rng.choice(APART[legible]), legible, tuple(rng.sample(range(len(PLACES)), len(PLACES))))


def _queries(rng: random.Random, scene_: Scene[Tally], *, asked: bool) -> list[Query]:
    shapes = rng.sample(SHAPES, rng.randint(0, 2) if asked else 2)
    counted = {shape: sum(thing.shape == shape for thing in scene_.things) for shape in shapes}
    queries = [Query(ASKED_SIMPLE.format(shape), count, None) for shape, count in counted.items()]
    if asked:
        queries += [Query(ASKED.format(thing.name), int(thing.detail.value), thing) for thing in scene_.things]
    rng.shuffle(queries)
    return queries


def make(split: str, editions: int = 1, progress: Callable[[int, int], None] | None = None) -> Path:
    """The folder of a split in the cache, drawn where it is not there yet.

    Raises:
        DataError: the cache cannot be written.
    """
    made = items(split, editions)
    identity: dict[str, Json] = {"synthetic": NAME, "version": VERSION, "split": split, "items": len(made)}
    return ensure(f"{NAME}-{split}-{editions}", identity, lambda folder: write(folder, made, split, progress))


def write(folder: Path, made: Sequence[Item], split: str, progress: Callable[[int, int], None] | None = None) -> None:
    """Write pictures and questions below a folder as parquet shards, a row a picture."""
    text: Column = {"dtype": "string", "_type": "Value"}
    qa: Column = {
        "question": text,
        "answer": {"dtype": "int64", "_type": "Value"},
        "is_simple": {"dtype": "bool", "_type": "Value"},
        "slices": {"feature": text, "_type": "List"},
        "evidence": {"feature": {"feature": {"dtype": "float64", "_type": "Value"}, "_type": "List"}, "_type": "List"},
    }
    columns: Column = {"image": {"_type": "Image"}, "qa": {"feature": qa, "_type": "List"}}
    write_table(folder / "data", split, columns, [item.row for item in made], 2, progress)
