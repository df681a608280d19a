"""What trajectories are made from: a question with its evidence, and the plugins that yield them.

A source is a plugin of the group ``prh.sources``. It reads one kind of data in that data's own schema and
yields seeds; which trajectories are made of them, and who writes the analyses, is not its business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..harness.types import Json, Sample


@dataclass(frozen=True, slots=True)
class Seed:
    """One question with where its answer is to be seen.

    Attributes:
        sample: question, media, accepted answers; its ``evidence`` is the reference cue: a box in pixels of an
            original image, or frames of a video, from 1. Empty where an endpoint teacher is to propose it.
        source: name of the plugin that yielded it.
        licence: of the data, as their publisher names it.
        origin: where it stands in the data: file, row, split; it goes into provenance.
        notes: what the annotations say beyond the sample, such as ``{"target": "red square"}``; a teacher that
            writes from annotations writes from this.
    """

    sample: Sample
    source: str
    licence: str
    origin: Mapping[str, Json] = field(default_factory=dict)
    notes: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What a source is asked for.

    Attributes:
        data: local file or folder; None for a source that makes its own data.
        split: of the data; an evaluation split is refused before a source is opened.
        seed: for what a source leaves to chance.
        settings: options of one source alone; it refuses names it does not know with a UsageError.
        progress: called with (done, total) while data are made.
    """

    data: Path | None = None
    split: str = "train"
    seed: int = 0
    settings: Mapping[str, Json] = field(default_factory=dict)
    progress: Callable[[int, int], None] | None = None


class Source(Protocol):
    """Yields seeds, in an order that depends on its options alone.

    Attributes:
        name: under which it is registered.
        summary: one line for ``prh list sources``.
        licence: of its data, as their publisher names it.
    """

    name: str
    summary: str
    licence: str

    def seeds(self, options: SourceOptions) -> Iterable[Seed]:
        """The seeds. Raises DataError naming file and row, UsageError for a wrong option."""
        ...
