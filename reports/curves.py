"""Curves of trainings: what their logs say by step, trainings that differ in their seed alone as a line with a band."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ..harness.digests import json_digest
from ..harness.errors import StoreError
from ..harness.intervals import t_quantile
from ..harness.store import read_json
from ..harness.types import Json, finite
from . import charts
from .episodes import Table, visible
from .wording import name_of

MANIFEST, LOG = "training.json", "log.jsonl"
# What is drawn, where a log has it: these, then evaluations of tasks, rewards by term, and what tells of the learner.
FIRST = (
    "rapr",
    "accuracy",
    "reward",
    "op_error_rate",
    "rapr.needs_operation",
    "accuracy.needs_operation",
    "operations",
)
LAST = ("loss", "entropy", "kl", "drift", "groups_filtered", "response_tokens")
TERM = "reward."
MOST_CURVES, MOST_POINTS = 16, 80
Series = tuple[str, list[tuple[float, float, float, float]]]


@dataclass(frozen=True, slots=True)
class Training:
    """One training's log.

    Attributes:
        rows: figures by name, a table a step.
        alike: digest of everything that makes it what it is but its seed.
        ended: why it ended before its time, empty where it did not.
    """

    folder: Path
    manifest: Mapping[str, Json]
    rows: tuple[Mapping[str, float], ...]
    alike: str
    ended: str = ""


def is_training(folder: Path) -> bool:
    """Whether a folder is a training's, with a log to draw."""
    return (folder / LOG).is_file() and not (folder / "run.json").exists()


def read_training(folder: Path) -> Training:
    """A training's log; a torn last line is left out. Raises StoreError."""
    manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    try:
        lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{folder / LOG} cannot be read: {error}") from None
    said = [_line(folder, line, number, number == len(lines)) for number, line in enumerate(lines, 1) if line.strip()]
    told = [value for value in said if value is not None]
    ended = next((f"{value['end']}: {value.get('message')}" for value in told if "end" in value), "")
    identity = manifest.get("identity")
    alike = json_digest(_unseeded(identity)) if identity else str(folder)
    return Training(folder, manifest, tuple(map(_figures, told)), alike, ended)


def _line(folder: Path, line: str, number: int, last: bool) -> dict[str, Json] | None:
    """A line of a log; None where it is the last and was cut off. Raises StoreError."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        if last:
            return None
        raise StoreError(f"{folder / LOG} line {number} is no JSON; was it edited?") from None
    if not isinstance(value, dict) or finite(value.get("step")) is None:
        raise StoreError(f"{folder / LOG} line {number} has no step; was it written by another tool?")
    return value


def _figures(row: Mapping[str, Json]) -> dict[str, float]:
    return {visible(name, 80): known for name, own in row.items() if (known := finite(own)) is not None}


def _unseeded(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: _unseeded(own) for name, own in value.items() if name != "seed"}
    return value


def views(trainings: Sequence[Training]) -> list[Table]:
    """A chart for each figure that a log has, the first ones first."""
    groups: dict[str, list[Training]] = {}
    for training in trainings:
        groups.setdefault(training.alike, []).append(training)
    wanted = _wanted({name for training in trainings for row in training.rows for name in row})
    found = []
    for number, name in enumerate(wanted):
        series = [one for own in groups.values() if (one := _series(own, name))]
        if series:
            svg = charts.curves(series, name_of(name), f"{name_of(name)} by step", f"curve-{number}")
            found.append(cast(Table, {"svg": svg, "caption": _caption(series, groups.values())}))
    return found


def _wanted(known: set[str]) -> list[str]:
    """What is drawn of all that logs say, in order."""
    tasks = sorted(name for name in known if ("." in name or "/" in name) and not name.startswith((*FIRST, TERM)))
    terms = sorted(name for name in known if name.startswith(TERM))
    return [name for name in (*FIRST, *tasks, *terms, *LAST) if name in known][:MOST_CURVES]


def _series(trainings: Sequence[Training], name: str) -> Series | None:
    """The mean over seeds at each step with its band; of a long log, of so many neighbouring steps at a time."""
    steps = sorted({row["step"] for training in trainings for row in training.rows if name in row})
    if not steps:
        return None
    width = -(-len(steps) // MOST_POINTS)
    place = {step: rank // width for rank, step in enumerate(steps)}
    seeds = [_averages(training.rows, name, place) for training in trainings]
    points = []
    for number in range(-(-len(steps) // width)):
        own = steps[number * width : (number + 1) * width]
        points.append((sum(own) / len(own), *band([values[number] for values in seeds if number in values])))
    label = trainings[0].folder.name + (f" and {len(trainings) - 1} more seeds" if len(trainings) > 1 else "")
    return visible(label, 60), points


def _averages(rows: Sequence[Mapping[str, float]], name: str, place: Mapping[float, int]) -> dict[int, float]:
    """One training's figure, averaged over the steps that are one point of the curve."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if name in row:
            found.setdefault(place[row["step"]], []).append(row[name])
    return {number: sum(values) / len(values) for number, values in found.items()}


def band(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean over seeds with its 95 % interval by Student's t; of one seed the value alone."""
    centre = sum(values) / len(values)
    if len(values) < 2:
        return centre, centre, centre
    deviation = math.sqrt(sum((value - centre) ** 2 for value in values) / (len(values) - 1))
    half = t_quantile(len(values) - 1) * deviation / math.sqrt(len(values))
    return centre, centre - half, centre + half


def _caption(series: Sequence[Series], groups: Iterable[Sequence[Training]]) -> str:
    several = [len(group) for group in groups if len(group) > 1]
    return f"Mean and 95 % band over {max(several)} seeds." if several else f"{len(series[0][1])} points."


def manifests(trainings: Sequence[Training]) -> list[Table]:
    """A block of the footer for each training."""
    found: list[Table] = []
    for training in trainings:
        identity = training.manifest.get("identity")
        facts = {
            "folder": training.folder.name,
            "kind": training.manifest.get("kind"),
            "base": training.manifest.get("base"),
            "steps": f"{len(training.rows)} rows to step {training.rows[-1]['step']:g}" if training.rows else "none",
            "ended": training.ended,
            "settings": json.dumps(identity, ensure_ascii=False) if identity else None,
            "versions": json.dumps(training.manifest.get("versions"), ensure_ascii=False)
            if training.manifest
            else None,
        }
        rows = [[name, visible(str(value), 3000)] for name, value in facts.items() if value]
        found.append(
            {"number": None, "title": f"Training {visible(training.folder.name, 120)}", "rows": cast(Json, rows)}
        )
    return found
