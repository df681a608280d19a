"""The source ``miniature``: the train split of a drawn miniature, which needs no data and no licence of others."""

from __future__ import annotations

import difflib
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol, cast, runtime_checkable

from ...harness import registry
from ...harness.errors import UsageError
from ...harness.evaluate import load_task
from ...harness.task import DataOptions, Task
from ...harness.types import Json, Sample
from ..seeds import Seed, SourceOptions
from ..teachers.base import value_of
from ..wording import form_of

SETTINGS: dict[str, Json] = {"task": "vstar-mini", "editions": 1, "categories": [], "needs_operation": None}
# More than anyone needs; the questions of all are held in memory.
MOST_EDITIONS = 10_000
EVERY_OTHER = (1, 3, 5, 7, 9, 11, 13, 15)


@runtime_checkable
class Drawn(Protocol):
    """A task that draws its own data."""

    drawing: int
    editions: int


@runtime_checkable
class Annotated(Protocol):
    """A task that knows more of its drawings than its files say."""

    def annotations(self, split: str) -> Mapping[str, Mapping[str, Json]]:
        """Notes by sample id."""
        ...


class Miniature:
    """Questions about drawn pictures and clips, with all that was drawn as their notes.

    Settings: ``task``, a miniature; ``editions``, how many times its number of questions; ``categories``, of its
    questions, all where there are none; ``needs_operation``, true or false for one kind of question alone.
    """

    name = "miniature"
    summary = "train split of a synthetic miniature: drawn pictures and clips, any number of them"
    licence = "Apache-2.0"

    def seeds(self, options: SourceOptions) -> Iterable[Seed]:
        """The questions in an order that the seed decides. Raises UsageError for an unknown setting or task."""
        if options.data is not None:
            raise UsageError("source miniature draws its own data; leave `data` out and name a `task` in its settings")
        for key in options.settings:
            if key not in SETTINGS:
                close = difflib.get_close_matches(key, SETTINGS, n=1) or list(SETTINGS)
                raise UsageError(f"source miniature has no setting {key!r}; use {' or '.join(close)}")
        asked = {**SETTINGS, **options.settings}
        name, editions = str(asked["task"]), asked["editions"]
        if not isinstance(editions, int) or isinstance(editions, bool) or not 1 <= editions <= MOST_EDITIONS:
            message = f"`editions` must be a whole number from 1 to {MOST_EDITIONS}"
            raise UsageError(f"source miniature: {message}, not {editions!r}")
        task = _task(name, editions)
        dataset = task.load(DataOptions(split=options.split, progress=options.progress))
        chosen = [sample for sample in dataset.samples if _wanted(sample, asked)]
        if not chosen:
            there = ", ".join(sorted({sample.category for sample in dataset.samples}))
            raise UsageError(f"source miniature: {name} has no such question; its categories are {there}")
        random.Random(f"{options.seed} {name}").shuffle(chosen)  # noqa: S311 - an order, not a secret
        return self._made(chosen, name, options.split, cast(Drawn, task))

    def _made(self, samples: list[Sample], task: str, split: str, drawn: Drawn) -> Iterator[Seed]:
        known = drawn.annotations(split) if isinstance(drawn, Annotated) else {}
        for sample in samples:
            origin: dict[str, Json] = {
                "task": task,
                "split": split,
                "sample": sample.id,
                "drawing": drawn.drawing,
                "editions": drawn.editions,
            }
            named = replace(sample, id=f"{task}/{sample.id}")
            yield Seed(named, self.name, self.licence, origin, {**_notes(sample), **known.get(sample.id, {})})


def _task(name: str, editions: int) -> Task:
    load_task(name)
    kind = registry.load("tasks", name)
    if not isinstance(kind, type) or not isinstance(load_task(name), Drawn):
        minis = [known for known in registry.names("tasks") if known.endswith("-mini")]
        raise UsageError(f"source miniature: {name} is no synthetic miniature; use one of {', '.join(minis)}")
    return cast(Task, registry.guarded(f"task {name}", lambda: kind(editions)))


def _wanted(sample: Sample, asked: dict[str, Json]) -> bool:
    categories, needs = asked["categories"], asked["needs_operation"]
    if not isinstance(categories, list) or not (needs is None or isinstance(needs, bool)):
        raise UsageError("source miniature: `categories` must be a list and `needs_operation` true or false")
    fits = not categories or sample.category in categories
    return fits and (needs is None or needs == ("needs_operation" in sample.slices))


def _notes(sample: Sample) -> dict[str, Json]:
    """The form of the question, what it names, and what is to be found."""
    form, named = form_of(sample.question)
    notes: dict[str, Json] = {"form": form.name, "value": value_of(sample), **named}
    if form.name == "flashes":  # an overview hides when they are; every other frame meets each of them
        notes["cue_frames"] = list(EVERY_OTHER)
    return notes
