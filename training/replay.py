"""Selective Sample Replay (VL-Rethinker, arXiv 2504.08837): learn again from the rollouts that taught most.

The store holds names of rollouts, whose tokens, images and log-probabilities stand in their run folders. A rollout is
drawn in proportion to its advantage, with replacement; it keeps the log-probabilities that it was sampled with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from ..harness.errors import StoreError, UsageError
from ..harness.types import Json


@dataclass(frozen=True, slots=True)
class ReplayPart:
    """Selective Sample Replay.

    Attributes:
        fill: how many rollouts a round learns from, as a share of those it samples: fresh ones first, drawn ones
            after; 0 learns from the fresh ones alone.
        alpha: a rollout is drawn in proportion to ``|advantage| ** alpha``; at 0 all alike.
        age: how many rounds a rollout stays; at 0 the store is emptied with each round, as in the paper.
    """

    fill: float = 0.0
    alpha: float = 1.0
    age: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.fill <= 1:
            raise UsageError(f"replay.fill must be a share from 0 to 1, not {self.fill}")
        if not 0 <= self.alpha < math.inf:
            raise UsageError(f"replay.alpha must be a number from 0, not {self.alpha}")
        if self.age < 0:
            raise UsageError(f"replay.age must be a whole number from 0, not {self.age}")


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A rollout that can be learned from.

    Attributes:
        round: in which it was sampled; ``task``, ``id`` and ``repeat`` find it there.
        version: how many updates the weights had seen that sampled it.
    """

    round: int
    task: str
    id: str
    repeat: int
    advantage: float
    version: int


@dataclass(slots=True)
class Store:
    """The rollouts that may be drawn."""

    part: ReplayPart
    entries: list[Entry] = field(default_factory=list)

    def add(self, number: int, fresh: Sequence[Entry]) -> None:
        """Take in what a round brought, and let go of what is too old by then."""
        self.entries += fresh
        self.entries = [entry for entry in self.entries if number - entry.round <= self.part.age]

    def draw(self, count: int, rng: np.random.Generator) -> list[Entry]:
        """Rollouts by chance; none where the store is empty, or holds nothing that could be drawn."""
        weights = np.array([abs(entry.advantage) for entry in self.entries]) ** self.part.alpha
        if count <= 0 or not weights.size or not weights.sum():
            return []
        chosen = rng.choice(len(self.entries), size=count, p=weights / weights.sum())
        return [self.entries[number] for number in chosen]

    def select(self, fresh: Sequence[Entry], wanted: int, rng: np.random.Generator) -> list[Entry]:
        """What a round learns from: the fresh rollouts, in any order as far as there is room, then drawn ones."""
        if not self.part.fill:
            return list(fresh)
        kept = [fresh[number] for number in rng.permutation(len(fresh))[:wanted]]
        return kept + self.draw(wanted - len(kept), rng)

    def json(self) -> Json:
        """The store as a checkpoint keeps it."""
        return [[one.round, one.task, one.id, one.repeat, one.advantage, one.version] for one in self.entries]

    def load(self, value: Json) -> None:
        """Hold what a checkpoint kept. Raises StoreError."""
        try:
            rows = [cast("tuple[int, str, str, int, float, int]", row) for row in cast("list[list[Json]]", value)]
            self.entries = [Entry(int(a), str(b), str(c), int(d), float(e), int(f)) for a, b, c, d, e, f in rows]
        except (TypeError, ValueError) as error:
            raise StoreError(f"the replay store of the checkpoint cannot be read: {error}") from None
