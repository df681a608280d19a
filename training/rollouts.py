"""Rollouts: episodes of the harness's own loop with sampling switched on, recorded as ordinary runs.

    rollouts/round-000003/vstar-mini/   a run of one task, as ``prh show``, ``score`` and ``report`` open it

A record says besides which ``round`` it belongs to and which ``version`` of the weights (updates done) sampled it; its
``id`` is its group. Token ids and log-probabilities stand in its turns and are never made again from text. Several
processes write shards of one run, so that they must share a file system, and each reads all of it when all are done.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

from ..harness.engine import Caps, Engine, Turn, TurnSpec
from ..harness.errors import ModelError, StoreError, UsageError
from ..harness.evaluate import score
from ..harness.journal import read_journal, whole
from ..harness.ledger import Conversation
from ..harness.manifest import check_same, environment
from ..harness.record import SCHEMA, Record, key_of
from ..harness.runner import Job, run_all
from ..harness.settings import Setting
from ..harness.store import MANIFEST, RunStore, journals, read_manifest, write_json
from ..harness.types import ERROR_STATES, Json, Size, Span
from .batches import step_seed
from .grpo_config import GrpoConfig
from .performed import perform_again
from .questions import Query, Questions
from .trainable import Trainable

FOLDER = "rollouts"


class Drawn(Engine, Protocol):
    """An engine from which rollouts are drawn.

    Attributes:
        vision_ids: ids that only an image may bring into a conversation.
    """

    vision_ids: frozenset[int]


class Speaker(Trainable, Drawn, Protocol):
    """An engine whose model is trained and speaks."""

    def forget(self) -> None:
        """Forget what was read before the weights changed."""
        ...


class Sampler:
    """An engine as rollouts are drawn from it: vision tokens are banned, and where asked for nothing is kept.

    Attributes:
        engine: what speaks.
        banned: ids that are never drawn.

    Args:
        deterministic: whether every rollout begins with empty caches, so that none depends on what ran before it.
    """

    def __init__(self, engine: Drawn, *, deterministic: bool = False) -> None:
        if not engine.caps.token_ids or not engine.caps.logprobs:
            raise UsageError("rollouts need an engine that gives token ids and log-probabilities, turn after turn")
        self.engine = engine
        self.banned = tuple(sorted(engine.vision_ids))
        self._forget = cast(Speaker, engine).forget if deterministic else None
        self.caps: Caps = engine.caps
        self.fingerprint = engine.fingerprint

    @property
    def version(self) -> int | None:
        """Of the weights that draw, where the engine knows it."""
        return getattr(self.engine, "version", None)

    def fit(self, size: Size, budget: Span) -> Size:
        return self.engine.fit(size, budget)

    async def turn(self, conversation: Conversation, spec: TurnSpec) -> Turn:
        return await self.engine.turn(conversation, replace(spec, banned_ids=self.banned))

    async def release(self, conversation: Conversation) -> None:
        await self.engine.release(conversation)
        if self._forget:
            self._forget()

    def describe(self) -> Mapping[str, Json]:
        return self.engine.describe()

    async def close(self) -> None:
        """It stays open: it is being trained."""


@dataclass(frozen=True, slots=True)
class Round:
    """What a round samples.

    Attributes:
        number: from 0.
        version: updates that the weights have seen.
        queries: task and id of its questions.
    """

    number: int
    version: int
    queries: Sequence[Query]


class Rollouts:
    """The rollouts of a training, round by round.

    Attributes:
        out: the training's folder.
        rank, world: this process among those that sample.
        run: runs on an event loop; an engine may hold on to the one on which it was first asked.
    """

    def __init__(
        self,
        config: GrpoConfig,
        questions: Mapping[str, Questions],
        out: Path,
        rank: int = 0,
        world: int = 1,
        run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run,
    ) -> None:
        self.config, self.questions, self.out = config, questions, out
        self.rank, self.world = rank, world
        self._on_loop = run

    def folder(self, number: int, task: str) -> Path:
        """The run of a round's rollouts of one task."""
        return self.out / FOLDER / f"round-{number:06}" / task

    def begin(self, wanted: Round, engine: Engine, command: Sequence[str]) -> None:
        """Write the manifests of a round's runs, on the main process. Raises StoreError, UsageError."""
        for task in _by_task(wanted.queries):
            own = self.questions[task]
            folder = self.folder(wanted.number, task)
            fresh = self._manifest(wanted, own, engine, command)
            if (folder / MANIFEST).is_file():
                held = cast("dict[str, Json]", read_manifest(folder)["identity"])
                check_same(held, cast("dict[str, Json]", fresh["identity"]), folder)
            else:
                write_json(folder / MANIFEST, fresh)

    def _manifest(self, wanted: Round, own: Questions, engine: Engine, command: Sequence[str]) -> dict[str, Json]:
        return {
            "schema": SCHEMA,
            "task": own.task.name,
            "model": f"{self.config.model.base}@{wanted.version}",
            "profile": own.profile.name,
            "command": list(command),
            "directory": str(Path.cwd()),
            "identity": {
                "task": own.task.name,
                "split": "train",
                "dataset": own.fingerprint,
                "model": f"{engine.fingerprint}@{wanted.version}",
                **self._setting(wanted.number, own).identity(),
            },
            "origins": cast(Json, dict(own.setting.origins)),
            "round": wanted.number,
            "version": wanted.version,
            "repeats": self.config.rollout.group,
            "expected": self._expected(wanted, own.task.name),
            "engine": cast(Json, dict(engine.describe())),
            "warnings": [],
            "environment": environment(),
            "started": time.time(),
            "finished": None,
        }

    def _expected(self, wanted: Round, task: str) -> int:
        return sum(name == task for name, _ in wanted.queries) * self.config.rollout.group

    def finish(self, wanted: Round) -> None:
        """Score what a round has sampled, as evaluations are, on the main process. Raises PrhError."""
        for task in _by_task(wanted.queries):
            own, folder = self.questions[task], self.folder(wanted.number, task)
            held = read_manifest(folder)
            if held["finished"] is None or held["expected"] != self._expected(wanted, task):
                held |= {"expected": self._expected(wanted, task), "finished": time.time()}
                write_json(folder / MANIFEST, held)
                score(folder, own.task, own.profile, own.setting.protocol.answer_tag)

    def prune(self, first: int) -> None:
        """Drop the rollouts of the rounds before this one."""
        for path in (self.out / FOLDER).glob("round-*"):
            if path.name < f"round-{first:06}":
                shutil.rmtree(path, ignore_errors=True)

    def _setting(self, number: int, own: Questions) -> Setting:
        return replace(own.setting, seed=step_seed(self.config.train.seed, number))

    def sample(self, wanted: Round, engine: Engine) -> int:
        """Run this process's share of what is missing of a round; how many episodes that were.

        Raises:
            StoreError: a record could not be written.
            ModelError: the engine has other weights than the round's.
        """
        held = getattr(engine, "version", None)
        if held not in (None, wanted.version):
            raise ModelError(f"the engine has version {held} of the weights, and the round is of {wanted.version}")
        jobs = {task: self._missing(wanted, task) for task in _by_task(wanted.queries)}
        jobs = {task: rows for task, rows in jobs.items() if rows}
        if jobs:
            self._on_loop(self._run(wanted, jobs, engine))
        return sum(map(len, jobs.values()))

    def _missing(self, wanted: Round, task: str) -> list[Job]:
        """This process's jobs of one task: a stretch of all of them, less what any process has recorded."""
        own, folder = self.questions[task], self.folder(wanted.number, task)
        ids = [key for name, key in wanted.queries if name == task]
        jobs = [(own.samples[key], repeat) for key in ids for repeat in range(self.config.rollout.group)]
        done = {key for key, record in _merged(folder, _named).items() if record["end"] not in ERROR_STATES}
        bounds = [len(jobs) * rank // self.world for rank in (self.rank, self.rank + 1)]
        return [job for job in jobs[slice(*bounds)] if (job[0].id, job[1]) not in done]

    async def _run(self, wanted: Round, jobs: Mapping[str, Sequence[Job]], engine: Engine) -> None:
        part = self.config.rollout
        if self.config.train.deterministic:
            for task, rows in jobs.items():
                await self._run_task(wanted, task, rows, engine, 1)
            return
        total = sum(map(len, jobs.values()))
        shares = {task: max(1, round(part.concurrency * len(rows) / total)) for task, rows in jobs.items()}
        await asyncio.gather(*(self._run_task(wanted, task, rows, engine, shares[task]) for task, rows in jobs.items()))

    async def _run_task(self, wanted: Round, task: str, jobs: Sequence[Job], engine: Engine, concurrency: int) -> None:
        own = self.questions[task]
        shard = f"rank-{self.rank:03}" if self.world > 1 else ""
        stamp: dict[str, Json] = {"round": wanted.number, "version": wanted.version}
        setting = self._setting(wanted.number, own)
        with RunStore(self.folder(wanted.number, task), shard) as store:
            await run_all(jobs, engine, setting, store, concurrency=concurrency, stamp=stamp)

    def read(self, number: int, task: str) -> list[Record]:
        """What a round's rollouts of one task have come to, by id and repeat. Raises StoreError."""
        folder = self.folder(number, task)
        found = _merged(folder)
        if not found:
            raise StoreError(
                f"{folder} holds no rollouts, or is missing; restore it, or begin again with another --out"
            )
        return [record for _, record in sorted(found.items())]

    def again(self, task: str, records: Sequence[Record], engine: Trainable) -> list[Conversation]:
        """Recorded rollouts as conversations again, every turn of theirs trained. Raises DataError."""

        async def together() -> list[Conversation]:
            own = self.questions[task]
            return list(await asyncio.gather(*(perform_again(record, own, engine) for record in records)))

        return asyncio.run(together())


def _by_task(queries: Sequence[Query]) -> list[str]:
    return list(dict.fromkeys(task for task, _ in queries))


def _merged(folder: Path, part: Callable[[Record], Record] = whole) -> dict[tuple[str, int], Record]:
    """The records of all writers, one a rollout: the last that is no error, where there is one. Raises StoreError."""
    found: dict[tuple[str, int], Record] = {}
    for path in journals(folder):
        for record in read_journal(path, part).records:
            if record["end"] not in ERROR_STATES or key_of(record) not in found:
                found[key_of(record)] = record
    return found


def _named(record: Record) -> Record:
    return {key: record[key] for key in ("id", "repeat", "end", "segments")} | {"segments": []}


def check_whole(records: Sequence[Record], wanted: int, folder: Path) -> None:
    """Refuse rollouts of which some were lost. Raises StoreError."""
    if len(records) != wanted:
        message = f"{folder} holds {len(records)} rollouts of {wanted}"
        raise StoreError(f"{message}: records were removed; restore them, or begin again with another --out")
