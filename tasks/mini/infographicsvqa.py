"""The posters and questions of the synthetic miniature of InfographicsVQA, and their files in its parquet layout.

Four questions a poster: two ask for the value of an item and two for the item of a value, in the same words
whether the answer stands in large or in small print. What a question names is always in large print, so that
the overview shows where to look. Every word is asked for equally often, half the times in small print, and
every value as often as the count allows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from ...harness.task import Asked, Illustration, Thing
from ...harness.types import Evidence, Json
from .posters import Entry, Layout, Poster, Print, compose, picture
from .store import ensure
from .tables import Column, png, write_table

VERSION = 2
NAME = "infographicsvqa-mini"
POSTERS, EACH = 60, 2
# No two of them are alike enough for one to score as a near miss of the other.
WORDS = (
    *("beans", "bread", "cocoa", "corn", "dates", "eggs", "fish", "glass", "gold", "honey"),
    *("iron", "limes", "milk", "nuts", "plums", "rice", "salt", "sugar", "wheat", "wool"),
)
NUMBERS = tuple(str(number) for number in range(10, 100))
# How many of them stand in small print in a round: so few that fewer than half of all questions need a crop.
SMALL_NUMBERS = 40
# ANLS of a constant: a number is right once in 90 times, and half right for the 17 others that share a digit's place;
# a word is right once in 20.
CHANCE = ((1 + 17 / 2) / 90 + 1 / 20) / 2
ASKED_VALUE, ASKED_ITEM = "What is the value of {}?", "Which item has the value {}?"
ENTRIES = (4, 5, 6)
PERCENT = 1 / 3


@dataclass(frozen=True, slots=True)
class Query:
    """One question about a poster.

    Attributes:
        answers: what is accepted, as it is printed first.
        entry: what it is about.
        shown: the print that shows the answer.
    """

    question: str
    answers: tuple[str, ...]
    entry: Entry
    shown: Print


@dataclass(frozen=True, slots=True)
class Item:
    """One poster and its questions; its image has its name."""

    name: str
    poster: Poster
    queries: tuple[Query, ...]

    def rows(self, first: int, split: str) -> list[Callable[[], dict[str, object]]]:
        """The rows of the parquet table, numbered from ``first``; the image is drawn for the first that is made."""
        image: dict[str, object] = {}
        return [partial(self._row, image, number, query, split) for number, query in enumerate(self.queries, first)]

    def _row(self, image: dict[str, object], number: int, query: Query, split: str) -> dict[str, object]:
        """InfographicsVQA's columns, and slices and evidence."""
        if not image:
            image.update(bytes=png(picture(self.poster)), path=self.name)
        layout, box = f"layout-{self.poster.layout}", query.shown.box
        return {
            "questionId": str(number),
            "question": query.question,
            "answers": list(query.answers),
            "answer_type": ["single span"],
            "image": image,
            "image_url": "",
            "operation/reasoning": [],
            "ocr": "",
            "data_split": split,
            "slices": [layout] if query.shown.large else ["needs_operation", layout],
            "evidence": [[box.left, box.top, query.shown.width, query.shown.height]],
        }


def items(split: str, editions: int = 1) -> list[Item]:
    """The posters of a split with their questions: 60 with four each an edition, the first edition's first."""
    made: list[Item] = []
    for edition in range(editions):
        rng = random.Random(f"{NAME} {split} {edition}")  # noqa: S311 - pictures, not secrets
        numbers, words = _deck(rng, NUMBERS, SMALL_NUMBERS), _deck(rng, WORDS, len(WORDS) // 2)
        layouts: list[Layout] = ["rows", "boxes"] * (POSTERS // 2)
        for layout in rng.sample(layouts, POSTERS):
            asked = list(islice(numbers, EACH)), list(islice(words, EACH))
            made.append(Item(f"{len(made):05}.png", *_poster(rng, layout, *asked)))
    return made


def illustrations(seed: int) -> list[Callable[[], Illustration]]:
    """Posters and questions of no split, an edition of them for each seed."""
    return [partial(illustrate, item) for item in items(f"practice {seed}")]


def illustrate(item: Item) -> Illustration:
    """What an item shows and asks."""
    prints = [(entry.label.text.lower(), "label", entry.label) for entry in item.poster.entries]
    prints += [(entry.label.text.lower(), "value", entry.value) for entry in item.poster.entries]
    things = tuple(Thing(name, shown.box, kind, shown.text.lower(), shown.large) for name, kind, shown in prints)
    asked = tuple(
        Asked(query.question, (), query.answers[0], (), Evidence(1, query.shown.box), query.shown.large)
        for query in item.queries
    )
    marks = tuple(mark for _, _, shown in prints for mark in shown.marks())
    return Illustration((picture(item.poster),), (marks,), things, asked)


def _deck(rng: random.Random, values: Sequence[str], count: int) -> Iterator[tuple[str, bool]]:
    """Values and whether they are in small print: each once a round, ``count`` small that were not the round before."""
    small: list[str] = []
    while True:
        small = rng.sample([value for value in values if value not in small], count)
        for value in rng.sample(values, len(values)):
            yield value, value in small


def _poster(
    rng: random.Random, layout: Layout, numbers: list[tuple[str, bool]], words: list[tuple[str, bool]]
) -> tuple[Poster, tuple[Query, ...]]:
    count, sign = rng.choice(ENTRIES), "%" if rng.random() < PERCENT else ""
    labels = rng.sample([word for word in WORDS if word not in dict(words)], count - EACH)
    values = rng.sample([number for number in NUMBERS if number not in dict(numbers)], count - EACH)
    # first the entries whose value is asked for, then those whose label is, then the others
    texts = list(zip([*labels[:EACH], *dict(words), *labels[EACH:]], [*dict(numbers), *values], strict=True))
    small = [*("value" if fine else "" for _, fine in numbers), *("label" if fine else "" for _, fine in words)]
    small += [rng.choice(("", "", "label", "value")) for _ in range(count - 2 * EACH)]
    order = rng.sample(range(count), count)
    shown = [(texts[place][0], texts[place][1] + sign) for place in order]
    poster = compose(rng, layout, shown, [small[place] for place in order])
    entries = [poster.entries[order.index(place)] for place in range(2 * EACH)]
    queries = [_query(entry, by_value=place >= EACH) for place, entry in enumerate(entries)]
    return poster, tuple(rng.sample(queries, len(queries)))


def _query(entry: Entry, *, by_value: bool) -> Query:
    label, value = entry.label.text.lower(), entry.value.text
    if by_value:
        return Query(ASKED_ITEM.format(value), (label,), entry, entry.label)
    return Query(ASKED_VALUE.format(label), tuple(dict.fromkeys((value, value.removesuffix("%")))), entry, entry.value)


def make(split: str, editions: int = 1, progress: Callable[[int, int], None] | None = None) -> Path:
    """The folder of a split in the cache, drawn where it is not there yet.

    Raises:
        DataError: the cache cannot be written.
    """
    made = items(split, editions)
    identity: dict[str, Json] = {"synthetic": NAME, "version": VERSION, "split": split, "items": len(made)}
    return ensure(f"{NAME}-{split}-{editions}", identity, lambda folder: write(folder, made, split, progress))


def write(folder: Path, made: Sequence[Item], split: str, progress: Callable[[int, int], None] | None = None) -> None:
    """Write posters and questions below a folder as parquet shards, a row a question."""
    text: Column = {"dtype": "string", "_type": "Value"}
    texts: Column = {"feature": text, "_type": "List"}
    boxes: Column = {"feature": {"feature": {"dtype": "float64", "_type": "Value"}, "_type": "List"}, "_type": "List"}
    columns: Column = {
        "questionId": text,
        "question": text,
        "answers": texts,
        "answer_type": texts,
        "image": {"_type": "Image"},
        "image_url": text,
        "operation/reasoning": texts,
        "ocr": text,
        "data_split": text,
        "slices": texts,
        "evidence": boxes,
    }
    rows = [row for number, item in enumerate(made) for row in item.rows(number * 2 * EACH, split)]
    write_table(folder / "InfographicVQA", split, columns, rows, 2, progress)
