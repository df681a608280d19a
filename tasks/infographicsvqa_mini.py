"""The synthetic miniature of InfographicsVQA: drawn on demand, read by the benchmark's own code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..harness.task import Illustration
from ..harness.types import Chance, Json
from .infographicsvqa import InfographicsVQA
from .mini import infographicsvqa
from .mini.base import Drawn


class InfographicsVQAMini(Drawn, InfographicsVQA):
    """240 questions about the labels and values of drawn posters; more with ``editions``."""

    name = infographicsvqa.NAME
    summary = "synthetic miniature of InfographicsVQA: drawn posters whose small print is proven illegible"
    drawing = infographicsvqa.VERSION
    chance = Chance({"": infographicsvqa.CHANCE})
    counts: Mapping[str, int] = {"": 2 * infographicsvqa.EACH * infographicsvqa.POSTERS}
    illegible_at: int | None = 140**2
    settings: Mapping[str, Json] = {"budget": {"input": [140**2] * 2, "crop": [84**2, 140**2]}}

    def make(self, split: str, progress: Callable[[int, int], None] | None) -> Path:
        return infographicsvqa.make(split, self.editions, progress)

    def illustrations(self, seed: int) -> Sequence[Callable[[], Illustration]]:
        return infographicsvqa.illustrations(seed)
