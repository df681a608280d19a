"""Looks at how far a practice has come."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import torch

from ..harness.settings import Setting
from .batches import collate, split
from .drills import Drill, drills
from .examples import Example
from .exercises import exercise
from .pictures import Album
from .trainable import Trainable

# How many pictures and how many drills of a kind a look is at.
LOOKED = 48
NUMBERS = re.compile(r"[01]\.\d")


class Probe:
    """Looks at what has been learned, on pictures that are never practised, each token given those before it.

    Attributes:
        micro: most tokens, padding included, that go through the model at once.
    """

    def __init__(self, tasks: Iterable[str], micro: int, engine: Trainable, setting: Setting) -> None:
        self.micro, self.engine = micro, engine
        self._sets: dict[str, list[Example]] = defaultdict(list)
        for name in sorted(tasks):
            album = Album(name, 9999)
            rng = random.Random(name)  # noqa: S311 - exercises, not secrets
            for number in range(LOOKED):
                picture = album(number)
                for drill in drills(picture, rng):
                    for mark in _marks(f"{name}/{drill.kind}", drill, len({one.name for one in picture.things})):
                        if len(self._sets[mark]) < LOOKED:
                            self._sets[mark].append(exercise(mark, drill, engine, setting, "tokens"))

    @torch.no_grad()
    def __call__(self, model: torch.nn.Module) -> dict[str, float]:
        """By drill, the share of replies that are right in every token, boxes within a tenth."""
        model.eval()
        return {key: sum(self._right(model, held)) / len(held) for key, held in self._sets.items()}

    def _right(self, model: torch.nn.Module, held: Sequence[Example]) -> Iterator[bool]:
        decode = self.engine.processor.decode
        for group in split([len(example.ids) for example in held], self.micro):
            batch = collate([held[place] for place in group], self.engine.processor, self.engine.pad)
            guessed = model(**batch.inputs, use_cache=False).logits.argmax(-1)
            for row in range(len(group)):
                kept = batch.weights[row] > 0
                said = [decode([int(number)]) for number in guessed[row][kept]]
                want = [decode([int(number)]) for number in batch.targets[row][kept]]
                yield all(_near(a, b) for a, b in zip(said, want, strict=True))


def _marks(key: str, drill: Drill, things: int) -> list[str]:
    """What a drill counts under: places by how many things there are, readings by the form of what is read."""
    if drill.kind == "attempt":  # nothing there to be right about
        return []
    if drill.kind == "where":
        return [f"{key} of {things}"]
    return [key if drill.kind in ("side", "choice", "call") else f"{key} {' '.join(drill.reply.split()[:2])}"]


def _near(said: str, want: str) -> bool:
    if NUMBERS.fullmatch(said) and NUMBERS.fullmatch(want):
        return abs(float(said) - float(want)) < 0.15
    return said == want
