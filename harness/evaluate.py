"""One evaluation: open task and model, resolve the setting, run what is missing, score, write what is derived."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

from . import registry
from .counts import add_seconds, add_up
from .engine import Engine, EngineFactory
from .errors import UsageError
from .manifest import check_same, check_samples, dataset_fingerprint, environment
from .record import SCHEMA, Record
from .registry import guarded
from .request import Request, data_options, engine_options, error_share
from .runner import DRAIN_SECONDS, Job, Stop, pending, run_all
from .scoring import Judge, check_reads, score_records, score_row, summarise
from .settings import Layer, Setting, check_keys, resolve
from .sharing import absorb_shards
from .signals import Drain
from .store import (
    MANIFEST,
    METRICS,
    RunStore,
    is_new,
    is_run,
    key_alone,
    read_manifest,
    read_records,
    read_run,
    write_json,
    write_lines,
)
from .task import Dataset, Profile, Task
from .types import Json, Sample
from .video import pyav

DEFAULT_PROFILE = "strict"
GRACE_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class Plan:
    """An evaluation ready to run: the first screen shows it.

    Attributes:
        spent: seconds beside the engine, by what they were spent on, while it runs; see ``run_all``.
        start: what the engine said of itself when the run was begun or gone on with.
    """

    request: Request
    task: Task
    profile: Profile
    dataset: Dataset
    samples: Sequence[Sample]
    engine: Engine
    setting: Setting
    identity: Mapping[str, Json]
    max_error_share: float
    warnings: Sequence[str]
    spent: dict[str, float] = field(default_factory=dict)
    start: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """How an evaluation ended.

    Attributes:
        failed: whether more episodes than allowed ended in an error state.
        signal: number of the signal that ended it early, else 0.
    """

    folder: Path
    metrics: Mapping[str, Json]
    records: int
    expected: int
    damaged: Sequence[str]
    error_share: float
    failed: bool
    signal: int = 0


class Watcher:
    """What a caller is told while a run goes on; override what is of interest."""

    def opened(self, plan: Plan, todo: int) -> None:
        """The run is about to start; ``todo`` episodes are missing."""

    def finished(self, record: Record) -> None:
        """An episode has been written."""

    def damaged(self, lines: Sequence[str]) -> None:
        """Lines of the journal were torn or damaged and are run again."""


def find_engine(model: str, engine: str | None) -> EngineFactory:
    """The engine for a model: the named one, or the first that accepts it, ``transformers`` last."""
    if engine is not None:
        return cast(EngineFactory, registry.make("engines", engine))
    ordered = sorted(registry.names("engines"), key=lambda name: name == "transformers")
    for name in ordered:
        try:
            factory = cast(EngineFactory, registry.make("engines", name))
        except UsageError:
            continue
        with contextlib.suppress(Exception):  # a broken plugin must not stand in the way of the others
            if factory.accepts(model):
                return factory
    if not model:
        raise UsageError("--model is empty; `prh list models` shows what needs no file")
    if os.path.lexists(model):
        raise UsageError(f"{model} is no checkpoint: it has no config.json or adapter_config.json")
    known = ("tiny", "oracle", "pixels", "blind", "replay:RUN", "http://HOST:PORT/v1#NAME")
    raise UsageError(registry.unknown("models", model, known))


def plan(request: Request, opened: Engine | None = None) -> Plan:
    """Open everything an evaluation needs and check that it fits together. Raises PrhError.

    Args:
        opened: an engine to take instead of opening the model's, such as one that stands for workers elsewhere.
    """
    check_keys(request.overrides, "--set")
    task = cast(Task, registry.make("tasks", request.task))
    factory = find_engine(request.model, request.engine)
    allowed = error_share(request)
    options = data_options(request, task)
    dataset = guarded(f"task {request.task}", lambda: task.load(options))
    check_samples(dataset.samples, request.task)
    samples = _chosen(request, dataset)
    defaults = guarded(f"the engine of {request.model}", lambda: factory.defaults(request.model))
    layers: list[Layer] = [
        ("task", task.settings),
        ("prh.json", defaults),
        ("prh.toml", request.config),
        ("command line", request.overrides),
    ]
    setting = guarded("the protocol", lambda: resolve(layers, request.seed))
    profile = load_profile(str(request.option("profile", DEFAULT_PROFILE)))
    check_reads(profile, task)
    wanted = engine_options(request, setting, task, dataset, options)
    engine = opened or guarded(f"the engine of {request.model}", lambda: factory.open(request.model, wanted))
    described = guarded(f"the engine of {request.model}", lambda: dict(engine.describe()))
    check_calls(setting, engine)
    identity: dict[str, Json] = {
        "task": task.name,
        "split": options.split,
        "dataset": dataset_fingerprint(dataset.samples),
        "model": engine.fingerprint,
        "numerics": numerics(described, dataset, setting),
        **guarded("the protocol", setting.identity),
    }
    warnings = _warnings(task, dataset, setting)
    if described.get("notice"):
        warnings.append(str(described["notice"]))
    return Plan(request, task, profile, dataset, samples, engine, setting, identity, allowed, warnings)


def check_calls(setting: Setting, engine: Engine) -> None:
    """Refuse a protocol whose calls the engine cannot carry. Raises UsageError."""
    if setting.protocol.declared() and not engine.caps.native_calls:
        name = engine.describe().get("name")
        raise UsageError(
            f"protocol {setting.protocol.name} declares functions, which the engine {name} does not carry; "
            "choose another --protocol, such as pixel-reasoner"
        )


def numerics(described: Mapping[str, Json], dataset: Dataset, setting: Setting) -> dict[str, Json]:
    """What the engine computes with; how it shows videos or carries calls only where there are any."""
    names = ["name", "dtype", "attention", "pixels", *(["omit"] if described.get("omit") else [])]
    if setting.protocol.native:
        names.append("mode")
    if "video" in described and any(medium.kind == "video" for sample in dataset.samples for medium in sample.media):
        names.append("video")
    return {name: described.get(name) for name in names}


def _chosen(request: Request, dataset: Dataset) -> Sequence[Sample]:
    """The samples to run, with what they need at hand. Raises UsageError or Prerequisite."""
    missing = sorted(set(request.selection.ids) - {sample.id for sample in dataset.samples})
    if missing:
        raise UsageError(f"{request.task} has no sample {missing[0]!r}; ids stand in the records of a run (`prh show`)")
    samples = request.selection.choose(dataset.samples)
    if not samples:
        raise UsageError(f"{request.task} has no samples to run; see its data with `prh data check {request.task}`")
    if any(isinstance(m.source, Path) and m.kind == "video" for sample in samples for m in sample.media):
        pyav()
    return samples


def load_profile(name: str) -> Profile:
    """An answer profile by name. Raises UsageError."""
    return cast(Profile, registry.make("profiles", name))


def load_task(name: str) -> Task:
    """A task by name. Raises UsageError."""
    return cast(Task, registry.make("tasks", name))


def run(plan: Plan, watcher: Watcher | None = None) -> Result:
    """Run what is missing, then score everything the folder holds. Raises PrhError."""
    watcher = watcher or Watcher()
    check_folder(plan.request.out)
    with RunStore(plan.request.out, part=key_alone) as store:
        jobs = begin(plan, store)
        if store.damaged and jobs:
            watcher.damaged(store.damaged)
        watcher.opened(plan, len(jobs))
        number = asyncio.run(run_jobs(plan, jobs, store, watcher.finished)) if jobs else 0
        return finish(plan, store, number, ran=bool(jobs))


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than a run. Raises UsageError."""
    if not is_run(folder) and not is_new(folder):
        raise UsageError(f"{folder} exists and is no run folder; choose another --out")


def begin(plan: Plan, store: RunStore) -> list[Job]:
    """Begin or go on with a run; returns what is missing. Raises UsageError where it was begun differently."""
    folder = plan.request.out
    plan.start.update(plan.engine.describe())
    if is_run(folder):
        check_same(cast("Mapping[str, Json]", read_manifest(folder)["identity"]), plan.identity, folder)
    else:
        write_json(folder / MANIFEST, manifest(plan))
    absorb_shards(store)
    return pending(plan.samples, plan.request.repeats, store)


def finish(plan: Plan, store: RunStore, number: int, writers: Sequence[Json] = (), *, ran: bool) -> Result:
    """Note how a run ended and score what it holds.

    Args:
        number: of the signal that ended it early, else 0.
        writers: what the engine of each writer counted, where there were several.
        ran: whether anything was missing; where nothing was, what was counted stays as it is.
    """
    folder = plan.request.out
    note_end(folder, plan, done=not number, writers=writers, ran=ran)
    metrics = score(folder, plan.task, plan.profile, plan.setting.protocol.answer_tag)
    errors = sum(cast("Mapping[str, int]", metrics["errors"]).values())
    records = int(cast(int, metrics["n"])) + errors
    share = errors / records if records else 0.0
    expected = len(plan.samples) * plan.request.repeats
    failed = share > plan.max_error_share
    return Result(folder, metrics, records, expected, store.damaged, share, failed, number)


def score(folder: Path, task: Task, profile: Profile, answer_tag: str, *, derived: bool = True) -> dict[str, Json]:
    """Score a run under a profile: writes ``scores/P.jsonl`` and, for the run's own profile, ``metrics.json``."""
    judged, damaged = read_run(folder, Judge(task, profile, answer_tag))
    rows = [row for _, row in judged if row is not None]
    write_lines(folder / "scores" / f"{profile.name}.jsonl", map(score_row, rows))
    own = read_manifest(folder)
    metrics = summarise([episode for episode, _ in judged], rows, task, profile)
    identity = cast("Mapping[str, Json]", own["identity"])
    metrics = {
        "schema": metrics.pop("schema"),
        "task": own["task"],
        "model": own["model"],
        "protocol": identity["protocol"],
        "expected": own.get("expected"),
        "damaged": cast(Json, damaged),
        **metrics,
    }
    if derived:
        write_json(folder / METRICS, metrics)
    return metrics


def answer_tag(protocol: str) -> str:
    """The tag that a protocol puts around a final answer, empty where it has none. Raises UsageError."""
    return str(getattr(registry.load("protocols", protocol), "answer_tag", ""))


def sensitivity(folder: Path, task: Task, tag: str) -> dict[str, Json]:
    """The same replies under every profile that exists for the task: primary metric, and the share with an answer."""
    records = read_records(folder)
    found: dict[str, Json] = {}
    for name in registry.names("profiles"):
        try:
            profile = load_profile(name)
        except UsageError as error:
            found[name] = {"error": str(error)}
            continue
        if not profile.reads(task):
            continue
        rows = score_records(records, task, profile, tag)
        primary = profile.aggregate(task, rows)[task.primary]
        answered = sum(bool(row.answer and row.answer.strip()) for row in rows) / len(rows) if rows else None
        found[name] = {**cast("dict[str, Json]", asdict(primary)), "answered": answered}
    return found


def manifest(plan: Plan) -> dict[str, Json]:
    """The manifest of a run that begins."""
    request = plan.request
    return {
        "schema": SCHEMA,
        "task": plan.task.name,
        "model": request.model,
        "profile": plan.profile.name,
        "command": list(request.command),
        "directory": str(Path.cwd()),
        "identity": cast(Json, dict(plan.identity)),
        "origins": cast(Json, dict(plan.setting.origins)),
        "dataset": cast(Json, {**plan.dataset.source, "complete": plan.dataset.complete}),
        "selection": {"limit": request.selection.limit, "ids": list(request.selection.ids)},
        "repeats": request.repeats,
        "expected": len(plan.samples) * request.repeats,
        "concurrency": request.concurrency,
        "engine": cast(Json, dict(plan.engine.describe())),
        "warnings": list(plan.warnings),
        "environment": environment(),
        "started": time.time(),
        "finished": None,
    }


def note_end(folder: Path, plan: Plan, *, done: bool, writers: Sequence[Json], ran: bool) -> None:
    """Note in the manifest when the run ended, and add what was counted to what earlier sessions counted."""
    value = read_manifest(folder)
    value["expected"] = max(int(cast(int, value["expected"])), len(plan.samples) * plan.request.repeats)
    if ran or not value["finished"]:
        value["finished"] = time.time() if done else None
    if ran:
        total = cast("dict[str, Json]", value["engine"])
        # The first writer last: of what is no count, the newest is kept.
        for own in reversed(cast("Sequence[Mapping[str, Json]]", writers) or [plan.engine.describe()]):
            total = add_up(total, plan.start, own)
        value["engine"] = total
        value["seconds"] = add_seconds(value.get("seconds"), plan.spent)
        if writers:
            value["writers"] = [*cast("list[Json]", value.get("writers", [])), *writers]
    write_json(folder / MANIFEST, value)


async def run_jobs(plan: Plan, jobs: Sequence[Job], store: RunStore, report: Callable[[Record], None]) -> int:
    """Run the jobs; returns the number of the signal that ended it early, else 0."""
    stop = Stop()
    folder = plan.request.out

    def say(number: int) -> str:
        return f"prh: ended by signal {number} inside a step that goes on; `prh resume {folder}` runs what is missing"

    with Drain(stop.event, DRAIN_SECONDS + GRACE_SECONDS, say) as drain:
        try:
            await run_all(
                jobs,
                plan.engine,
                plan.setting,
                store,
                concurrency=plan.request.concurrency,
                stop=stop,
                report=report,
                spent=plan.spent,
            )
        finally:
            with contextlib.suppress(Exception):  # every record is written; what cannot be closed dies with the process
                await plan.engine.close()
        return drain.number


def _warnings(task: Task, dataset: Dataset, setting: Setting) -> list[str]:
    found = []
    if not dataset.complete:
        found.append(f"this is not the whole of {task.name}: its row counts differ from the published benchmark's")
    high = setting.budget.input.high
    if task.illegible_at is not None and high > task.illegible_at:
        found.append(
            f"the input budget of {high:,} pixels is above {task.illegible_at:,}, at which the details of "
            f"{task.name} are proven illegible; its needs_operation slice may be answered without operations"
        )
    return found
