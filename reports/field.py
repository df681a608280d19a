"""Who is on the page: entrants, the tasks they are shown on, their runs, and what a comparison found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from ..harness.errors import PrhError, UsageError
from ..harness.evaluate import answer_tag, sensitivity
from ..harness.intervals import mean
from ..harness.task import Row
from ..harness.types import Metric
from .compare import Comparison, Result, compare_entrants
from .episodes import visible
from .runs import COSTS, Entrant, Outcome, Run, load_all
from .statistics import average

MOST = 24
# Above this many episodes the other profiles are left to `prh score --profile all`, which takes its time.
READ_AGAIN = 1000
LONGEST_LABEL = 120


@dataclass(frozen=True)
class Stand:
    """One entrant on one task.

    Attributes:
        runs: its run folders, several where they are seeds of one training.
    """

    number: int
    runs: tuple[Run, ...]

    @cached_property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Its judged episodes."""
        return tuple(outcome for run in self.runs for outcome in run.outcomes.values())

    @property
    def rows(self) -> list[Row]:
        """What the profile made of its replies."""
        return [outcome.row for outcome in self.outcomes]

    @property
    def errors(self) -> int:
        """Episodes that ended in an engine or data error."""
        return sum(sum(run.errors.values()) for run in self.runs)

    @property
    def episodes(self) -> int:
        """All its episodes, errors included."""
        return sum(run.episodes for run in self.runs)

    @cached_property
    def profiles(self) -> Mapping[str, Metric]:
        """The primary metric of the same replies under every profile that has rules for the task; none of many runs."""
        run = self.runs[0]
        if self.episodes > READ_AGAIN:
            return {}
        try:
            tag = answer_tag(str(run.identity.get("protocol")))
            every = cast("dict[str, dict[str, float | None]]", sensitivity(run.folder, run.task, tag))
        except PrhError:
            return {}
        return {
            name: Metric(own["value"], own["low"], own["high"], int(own["n"] or 0))
            for name, own in every.items()
            if "error" not in own
        }

    def rate(self, metric: str, outcomes: Sequence[Outcome] | None = None) -> Metric:
        """The mean of a score, a rate or a cost over episodes, with its interval."""
        own = self.outcomes if outcomes is None else outcomes
        known = [(value, o.row.cluster) for o in own if (value := o.value(metric)) is not None]
        values, clusters = [value for value, _ in known], [cluster for _, cluster in known]
        bounded = metric not in COSTS and all(0 <= value <= 1 for value in values)
        return mean(values, clusters) if bounded else average(values, clusters)

    def op_errors(self, kinds: Sequence[tuple[bool, str]] | None = None) -> Metric:
        """Failed over attempted operations; n counts the operations."""
        each = kinds if kinds is not None else list(self._operations())
        return mean([float(failed) for failed, _ in each], [cluster for _, cluster in each])

    def _operations(self) -> Sequence[tuple[bool, str]]:
        return [
            (place < len(outcome.failed), outcome.row.cluster)
            for outcome in self.outcomes
            for place in range(outcome.attempted)
        ]


@dataclass(frozen=True, slots=True)
class TaskField:
    """One task of the page.

    Attributes:
        stands: of each entrant that has a run of it, by the entrant's number.
        results: of each candidate, by its number; empty for a page about one entrant.
    """

    number: int
    name: str
    primary: str
    profile: str
    stands: Mapping[int, Stand]
    results: Mapping[int, Result]

    @property
    def synthetic(self) -> bool:
        """Whether it is a drawn miniature and no benchmark."""
        manifest = next(iter(self.stands.values())).runs[0].manifest
        dataset = manifest.get("dataset")
        return isinstance(dataset, dict) and dataset.get("synthetic") is True


@dataclass(frozen=True, slots=True)
class Field:
    """Everything that a page is about, training curves aside.

    Attributes:
        labels: of the entrants, the baseline first, as a page may show them.
        comparison: None where there is one entrant.
    """

    labels: tuple[str, ...]
    tasks: tuple[TaskField, ...]
    comparison: Comparison | None


def field_of(columns: Sequence[Entrant], profile: str | None, allow: Sequence[str]) -> Field:
    """Read and compare the entrants, the baseline first. Raises PrhError."""
    if len(columns) > MOST:
        raise UsageError(f"{len(columns)} checkpoints are more than a page can show; name at most {MOST}")
    labels = tuple(visible(entrant.label, LONGEST_LABEL) for entrant in columns)
    if len(columns) == 1:
        return Field(labels, _alone(columns[0], profile), None)
    comparison = compare_entrants(columns, profile, allow)
    places = {entrant.label: place for place, entrant in enumerate(columns)}
    tasks = []
    for number, found in enumerate(comparison.tasks):
        results = {places[result.label]: result for result in found.results}
        baseline = Stand(0, found.results[0].pairing.baseline)
        stands = {0: baseline, **{place: Stand(place, result.pairing.candidate) for place, result in results.items()}}
        tasks.append(TaskField(number, found.task, found.primary, found.profile, stands, results))
    return Field(labels, tuple(tasks), comparison)


def _alone(entrant: Entrant, profile: str | None) -> tuple[TaskField, ...]:
    tasks = []
    for number, name in enumerate(entrant.runs):
        runs = load_all(entrant, name, profile)
        tasks.append(TaskField(number, name, runs[0].task.primary, runs[0].profile.name, {0: Stand(0, runs)}, {}))
    return tuple(tasks)
