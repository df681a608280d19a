"""Tasks of lmms-eval, run in our loop and scored by their own code: ``lmms:NAME``, or ``lmms:NAME@FOLDER`` of tasks.

lmms-eval lives in a process of its own, under the interpreter that PRH_LMMS_EVAL_PYTHON names where it is not installed
beside us. The question is the text that the task writes, its options and answer instruction included. What is handed
to the task's scorer is what the profile reads: under ``strict`` the answer, under ``lmms`` the whole reply.
"""

from __future__ import annotations

import atexit
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from ..harness.child import Child, script_beside
from ..harness.digests import cache_dir, json_digest
from ..harness.errors import DataError, UsageError
from ..harness.intervals import mean
from ..harness.media import Media
from ..harness.task import DataOptions, Dataset, Row
from ..harness.types import AnswerKind, Chance, Json, Metric, Sample

PREFIX = "lmms:"
# Rows that are asked for at once.
BLOCK = 64


class LmmsTask:
    """One task of lmms-eval; see ``harness.task.Task``."""

    summary = "a task of lmms-eval, with its own scoring (lmms:NAME)"
    answer_kind: AnswerKind = "text"
    chance = Chance()
    settings: Mapping[str, Json] = {}
    illegible_at: int | None = None
    splits: tuple[str, ...] = ("test",)

    def __init__(self, name: str = "") -> None:
        if not name:
            raise UsageError("name the task of lmms-eval, such as --task lmms:vstar_bench")
        self.name = f"{PREFIX}{name}"
        self.task, _, folder = name.partition("@")
        self.folder = str(Path(folder).expanduser().resolve()) if folder else ""
        self._child: Child | None = None
        self._metrics: dict[str, bool] = {}
        self._about: dict[str, Json] = {}

    @property
    def primary(self) -> str:
        """The first metric that the task declares."""
        self._served()
        return next(iter(self._metrics))

    def _served(self) -> Child:
        if self._child is None:
            child = Child(f"lmms-eval's task {self.task}", "lmms_eval", script_beside(__file__, "lmms_worker.py"))
            atexit.register(child.close)
            media = cache_dir() / "lmms" / json_digest([self.task, self.folder])[:16]
            about = cast("dict[str, Json]", child.ask(do="open", name=self.task, include=self.folder, media=str(media)))
            metrics = cast("dict[str, bool]", about["metrics"])
            if not metrics:
                raise DataError(f"lmms-eval's task {self.task} declares no metric; it cannot be scored")
            self._child, self._about, self._metrics = child, about, metrics
        return self._child

    def load(self, options: DataOptions) -> Dataset:
        """The rows of the split that lmms-eval evaluates. Raises DataError or Prerequisite."""
        if options.data is not None:
            raise UsageError(f"{self.name} finds its data itself; name a folder of tasks as {PREFIX}NAME@FOLDER")
        child = self._served()
        count = int(cast(int, self._about["docs"]))
        samples: list[Sample] = []
        for start in range(0, count, BLOCK):
            rows = cast("list[dict[str, Json]]", child.ask(do="rows", start=start, stop=start + BLOCK))
            samples += [self._sample(start + number, row) for number, row in enumerate(rows)]
        source: dict[str, Json] = {"layout": "lmms-eval", "version": self._about["version"], "counts": {"all": count}}
        return Dataset(tuple(samples), source)

    def _sample(self, number: int, row: Mapping[str, Json]) -> Sample:
        media = []
        for position, medium in enumerate(cast("list[dict[str, str]]", row["media"]), 1):
            path = Path(medium["path"])
            media.append(Media("video" if medium["kind"] == "video" else "image", f"{number}-{position}", path))
        gold = tuple(cast("list[str]", row["target"]))
        return Sample(str(number), str(row["question"]), tuple(media), gold, "text", cluster=str(number))

    def score(self, sample: Sample, answer: str | None) -> dict[str, float]:
        """What the task's scorer gives this answer; no answer is an empty one."""
        found = self._served().ask(do="score", number=int(sample.id), text=answer or "")
        return cast("dict[str, float]", found)

    def aggregate(self, rows: Sequence[Row]) -> dict[str, Metric]:
        """The task's own figures. One that is the mean of its rows, or a hundred times that, has an interval."""
        given: list[Json] = [[int(row.id), row.answer or ""] for row in rows]
        found = cast("dict[str, float | None]", self._served().ask(do="aggregate", rows=given)) if rows else {}
        return {name: _metric(found.get(name), name, rows) for name in self._metrics}


def _metric(value: float | None, name: str, rows: Sequence[Row]) -> Metric:
    scored = [row for row in rows if name in row.scores]
    if value is None or len(scored) < len(rows) or not rows:
        return Metric(value, None, None, len(rows))
    ours = mean([row.scores[name] for row in scored], [row.cluster or row.id for row in scored])
    for unit in (1.0, 100.0):
        if ours.value is not None and abs(value - unit * ours.value) < 1e-6 * unit:
            return ours
    return Metric(value, None, None, len(rows))


def is_foreign(name: str) -> bool:
    """Whether a task is one of lmms-eval's."""
    return name.startswith(PREFIX)
