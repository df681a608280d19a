"""Where a page's figures are from: what every run's manifest says."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import cast

from ..harness.digests import json_digest
from ..harness.types import Json, finite
from .episodes import Table, visible
from .field import Field
from .runs import Run


def manifests(field: Field) -> list[Table]:
    """A block for each run of each entrant."""
    return [
        {
            "number": stand.number,
            "title": f"{field.labels[stand.number]}, {task.name}",
            "rows": _rows(run),
        }
        for task in field.tasks
        for stand in task.stands.values()
        for run in stand.runs
    ]


def _rows(run: Run) -> Json:
    return [[name, visible(text, 1200)] for name, text in _facts(run) if text]


def _facts(run: Run) -> Iterable[tuple[str, str]]:
    manifest, identity = run.manifest, run.identity
    environment, engine = _table(manifest.get("environment")), _table(manifest.get("engine"))
    yield "command", shlex.join(str(word) for word in cast("list[Json]", manifest["command"]))
    yield "run", f"{run.folder.name}, manifest {json_digest(dict(identity))[:12]}"
    yield "weights", str(identity.get("model", ""))[:16]
    yield "dataset", f"{str(identity.get('dataset', ''))[:16]}, {_dataset(_table(manifest.get('dataset')))}"
    yield "prompt", f"{str(identity.get('prompt', ''))[:16]}, protocol {identity.get('protocol')}"
    yield "sampling", f"{_pairs(_table(identity.get('sampling')))}, seed {identity.get('seed')}"
    yield "limits", _pairs(_table(identity.get("limits")))
    yield "budgets", _pairs(_table(identity.get("budget")))
    yield "answers", f"profile {run.profile.name} {run.profile.version}"
    yield "engine", _pairs({key: engine[key] for key in ("name", "dtype", "device", "attention") if engine.get(key)})
    yield "retries", _retries(manifest)
    yield "episodes", _episodes(run)
    yield "code", _code(environment)
    yield "packages", _pairs(_table(environment.get("versions")))
    yield "machine", ", ".join(str(environment[key]) for key in ("gpu", "cpu", "platform") if environment.get(key))
    yield "time", _time(manifest)
    yield "warnings", "; ".join(str(warning) for warning in cast("list[Json]", manifest.get("warnings") or []))


def _retries(manifest: Mapping[str, Json]) -> str:
    """How often a server was asked again, by what made it necessary; the engine's counts are those of all writers."""
    found = _table(_table(manifest.get("engine")).get("retries"))
    return _pairs({kind: int(finite(times) or 0) for kind, times in found.items()})


def _table(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _pairs(values: Mapping[str, Json]) -> str:
    return ", ".join(f"{name} {_plain(value)}" for name, value in values.items() if value is not None)


def _plain(value: Json) -> str:
    return " to ".join(str(part) for part in value) if isinstance(value, list) else str(value)


def _dataset(source: Mapping[str, Json]) -> str:
    names = [str(source[key]) for key in ("repository", "folder", "revision", "layout") if source.get(key)]
    return ", ".join(
        [
            *names,
            *(["synthetic"] if source.get("synthetic") else []),
            *([] if source.get("complete", True) else ["not whole"]),
        ]
    )


def _episodes(run: Run) -> str:
    errors = ", ".join(f"{count} {state}" for state, count in run.errors.items() if count)
    damaged = f", {len(run.damaged)} damaged lines left out" if run.damaged else ""
    return f"{run.episodes} of {run.expected}" + (f", {errors}" if errors else "") + damaged


def _code(environment: Mapping[str, Json]) -> str:
    git = _table(environment.get("git"))
    return f"{git['commit']}{', with uncommitted changes' if git.get('dirty') else ''}" if git.get("commit") else ""


def _time(manifest: Mapping[str, Json]) -> str:
    started, finished = finite(manifest.get("started")), finite(manifest.get("finished"))
    if started is None:
        return ""
    begun = f"{datetime.fromtimestamp(started, UTC):%Y-%m-%d %H:%M:%S} UTC"
    return begun if finished is None else f"{begun}, {finished - started:.1f} s"
