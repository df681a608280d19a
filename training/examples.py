"""From a trajectory to what a training step needs of it: ids, loss weights, positions and images.

The loss covers an id exactly where the ledger says so: ``trained`` turns, their end token included, and nothing
else. Weights say how much each of these ids counts.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..harness.errors import DataError, UsageError
from ..harness.ledger import Conversation
from ..harness.settings import Setting
from .trainable import Trainable, View
from .trajectories import Lesson, perform
from .wording import BOXED

if TYPE_CHECKING:
    import torch
    from PIL import Image

Weighing = Literal["tokens", "samples", "turns"]
WEIGHINGS: tuple[str, ...] = get_args(Weighing)
Mask = Literal["flags", "last-two", "all"]
MASKS: tuple[str, ...] = get_args(Mask)
# What an answer stands behind.
OPENING = BOXED.format(answer="").removesuffix("}")
# How many trajectories are performed at once; each holds its decoded media.
AT_ONCE = 16


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A trajectory, encoded.

    Attributes:
        ids: L token ids, visual tokens expanded.
        weights: L loss weights, that of an id as a target; 0 where it is not trained.
        positions: 3 x L of M-RoPE, or None where the model counts positions itself.
        images: what the model sees, in order; empty where ``inputs`` holds what was made of them.
        inputs: the model's other inputs, where they cannot be made again from the images alone.
        starts: where each of the images begins in ``ids``.
        notes: by name, L numbers, those of an id as a target, for losses that want more than a weight.
    """

    name: str
    ids: NDArray[np.int64]
    weights: NDArray[np.float32]
    positions: torch.Tensor | None
    images: tuple[Image.Image, ...] = ()
    inputs: Mapping[str, torch.Tensor] | None = None
    starts: tuple[int, ...] = ()
    notes: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes held, about."""
        held = sum(image.width * image.height * 3 for image in self.images)
        held += sum(value.numel() * value.element_size() for value in (self.inputs or {}).values())
        return held + 40 * len(self.ids)


def weigh(trained: Sequence[bool], turns: Sequence[tuple[int, int]], how: Weighing) -> NDArray[np.float32]:
    """The loss weight of each id.

    ``tokens``: every trained id counts alike, so that a batch's loss is its mean over tokens. ``samples``: every
    trajectory counts alike. ``turns``: every trajectory, and within it every trained turn, counts alike, so that
    a short answer is not drowned by a long call.
    """
    weights = np.asarray(trained, dtype=np.float32)
    if how == "tokens" or not weights.any():
        return weights
    if how == "samples":
        return np.asarray(weights / weights.sum())
    kept = [(start, end) for start, end in turns if weights[start:end].any()]
    for start, end in kept:
        weights[start:end] /= weights[start:end].sum() * len(kept)
    return weights


def train_last(conversation: Conversation, count: int | None) -> None:
    """Mark so many of the assistant's last turns as trained, whatever they are; all of them where there is no count."""
    spoken = [number for number, segment in enumerate(conversation.segments) if segment.role == "assistant"]
    kept = spoken if count is None else spoken[-count:]
    for number in spoken:
        conversation.segments[number] = replace(conversation.segments[number], trained=number in kept)


def encode(name: str, conversation: Conversation, engine: Trainable, how: Weighing, longest: int) -> Example:
    """A conversation as an example.

    Raises:
        DataError: it has nothing to train, is longer than ``longest``, or cannot be masked turn by turn.
    """
    # Images are prepared with the batch that they are learned in; what cannot be made again then is made here.
    again = engine.processor.factor > 1
    view: View = engine.encode(conversation, pixels=not again)
    if set(view.inputs) - {"pixel_values", "image_grid_thw"}:
        again, view = False, engine.encode(conversation)
    if not view.exact:
        raise DataError(f"{name}: the checkpoint's chat template rewrites earlier turns, so none can be masked")
    if len(view.ids) > longest:
        raise DataError(f"{name}: {len(view.ids)} tokens, at most {longest} are allowed; lower its pixel budgets")
    if not any(view.trained):
        raise DataError(f"{name}: no turn of it is marked as trained")
    ids, weights = np.asarray(view.ids, dtype=np.int64), weigh(view.trained, view.turns, how)
    if again:
        starts = tuple(start for start, _ in view.spans)
        return Example(name, ids, weights, view.positions, tuple(conversation.images()), starts=starts)
    return Example(name, ids, weights, view.positions, inputs=view.inputs)


def stress(example: Example, engine: Trainable, factor: float) -> Example:
    """The same where what its last trained ``\\boxed{}`` holds, to a first brace, counts so many times as much."""
    trained = np.flatnonzero(example.weights)
    ids, decode = example.ids[trained].tolist(), engine.processor.decode
    begin = next((place for place in range(len(ids) - 1, -1, -1) if OPENING in decode(ids[place:])), None)
    if begin is None:
        return example
    start = next(end for end in range(begin + 1, len(ids) + 1) if OPENING in decode(ids[begin:end]))
    weights = example.weights.copy()
    for place in range(start, len(ids)):
        inside, closing, _ = decode([ids[place]]).partition("}")
        if inside or not closing:
            weights[trained[place]] *= factor
        if closing:
            break
    return replace(example, weights=weights)


@dataclass(frozen=True, slots=True)
class Performer:
    """Makes examples of lessons for one engine.

    Attributes:
        longest: most tokens of an example.
        answer: how many times as much a token of a boxed answer counts.
    """

    engine: Trainable
    setting: Setting
    how: Weighing = "tokens"
    mask: Mask = "flags"
    longest: int = 1 << 30
    answer: float = 1.0

    def examples(self, lessons: Sequence[Lesson]) -> list[Example]:
        """The lessons as examples, in order. Raises DataError."""
        return [
            example for start in range(0, len(lessons), AT_ONCE) for example in self._some(lessons[start:][:AT_ONCE])
        ]

    def _some(self, lessons: Sequence[Lesson]) -> list[Example]:
        async def together() -> list[Example]:
            return list(await asyncio.gather(*map(self._one, lessons)))

        return asyncio.run(together())

    async def _one(self, lesson: Lesson) -> Example:
        conversation = (await perform(lesson.sample, lesson.script, self.setting, self.engine.fit)).conversation
        if self.mask != "flags":
            train_last(conversation, 2 if self.mask == "last-two" else None)
        example = encode(lesson.name, conversation, self.engine, self.how, self.longest)
        return example if self.answer == 1 else stress(example, self.engine, self.answer)


Maker = Callable[[], Example]


class Cache:
    """Examples by number, made when they are first asked for and kept while there is room.

    Attributes:
        made: how many examples were made, those made again included.
    """

    def __init__(self, make: Callable[[Sequence[int]], Sequence[Example]], room: int) -> None:
        self.made = 0
        self._make = make
        self._room = room
        self._held: OrderedDict[int, Example] = OrderedDict()
        self._size = 0

    def get(self, numbers: Sequence[int]) -> list[Example]:
        """The examples of these numbers, in order."""
        missing = [number for number in dict.fromkeys(numbers) if number not in self._held]
        fresh = dict(zip(missing, self._make(missing), strict=True)) if missing else {}
        self.made += len(missing)
        found = [fresh[number] if number in fresh else self._held[number] for number in numbers]
        for number in numbers:
            if number in self._held:
                self._held.move_to_end(number)
        for number, example in fresh.items():
            self._held[number] = example
            self._size += example.size
        while self._size > self._room and self._held:
            _, dropped = self._held.popitem(last=False)
            self._size -= dropped.size
        return found


def lesson_cache(lessons: Sequence[Lesson], performer: Performer, room: int) -> Cache:
    """A cache over lessons; ``room`` in bytes."""
    return Cache(partial(_of, lessons, performer), room)


def _of(lessons: Sequence[Lesson], performer: Performer, numbers: Sequence[int]) -> list[Example]:
    return performer.examples([lessons[number] for number in numbers])


def check_choice(value: str, known: Sequence[str], where: str) -> str:
    """The value, if it is one of those known. Raises UsageError."""
    if value not in known:
        raise UsageError(f"{where} must be one of {', '.join(known)}, not {value!r}")
    return value
