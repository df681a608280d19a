"""Run a dataset through the loop: bounded concurrency, durable records, a drain that loses nothing."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from .engine import Engine
from .episode import run_episode
from .errors import StoreError
from .journal import encode_line
from .record import Record, failure, to_record
from .settings import Setting
from .store import RunStore
from .types import Json, Sample

DRAIN_SECONDS = 8.0
Job = tuple[Sample, int]


@dataclass(slots=True)
class Stop:
    """Asks a run to drain: no new episode starts, running ones get ``DRAIN_SECONDS`` to finish."""

    event: asyncio.Event = field(default_factory=asyncio.Event)


def pending(samples: Sequence[Sample], repeats: int, store: RunStore) -> list[Job]:
    """The episodes that are not in the store yet, repeat by repeat within a sample."""
    jobs = itertools.product(samples, range(repeats))
    return [(sample, repeat) for sample, repeat in jobs if (sample.id, repeat) not in store.records]


async def run_all(
    jobs: Sequence[Job],
    engine: Engine,
    setting: Setting,
    store: RunStore,
    *,
    concurrency: int,
    stop: Stop | None = None,
    report: Callable[[Record], None] = lambda _: None,
    spent: dict[str, float] | None = None,
    stamp: Mapping[str, Json] | None = None,
) -> None:
    """Run the jobs, appending each episode as it finishes, in any order.

    Args:
        spent: where seconds are added up by what they were spent on beside the engine: ``media``, ``tools`` and
            ``store``. Episodes run beside one another, so that the sum may be more than the run took.
        stamp: what every record says besides, such as which weights it was sampled with.

    Raises:
        StoreError: a record could not be written; what was written before is intact.
    """
    total = {} if spent is None else spent

    def start(sample: Sample, repeat: int) -> asyncio.Task[Record]:
        return asyncio.create_task(_one(sample, repeat, engine, setting, store, total, stamp or {}))

    await _beside(jobs, start, concurrency, (stop or Stop()).event, report)


async def _beside(
    jobs: Sequence[Job],
    start: Callable[[Sample, int], asyncio.Task[Record]],
    concurrency: int,
    stop: asyncio.Event,
    report: Callable[[Record], None],
) -> None:
    """Run so many jobs beside one another until all are done, or those that run have drained; cancel what is left."""
    waiting = iter(jobs)
    stopping = asyncio.create_task(stop.wait())
    running: set[asyncio.Task[Record]] = set()
    # Not asyncio.wait, which asks every running episode each time that one ends.
    changed = asyncio.Event()
    stopping.add_done_callback(lambda _: changed.set())
    try:
        while True:
            room = 0 if stop.is_set() else concurrency - len(running)
            for job in itertools.islice(waiting, max(0, room)):
                task = start(*job)
                task.add_done_callback(lambda _: changed.set())
                running.add(task)
            if not running:
                return
            await changed.wait()
            changed.clear()
            if stop.is_set() and running:
                await asyncio.wait(running, timeout=DRAIN_SECONDS)
            for task in [task for task in running if task.done()]:
                running.discard(task)
                report(task.result())
            if stop.is_set():
                return
    finally:
        stopping.cancel()
        for task in running:
            task.cancel()
        await asyncio.gather(stopping, *running, return_exceptions=True)


async def _one(
    sample: Sample,
    repeat: int,
    engine: Engine,
    setting: Setting,
    store: RunStore,
    spent: dict[str, float],
    stamp: Mapping[str, Json],
) -> Record:
    trajectory = await run_episode(sample, engine, setting, repeat)
    start = time.perf_counter()
    try:
        files = store.kept_media(trajectory.conversation)
        if files is None:
            files = await asyncio.to_thread(store.keep_media, trajectory.conversation)
        record = {**to_record(trajectory, files), **stamp}
        line = encode_line(record)
    except StoreError:
        raise
    except Exception as error:  # what a plugin left in the ledger may be no JSON: NaN, bytes, objects
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        record = {**failure(sample, repeat, f"the episode cannot be recorded: {reason}"), **stamp}
        line = encode_line(record)
    store.append_line(line)
    own = {"media": trajectory.seconds.get("media", 0.0), "tools": trajectory.seconds.get("operations", 0.0)}
    for name, seconds in {**own, "store": time.perf_counter() - start}.items():
        spent[name] = spent.get(name, 0.0) + seconds
    return record
