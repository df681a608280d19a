"""The synthetic miniature of TallyQA's complex questions: drawn on demand, read by the benchmark's own code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..harness.task import Illustration
from ..harness.types import Chance, Json
from .mini import tallyqa
from .mini.base import Drawn
from .mini.hiding import OVERVIEW
from .tallyqa import TallyQAComplex


class TallyQAComplexMini(Drawn, TallyQAComplex):
    """216 complex questions about dots on named objects, simple ones between them; more with ``editions``."""

    name = tallyqa.NAME
    summary = "synthetic miniature of TallyQA, complex: dots on drawn objects, hidden ones proven illegible"
    drawing = tallyqa.VERSION
    chance = Chance({"": 1 / len(tallyqa.COUNTS)})
    counts: Mapping[str, int] = {"": tallyqa.COMPLEX}
    illegible_at: int | None = OVERVIEW**2
    settings: Mapping[str, Json] = {"budget": {"input": [OVERVIEW**2] * 2, "crop": [84**2, OVERVIEW**2]}}

    def make(self, split: str, progress: Callable[[int, int], None] | None) -> Path:
        return tallyqa.make(split, self.editions, progress)

    def illustrations(self, seed: int) -> Sequence[Callable[[], Illustration]]:
        return tallyqa.illustrations(seed)
