"""How much better a rollout is than the others of its question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..harness.errors import UsageError
from .examples import check_choice

SCALES = ("none", "std")
# What is added to a deviation that is divided by, as in TRL and in DeepSeekMath's own code.
EPSILON = 1e-4


@dataclass(frozen=True, slots=True)
class AdvantagePart:
    """How rewards become advantages.

    Attributes:
        scale: ``none``: the reward less its group's mean, as in the paper; ``std``: that, divided by the group's
            standard deviation (of a sample, n - 1).
        uniform: a group teaches nothing if all of its rewards are nearer than this to their mean.
    """

    scale: str = "none"
    uniform: float = 0.01

    def __post_init__(self) -> None:
        check_choice(self.scale, SCALES, "advantage.scale")
        if not 0 <= self.uniform < math.inf:
            raise UsageError(f"advantage.uniform must be a number from 0, not {self.uniform}")

    def of(self, rewards: Sequence[float]) -> list[float] | None:
        """The advantage of each of a group's rewards; None where the group teaches nothing."""
        if len(rewards) < 2:
            return None
        mean = math.fsum(rewards) / len(rewards)
        found = [reward - mean for reward in rewards]
        spread = max(map(abs, found))
        if spread == 0 or spread < self.uniform:
            return None
        if self.scale == "none":
            return found
        deviation = math.sqrt(math.fsum(value * value for value in found) / (len(found) - 1))
        return [value / (deviation + EPSILON) for value in found]
