"""The synthetic miniature of V*: drawn on demand in the benchmark's own layout, read by the benchmark's own code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..harness.task import Illustration
from ..harness.types import Json
from .mini import vstar
from .mini.base import Drawn
from .mini.hiding import OVERVIEW
from .vstar import VStar


class VStarMini(Drawn, VStar):
    """115 questions about details and 76 about positions; a trainer may have as many again with more ``editions``."""

    name = "vstar-mini"
    summary = "synthetic miniature of V*: drawn scenes whose small details are proven illegible in the overview"
    drawing = vstar.VERSION
    illegible_at: int | None = OVERVIEW**2
    settings: Mapping[str, Json] = {"budget": {"input": [OVERVIEW**2] * 2, "crop": [84**2, OVERVIEW**2]}}

    def make(self, split: str, progress: Callable[[int, int], None] | None) -> Path:
        return vstar.make(split, self.editions, progress)

    def illustrations(self, seed: int) -> Sequence[Callable[[], Illustration]]:
        return vstar.illustrations(seed)
