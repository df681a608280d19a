"""What a synthetic miniature is to those who only want its files, and what those of the later benchmarks share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from ...harness.errors import UsageError
from ...harness.task import DataOptions, Dataset, Illustration
from ..base import Benchmark
from ..sources import Repository


@runtime_checkable
class Miniature(Protocol):
    """A task whose data are drawn, not fetched."""

    def folder(self, options: DataOptions) -> Path:
        """The folder of a split, in the layout of its benchmark; made where it is not there yet. Raises DataError."""
        ...


class Drawn(Benchmark):
    """Base of miniatures, to stand before the benchmark whose code reads the files.

    Attributes:
        drawing: version of what is drawn.
        editions: how many times the number of samples there are; a trainer may have more than one.
    """

    drawing: ClassVar[int]
    repositories: tuple[Repository, ...] = ()
    splits: tuple[str, ...] = ("test", "train")
    firm_counts = True

    def __init__(self, editions: int = 1) -> None:
        self.editions = editions
        self.counts = {category: count * editions for category, count in type(self).counts.items()}
        self.unlabelled = {}

    @abstractmethod
    def make(self, split: str, progress: Callable[[int, int], None] | None) -> Path:
        """The folder of a split in the cache, made where it is missing. Raises DataError."""

    @abstractmethod
    def illustrations(self, seed: int) -> Sequence[Callable[[], Illustration]]:
        """Pictures and questions like its own, of no split."""

    def folder(self, options: DataOptions) -> Path:
        """The folder of a split in the cache, made where it is missing. Raises UsageError, DataError."""
        if options.split not in self.splits:
            raise UsageError(f"{self.name} has no split {options.split!r}; it has {', '.join(self.splits)}")
        return self.make(options.split, options.progress)

    def load(self, options: DataOptions) -> Dataset:
        """The samples of a made folder, or of a copy of one. Raises UsageError, DataError."""
        if options.data is not None:
            return super().load(options)
        dataset = super().load(replace(options, data=self.folder(options)))
        return replace(dataset, source={**dataset.source, "synthetic": True, "version": self.drawing})
