"""Figures as people read them, and a comparison as tables that a terminal and a pull request both show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ..harness.terminal import percent
from ..harness.types import Metric
from .compare import Comparison, Delta, Result, TaskComparison
from .pairing import Pairing
from .runs import COSTS
from .statistics import Repeats

NONE = "-"
Line: TypeAlias = tuple[str, ...]
Table: TypeAlias = tuple[Line, tuple[Line, ...]]


@dataclass(frozen=True, slots=True)
class Block:
    """One candidate on one task: a title, lines to read first, tables, and lines to read last."""

    title: str
    first: tuple[str, ...]
    tables: tuple[Table, ...]
    last: tuple[str, ...]


def is_rate(delta: Delta) -> bool:
    """Whether a metric is shown in percent: a share, not a cost or a quantity with a scale of its own."""
    values = [metric.value for metric in (delta.baseline, delta.candidate) if metric.value is not None]
    return delta.metric not in COSTS and all(0 <= value <= 1 for value in values)


def amount(delta: Delta, metric: Metric) -> str:
    """A value of a metric, without its interval: ``84.3 %``, ``1.52``."""
    if metric.value is None:
        return NONE
    return f"{100 * metric.value:.1f} %" if is_rate(delta) else f"{metric.value:.4g}"


def points(value: float, delta: Delta) -> str:
    """A difference of a metric, unsigned: ``2.0 pt``."""
    return f"{100 * value:.1f} pt" if is_rate(delta) else f"{value:.4g}"


def signed(value: float, delta: Delta) -> str:
    """A difference with its sign: ``+1.2``, ``-3.1``; in percentage points where the metric is a rate."""
    return f"{100 * value:+.1f}" if is_rate(delta) else f"{value:+.4g}"


def gap(delta: Delta) -> str:
    """A difference in words: ``accuracy -3.1 pt (95 % CI -5.9 to -0.3, paired n = 191, p = 0.03)``."""
    own = delta.difference
    if own.value is None or own.low is None or own.high is None:
        return f"{delta.metric}: nothing to compare"
    unit = " pt" if is_rate(delta) else ""
    interval = f"95 % CI {signed(own.low, delta)} to {signed(own.high, delta)}"
    p = f", p {probability(own.p)}" if own.p is not None else ""
    return f"{delta.metric} {signed(own.value, delta)}{unit} ({interval}, paired n = {own.n}{p})"


def probability(p: float) -> str:
    """A p value as it is read: ``= 0.032``, ``< 0.001``."""
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def blocks(comparison: Comparison) -> list[Block]:
    """Every candidate on every task."""
    return [_block(comparison, task, result) for task in comparison.tasks for result in task.results]


def _block(comparison: Comparison, task: TaskComparison, result: Result) -> Block:
    pairing = result.pairing
    title = f"{task.task}: {result.label} against {comparison.baseline} · profile {task.profile}"
    header = (f"{len(pairing.ids)} samples", comparison.baseline, result.label, "difference [95 %]", "p", "detectable")
    rows = tuple(_row(delta.metric, delta) for delta in result.deltas)
    pieces = [delta for delta in result.parts if delta.metric == task.primary]
    tables: list[Table] = [(header, rows)]
    if pieces:
        top = (f"{task.primary} by part", "n", *header[1:4], "p (Holm)", "detectable")
        tables.append((top, tuple(_part_row(delta) for delta in pieces)))
    return Block(title, _unlike(pairing), tuple(tables), tuple(_closing(result)))


def _unlike(pairing: Pairing) -> Line:
    """A line for each thing in which two entrants are not alike, what stands in the way first."""
    red = [f"NOT COMPARABLE  {m.text}" for m in pairing.mismatches if m.blocking]
    noted = [f"note  {m.text}" for m in pairing.mismatches if not m.blocking]
    return (*red, *([pairing.advice] if pairing.advice else []), *noted)


def _row(name: str, delta: Delta) -> Line:
    p = delta.difference.p
    unit = " %" if is_rate(delta) else ""
    shown = NONE if delta.detectable is None else points(delta.detectable, delta)
    return (
        f"{name}{unit}",
        _value(delta, delta.baseline),
        _value(delta, delta.candidate),
        _difference(delta),
        NONE if p is None else probability(p).removeprefix("= "),
        shown,
    )


def _part_row(delta: Delta) -> Line:
    _, before, after, change, _, shown = _row("", delta)
    adjusted = NONE if delta.adjusted is None else probability(delta.adjusted).removeprefix("= ")
    name = delta.part.partition(":")[2]
    return name, str(delta.difference.n), before, after, change, adjusted, shown


def _value(delta: Delta, metric: Metric) -> str:
    if is_rate(delta):
        return percent(metric)
    if metric.value is None or metric.low is None or metric.high is None:
        return NONE if metric.value is None else f"{metric.value:.4g}"
    return f"{metric.value:.4g} [{metric.low:.4g}, {metric.high:.4g}]"


def _difference(delta: Delta) -> str:
    own = delta.difference
    if own.value is None:
        return NONE
    if own.low is None or own.high is None:
        return signed(own.value, delta)
    return f"{signed(own.value, delta)} [{signed(own.low, delta)}, {signed(own.high, delta)}]"


def _closing(result: Result) -> Iterable[str]:
    table, primary = result.agreement, result.primary
    if table:
        yield (
            f"both right {table.both}, baseline alone {table.baseline_only}, candidate alone {table.candidate_only}, "
            f"neither {table.neither}; exact McNemar p {probability(table.p)}"
        )
    if primary.adjusted is not None and primary.adjusted != primary.difference.p:
        yield f"{primary.metric}: p {probability(primary.adjusted)} after Holm over all tasks and candidates"
    if result.repeats and any(side.within is not None for side in result.repeats):
        named = zip(("baseline", "candidate"), result.repeats, strict=True)
        yield "; ".join(f"{name} {_averaged(side)}" for name, side in named)


def _averaged(side: Repeats) -> str:
    spread = f"sd within a sample {_sd(side.within)}, between samples {_sd(side.between)}"
    return f"avg@{side.k:g} {percent(side.mean)}, {spread}"


def _sd(variance: float | None) -> str:
    return NONE if variance is None else f"{100 * variance**0.5:.1f} pt"


def sensitivity_first(comparisons: Mapping[str, Comparison]) -> list[str]:
    """What is to be read before the table: in what a candidate and the baseline are not alike."""
    found: dict[str, dict[str, None]] = {}
    for comparison in comparisons.values():
        for task in comparison.tasks:
            for result in task.results:
                found.setdefault(f"{task.task} · {result.label}", {}).update(dict.fromkeys(_unlike(result.pairing)))
    return [line for who, lines in found.items() if lines for line in (who, *lines)]


def sensitivity_table(comparisons: Mapping[str, Comparison]) -> Table:
    """A row for each task, candidate and profile: values and the difference of the primary metric."""
    rows = []
    for profile, comparison in comparisons.items():
        for task in comparison.tasks:
            for result in task.results:
                delta = result.primary
                values = (_value(delta, delta.baseline), _value(delta, delta.candidate), _difference(delta))
                rows.append((f"{task.task} · {result.label} · {task.primary}", profile, *values))
    return ("", "profile", "baseline", "candidate", "difference [95 %]"), tuple(sorted(rows))
