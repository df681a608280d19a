"""Who is told how a training goes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..harness.types import Json

if TYPE_CHECKING:
    from .loop import Training


class Watcher:
    """What a caller is told while a training goes on, on its main process; override what is of interest."""

    def opened(self, training: Training, first: int) -> None:
        """The training is about to start, or to go on, with this step."""

    def stepped(self, row: Mapping[str, Json]) -> None:
        """A step was done."""

    def saved(self, path: Path) -> None:
        """A checkpoint was written."""

    def evaluated(self, row: Mapping[str, Json]) -> None:
        """A checkpoint was evaluated."""

    def ended(self, final: Path) -> None:
        """The training is done, and this is its last checkpoint."""
