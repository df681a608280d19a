"""One comparison: each task that the entrants share, each candidate against the baseline, in every metric and part."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from ..harness.errors import UsageError
from ..harness.evaluate import load_profile, load_task
from ..harness.intervals import mean
from ..harness.task import Row
from ..harness.types import Metric
from .pairing import ALLOWED, Pairing, pair
from .runs import COSTS, RATES, Entrant, Run, entrants, load_all
from .statistics import (
    NOTHING,
    Agreement,
    Difference,
    Floats,
    Repeats,
    agreement,
    cluster_bootstrap,
    detectable,
    holm,
    paired_difference,
    repeats,
    resampled,
)

OP_ERROR_RATE = "op_error_rate"
# Metrics of which less is better.
LOWER = (OP_ERROR_RATE, "episodes_with_op_error", *COSTS)
AGGREGATE_RESAMPLES = 400
SEEDS_FACTOR = (1.96 + 0.84) / 1.96  # half an interval to the effect that is found 8 times in 10


@dataclass(frozen=True, slots=True)
class Delta:
    """One metric of a baseline and a candidate over the samples that both have.

    Attributes:
        part: ``""`` for all samples, else ``category:NAME`` or ``slice:NAME``.
        adjusted: p after Holm over tasks and candidates, or over all parts of them; None where no test is made.
        detectable: the smallest true difference that so many samples find 8 times in 10; None where none is.
    """

    metric: str
    part: str
    baseline: Metric
    candidate: Metric
    difference: Difference
    adjusted: float | None = None
    detectable: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A candidate against the baseline on one task.

    Attributes:
        deltas: the primary metric first, then every other over all samples.
        parts: the primary metric and RaPR by category and by slice.
        repeats: avg@k of baseline and candidate; None where the primary metric is no mean of scores.
    """

    label: str
    pairing: Pairing
    deltas: tuple[Delta, ...]
    parts: tuple[Delta, ...]
    agreement: Agreement | None
    repeats: tuple[Repeats, Repeats] | None

    @property
    def primary(self) -> Delta:
        """The delta that a verdict is about."""
        return self.deltas[0]

    def delta(self, metric: str) -> Delta | None:
        """A metric over all samples, None where the task has none of that name."""
        return next((delta for delta in self.deltas if delta.metric == metric), None)


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """One task: every candidate that has a run of it."""

    task: str
    primary: str
    profile: str
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that a comparison found.

    Attributes:
        missing: a line for each task that the baseline or a candidate has no run of.
    """

    baseline: str
    candidates: tuple[str, ...]
    tasks: tuple[TaskComparison, ...]
    missing: tuple[str, ...]

    @property
    def comparable(self) -> bool:
        """Whether nothing stands in the way of any verdict."""
        return all(result.pairing.comparable for task in self.tasks for result in task.results)


def compare(words: Sequence[str], profile: str | None = None, allow: Sequence[str] = ()) -> Comparison:
    """Compare runs as the command line names them, the baseline first.

    Args:
        profile: how every run's answers are read; by default as each was.
        allow: fields that may differ; see ``pair``.

    Raises:
        UsageError: fewer than two entrants, no task in common, or a field that cannot be allowed.
        StoreError: a word is no run.
    """
    check_allowed(allow)
    columns = entrants(words)
    if len(columns) < 2:
        held = ", ".join(columns[0].runs)
        raise UsageError(f"there is only {columns[0].label} ({held}), which alone cannot be compared; name another run")
    return compare_entrants(columns, profile, allow)


def check_allowed(allow: Sequence[str]) -> None:
    """Refuse fields that cannot be allowed to differ. Raises UsageError."""
    for name in allow:
        if name not in ALLOWED:
            raise UsageError(f"{name!r} cannot be allowed to differ; use one of {', '.join(ALLOWED)}")


def compare_entrants(columns: Sequence[Entrant], profile: str | None = None, allow: Sequence[str] = ()) -> Comparison:
    """Compare entrants, the first being the baseline. Raises UsageError where they share no task, and StoreError."""
    baseline, candidates = columns[0], columns[1:]
    tasks = []
    for task in baseline.runs:
        others = [entrant for entrant in candidates if task in entrant.runs]
        if others:
            before = load_all(baseline, task, profile)
            results = [
                _result(entrant.label, pair(before, load_all(entrant, task, profile), allow)) for entrant in others
            ]
            tasks.append(TaskComparison(task, before[0].task.primary, before[0].profile.name, tuple(results)))
    if not tasks:
        listed = "; ".join(f"{entrant.label}: {', '.join(entrant.runs)}" for entrant in columns)
        raise UsageError(f"the runs have no task in common ({listed}); evaluate both on one")
    labels = tuple(entrant.label for entrant in candidates)
    return Comparison(baseline.label, labels, _adjusted(tasks), tuple(_missing(columns)))


def _missing(columns: Sequence[Entrant]) -> list[str]:
    every = dict.fromkeys(task for entrant in columns for task in entrant.runs)
    return [
        f"{entrant.label} has no run of {task}" for task in every for entrant in columns if task not in entrant.runs
    ]


def _adjusted(tasks: Sequence[TaskComparison]) -> tuple[TaskComparison, ...]:
    """With Holm's p: one family of the primary metrics over all samples, one of them in every part."""
    results = [result for task in tasks for result in task.results]
    wholes = iter(holm([result.primary.difference.p for result in results]))
    tested = [part for result in results for part in result.parts if part.metric == result.primary.metric]
    pieces = iter(holm([part.difference.p for part in tested]))

    def adjust(result: Result) -> Result:
        first = replace(result.primary, adjusted=next(wholes))
        parts = [replace(part, adjusted=next(pieces)) if part.metric == first.metric else part for part in result.parts]
        return replace(result, deltas=(first, *result.deltas[1:]), parts=tuple(parts))

    return tuple(replace(task, results=tuple(map(adjust, task.results))) for task in tasks)


def _result(label: str, pairing: Pairing) -> Result:
    ids, primary = pairing.ids, pairing.task.primary
    scores = _scores(pairing)
    if not _is_mean(pairing, primary):
        first, table, averages = _aggregated(pairing, primary), None, None
    else:
        first = _delta(pairing, primary, ids) or Delta(primary, "", _NONE, _NONE, NOTHING)
        values = pairing.values(primary, ids)
        table = agreement(values[0].mean(1), values[1].mean(1)) if values else None
        averages = _averages(pairing, primary) if values else None
    others = [_delta(pairing, metric, ids) for metric in (*scores, *RATES) if metric != primary]
    sums = _summed(pairing, [name for name in COSTS if pairing.values(name, ids)]) if ids else []
    parts = [
        _delta(pairing, metric, own, part) for part, own in pairing.parts().items() for metric in (primary, "rapr")
    ]
    known = (delta for delta in chain(others, sums) if delta)
    return Result(label, pairing, (first, *known), tuple(part for part in parts if part), table, averages)


_NONE = Metric(None, None, None, 0)


def _scores(pairing: Pairing) -> list[str]:
    """Metrics that each episode has a score of."""
    return list(dict.fromkeys(name for key in pairing.ids[:1] for name in pairing.first[key].scores))


def _is_mean(pairing: Pairing, metric: str) -> bool:
    """Whether a metric is a mean of scores in [0, 1], so that samples' differences add up to its own."""
    for run in (*pairing.baseline, *pairing.candidate):
        rows = [outcome.row for outcome in run.outcomes.values()]
        whole = run.profile.aggregate(run.task, rows).get(metric, _NONE).value
        own = [row.scores[metric] for row in rows if metric in row.scores]
        if whole is not None and (len(own) < len(rows) or abs(whole - sum(own) / len(own)) > 1e-9):
            return False
        if own and not 0 <= min(own) <= max(own) <= 1:
            return False
    return True


def _delta(pairing: Pairing, metric: str, ids: Sequence[str], part: str = "") -> Delta | None:
    """A mean over samples: of scores and rates in [0, 1]; None where episodes have no such value."""
    values = pairing.values(metric, ids) if ids else None
    if values is None or min(side.min() for side in values) < 0 or max(side.max() for side in values) > 1:
        return None
    clusters = pairing.clusters(ids)
    own = paired_difference(*values, clusters)
    sides = [mean(side.mean(1).tolist(), clusters) for side in values]
    return Delta(metric, part, sides[0], sides[1], own, None, _detectable(own))


def _detectable(own: Difference) -> float | None:
    if own.test == "score with seeds" and own.low is not None and own.high is not None:
        return min(1.0, (own.high - own.low) / 2 * SEEDS_FACTOR)
    return detectable(own.n / own.design, own.spread)


def _averages(pairing: Pairing, metric: str) -> tuple[Repeats, Repeats]:
    clusters = pairing.clusters(pairing.ids)
    first, second = (
        repeats([_episodes(side, metric, name) for name in pairing.ids], clusters)
        for side in (pairing.baseline, pairing.candidate)
    )
    return first, second


def _episodes(side: Sequence[Run], metric: str, name: str) -> list[float]:
    return [value for run in side for outcome in run.by_sample[name] if (value := outcome.value(metric)) is not None]


def _summed(pairing: Pairing, costs: Sequence[str]) -> list[Delta]:
    """The op-error rate, a ratio of sums, and mean costs, which have no bound: by the clustered bootstrap."""
    ids, sides = pairing.ids, (pairing.baseline, pairing.candidate)
    clusters = pairing.clusters(ids)
    tables = [_table(side, costs, ids) for side in sides]
    names = (OP_ERROR_RATE, *costs)
    found = iter(cluster_bootstrap(np.concatenate(tables, 1), clusters, _sides_and_gaps))
    spans = [[next(found) for _ in names] for _ in range(3)]
    means = [_means(table.sum(0)) for table in tables]
    deltas = []
    for place, name in enumerate(names):
        own = [_metric(column[place], span[place], len(ids)) for column, span in zip(means, spans, strict=False)]
        if name == OP_ERROR_RATE:
            own = [_op_errors(side, ids) for side in sides]
        gap = _metric(means[1][place] - means[0][place], spans[2][place], len(ids))
        change = Difference(gap.value, gap.low, gap.high, None, len(ids), len(set(clusters)), "bootstrap")
        deltas.append(Delta(name, "", own[0], own[1], change))
    return deltas


def _table(side: Sequence[Run], costs: Sequence[str], ids: Sequence[str]) -> Floats:
    """Samples x (failed operations, attempted ones, mean of each cost, 1)."""
    rows = []
    for name in ids:
        own = [outcome for run in side for outcome in run.by_sample[name]]
        spent = [sum(outcome.costs[cost] for outcome in own) / len(own) for cost in costs]
        rows.append([sum(len(o.failed) for o in own), sum(o.attempted for o in own), *spent, 1.0])
    return np.array(rows, float)


def _means(sums: Floats) -> Floats:
    """Of the sums of ``_table``: failed over attempted operations, NaN for none, and the mean costs."""
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = sums[..., :1] / sums[..., 1:2]
    return np.concatenate([rate, sums[..., 2:-1] / sums[..., -1:]], -1)


def _sides_and_gaps(sums: Floats) -> Floats:
    """Baseline, candidate, and the second minus the first, of the sums of both sides' tables beside each other."""
    width = sums.shape[-1] // 2
    before, after = _means(sums[..., :width]), _means(sums[..., width:])
    return np.concatenate([before, after, after - before], -1)


def _op_errors(side: Sequence[Run], ids: Sequence[str]) -> Metric:
    """Failed over attempted operations, as ``metrics.json`` has it; n counts the operations."""
    own = [outcome for name in ids for run in side for outcome in run.by_sample[name]]
    failed = [(len(o.failed), o.attempted - len(o.failed), o.row.cluster) for o in own]
    each = [(value, cluster) for bad, good, cluster in failed for value in [1.0] * bad + [0.0] * good]
    return mean([value for value, _ in each], [cluster for _, cluster in each])


def _metric(value: float, interval: tuple[float, float] | None, n: int) -> Metric:
    if not math.isfinite(value):
        return Metric(None, None, None, n)
    low, high = interval or (None, None)
    return Metric(float(value), low, high, n)


def _aggregated(pairing: Pairing, metric: str) -> Delta:
    """A metric that only the profile's aggregate gives, its interval by drawing clusters and aggregating again."""
    samples: dict[str, list[str]] = {}
    for name in pairing.ids:
        samples.setdefault(pairing.first[name].cluster, []).append(name)
    groups = list(samples.values())
    sides = (pairing.baseline, pairing.candidate)
    rows = [{n: [o.row for run in side for o in run.by_sample[n]] for n in pairing.ids} for side in sides]

    def aggregate(side: int, drawn: Sequence[Sequence[str]]) -> Metric:
        chosen: list[Row] = [row for names in drawn for name in names for row in rows[side][name]]
        return pairing.profile.aggregate(pairing.task, chosen).get(metric, _NONE)

    whole = [aggregate(side, groups) for side in (0, 1)]
    before, after = (metric.value for metric in whole)
    if before is None or after is None:
        return Delta(metric, "", whole[0], whole[1], NOTHING)
    low, high, p = _redrawn(aggregate, groups)
    own = Difference(after - before, low, high, p, len(pairing.ids), len(groups), "bootstrap")
    return Delta(metric, "", whole[0], whole[1], own)


def _redrawn(
    aggregate: Callable[[int, Sequence[Sequence[str]]], Metric], groups: Sequence[Sequence[str]]
) -> tuple[float | None, float | None, float | None]:
    """Low, high and p of a difference of aggregates over resampled clusters."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(AGGREGATE_RESAMPLES):
        drawn = [groups[place] for place in rng.integers(0, len(groups), len(groups))]
        before, after = aggregate(0, drawn).value, aggregate(1, drawn).value
        found.append(after - before if before is not None and after is not None else math.nan)
    return resampled(np.array(found), len(groups))


def compare_profiles(words: Sequence[str], names: Iterable[str], allow: Sequence[str] = ()) -> dict[str, Comparison]:
    """The same replies under each profile, for the tasks that it has rules for: what is owed to the reading of answers.

    Raises:
        UsageError: no profile has rules for a task that the runs share.
    """
    check_allowed(allow)
    whole, found = entrants(words), {}
    for name in names:
        with contextlib.suppress(UsageError):  # one that does not import is named by `prh list profiles`
            reads = load_profile(name).reads
            every = [{task: own for task, own in e.runs.items() if reads(load_task(task))} for e in whole]
            columns = [replace(e, runs=runs) for e, runs in zip(whole, every, strict=True) if runs]
            if columns[1:]:
                found[name] = compare_entrants(columns, name, allow)
    if not found:
        raise UsageError("no profile has rules for a task that these runs share; `prh list tasks` shows the tasks")
    return found
