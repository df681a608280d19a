"""A run by several processes: the ranks of a launcher, each with a share of the jobs and a shard of its own.

Rank 0 begins the run, says what is missing, and takes the shards together once all ranks are done. A rank that is lost
costs nothing that it had finished: the run goes on with the same command, with any number of ranks, or none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast

from .evaluate import Plan, Result, Watcher, begin, check_folder, finish, run_jobs
from .manifest import check_same
from .record import Record, key_of
from .request import Request
from .runner import Job
from .sharing import Group, absorb_shards, as_keys, jobs_of, shard_name, share
from .store import RunStore, key_alone, read_manifest
from .types import Json


class Executor(Protocol):
    """What the group ``prh.executors`` registers beside ``ranks``: who runs the episodes of a request."""

    def run(self, request: Request, options: Mapping[str, Json], watcher: Watcher) -> Result:
        """Run what is missing, then score. Raises PrhError."""
        ...


def run_in_group(plan: Plan, group: Group, watcher: Watcher) -> Result:
    """Run this rank's share; in rank 0 the result is the run's.

    Raises:
        LostRank: another rank ended too early; what was finished is kept.
        PrhError: as ``run``.
    """
    return _lead(plan, group, watcher) if group.rank == 0 else _follow(plan, group)


def _lead(plan: Plan, group: Group, watcher: Watcher) -> Result:
    check_folder(plan.request.out)
    with RunStore(plan.request.out, part=key_alone) as store:
        jobs = begin(plan, store)
        keys = [(sample.id, repeat) for sample, repeat in jobs]
        watcher.opened(plan, len(jobs))
        group.broadcast([list(key) for key in keys])
        own = set(share(keys, 0, group.size))
        number = run_share(plan, jobs, 0, group.size, watcher.finished)
        if number:
            return finish(plan, store, number, ran=True)
        writers = group.gather(cast(Json, dict(plan.engine.describe())))
        absorb_shards(store, lambda record: None if key_of(record) in own else watcher.finished(record))
        return finish(plan, store, 0, writers, ran=bool(jobs))


def _follow(plan: Plan, group: Group) -> Result:
    folder = plan.request.out
    keys = as_keys(group.broadcast(None))
    check_same(cast("Mapping[str, Json]", read_manifest(folder)["identity"]), plan.identity, folder)
    every = [(sample, repeat) for sample in plan.samples for repeat in range(plan.request.repeats)]
    number = run_share(plan, jobs_of(keys, every), group.rank, group.size, lambda _: None)
    if not number:
        group.gather(cast(Json, dict(plan.engine.describe())))
    return Result(folder, {}, 0, 0, (), 0.0, failed=False, signal=number)


def run_share(plan: Plan, jobs: Sequence[Job], number: int, size: int, report: Callable[[Record], None]) -> int:
    """Run one of ``size`` shares of the jobs into its shard; returns the number of a signal that ended it, else 0."""
    own = jobs_of(share([(sample.id, repeat) for sample, repeat in jobs], number, size), jobs)
    with RunStore(plan.request.out, shard_name(number), key_alone) as store:
        return asyncio.run(run_jobs(plan, own, store, report)) if own else 0
