"""What a run shows while it goes on and when it ends: plain lines, a moving count on a terminal, or JSON lines."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import click

from .evaluate import Plan, Result, Watcher
from .record import Record
from .request import Request
from .scoring import read_metric
from .terminal import percent, safe, table
from .types import ERROR_STATES, Json


@dataclass(slots=True)
class Screen(Watcher):
    """Plain lines, and a moving count on a terminal."""

    total: int = 0
    done: int = 0
    errors: int = 0
    start: float = 0.0
    last: float = 0.0
    new_tokens: int = 0
    plan: Plan | None = None

    def opened(self, plan: Plan, todo: int) -> None:
        request, setting = plan.request, plan.setting
        self.plan = plan
        self.total = len(plan.samples) * request.repeats
        self.done = self.total - todo
        self.start = self.last = time.monotonic()
        described = plan.engine.describe()
        click.echo(
            f"model     {safe(request.model)} ({described.get('name')}, {described.get('dtype', '-')}, "
            f"{described.get('device', '-')}), fingerprint {plan.engine.fingerprint[:12]}"
        )
        click.echo(
            f"task      {request.task}, {len(plan.samples)} of {len(plan.dataset.samples)} samples"
            + (f" x {request.repeats} repeats" if request.repeats > 1 else "")
        )
        click.echo(
            f"protocol  {setting.protocol.name}, temperature {setting.sampling.temperature:g}, seed {setting.seed}, "
            f"at most {setting.limits.turns} turns of {setting.limits.new_tokens} tokens"
        )
        click.echo(f"run       {request.out}" + (f", {self.done} episodes done before" if self.done else ""))
        for warning in plan.warnings:
            click.echo(f"warning   {warning}", err=True)

    def damaged(self, lines: Sequence[str]) -> None:
        for line in lines:
            click.echo(f"warning   {line}; its episode runs again", err=True)

    def _add(self, record: Record) -> None:
        self.done += 1
        self.errors += record["end"] in ERROR_STATES
        self.new_tokens += cast("dict[str, int]", record["usage"])["new_tokens"]

    def finished(self, record: Record) -> None:
        self._add(record)
        if record["end"] in ERROR_STATES and self.errors <= 3:
            self._clear()
            click.echo(f"{record['end']}  {safe(str(record['id']))}: {safe(str(record['error']))}", err=True)
        now = time.monotonic()
        terminal = sys.stdout.isatty()
        due = now - self.last >= (0.1 if terminal else 10.0) or self.done == self.total
        if due:
            self.last = now
            self._count(now, terminal)

    def _count(self, now: float, terminal: bool) -> None:
        seconds = max(now - self.start, 1e-9)
        work = self._work()
        tokens = cast(int, work.get("new_tokens", self.new_tokens))
        line = f"{self.done}/{self.total} episodes, {tokens / seconds:.0f} tokens/s, {self.errors} errors"
        line += "".join(f", {text}" for text in [*_shares(work), *_beside(self.plan.spent if self.plan else {})])
        click.echo(f"\r{line}\x1b[K" if terminal else line, nl=not terminal or self.done == self.total)

    def _work(self) -> Mapping[str, Json]:
        """What the engine has counted so far, where it counts."""
        found = self.plan.engine.describe().get("work") if self.plan else None
        return found if isinstance(found, dict) else {}

    def _clear(self) -> None:
        if sys.stdout.isatty():
            click.echo("\r\x1b[K", nl=False)

    def ended(self, request: Request, result: Result) -> None:
        """The last screen: the table and the next two commands."""
        if result.signal:
            click.echo(f"\nstopped by signal {result.signal}: {result.records} of {result.expected} episodes are kept")
            click.echo(f"next      prh resume {shlex.quote(str(result.folder))}")
            return
        self._spent()
        click.echo("")
        print_metrics(result.metrics)
        folder = shlex.quote(str(result.folder))
        click.echo(f"\nnext      prh show {folder}\n          prh score {folder} --profile {result.metrics['profile']}")

    def _seconds(self) -> dict[str, float]:
        """Where the time went: the engine's thread, and beside it media, tools and store."""
        own = cast("Mapping[str, float]", self._work().get("seconds") or {})
        return {**own, **(self.plan.spent if self.plan else {})}

    def _spent(self) -> None:
        parts = [f"{name} {seconds:.1f} s" for name, seconds in self._seconds().items() if seconds >= 0.05]
        if parts:
            click.echo("time      " + ", ".join(parts))


@dataclass(slots=True)
class JsonScreen(Screen):
    """Events as JSON lines, for machines."""

    def _say(self, event: str, **values: Json) -> None:
        click.echo(json.dumps({"event": event, **values}, ensure_ascii=True))

    def opened(self, plan: Plan, todo: int) -> None:
        self.plan = plan
        self.total = len(plan.samples) * plan.request.repeats
        self.done = self.total - todo
        identity = cast(Json, dict(plan.identity))
        self._say(
            "start",
            run=str(plan.request.out),
            total=self.total,
            done=self.done,
            identity=identity,
            warnings=list(plan.warnings),
        )

    def damaged(self, lines: Sequence[str]) -> None:
        self._say("damaged", lines=list(lines))

    def finished(self, record: Record) -> None:
        self._add(record)
        work = self._work()
        self._say(
            "episode",
            id=record["id"],
            repeat=record["repeat"],
            end=record["end"],
            done=self.done,
            total=self.total,
            errors=self.errors,
            new_tokens=work.get("new_tokens", self.new_tokens),
            occupancy=work.get("occupancy"),
            cache_share=work.get("cache_share"),
            seconds={name: round(seconds, 3) for name, seconds in self._seconds().items()},
        )

    def ended(self, request: Request, result: Result) -> None:
        self._say(
            "end",
            run=str(result.folder),
            signal=result.signal,
            records=result.records,
            expected=result.expected,
            metrics=cast(Json, dict(result.metrics)),
        )


def _shares(work: Mapping[str, Json]) -> list[str]:
    """How full the batch is, what needed no reading, and what the engine's time goes to."""
    found = []
    for name, words in (("occupancy", "batch {:.0%} full"), ("cache_share", "{:.0%} of prompts cached")):
        if isinstance(share := work.get(name), float):
            found.append(words.format(share))
    seconds = cast("Mapping[str, float]", work.get("seconds") or {})
    whole = sum(seconds.values())
    if whole:
        found.append(" ".join(f"{name} {part / whole:.0%}" for name, part in seconds.items()))
    return found


def _beside(spent: Mapping[str, float]) -> list[str]:
    """Seconds of what runs beside the engine; they overlap, so that they are no shares."""
    return [" ".join(f"{name} {seconds:.1f} s" for name, seconds in spent.items())] if spent else []


def print_metrics(metrics: Mapping[str, Json]) -> None:
    """The table of a run: accuracy, RaPR and op-error rate, overall, by category and by slice."""
    primary = str(metrics["primary"])
    parts = [("all", metrics["metrics"])]
    for group in ("categories", "slices"):
        parts += [(f"  {name}", part) for name, part in cast("dict[str, Json]", metrics[group]).items()]
    columns = {primary: f"{primary} %", "rapr": "RaPR %", "op_error_rate": "op-error %"}
    rows = []
    for name, part in parts:
        values = cast("dict[str, dict[str, Json]]", part)
        cells = [percent(read_metric(values[key])) for key in columns]
        rows.append([name, str(values["rapr"]["n"]), *cells, _mean(values, "operations"), _mean(values, "new_tokens")])
    click.echo(
        f"{metrics['task']} · {safe(str(metrics['model']))} · {metrics['protocol']} · profile {metrics['profile']}"
    )
    click.echo(table(["", "n", *columns.values(), "operations", "tokens"], rows))
    for line in cast("list[str]", metrics["damaged"]):
        click.echo(f"warning   {line}", err=True)
    episodes = int(cast(int, metrics["n"])) + sum(cast("dict[str, int]", metrics["errors"]).values())
    if metrics["expected"] and episodes < cast(int, metrics["expected"]):
        click.echo(f"warning   only {episodes} of {metrics['expected']} episodes are there; resume the run", err=True)
    ends = cast("dict[str, int]", metrics["ends"])
    unusual = {end: count for end, count in ends.items() if end != "answered"}
    if unusual:
        click.echo("ended     " + ", ".join(f"{count} {end}" for end, count in unusual.items()))
    overlap = cast("dict[str, dict[str, Json]]", metrics["metrics"]).get("crop_iou")
    if overlap:
        click.echo(f"crops     overlap what is asked about by {overlap['value']:.2f} in the median of {overlap['n']}")
    kinds = cast("dict[str, int]", metrics["operation_errors"])
    if kinds:
        click.echo("op errors " + ", ".join(f"{count} {kind}" for kind, count in kinds.items()))


def print_summary(runs: Sequence[Mapping[str, Json]]) -> None:
    """One row a run: what to compare at a glance."""
    rows = []
    for metrics in runs:
        values = cast("dict[str, dict[str, Json]]", metrics["metrics"])
        names = (str(metrics["primary"]), "rapr", "op_error_rate")
        cells = [percent(read_metric(values[name])) for name in names]
        rows.append([f"{metrics['task']} · {metrics['model']}", str(metrics["n"]), str(metrics["primary"]), *cells])
    click.echo(table(["run", "n", "metric", "value %", "RaPR %", "op-error %"], rows))


def print_sensitivity(run: str, metric: str, profiles: Mapping[str, Json]) -> None:
    """One row a profile: how much a figure owes to the way answers are read."""
    rows = []
    for name, value in profiles.items():
        values = cast("dict[str, float | None]", value)
        if "error" in values:
            click.echo(f"warning   {values['error']}", err=True)
            continue
        answered = "-" if values["answered"] is None else f"{100 * values['answered']:.1f}"
        rows.append([name, str(values["n"]), percent(read_metric(cast("dict[str, Json]", value))), answered])
    click.echo(run)
    click.echo(table(["profile", "n", f"{metric} %", "answered %"], rows))


def _mean(values: Mapping[str, Mapping[str, Json]], name: str) -> str:
    value = values[name]["value"]
    return "-" if value is None else f"{value:.1f}"
