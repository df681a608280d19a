"""Questions to be practised on that no benchmark has: a source of seeds as a task.

A run's folder names its task, so that what is sampled for a training can be scored and shown like any evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from ..harness import registry
from ..harness.errors import DataError, Prerequisite
from ..harness.intervals import mean
from ..harness.task import DataOptions, Dataset, Row
from ..harness.types import AnswerKind, Chance, Json, Metric, Sample
from .seeds import Source, SourceOptions


class Queries:
    """A source's questions with their accepted answers.

    Attributes:
        source: name of the plugin.
    """

    name: str
    summary: str
    source: str
    answer_kind: AnswerKind = "text"
    primary = "accuracy"
    chance = Chance()
    settings: Mapping[str, Json] = {}
    illegible_at: int | None = None
    splits: tuple[str, ...] = ("train",)

    def load(self, options: DataOptions) -> Dataset:
        """The questions that have accepted answers. Raises DataError, Prerequisite."""
        if options.data is None:
            raise Prerequisite(f"{self.name} is read from a local folder; name it, such as data = 'DIR' or --data DIR")
        source = cast(Source, registry.make("sources", self.source))
        wanted = SourceOptions(options.data, "train", options.seed, progress=options.progress)
        samples = tuple(seed.sample for seed in source.seeds(wanted) if seed.sample.gold)
        if not samples:
            raise DataError(f"{options.data} holds no question with an answer")
        return Dataset(tuple(replace(one, cluster=one.cluster or one.id) for one in samples), {"source": self.source})

    def score(self, sample: Sample, answer: str | None) -> dict[str, float]:
        """1 for an accepted answer, else 0; letter case does not matter."""
        right = answer is not None and _plain(answer) in {_plain(gold) for gold in sample.gold}
        return {"accuracy": float(right)}

    def aggregate(self, rows: Sequence[Row]) -> dict[str, Metric]:
        """Mean accuracy, robust to questions that share an image."""
        return {"accuracy": mean([row.scores["accuracy"] for row in rows], [row.cluster or row.id for row in rows])}


class PixelReasonerRL(Queries):
    """The questions that Pixel Reasoner was reinforced on."""

    name = "pixelreasoner-rl"
    summary = "TIGER-Lab/PixelReasoner-RL-Data: questions to reinforce on, from a local folder"
    source = "pixelreasoner-rl"


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
