"""One run by several writers: ranks that a launcher started, or the workers of a cluster.

Each writes a shard of its own, ``shards/NAME/``, and their records are taken into the run's journal at the end, or by
whoever goes on with the run. All of them must see the run folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast

from . import registry
from .errors import PrhError, UsageError
from .journal import JOURNAL, read_journal
from .record import Record
from .runner import Job
from .store import RunStore, key_alone
from .types import Json

SHARDS = "shards"


class LostRank(PrhError):  # noqa: N818 - it names what happened
    """Another rank of this run ended before its work was done."""


class Group(Protocol):
    """The processes that a launcher started, this one among them.

    Attributes:
        rank: this process's number, from 0; 0 takes the shards together.
    """

    rank: int
    size: int

    def broadcast(self, value: Json) -> Json:
        """The value that rank 0 gives, in every rank. Raises LostRank."""
        ...

    def gather(self, value: Json) -> list[Json]:
        """The values of all ranks, once all have come here. Raises LostRank."""
        ...


def find_group() -> Group | None:
    """The group that a launcher such as ``accelerate launch`` or ``torchrun`` put this process in, if any.

    Raises:
        UsageError: the launcher's variables make no sense.
    """
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    given = [os.environ.get(name) for name in names]
    if None in given or given[2] == "1":
        return None
    if not all(str(text).isdigit() for text in given) or int(str(given[0])) >= int(str(given[2])):
        raise UsageError(f"the launcher set {', '.join(names)} to {given}, which are no ranks; unset them or mend it")
    make = cast("Callable[[], Group]", registry.load("executors", "ranks"))
    return make()


def shard_name(number: int) -> str:
    """The folder of one writer's shard, from 0."""
    return f"rank-{number:04d}"


def share(keys: Sequence[tuple[str, int]], number: int, size: int) -> list[tuple[str, int]]:
    """The jobs of one of ``size`` writers: every ``size``-th, so that neighbours, often alike in cost, are spread."""
    return list(keys[number::size])


def jobs_of(keys: Sequence[tuple[str, int]], jobs: Sequence[Job]) -> list[Job]:
    """The jobs with these keys, in order."""
    chosen = set(keys)
    return [(sample, repeat) for sample, repeat in jobs if (sample.id, repeat) in chosen]


def absorb_shards(store: RunStore, report: Callable[[Record], None] = lambda _: None) -> None:
    """Take the shards' records into the run's own journal, and remove the shards.

    A shard is removed when its records are safely written; ended in between, the run holds them twice, and readers
    take one.

    Raises:
        StoreError: a shard is still being written, or cannot be read.
    """

    def take(record: Record) -> None:
        store.append(record)
        report(record)
        store.hold(record)

    for place in sorted(path for path in (store.folder / SHARDS).glob("*") if path.is_dir()):
        with RunStore(store.folder, place.name, key_alone) as shard:
            read_journal(place / JOURNAL, take)
            store.damaged.extend(f"{place.name}: {line}" for line in shard.damaged)
            store.sync()
        shutil.rmtree(place)
    shards = store.folder / SHARDS
    if shards.is_dir() and not any(shards.iterdir()):
        shards.rmdir()


def as_keys(value: Json) -> list[tuple[str, int]]:
    """Keys of jobs that were sent as JSON."""
    return [(str(name), int(cast(int, repeat))) for name, repeat in cast("list[tuple[Json, Json]]", value)]


def executor_options(table: Json) -> Mapping[str, Json]:
    """The table ``[executor]``. Raises UsageError where it is none."""
    if table is None:
        return {}
    if isinstance(table, str):
        return {"name": table}
    if not isinstance(table, dict):
        raise UsageError(f"`executor` must be a name or a table, such as --set executor.workers=2, not {table!r}")
    return table
