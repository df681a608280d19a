"""Which examples make a step, how they are laid out for the model, and their preparation beside the running step.

The order depends on the seed and the step alone: not on the number of processes, on the split into micro-batches
or on where a training was interrupted.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

import numpy as np
import torch

from .examples import Cache, Example
from .trainable import Preparer

Layout = Literal["padded", "packed"]
# Steps that wait prepared; one more is in preparation, and one runs. Each holds its pixels.
AHEAD = 1


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Several examples as one input of the model.

    Attributes:
        inputs: what the model is called with; its logits are asked for at certain columns only.
        targets: rows x columns, the id that follows each of these columns.
        weights: rows x columns, the loss weight of each target.
        tokens: ids in it, padding excluded.
        area: ids in it, padding included.
        notes: by name, rows x columns, what the examples say of each target; 0 elsewhere.
    """

    inputs: Mapping[str, torch.Tensor]
    targets: torch.Tensor
    weights: torch.Tensor
    tokens: int
    area: int
    notes: Mapping[str, torch.Tensor] = field(default_factory=dict)


def order(count: int, batch: int, seed: int, step: int) -> list[int]:
    """The numbers of the examples of a step, from 0: each example once an epoch, in an order of that epoch's own.

    The last step of an epoch has what is left.
    """
    a_round = -(-count // batch)
    epoch, place = divmod(step, a_round)
    shuffled = np.random.default_rng([seed, epoch]).permutation(count)
    return [int(number) for number in shuffled[place * batch : (place + 1) * batch]]


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of what is drawn in a step on a process: apart from every other's, and below 2 ** 63."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)


def split(lengths: Sequence[int], most: int, layout: Layout = "padded") -> list[list[int]]:
    """Places of examples, grouped into micro-batches of at most ``most`` tokens with padding, the longest first.

    An example longer than that stands alone.
    """
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        held = [lengths[other] for other in groups[-1]] if groups else []
        area = sum(held) + lengths[place] if layout == "packed" else (len(held) + 1) * max(held, default=0)
        if groups and area <= most:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def collate(examples: Sequence[Example], preparer: Preparer, pad: int, layout: Layout = "padded") -> Batch:
    """Examples as one input: a row each, filled on the right, or all in one row without any filling.

    In one row each example's text positions begin again, from which the model knows where one ends.

    Raises:
        ValueError: several examples of a model that counts positions itself; each must stand alone.
    """
    if len(examples) > 1 and any(example.positions is None for example in examples):
        raise ValueError("examples without positions cannot share a batch")
    inputs, targets, weights, notes = _packed(examples) if layout == "packed" else _padded(examples, pad)
    tokens, area = sum(len(example.ids) for example in examples), inputs["input_ids"].numel()
    return Batch({**inputs, **pixels(examples, preparer)}, targets, weights, tokens, area, notes)


def pixels(examples: Sequence[Example], preparer: Preparer) -> dict[str, torch.Tensor]:
    """What the examples show, in their order, which is that of the placeholders."""
    parts: list[Mapping[str, torch.Tensor]] = []
    for kept, group in groupby(examples, key=lambda example: example.inputs is not None):
        if kept:
            parts += [example.inputs for example in group if example.inputs is not None]
        else:
            images = [image for example in group for image in example.images]
            parts += [preparer.tensors("", images)] if images else []
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: torch.cat([part[name] for part in parts if name in part]) for name in names}


Laid = tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]


def _padded(examples: Sequence[Example], pad: int) -> Laid:
    rows, longest = len(examples), max(len(example.ids) for example in examples)
    ids = np.full((rows, longest), pad)
    weights = np.zeros((rows, longest), dtype=np.float32)
    mask = np.zeros((rows, longest), dtype=np.int64)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = example.ids
        weights[row, : len(example.ids)] = example.weights
        mask[row, : len(example.ids)] = 1
    columns = np.flatnonzero(weights[:, 1:].any(axis=0)) if weights[:, 1:].any() else np.zeros(1, dtype=np.int64)
    inputs = {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask),
        "logits_to_keep": torch.from_numpy(columns),
    }
    if all(example.positions is not None for example in examples):
        positions = torch.zeros(3, rows, longest, dtype=torch.long)
        for row, example in enumerate(examples):
            if example.positions is not None:
                positions[:, row, : len(example.ids)] = example.positions
        inputs["position_ids"] = positions
    notes = {}
    for name in note_names(examples):
        held = np.zeros((rows, longest), dtype=np.float32)
        for row, example in enumerate(examples):
            held[row, : len(example.ids)] = example.notes.get(name, 0.0)
        notes[name] = torch.from_numpy(held[:, columns + 1])
    return inputs, torch.from_numpy(ids[:, columns + 1]), torch.from_numpy(weights[:, columns + 1]), notes


def note_names(examples: Iterable[Example]) -> list[str]:
    """What any of the examples says of its targets."""
    return sorted({name for example in examples for name in example.notes})


def _packed(examples: Sequence[Example]) -> Laid:
    ids = np.concatenate([example.ids for example in examples])
    firsts = np.cumsum([0, *(len(example.ids) for example in examples[:-1])])
    weights = np.concatenate([example.weights for example in examples])
    weights[firsts] = 0.0
    columns = np.flatnonzero(weights[1:]) if weights[1:].any() else np.zeros(1, dtype=np.int64)
    inputs = {"input_ids": torch.from_numpy(ids)[None], "logits_to_keep": torch.from_numpy(columns)}
    positions = [example.positions for example in examples if example.positions is not None]
    if len(positions) == len(examples):
        text = torch.cat([torch.arange(len(example.ids)) for example in examples])
        inputs["position_ids"] = torch.cat([text[None], torch.cat(positions, dim=1)])[:, None]
    none = [np.zeros(len(example.ids), dtype=np.float32) for example in examples]
    notes = {}
    for name in note_names(examples):
        held = np.concatenate([example.notes.get(name, zero) for example, zero in zip(examples, none, strict=True)])
        notes[name] = torch.from_numpy(held[columns + 1])[None]
    return inputs, torch.from_numpy(ids[columns + 1])[None], torch.from_numpy(weights[columns + 1])[None], notes


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of every step is this process's."""

    rank: int = 0
    world: int = 1


class Feed:
    """The micro-batches of each step, prepared in a thread while the step before them runs.

    Args:
        blank: an example without loss that shows one image; it joins every micro-batch that shows none, so that
            every process runs the vision tower every time, which sharded training needs.

    Attributes:
        preparing: seconds that preparation has taken so far, in its thread.
        waiting: seconds that steps have waited for it so far.
    """

    def __init__(
        self,
        cache: Cache,
        preparer: Preparer,
        *,
        count: int,
        batch: int,
        micro: int,
        seed: int,
        pad: int,
        layout: Layout = "padded",
        share: Share | None = None,
        blank: Example | None = None,
    ) -> None:
        self.cache, self.preparer, self.pad, self.layout = cache, preparer, pad, layout
        self.count, self.batch, self.micro, self.seed = count, batch, micro, seed
        self.share, self.blank = share or Share(), blank
        self.preparing = self.waiting = 0.0

    def step(self, step: int) -> list[Batch]:
        """The micro-batches of a step."""
        numbers = order(self.count, self.batch, self.seed, step)[self.share.rank :: self.share.world]
        examples = self.cache.get(numbers)
        most = 0 if any(example.positions is None for example in examples) else self.micro
        groups = split([len(example.ids) for example in examples], most, self.layout)
        return [self._collate([examples[place] for place in group]) for group in groups]

    def idle(self) -> Batch:
        """A micro-batch without loss, for a process that has run out of its own while others have not."""
        if self.blank is None:
            raise ValueError("a feed without a blank example cannot idle")
        return collate([self.blank], self.preparer, self.pad, self.layout)

    def _collate(self, examples: list[Example]) -> Batch:
        shows = any(example.images or example.inputs for example in examples)
        more = [] if shows or self.blank is None or examples[0].positions is None else [self.blank]
        return collate([*examples, *more], self.preparer, self.pad, self.layout)

    def steps(self, first: int, last: int) -> Generator[list[Batch], None, None]:
        """The micro-batches of steps ``first`` up to ``last``; a fault of preparation is raised here.

        Close it where it is left early: its thread then ends after the step it is at.
        """
        ready: queue.Queue[list[Batch] | BaseException] = queue.Queue(AHEAD)
        ended = threading.Event()
        worker = threading.Thread(target=self._prepare, args=(ready, ended, first, last), name="prh-feed", daemon=True)
        worker.start()
        try:
            for _ in range(first, last):
                start = time.perf_counter()
                made = ready.get()
                self.waiting += time.perf_counter() - start
                if isinstance(made, BaseException):
                    raise made
                yield made
        finally:
            ended.set()
            while worker.is_alive():
                try:
                    ready.get(timeout=0.05)
                except queue.Empty:
                    continue

    def _prepare(
        self, ready: queue.Queue[list[Batch] | BaseException], ended: threading.Event, first: int, last: int
    ) -> None:
        try:
            for step in range(first, last):
                if ended.is_set():
                    return
                start = time.perf_counter()
                made = self.step(step)
                self.preparing += time.perf_counter() - start
                ready.put(made)
        except BaseException as error:  # whatever it is, it is the training's and not this thread's
            ready.put(error)
