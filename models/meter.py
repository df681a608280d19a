"""What an engine has done, and where its time went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..harness.types import Json

PARTS = ("prefill", "decode", "vision", "idle")


@dataclass(slots=True)
class Meter:
    """Counters of an engine that keeps what it has read.

    Attributes:
        prompted: tokens of prompts that turns were asked for with, images included.
        cached: of these, how many were found read already.
        prefilled: how many were read, those of a conversation that was put back and read again included.
        sampled: tokens that were drawn.
        steps: forwards that ran at least one row.
        occupied: rows that these ran, summed.
        refilled: tokens of a conversation's own past that were no longer there when it came back.
        paused: conversations that had to leave the batch in the middle of a turn for want of memory.
        seconds: of the engine's thread, by what it did.
    """

    size: int
    prompted: int = 0
    cached: int = 0
    prefilled: int = 0
    sampled: int = 0
    steps: int = 0
    occupied: int = 0
    refilled: int = 0
    paused: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    def spend(self, part: str, seconds: float) -> None:
        """Count some seconds."""
        self.seconds[part] += seconds

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Count the time of a block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spend(part, time.perf_counter() - start)

    def summary(self) -> dict[str, Json]:
        """For a manifest and for the screen."""
        busy = sum(seconds for part, seconds in self.seconds.items() if part != "idle")
        return {
            "new_tokens": self.sampled,
            "prompt_tokens": self.prompted,
            "cached_tokens": self.cached,
            "prefilled_tokens": self.prefilled,
            "refilled_tokens": self.refilled,
            "paused": self.paused,
            "steps": self.steps,
            "cache_share": round(self.cached / self.prompted, 4) if self.prompted else None,
            "occupancy": round(self.occupied / self.steps / self.size, 4) if self.steps else None,
            "tokens_per_busy_second": round(self.sampled / busy, 1) if busy else None,
            "seconds": {part: round(seconds, 3) for part, seconds in self.seconds.items()},
        }
