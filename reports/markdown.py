"""A comparison and a verdict as Markdown for a pull request or a job's summary, whatever names and labels hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..harness.terminal import safe
from .compare import Comparison
from .gate import State, Verdict
from .present import Table, blocks, sensitivity_first, sensitivity_table

MARKS: Mapping[State, str] = {
    "pass": "✅ pass",
    "inconclusive": "⚠️ inconclusive",
    "regression": "❌ regression",
    "errors": "❌ too many errors",
    "incomparable": "⛔ incomparable",
}
_PUNCTUATION = re.compile(r"[\\`*_\[\]<>|~]|^[-+#=]")


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line, as a link, a mention or a table never."""
    flat = safe(text).replace("\n", " ").replace("\t", " ")
    plain = _PUNCTUATION.sub(lambda found: f"&#{ord(found[0])};", flat.replace("&", "&amp;"))
    return plain.replace("@", "@&#8203;")


def comparison_markdown(comparison: Comparison) -> str:
    """Every candidate on every task: what stands in the way, then the tables."""
    lines = []
    for block in blocks(comparison):
        lines += [f"### {escape(block.title)}", ""]
        lines += [f"- {escape(line)}" for line in block.first] + [""] * bool(block.first)
        for header, rows in block.tables:
            lines += [*table_lines((header, rows)), ""]
        lines += [f"{escape(line)}  " for line in block.last] + [""] * bool(block.last)
    lines += [f"- {escape(line)}" for line in comparison.missing]
    return "\n".join(lines).rstrip() + "\n"


def sensitivity_markdown(comparisons: Mapping[str, Comparison]) -> str:
    """The difference of the primary metric under each profile."""
    first = [f"- {escape(line)}" for line in sensitivity_first(comparisons)]
    lines = ["### By answer profile", "", *first, *[""] * bool(first), *table_lines(sensitivity_table(comparisons))]
    return "\n".join(lines) + "\n"


def verdict_markdown(verdict: Verdict, comparison: Comparison | None = None) -> str:
    """The verdict first, what was checked, then the comparison, where it is given, folded away."""
    title = f"## {MARKS[verdict.state]}: {escape(verdict.candidate)} against {escape(verdict.baseline)}"
    rows = [(task.task, check.name, MARKS[check.state], check.text) for task in verdict.tasks for check in task.checks]
    table = table_lines((("task", "check", "result", ""), tuple(rows)), "---")
    notes = [f"- {escape(note)}" for note in verdict.notes]
    folded = []
    if comparison:
        folded = ["<details><summary>All figures</summary>", "", comparison_markdown(comparison), "</details>"]
    return "\n".join([title, "", escape(verdict.sentence), "", *table, "", *notes, *folded]) + "\n"


def table_lines(table: Table, rest: str = "---:") -> Iterable[str]:
    """Lines of a table, its first column to the left and the ``rest`` as given."""
    header, rows = table
    yield "| " + " | ".join(map(escape, header)) + " |"
    yield "|".join(["", "---", *[rest] * (len(header) - 1), ""])
    for row in rows:
        yield "| " + " | ".join(map(escape, row)) + " |"
