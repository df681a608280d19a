"""What stands before the single tasks: in what the runs are not alike, and the differences between them."""

from __future__ import annotations

from typing import cast

from ..harness.types import Json
from . import charts
from .compare import Delta
from .episodes import Table, visible
from .field import Field, TaskField
from .limits import GateLimits
from .links import part_link
from .pairing import Mismatch
from .wording import DASH, chance, gap, is_rate, margins, name_of, number, several, signed

MOST_LINES = 60
ALIKE = "Alike in dataset, prompt, protocol, operations, limits, pixel budgets, sampling and answer profile"
FOREST = (
    "Bars are 95 % intervals. The shaded band is what could not have been found 8 times in 10 with so many samples: an "
    "interval inside it is no evidence that two runs are equal. The dotted line is the margin of the verdict, "
    "{margins}."
)


def comparability(field: Field) -> list[Table]:
    """A row for each thing in which two runs are not alike, then one that says what they share."""
    rows: list[Table] = []
    for task in field.tasks:
        for place, result in task.results.items():
            who = task.name if len(field.labels) == 2 else f"{task.name}: {visible(field.labels[place], 60)}"
            unlike = [_unlike(who, mismatch) for mismatch in result.pairing.mismatches]
            rows += unlike
            if result.pairing.comparable:
                paired = several(len(result.pairing.ids), "paired sample")
                finding = f"{ALIKE}, but for the rows above" if unlike else ALIKE
                rows.append(_row(who, "everything else" if unlike else "all", paired, finding))
    return rows


def _unlike(who: str, mismatch: Mismatch) -> Table:
    return {
        "task": who,
        "field": mismatch.field,
        "baseline": _short(mismatch.baseline),
        "candidate": _short(mismatch.candidate),
        "state": "blocks" if mismatch.blocking else "differs",
        "finding": ("Blocks: " if mismatch.blocking else "") + visible(mismatch.text, 600),
    }


def _row(task: str, field: str, value: str, finding: str) -> Table:
    return {"task": task, "field": field, "baseline": value, "candidate": value, "state": "same", "finding": finding}


def _short(value: Json) -> str:
    text = visible(value if isinstance(value, str) else str(value), 400)
    return text if len(text) <= 44 else f"{text[:16]}\u2026"


def differences(field: Field, limits: GateLimits) -> Table | None:
    """The forest plot with its table: the primary metric of every task, then of its categories and slices."""
    found = [(task, place, result) for task in field.tasks for place, result in task.results.items()]
    lines, rows, bounds = [], [], []
    told = {task.name: limits.of(task.name).margin for task in field.tasks}
    for task, place, result in found:
        own = [result.primary, *(part for part in result.parts if part.metric == task.primary)]
        for delta in own:
            if delta.difference.value is None or not is_rate(delta.metric):
                continue
            name = _part_name(task, delta, field.labels[place] if len(field.labels) > 2 else "")
            lines.append(_line(task, place, delta, name))
            rows.append(_difference_row(delta, name))
            bounds.append(told[task.name])
    if not lines:
        return None
    who = "Each candidate" if len(field.labels) > 2 else field.labels[1]
    note = f"{who} minus {field.labels[0]}, in percentage points of the primary metric, paired over the "
    more = len(lines) - MOST_LINES
    return {
        "svg": charts.forest(
            lines[:MOST_LINES], bounds[:MOST_LINES], "Differences in percentage points with 95 % intervals"
        ),
        "rows": cast(Json, rows),
        "note": f"{note}samples that both have.",
        "caption": FOREST.format(margins=margins(told))
        + (f" {more} more rows are in the table, not in the chart." if more > 0 else ""),
    }


def _part_name(task: TaskField, delta: Delta, label: str) -> str:
    part = delta.part.partition(":")[2] if delta.part else ""
    name = f"    {visible(part, 120)}" if part else f"{task.name}, {name_of(task.primary).lower()}"
    return f"{name} ({visible(label, 60)})" if label and not part else name


def _line(task: TaskField, place: int, delta: Delta, name: str) -> charts.Line:
    own = delta.difference
    point = charts.Point(place, cast(float, own.value), own.low, own.high)
    return charts.Line(name, (point,), delta.detectable, not delta.part, part_link(task, place, delta.part))


def _difference_row(delta: Delta, name: str) -> Table:
    own = delta.difference
    return {
        "name": name.strip(),
        "n": f"{own.n:,}",
        "baseline": number(delta.metric, delta.baseline.value),
        "candidate": number(delta.metric, delta.candidate.value),
        "delta": signed(delta.metric, own.value),
        "interval": gap(delta.metric, own) or DASH,
        "p": chance(own.p).removeprefix("p = ").removeprefix("p ") or DASH,
        "holm": chance(delta.adjusted).removeprefix("p = ").removeprefix("p ") or DASH,
        "detectable": DASH if delta.detectable is None else f"\u00b1{number(delta.metric, delta.detectable)}",
    }
