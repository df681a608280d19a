"""The data of a report as JSON for machines, and the short of it as Markdown for a pull request.

The names of the JSON are a public contract, with the schema number of ``prh compare --json``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import cast

from ..harness.errors import OPERATION_ERRORS
from ..harness.types import END_STATES, Json, Metric
from .curves import Training
from .documents import SCHEMA, comparison_json, verdict_json
from .episodes import Table, visible
from .field import Field, Stand, TaskField
from .gate import Verdict
from .kept import Cell, Kept, Spent
from .markdown import comparison_markdown, escape, table_lines, verdict_markdown
from .pairing import wholeness
from .runs import COSTS, RATES
from .samples import Packed
from .wording import is_rate, name_of, valued

OP_ERROR_RATE = "op_error_rate"


def evaluations_json(field: Field, verdicts: Sequence[Verdict], packed: Packed) -> Table:
    """What a page says of evaluations, samples included, without their pictures and turns."""
    comparison = field.comparison
    return {
        "schema": SCHEMA,
        "entrants": list(field.labels),
        "verdicts": [verdict_json(verdict) for verdict in verdicts],
        "comparison": comparison_json(comparison) if comparison else None,
        "tasks": [_task(field, task, packed) for task in field.tasks],
    }


def trainings_json(trainings: Sequence[Training]) -> Json:
    """The figures of trainings by step."""
    return [
        {
            "name": visible(own.folder.name, 120),
            "ended": visible(own.ended, 600),
            "log": [dict(row) for row in own.rows],
        }
        for own in trainings
    ]


def _task(field: Field, task: TaskField, packed: Packed) -> Json:
    return {
        "task": task.name,
        "primary": task.primary,
        "profile": task.profile,
        "synthetic": task.synthetic,
        "entrants": [_entrant(field, task, stand, packed) for stand in task.stands.values()],
        "samples": [_sample(field, name, kept) for name, kept in sorted(packed.kept[task.number].items())],
    }


def _entrant(field: Field, task: TaskField, stand: Stand, packed: Packed) -> Json:
    """An entrant's own figures, over all of its judged episodes."""
    errors = sum((Counter(run.errors) for run in stand.runs), Counter[str]())
    ends = Counter(outcome.end for outcome in stand.outcomes) + errors
    failures = Counter(kind for outcome in stand.outcomes for kind in outcome.failed)
    halves = {use: [o for o in stand.outcomes if bool(o.attempted) == (use == "with")] for use in ("with", "without")}
    return {
        "label": field.labels[stand.number],
        "runs": [str(run.folder) for run in stand.runs],
        "episodes": stand.episodes,
        "errors": stand.errors,
        "metrics": _metrics(_figures(task, stand)),
        "by_operations": _metrics({use: stand.rate(task.primary, own) for use, own in halves.items()}),
        "ends": {end: ends[end] for end in END_STATES if ends[end]},
        "operation_errors": {kind: failures[kind] for kind in OPERATION_ERRORS if failures[kind]},
        "operations": {
            name: {"calls": len(calls), "failed": sum(failed for failed, _ in calls)}
            for (number, place, name), calls in sorted(packed.operations.items())
            if (number, place) == (task.number, stand.number)
        },
        "turns": [
            _turn(number, spent)
            for (at, place, number), spent in sorted(packed.spent.items())
            if (at, place) == (task.number, stand.number)
        ],
        "profiles": _metrics(stand.profiles),
    }


def _figures(task: TaskField, stand: Stand) -> dict[str, Metric]:
    scores = dict.fromkeys(name for outcome in stand.outcomes for name in outcome.row.scores)
    costs = [name for name in COSTS if any(name in outcome.costs for outcome in stand.outcomes)]
    run = stand.runs[0]
    whole = run.profile.aggregate(run.task, stand.rows)
    means = {name: stand.rate(name) for name in (*scores, *RATES, *costs)}
    found = {**means, OP_ERROR_RATE: stand.op_errors()}
    return {**found, task.primary: whole.get(task.primary, stand.rate(task.primary))}


def _metrics(values: Mapping[str, Metric]) -> Json:
    return {name: cast(Json, asdict(value)) for name, value in values.items()}


def _turn(number: int, spent: Spent) -> Json:
    """Means of a turn; None where no seconds are recorded."""
    timed = spent.timed
    return {
        "turn": number,
        "turns": spent.turns,
        "new_tokens": spent.tokens / spent.turns,
        "seconds": spent.seconds / timed if timed else None,
        "operation_seconds": spent.operating / timed if timed else None,
    }


def _sample(field: Field, name: str, kept: Kept) -> Json:
    cells = [kept.cells.get(number) for number in range(len(field.labels))]
    return {
        "id": visible(name, 300),
        "category": kept.category,
        "slices": cast(Json, kept.slices),
        "gold": kept.shared["gold"],
        "entrants": [_cell(cell) if cell else None for cell in cells],
    }


def _cell(cell: Cell) -> Json:
    return {
        "score": cell.score,
        "answer": cell.answer or None,
        "confidence": cell.sure,
        "ends": [end for place, end in enumerate(END_STATES) if cell.ends >> place & 1],
        "operations": cell.operations,
        "turns": cell.turns,
        "operation_errors": [kind for place, kind in enumerate(OPERATION_ERRORS) if cell.faults >> place & 1],
    }


def report_markdown(field: Field | None, verdicts: Sequence[Verdict], trainings: Sequence[Training]) -> str:
    """The verdicts with the comparison folded away; of one run its figures; the last figures of trainings."""
    lines: list[str] = []
    if field and field.comparison and len(verdicts) == 1:
        lines.append(verdict_markdown(verdicts[0], field.comparison))
    elif field and field.comparison:
        lines += [verdict_markdown(verdict) for verdict in verdicts]
        lines.append(comparison_markdown(field.comparison))
    elif field:
        lines += [_alone(field, task) for task in field.tasks]
    lines += [_training(training) for training in trainings if training.rows]
    return "\n".join(lines)


def _alone(field: Field, task: TaskField) -> str:
    stand = task.stands[0]
    rows = [
        (name_of(name), valued(name, value) + (" %" if is_rate(name) else ""), f"{value.n:,}")
        for name, value in _figures(task, stand).items()
    ]
    errors = f"{stand.errors:,} of {stand.episodes:,} episodes ended in an engine or data error; they are in no rate."
    odd = [f"- {escape(mismatch.text)}" for mismatch in wholeness(stand.runs)]
    title = f"## {escape(field.labels[0])} on {escape(task.name)}"
    table = table_lines((("", "value [95 %]", "n"), tuple(rows)))
    return "\n".join([title, "", *odd, *[""] * bool(odd), *table, "", errors]) + "\n"


def _training(training: Training) -> str:
    last: dict[str, float] = {}
    for row in training.rows:
        last.update(row)
    title = f"## Training {escape(visible(training.folder.name, 120))}, step {last['step']:g}"
    figures = [(name, f"{value:.4g}") for name, value in sorted(last.items()) if name != "step"]
    return "\n".join([title, "", *table_lines((("", "last"), tuple(figures)))]) + "\n"
