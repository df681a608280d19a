"""The first thing on a page: what is compared and the verdict in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ..harness.types import Json
from .episodes import Table, visible
from .field import Field, TaskField
from .gate import GRAVITY, State, TaskVerdict, Verdict, check_limits, lacking, unjudged, verdict_on
from .limits import GateLimits
from .pairing import wholeness
from .wording import MINUS, margins, name_of, several, valued

WORDS: dict[State, str] = {
    "pass": "Pass",
    "inconclusive": "Inconclusive",
    "regression": "Regression",
    "errors": "Too many errors",
    "incomparable": "Not comparable",
}
GLYPHS = {
    "pass": "\u2713",
    "inconclusive": "\u25c7",
    "regression": "\u25bc",
    "errors": "\u25b3",
    "incomparable": "\u2260",
    "alone": "\u25cf",
}
ALONE = "A verdict compares two runs: `prh report BASELINE CANDIDATE`."


def verdicts_on(field: Field, limits: GateLimits) -> list[Verdict]:
    """The verdict on each candidate that shares a task with the baseline; none for one run. Raises UsageError."""
    if field.comparison is None:
        return []
    check_limits(field.comparison, limits)
    shared = {result.label for task in field.comparison.tasks for result in task.results}
    return [verdict_on(label, field.comparison, limits) for label in field.comparison.candidates if label in shared]


def banner(field: Field, verdicts: Sequence[Verdict], limits: GateLimits) -> Table:
    """The verdict: the gravest of every candidate's, a row for each task; for one run its figures."""
    if field.comparison is None:
        return _alone(field)
    comparison = field.comparison
    shared = {verdict.candidate for verdict in verdicts}
    apart = [line for label in comparison.candidates if label not in shared for line in lacking(label, comparison)]
    worst = max(verdicts, key=lambda verdict: GRAVITY.index(verdict.state))
    rows = [_row(verdict, task, len(verdicts) > 1) for verdict in verdicts for task in verdict.tasks]
    broken = [
        {
            "state": check.state,
            "word": WORDS[check.state],
            "who": visible(f"{_who(verdict, task, len(verdicts) > 1)}, {check.name}", 200),
            "sentence": visible(check.text, 600),
        }
        for verdict in verdicts
        for task in verdict.tasks
        for check in task.checks
        if check.state != "pass" and check.text != task.sentence
    ]
    sentence = worst.sentence if len(verdicts) == 1 else f"{worst.candidate}: {worst.sentence}"
    told = [*(note for verdict in verdicts for note in verdict.notes), *map(unjudged, apart)]
    notes = [*dict.fromkeys(told), _rule(field, limits)]
    return {
        "state": worst.state,
        "word": WORDS[worst.state],
        "sentence": visible(sentence, 900).replace(" -", f" {MINUS}"),
        "note": visible(" ".join(note if note.endswith(".") else f"{note}." for note in notes), 1500),
        "rows": cast(Json, [*(rows if len(rows) > 1 else []), *broken]),
    }


def _row(verdict: Verdict, task: TaskVerdict, named: bool) -> Table:
    return {
        "state": task.state,
        "word": WORDS[task.state],
        "who": visible(_who(verdict, task, named), 200),
        "sentence": visible(task.sentence, 600).replace(" -", f" {MINUS}"),
    }


def _who(verdict: Verdict, task: TaskVerdict, named: bool) -> str:
    return f"{task.task}: {verdict.candidate}" if named else task.task


def _rule(field: Field, limits: GateLimits) -> str:
    bounds = margins({task.name: limits.of(task.name).margin for task in field.tasks}, MINUS)
    return (
        f"Pass: the lower end of the paired 95 % interval lies above {bounds}. Regression: its upper end lies "
        "below 0. Inconclusive: neither. Too many errors or anything incomparable takes the verdict away."
    )


def _alone(field: Field) -> Table:
    rows = [
        {"state": "alone", "word": task.name, "who": name_of(task.primary), "sentence": _figure(task)}
        for task in field.tasks
    ]
    only = field.tasks[0]
    odd = [mismatch.text for task in field.tasks for mismatch in wholeness(task.stands[0].runs)]
    sentence = (
        f"{only.name}: {name_of(only.primary).lower()} {_figure(only)}" if len(rows) == 1 else f"{len(rows)} tasks"
    )
    return {
        "state": "alone",
        "word": "One run, no verdict",
        "sentence": sentence,
        "note": visible(" ".join([*(f"{text}." for text in odd), ALONE]), 1500),
        "rows": cast(Json, rows if len(rows) > 1 else []),
    }


def _figure(task: TaskField) -> str:
    stand = task.stands[0]
    run = stand.runs[0]
    value = run.profile.aggregate(run.task, stand.rows).get(task.primary, stand.rate(task.primary))
    return f"{valued(task.primary, value)} % of {several(value.n, 'episode')}"


def heading(field: Field) -> Table:
    """Title, heading and lead of the page."""
    labels = field.labels
    names = ", ".join(task.name for task in field.tasks)
    counts = _counts(field.tasks)
    protocols = dict.fromkeys(
        str(run.identity.get("protocol"))
        for task in field.tasks
        for stand in task.stands.values()
        for run in stand.runs
    )
    profiles = dict.fromkeys(task.profile for task in field.tasks)
    lead = (
        f"{names} \u00b7 {counts} \u00b7 protocol {', '.join(protocols)} \u00b7 answers read by {', '.join(profiles)}"
    )
    if len(labels) == 1:
        return {
            "title": f"{labels[0]} \u00b7 prh report",
            "heading": labels[0],
            "against": "",
            "lead": visible(lead, 600),
        }
    if len(labels) == 2:
        title, first, against = f"{labels[1]} against {labels[0]}", labels[1], labels[0]
    else:
        title = first = f"{len(labels) - 1} checkpoints"
        against = labels[0]
    return {"title": f"{title} \u00b7 prh report", "heading": first, "against": against, "lead": visible(lead, 600)}


def _counts(tasks: Sequence[TaskField]) -> str:
    if not tasks[0].results:
        return several(sum(len(stand.outcomes) for task in tasks for stand in task.stands.values()), "episode")
    paired = sum(max(len(result.pairing.ids) for result in task.results.values()) for task in tasks)
    return several(paired, "paired sample")
