"""The synthetic miniature of MVBench: drawn on demand as H.264 clips, read by the benchmark's own code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..harness.task import Illustration
from ..harness.types import Chance, Json
from .mini import mvbench
from .mini.base import Drawn
from .mini.clips import SEEN, SIDE
from .mvbench import MVBench


class MVBenchMini(Drawn, MVBench):
    """48 questions about drawn clips for each of five of MVBench's subtasks; more with ``editions``."""

    name = mvbench.NAME
    summary = "synthetic miniature of MVBench: drawn clips whose fine signs are proven illegible in the overview"
    drawing = mvbench.VERSION
    chance = Chance({subtask: 1 / options for subtask, options in mvbench.OPTIONS.items()})
    counts: Mapping[str, int] = dict.fromkeys(mvbench.FOLDERS, mvbench.EACH)
    settings: Mapping[str, Json] = {
        "budget": {"video_frame": [SEEN**2] * 2, "selected_frame": [SIDE**2] * 2, "crop": [SEEN**2, SIDE**2]}
    }

    def make(self, split: str, progress: Callable[[int, int], None] | None) -> Path:
        return mvbench.make(split, self.editions, progress)

    def annotations(self, split: str) -> Mapping[str, Mapping[str, Json]]:
        """What the drawings know and the files do not say, by sample."""
        numbers: Counter[str] = Counter()
        found: dict[str, Mapping[str, Json]] = {}
        for item in mvbench.items(split, self.editions):
            found[f"{item.subtask}/{numbers[item.subtask]:03}"] = mvbench.notes(item)
            numbers[item.subtask] += 1
        return found

    def illustrations(self, seed: int) -> Sequence[Callable[[], Illustration]]:
        return mvbench.illustrations(seed)
