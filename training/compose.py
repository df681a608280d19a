"""From the rollouts that an update learns from to micro-batches on one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count, groupby
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from ..harness.errors import DataError
from ..harness.record import Record, key_of
from .batches import Batch, Layout, collate, split
from .checkpoints import load_tensors, save_tensors
from .examples import Example, encode
from .grpo_config import GrpoConfig
from .lean import Once
from .replay import Entry
from .rollouts import FOLDER, Rollouts
from .rounds import deal, said
from .shared import collate_shared, width
from .trainable import Trainable

TALL = 1 << 30
Floats = NDArray[np.float32]
Row = tuple[Entry, Example]
# A micro-batch: bundles of rows that share their beginning.
Part = Sequence[Sequence[Row]]


class Library:
    """The recorded rollouts of the rounds that are learned from, and the log-probabilities that were computed of them.

    Args:
        age: how many rounds back rollouts may be asked for.
    """

    def __init__(self, rollouts: Rollouts, age: int) -> None:
        self.rollouts, self.age = rollouts, age
        self._held: dict[tuple[int, str], dict[tuple[str, int], Record]] = {}
        self._old: dict[int, dict[str, Floats]] = {}

    def record(self, entry: Entry) -> Record:
        """The record of a rollout. Raises StoreError, DataError."""
        key = entry.round, entry.task
        if key not in self._held:
            self.hold(*key, self.rollouts.read(*key))
        found = self._held[key].get((entry.id, entry.repeat))
        if found is None:
            folder = self.rollouts.folder(entry.round, entry.task)
            raise DataError(f"{folder} no longer has the rollout {entry.repeat} of {entry.id!r}; begin again elsewhere")
        return found

    def hold(self, number: int, task: str, records: Sequence[Record]) -> None:
        """Take a round's records of one task as they have been read."""
        self._held[number, task] = {key_of(record): record for record in records}

    def turn_to(self, number: int) -> None:
        """Let go of what is too old for a round, and of what it was thought to hold before it was sampled."""
        self._held = {key: held for key, held in self._held.items() if number - self.age <= key[0] < number}
        self._old = {key: held for key, held in self._old.items() if number - self.age <= key < number}

    def old(self, entry: Entry) -> Floats | None:
        """The learner's log-probabilities of a rollout as its round began, where they were computed."""
        if entry.round not in self._old:
            files = sorted(self._folder(entry.round).glob("old-*.safetensors"))
            self._old[entry.round] = {
                name: values.numpy() for path in files for name, values in load_tensors(path).items()
            }
        return self._old[entry.round].get(_name(entry))

    def keep_old(self, number: int, rank: int, found: Mapping[Entry, Sequence[float]]) -> None:
        """Keep what a process has computed of a round's rollouts. Raises StoreError."""
        path = self._folder(number) / f"old-{rank:03}.safetensors"
        workplace = path.with_name(f".{path.name}")
        save_tensors(workplace, {_name(one): torch.tensor(values) for one, values in found.items()})
        workplace.replace(path)
        self._old.pop(number, None)

    def has_old(self, number: int, world: int) -> bool:
        """Whether every process has kept its own."""
        return len(list(self._folder(number).glob("old-*.safetensors"))) >= world

    def _folder(self, number: int) -> Path:
        return self.rollouts.out / FOLDER / f"round-{number:06}"


def _name(entry: Entry) -> str:
    return f"{entry.task}/{entry.id}#{entry.repeat}"


class Composer:
    """Makes micro-batches of rollouts for one process.

    Args:
        blank: an example without loss that shows one image, for every micro-batch that shows none; None where the
            vision tower need not run in each.
    """

    def __init__(
        self, config: GrpoConfig, library: Library, engine: Trainable, blank: Example | None, *, once: bool = True
    ) -> None:
        self.config, self.library, self.engine, self.blank = config, library, engine, blank
        self.preparer = Once(engine.processor) if once and engine.processor.factor > 1 else engine.processor

    def update(self, rows: Sequence[Entry], version: int | None) -> list[Batch]:
        """This process's micro-batches of an update. Raises DataError, StoreError, ModelError.

        Args:
            version: updates that the weights have seen; rows sampled with these very weights are told apart. None
                where nothing has been computed of the rows yet, as before that.
        """
        return [self.batch(part) for part in self.parts(rows, version)]

    def parts(self, rows: Sequence[Entry], version: int | None) -> list[Part]:
        """The rows of each of this process's micro-batches."""
        records = [self.library.record(row) for row in rows]
        lengths = [sum(len(cast("list[int]", turn["ids"])) for turn in said(record)) for record in records]
        weights = self.config.loss.weights(lengths)
        sizes = [length + _prompt(record) for length, record in zip(lengths, records, strict=True)]
        rollouts = self.library.rollouts
        mine = deal(rows, sizes, rollouts.world)[rollouts.rank]
        made: dict[int, Example] = {}
        for task in dict.fromkeys(rows[place].task for place in mine):
            some = [place for place in mine if rows[place].task == task]
            talks = rollouts.again(task, [records[place] for place in some], self.engine)
            for place, talk in zip(some, talks, strict=True):
                bare = encode(_name(rows[place]), talk, self.engine, "tokens", TALL)
                made[place] = self._noted(bare, rows[place], records[place], weights[place], version)
        return self._grouped([(rows[place], made[place]) for place in mine])

    def _noted(self, bare: Example, row: Entry, record: Record, weight: float, version: int | None) -> Example:
        """An example with what the loss needs of each of its trained ids."""
        turns = said(record)
        ids = np.array([number for turn in turns for number in cast("list[int]", turn["ids"])], dtype=np.int64)
        places = np.flatnonzero(bare.weights)
        if not np.array_equal(bare.ids[places], ids):
            raise DataError(f"{bare.name}: the ids that would be trained are not those that were sampled")
        sampled = np.array([one for turn in turns for one in cast("list[float]", turn["logprobs"])], dtype=np.float32)
        old = sampled
        if version is not None and self.config.loss.correction != "none":
            known = self.library.old(row)
            if known is None or len(known) != len(sampled):
                raise DataError(f"{bare.name}: the log-probabilities that its round computed are gone; begin again")
            old = known
        values: dict[str, Floats] = {
            "old": old,
            "sampled": sampled,
            "advantage": np.full_like(sampled, row.advantage),
            "factor": self.config.loss.factors(old, sampled),
            "fresh": np.full_like(sampled, float(row.version == version)),
        }
        return replace(
            bare,
            weights=_spread(np.full_like(sampled, weight), places, len(bare.ids)),
            notes={name: _spread(value, places, len(bare.ids)) for name, value in values.items()},
        )

    def _grouped(self, rows: Sequence[Row]) -> list[Part]:
        """Rows by micro-batch, and in it by what shares a row of the model's."""
        train = self.config.train
        bundles = self._bundles(rows) if train.layout == "shared" else [[row] for row in rows]
        most = 0 if any(example.positions is None for _, example in rows) else train.micro
        groups = split([width([example for _, example in bundle]) for bundle in bundles], most, self._layout)
        return [[bundles[place] for place in group] for group in groups]

    def _bundles(self, rows: Sequence[Row]) -> list[list[Row]]:
        """Rows that share their beginning, as many together as a micro-batch holds."""
        found: list[list[Row]] = []
        for _, each in groupby(rows, key=_question):
            held: list[Row] = []
            for row in each:
                apart = row[1].inputs is not None or row[1].positions is None
                if held and (apart or width([*(example for _, example in held), row[1]]) > self.config.train.micro):
                    found.append(held)
                    held = []
                held.append(row)
            found.append(held)
        return found

    @property
    def _layout(self) -> Layout:
        return "packed" if self.config.train.layout == "packed" else "padded"

    def batch(self, part: Part) -> Batch:
        """Some rows as one micro-batch, each numbered in it."""
        numbers = count()
        bundles = [[_numbered(example, next(numbers)) for _, example in bundle] for bundle in part]
        flat = [example for bundle in bundles for example in bundle]
        shows = any(example.images or example.inputs for example in flat)
        blank = [] if shows or self.blank is None or flat[0].positions is None else [self.blank]
        if self.config.train.layout != "shared" or flat[0].positions is None:
            return collate([*flat, *blank], self.preparer, self.engine.pad, self._layout)
        made = collate_shared([*bundles, *([one] for one in blank)], self.preparer, self.engine.pad)
        # What is added to scores must be of their type: some kernels misread another.
        kind = torch.bfloat16 if self.config.model.precision == "bf16" else self.engine.module.dtype
        mask = made.inputs["attention_mask"].to(kind)
        return replace(made, inputs={**made.inputs, "attention_mask": mask})

    def idle(self) -> Batch:
        """A micro-batch without loss, for a process that has run out of its own while others have not."""
        if self.blank is None:
            raise ValueError("there is no blank example to idle with")
        return collate([self.blank], self.preparer, self.engine.pad)


def _question(row: Row) -> tuple[str, str]:
    return row[0].task, row[0].id


def _numbered(example: Example, number: int) -> Example:
    place = np.full(len(example.ids), float(number), dtype=np.float32)
    return replace(example, notes={**example.notes, "sequence": place})


def _spread(values: Floats, places: NDArray[np.int64], length: int) -> Floats:
    """Values at their places in a row of zeros."""
    row = np.zeros(length, dtype=np.float32)
    row[places] = values
    return row


def _prompt(record: Record) -> int:
    """About how many tokens stand before a rollout's replies."""
    usage = cast("dict[str, int]", record["usage"])
    return usage["prompt_tokens"] // max(1, usage["turns"])


def by_row(batch: Batch, values: Sequence[float], count: int) -> list[list[float]]:
    """Values of a batch's trained tokens, by the number of the row that they belong to."""
    found: list[list[float]] = [[] for _ in range(count)]
    numbers = batch.notes["sequence"][batch.weights > 0].long().tolist()
    for number, value in zip(numbers, values, strict=True):
        found[number].append(value)
    return found
