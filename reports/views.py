"""The sections of a page about evaluations: verdict, comparability, differences, and what is shown of each task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

from ..harness import registry
from ..harness.errors import OPERATION_ERRORS
from ..harness.types import END_STATES, Json, Metric
from . import charts
from .compare import LOWER, OP_ERROR_RATE, Delta, Result
from .episodes import Table, visible
from .field import Field, Stand, TaskField
from .links import link, part_link
from .samples import Packed
from .statistics import Repeats
from .turns import turn_rows
from .wording import DASH, chance, gap, interval, is_rate, name_of, number, several, signed, valued

CARDS = ("rapr", "op_error_rate", "turns", "new_tokens", "seconds")
MOST_LINES = 60
BAR = 110
MOST_OPERATIONS = 20
SHAPES = "\u25a0\u25cf\u25c6\u25b2\u25bc"

Operations = Mapping[tuple[int, int, str], Sequence[tuple[bool, str]]]


def task_view(field: Field, task: TaskField, packed: Packed) -> Table:
    """Everything that is shown of one task."""
    return {
        "number": task.number,
        "name": task.name,
        "synthetic": task.synthetic,
        "cards": cast(Json, _cards(field, task)),
        "matrices": cast(Json, [_matrix(field, task, place, result) for place, result in task.results.items()]),
        "association": _association(field, task),
        "faults": _faults(field, task),
        "ends": cast(Json, _ends(field, task)),
        "operations": _operations(field, task, packed.operations),
        "turns": cast(Json, turn_rows(field, task, packed.spent, BAR // 2)),
        "sensitivity": cast(Json, _sensitivity(field, task)),
        **_chart(field, task),
        "repeats": _repeats(field, task),
    }


def _cards(field: Field, task: TaskField) -> list[Table]:
    metrics = [task.primary, *(name for name in ("accuracy", *CARDS) if name != task.primary)]
    cards = [card for name in metrics if (card := _card(field, task, name))]
    return [*cards, _errors_card(field, task)]


def _card(field: Field, task: TaskField, metric: str) -> Table | None:
    """One metric: of two entrants the candidate is large and the baseline below it, of more the baseline is large."""
    values = {place: value_of(task, place, metric) for place in task.stands}
    if all(value.value is None for value in values.values()) and metric != "op_error_rate":
        return None
    large = 1 if len(field.labels) == 2 and 1 in values else 0
    deltas = {place: result.delta(metric) for place, result in task.results.items()}
    own = deltas.get(large)
    return {
        "name": name_of(metric) + ("" if is_rate(metric) else " a sample"),
        "value": number(metric, values[large].value),
        "unit": "%" if is_rate(metric) and values[large].value is not None else "",
        "interval": f"95 % interval {between}" if (between := interval(metric, values[large])) else "",
        "delta": _delta_text(metric, own) if own else "",
        "state": _direction(metric, task, own),
        "others": [
            {"number": place, "text": _other(metric, value, None if large else deltas.get(place))}
            for place, value in values.items()
            if place != large
        ],
        "of": _of(metric, task, values[large], large),
    }


def value_of(task: TaskField, place: int, metric: str) -> Metric:
    """An entrant's value over the samples that are compared, or over all of its own where nothing is."""
    result = task.results.get(place) or next(iter(task.results.values()), None)
    delta = result.delta(metric) if result else None
    if result and result.pairing.ids and delta:
        return delta.candidate if place in task.results else delta.baseline
    stand = task.stands[place]
    if metric == "op_error_rate":
        return stand.op_errors()
    if metric == task.primary:
        run = stand.runs[0]
        return run.profile.aggregate(run.task, stand.rows).get(metric, stand.rate(metric))
    return stand.rate(metric)


def _delta_text(metric: str, delta: Delta) -> str:
    own = delta.difference
    if own.value is None:
        return ""
    unit = " points" if is_rate(metric) else ""
    between = f" ({gap(metric, own)})" if gap(metric, own) else ""
    return f"{signed(metric, own.value)}{unit}{between}"


def _direction(metric: str, task: TaskField, delta: Delta | None) -> str:
    """``pass`` or ``regression`` where the interval of a quality leaves out 0, else nothing."""
    own = delta.difference if delta else None
    if own is None or own.low is None or own.high is None or metric not in (task.primary, "accuracy", OP_ERROR_RATE):
        return ""
    if own.low <= 0 <= own.high:
        return ""
    return "better" if (own.low > 0) != (metric in LOWER) else "worse"


def _other(metric: str, value: Metric, delta: Delta | None) -> str:
    text = valued(metric, value) + (" %" if is_rate(metric) and value.value is not None else "")
    change = _delta_text(metric, delta) if delta else ""
    return f"{text}; {change}" if change else text


def _of(metric: str, task: TaskField, value: Metric, place: int) -> str:
    if metric == "op_error_rate":
        return f"of {several(value.n, 'operation')}"
    result = task.results.get(place) or next(iter(task.results.values()), None)
    paired = len(result.pairing.ids) if result else 0
    return several(paired, "paired sample") if paired else several(value.n, "episode")


def _errors_card(field: Field, task: TaskField) -> Table:
    large = 1 if len(field.labels) == 2 and 1 in task.stands else 0
    stands = task.stands
    return {
        "name": "Engine and data errors",
        "value": f"{stands[large].errors:,}",
        "unit": "",
        "interval": "",
        "delta": "",
        "state": "worse" if stands[large].errors else "",
        "others": [
            {"number": place, "text": f"{stand.errors:,} of {several(stand.episodes, 'episode')}"}
            for place, stand in stands.items()
            if place != large
        ],
        "of": f"of {several(stands[large].episodes, 'episode')}; in no rate",
    }


def _matrix(field: Field, task: TaskField, place: int, result: Result) -> Table | None:
    own = result.agreement
    if own is None:
        return None
    tested = result.primary.difference
    note = f"Exact McNemar: {chance(own.p)}" + (
        f"; robust to shared images: {chance(tested.p)} ({tested.test})"
        if tested.test != "exact McNemar" and tested.p is not None
        else ""
    )
    fine = (
        "" if task.primary == "accuracy" else f" A sample counts as right from half a point of {name_of(task.primary)}."
    )
    links = {name: f"{link(task, place, outcome=name)}" for name in ("both", "lost", "won", "neither")}
    return {
        "title": f"{field.labels[place]} against {field.labels[0]}",
        "number": place,
        "both": own.both,
        "lost": own.baseline_only,
        "won": own.candidate_only,
        "neither": own.neither,
        "links": cast(Json, links),
        "note": f"{note}.{fine}",
    }


def _association(field: Field, task: TaskField) -> Table | None:
    rows: list[Json] = []
    for place, stand in task.stands.items():
        with_, without = ([o for o in stand.outcomes if bool(o.attempted) == used] for used in (True, False))
        values = [stand.rate(task.primary, own) for own in (with_, without)]
        cells = [valued(task.primary, value) if value.n else DASH for value in values]
        names = {"with": cells[0], "n_with": f"{values[0].n:,}", "without": cells[1], "n_without": f"{values[1].n:,}"}
        rows.append({"number": place, "name": field.labels[place], **names})
    return {"caption": f"{name_of(task.primary)}, %, of episodes", "rows": rows}


def _faults(field: Field, task: TaskField) -> Table:
    counts = {place: Counter(kind for o in stand.outcomes for kind in o.failed) for place, stand in task.stands.items()}
    calls = {place: sum(o.attempted for o in stand.outcomes) for place, stand in task.stands.items()}
    kinds = [kind for kind in OPERATION_ERRORS if any(count[kind] for count in counts.values())]
    most = max((count[kind] for count in counts.values() for kind in kinds), default=1)
    totals = {
        place: f"{several(sum(own.values()), 'failure')} in {several(calls[place], 'call')}"
        for place, own in counts.items()
    }
    of = ", ".join(f"{visible(field.labels[place], 60)}: {total}" for place, total in totals.items())
    rows = [
        {
            "kind": kind.replace("_", " "),
            "link": _row_link(field, task, error=kind),
            "cells": [
                {
                    "count": counts[place][kind],
                    "width": max(1, round(BAR * counts[place][kind] / most)) if counts[place][kind] else 0,
                    "link": _count_link(field, task, place, error=kind) if counts[place][kind] else "",
                }
                if place in counts
                else {"count": DASH, "width": 0, "link": ""}
                for place in range(len(field.labels))
            ],
        }
        for kind in kinds
    ]
    return {"caption": of if rows else f"No operation failed ({of}).", "rows": cast(Json, rows)}


def _ends(field: Field, task: TaskField) -> list[Table]:
    counts: dict[int, Counter[str]] = {}
    for place, stand in task.stands.items():
        counts[place] = Counter(outcome.end for outcome in stand.outcomes)
        for run in stand.runs:
            counts[place].update({state: count for state, count in run.errors.items() if count})
    ends = [end for end in END_STATES if any(count[end] for count in counts.values())]
    numbers = range(len(field.labels))
    return [
        {
            "end": end.replace("_", " "),
            "link": _row_link(field, task, end=end),
            "cells": [
                {
                    "count": f"{counts[place][end]:,}",
                    "link": _count_link(field, task, place, end=end) if counts[place][end] else "",
                }
                if place in counts
                else {"count": DASH, "link": ""}
                for place in numbers
            ],
        }
        for end in ends
    ]


def _row_link(field: Field, task: TaskField, **wanted: str) -> str:
    """Of a row of counts, where there is one list of samples to lead to: of more candidates each count has its own."""
    return link(task, 1, **wanted) if len(field.labels) <= 2 else ""


def _count_link(field: Field, task: TaskField, place: int, **wanted: str) -> str:
    return link(task, place, **wanted) if len(field.labels) > 2 else ""


def _operations(field: Field, task: TaskField, operations: Operations) -> Table:
    """Calls and failures of each operation by name, as a table and as a chart."""
    names = sorted({name for number, _, name in operations if number == task.number})[:MOST_OPERATIONS]
    rows: list[Json] = []
    lines = []
    for name in names:
        cells: list[Json] = []
        points = []
        for place in range(len(field.labels)):
            own = operations.get((task.number, place, name), ())
            failed = task.stands[place].op_errors(own) if own else None
            text = f"{valued('op_error_rate', failed)} %" if failed else DASH
            cells.append({"calls": f"{len(own):,}", "failed": text})
            if failed and failed.value is not None:
                points.append(charts.Point(place, failed.value, failed.low, failed.high))
        rows.append({"name": name, "cells": cells})
        lines.append(charts.Line(name, tuple(points)))
    if not rows:
        return {"rows": [], "chart": ""}
    title, label = "Share of calls that failed, %", f"{task.name}: failed calls by operation"
    return {"rows": rows, "chart": charts.parts([(title, lines)], label, f"operations-{task.number}", 4.9)}


def _sensitivity(field: Field, task: TaskField) -> list[Table]:
    """The primary metric of the same replies under every profile that has rules for the task."""
    found = {place: stand.profiles for place, stand in task.stands.items()}
    names = [name for name in registry.names("profiles") if all(name in own for own in found.values())]
    rows: list[Table] = []
    for name in names:
        cells = [
            valued(task.primary, found[place][name]) if place in found else DASH for place in range(len(field.labels))
        ]
        values = [found[place][name].value for place in (0, 1) if place in found]
        apart = values[1] - values[0] if len(values) == 2 and None not in values else None  # type: ignore[operator]
        rows.append(
            {
                "profile": name,
                "own": name == task.profile,
                "cells": cast(Json, cells),
                "delta": signed(task.primary, apart),
            }
        )
    return rows if len(rows) > 1 else []


def _chart(field: Field, task: TaskField) -> Table:
    """Primary metric and RaPR by category and slice, of every entrant."""
    groups = []
    for metric in (task.primary, "rapr"):
        lines = [line for part in _parts(task) if (line := _part_line(task, metric, part))]
        groups.append((f"{name_of(metric)}, %", lines[:MOST_LINES]))
    if not groups[0][1] or len(groups[0][1]) != len(groups[1][1]) or not is_rate(task.primary):
        return {"chart": "", "chart_caption": ""}
    shapes = ", ".join(f"{SHAPES[place % len(SHAPES)]} {visible(field.labels[place], 60)}" for place in task.stands)
    return {
        "chart": charts.parts(groups, f"{task.name} by category", f"parts-{task.number}"),
        "chart_caption": f"{task.name} by category and slice, with 95 % intervals: {shapes}.",
    }


def _parts(task: TaskField) -> list[str]:
    if task.results:
        return sorted({part.part for result in task.results.values() for part in result.parts})
    rows = next(iter(task.stands.values())).rows
    return sorted(
        {f"category:{row.category}" for row in rows if row.category}
        | {f"slice:{p}" for row in rows for p in row.slices}
    )


def _part_line(task: TaskField, metric: str, part: str) -> charts.Line | None:
    points = []
    for place, stand in task.stands.items():
        own = _part_value(task, stand, place, metric, part)
        if own is not None and own.value is not None:
            points.append(charts.Point(place, own.value, own.low, own.high))
    return (
        charts.Line(visible(part.partition(":")[2], 120), tuple(points), link=part_link(task, 1, part))
        if points
        else None
    )


def _part_value(task: TaskField, stand: Stand, place: int, metric: str, part: str) -> Metric | None:
    if not task.results:
        kind, _, value = part.partition(":")
        own = [o for o in stand.outcomes if (o.row.category == value if kind == "category" else value in o.row.slices)]
        return stand.rate(metric, own)
    result = task.results.get(place) or next(iter(task.results.values()))
    delta = next((d for d in result.parts if d.part == part and d.metric == metric), None)
    return None if delta is None else delta.candidate if place in task.results else delta.baseline


def _repeats(field: Field, task: TaskField) -> str:
    """One line on avg@k where samples were run more than once; the baseline's over what the first candidate shares."""
    sides: dict[int, Repeats] = {}
    for place, result in task.results.items():
        if result.repeats and any(side.within is not None for side in result.repeats):
            sides = {0: result.repeats[0], **sides, place: result.repeats[1]}
    texts = [f"{field.labels[place]}: {_averaged(task.primary, side)}" for place, side in sides.items()]
    return f"{'; '.join(texts)}." if texts else ""


def _averaged(metric: str, side: Repeats) -> str:
    text = f"avg@{side.k:g} {valued(metric, side.mean)}"
    if side.within is None or side.between is None:
        return text
    return f"{text}, variance within a sample {side.within:.3f}, between samples {side.between:.3f}"
