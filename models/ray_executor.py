"""``--executor ray``: the episodes of a run over the workers of a Ray cluster, or of a local one.

Each worker opens the model and writes a shard of its own, so that the run folder must be where all of them see it. A
worker that is lost has its missing episodes run by a new one. Options are those of ``Options``, the table ``executor``.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import ModuleType
from typing import Any, Protocol, cast

from ..harness.engine import Caps, Engine, Turn, TurnSpec
from ..harness.errors import ModelError, Prerequisite, PrhError, UsageError
from ..harness.evaluate import Plan, Result, Watcher, begin, check_folder, finish, note_end, plan
from ..harness.ledger import Conversation
from ..harness.ranks import run_share
from ..harness.record import Record
from ..harness.request import Request
from ..harness.runner import Job, pending
from ..harness.sharing import LostRank, absorb_shards, as_keys, jobs_of
from ..harness.signals import interrupting
from ..harness.store import RunStore, key_alone
from ..harness.types import Json, Size, Span

# How often what lost workers left is given to new ones.
ROUNDS = 3
# Seconds in which a cluster must be reached.
PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the table ``executor`` may hold beside ``name``.

    Attributes:
        workers: how many, each with the model.
        cpus, gpus: what each of them is given.
        address: of a cluster, as ``ray.init`` takes it; without one, RAY_ADDRESS, else a local Ray.
    """

    workers: int = 2
    cpus: float = 1.0
    gpus: float = 0.0
    address: str = ""

    @classmethod
    def read(cls, table: Mapping[str, Json]) -> Options:
        """Options from a table. Raises UsageError."""
        known = {own.name: own.default for own in fields(cls)}
        chosen: dict[str, Any] = {}
        for name, value in table.items():
            if name == "name":
                continue
            if name not in known:
                raise UsageError(f"`executor.{name}` is not known: use one of {', '.join(known)}")
            text = isinstance(known[name], str)
            number = not isinstance(value, bool) and isinstance(value, (int, float)) and value >= 0
            if not (isinstance(value, str) if text else number):
                raise UsageError(f"`executor.{name}` must be {'a text' if text else 'a number from 0'}, not {value!r}")
            chosen[name] = value
        made = cls(**chosen)
        if made.workers != int(made.workers) or made.workers < 1:
            raise UsageError(f"`executor.workers` must be a whole number from 1, not {made.workers}")
        return made


@dataclass(frozen=True, slots=True)
class Opened:
    """What a worker says of its engine."""

    fault: str
    fingerprint: str = ""
    notes: Mapping[str, Json] | None = None
    caps: Caps = field(default_factory=Caps)


class Worker:
    """One worker: a plan with the model in it. A user's mistake is an answer, not a crash."""

    def __init__(self, request: Request) -> None:
        self.plan: Plan | None = None
        self.fault = ""
        try:
            self.plan = plan(request)
        except PrhError as error:
            self.fault = str(error)

    def opened(self) -> Opened:
        """Its engine, or why there is none."""
        if self.plan is None:
            return Opened(self.fault)
        engine = self.plan.engine
        return Opened("", engine.fingerprint, dict(engine.describe()), engine.caps)

    def run(self, keys: Json, number: int, size: int) -> Json:
        """Run a share of the jobs; gives what the engine counted."""
        if self.plan is None:
            raise ModelError(self.fault)
        every = [(sample, repeat) for sample in self.plan.samples for repeat in range(self.plan.request.repeats)]
        run_share(self.plan, jobs_of(as_keys(keys), every), number, size, lambda _: None)
        return cast(Json, dict(self.plan.engine.describe()))


class Elsewhere:
    """Stands for the workers' engines where a run is planned and scored."""

    def __init__(self, opened: Opened) -> None:
        self.caps = opened.caps
        self.fingerprint = opened.fingerprint
        self._notes = opened.notes or {}

    def fit(self, size: Size, budget: Span) -> Size:
        """Images are shown elsewhere."""
        return size

    async def turn(self, conversation: Conversation, spec: TurnSpec) -> Turn:
        """Turns are taken elsewhere."""
        raise ModelError("turns are taken by the workers")

    async def release(self, conversation: Conversation) -> None:
        """Nothing is kept here."""

    def describe(self) -> Mapping[str, Json]:
        """What the first worker says."""
        return self._notes

    async def close(self) -> None:
        """Nothing is held here."""


class Actor(Protocol):
    """A worker as Ray hands it out."""

    opened: Any
    run: Any


class RayExecutor:
    """Runs a request over Ray."""

    summary = "workers of a Ray cluster, or of a local Ray"

    def run(self, request: Request, options: Mapping[str, Json], watcher: Watcher) -> Result:
        """Run what is missing, then score. Raises PrhError."""
        own = Options.read(options)
        ray = connect(own)
        data = request.data.resolve() if request.data is not None and request.data.exists() else request.data
        placed = replace(request, out=request.out.resolve(), data=data)
        team = Team(ray, own, placed)
        try:
            made = plan(request, cast(Engine, Elsewhere(team.first())))
            check_folder(request.out)
            with RunStore(request.out, part=key_alone) as store:
                return team.work(made, store, watcher)
        finally:
            team.dismiss()


class Team:
    """The workers of a run."""

    def __init__(self, ray: ModuleType, options: Options, request: Request) -> None:
        self.ray = ray
        self.options = options
        self._make = ray.remote(Worker).options(num_cpus=options.cpus, num_gpus=options.gpus, max_restarts=0)
        self._request = request
        self._actors: list[Actor] = [self._make.remote(request) for _ in range(options.workers)]

    def first(self) -> Opened:
        """What the workers say of their engines. Raises ModelError where they have none or several."""
        try:
            found: list[Opened] = self.ray.get([actor.opened.remote() for actor in self._actors])
        except self.ray.exceptions.RayError as error:
            raise ModelError(f"a worker cannot be started: {' '.join(str(error).split())[:300]}") from None
        for opened in found:
            if opened.fault:
                raise ModelError(opened.fault)
        if len({opened.fingerprint for opened in found}) > 1:
            raise ModelError("the workers have different weights under this name; give all of them the same files")
        return found[0]

    def work(self, made: Plan, store: RunStore, watcher: Watcher) -> Result:
        """Have everything run that is missing. Raises LostRank where workers are lost again and again."""
        jobs = begin(made, store)
        watcher.opened(made, len(jobs))
        ran = bool(jobs)
        writers: list[Json] = []
        for attempt in range(ROUNDS):
            with interrupting() as came:
                try:
                    found, lost = self._round(jobs)
                except KeyboardInterrupt:
                    self.dismiss()
                    with contextlib.suppress(PrhError):  # a shard that is still held is taken by who goes on
                        take(store, watcher.finished)
                    return finish(made, store, came[0] if came else signal.SIGINT, writers, ran=ran)
            writers += found
            take(store, watcher.finished)
            # Not only where one was lost: a worker that is told to end drains, and comes back with work undone.
            jobs = pending(made.samples, made.request.repeats, store)
            if not jobs:
                return finish(made, store, 0, writers, ran=ran)
            if attempt + 1 < ROUNDS:
                self._actors = [self._make.remote(self._request) for _ in range(min(max(lost, 1), len(jobs)))]
        note_end(made.request.out, made, done=False, writers=writers, ran=ran)
        raise LostRank(
            f"workers were lost {ROUNDS} times and {len(jobs)} episodes are missing; every finished one is kept, and "
            f"`prh resume {made.request.out}` runs what is missing"
        )

    def _round(self, jobs: Sequence[Job]) -> tuple[list[Json], int]:
        """What each worker counted, and how many were lost."""
        keys: list[Json] = [[sample.id, repeat] for sample, repeat in jobs]
        size = len(self._actors)
        running = [actor.run.remote(keys, number, size) for number, actor in enumerate(self._actors)] if keys else []
        found: list[Json] = []
        lost = 0
        for reference in running:
            try:
                found.append(self.ray.get(reference))
            except self.ray.exceptions.RayTaskError as error:
                raise ModelError(f"a worker failed: {' '.join(str(error.cause).split())[:300]}") from None
            except self.ray.exceptions.RayError:
                lost += 1
        return found, lost

    def dismiss(self) -> None:
        """End the workers."""
        for actor in self._actors:
            self.ray.kill(actor)
        self._actors = []


def take(store: RunStore, report: Callable[[Record], None]) -> None:
    """Take the shards; a worker that has just died holds its lock a moment longer."""
    for _ in range(20):
        try:
            return absorb_shards(store, report)
        except PrhError:
            time.sleep(0.25)
    return absorb_shards(store, report)


def check_address(address: str) -> None:
    """Refuse an address at which nothing listens, for which Ray itself would wait for minutes. Raises UsageError."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        with socket.create_connection((host, int(port)), timeout=PATIENCE):
            return
    except (OSError, OverflowError) as error:
        raise UsageError(f"the Ray cluster {address} cannot be reached: {error}; start it with `ray start`") from None


def connect(options: Options) -> ModuleType:
    """Ray, connected. Raises Prerequisite or UsageError."""
    try:
        import ray
    except ImportError:
        raise Prerequisite("--executor ray needs ray, which is not installed: pip install 'prh[ray]'") from None
    if not ray.is_initialized():
        check_address(options.address)
        try:
            ray.init(
                address=options.address or None,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            where = options.address or "a local Ray"
            raise UsageError(f"{where} cannot be reached: {' '.join(str(error).split())[:200]}") from None
    return cast(ModuleType, ray)
