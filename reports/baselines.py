"""Published figures of other systems, each with its source and how it was measured.

A published figure is no run: it has no interval, and the prompt, the pixels and the reading of answers behind it are
those of its source. The value is the task's primary metric in percent.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import cast

from ..harness import registry
from ..harness.types import Json, finite
from .episodes import Table, visible
from .field import Field, TaskField
from .wording import name_of, valued

MINIATURE = "-mini"
LONGEST = 300
NOTE = (
    "In percent of the primary metric ({primaries}). Published figures of one and the same checkpoint differ by up to "
    "20 points, because prompts, pixels and the reading of answers differ; each row says how it was measured, as far "
    "as its source does."
)


@dataclass(frozen=True, slots=True)
class Published:
    """One published figure.

    Attributes:
        task: the benchmark, as `prh list tasks` calls it.
        value: the primary metric in percent.
        measured: by whom and how, as far as the source says.
    """

    task: str
    system: str
    value: float
    measured: str
    source: str


@cache
def published() -> tuple[Published, ...]:
    """Figures from papers, model cards and issue threads, as `prh list baselines` shows them."""
    text = resources.files(__package__).joinpath("baselines.json").read_text(encoding="utf-8")
    return tuple(Published(**row) for row in json.loads(text))


def rows() -> list[dict[str, Json]]:
    """The same as tables, as `prh list baselines` takes them from any package."""
    return [cast("dict[str, Json]", asdict(row)) for row in published()]


def every_row() -> list[Published]:
    """The figures of every package, ours among them; a list that cannot be read is left out whole."""
    found: list[Published] = []
    for plugin in registry.load_all("baselines")[0].values():
        with contextlib.suppress(Exception, SystemExit):  # a stranger's list may fail in any way
            found += [_read(row) for row in cast("Callable[[], Iterable[Mapping[str, Json]]]", plugin)()]
    return found


def _read(row: Mapping[str, Json]) -> Published:
    """A stranger's row. Raises KeyError, and ValueError where its value is no number."""
    value = finite(row["value"])
    if value is None:
        raise ValueError(row)
    task, system, measured, source = (
        visible(str(row[name]), LONGEST) for name in ("task", "system", "measured", "source")
    )
    return Published(task, system, value, measured, source)


def benchmark_of(task: TaskField) -> str:
    """The benchmark whose published figures stand beside a task: itself, or what a miniature is one of."""
    return task.name.removesuffix(MINIATURE) if task.synthetic else task.name


def published_table(field: Field) -> Table | None:
    """Published figures of the benchmarks of a page, own rows first; None where there are none.

    A figure on a miniature is no figure on the benchmark and has no row.
    """
    names = list(dict.fromkeys(benchmark_of(task) for task in field.tasks))
    rows = [row for row in every_row() if row.task in names]
    if not rows:
        return None
    columns = [name for name in names if any(row.task == name for row in rows)]
    groups: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows:
        groups.setdefault((row.system, row.measured, row.source), {})[row.task] = row.value
    others = [
        {
            "system": system,
            "cells": [f"{values[name]:.1f}" if name in values else "" for name in columns],
            "measured": measured,
            "source": source,
            "own": False,
        }
        for (system, measured, source), values in sorted(groups.items(), key=lambda item: _order(columns, item[1]))
    ]
    own = _own(field, columns)
    return {"columns": cast(Json, columns), "rows": cast(Json, [*own, *others]), "own": bool(own)}


def _order(columns: Sequence[str], values: dict[str, float]) -> list[float]:
    return [-values.get(name, 0.0) for name in columns]


def _own(field: Field, columns: Sequence[str]) -> list[Table]:
    rows: list[Table] = []
    for place, label in enumerate(field.labels):
        cells = []
        for name in columns:
            task = next((task for task in field.tasks if task.name == name and place in task.stands), None)
            cells.append(valued(task.primary, task.stands[place].rate(task.primary)) if task else "")
        if any(cells):
            rows.append(
                {"system": label, "cells": cast(Json, cells), "measured": "this page", "source": "the run", "own": True}
            )
    return rows


def note(field: Field) -> str:
    """What is to be known before a figure of one's own is held against a published one."""
    minis = [task.name for task in field.tasks if task.synthetic]
    primaries = ", ".join(f"{benchmark_of(task)}: {name_of(task.primary)}" for task in field.tasks)
    text = NOTE.format(primaries=primaries)
    if minis:
        text += (
            f" {', '.join(minis)}: synthetic miniatures, whose figures cannot be held against the benchmarks' own here."
        )
    return text
