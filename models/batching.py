"""Turns of many coroutines, gathered for one worker thread.

``Worker`` takes jobs in, hands their turns out and closes in good time, whatever its thread does with them.
``Scheduler`` runs them in plain batches and knows nothing of models: it is given a function that runs a batch and
finishes its jobs. A batch that fails, for want of memory above all, is halved until the job at fault stands alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from queue import SimpleQueue
from typing import Generic, TypeVar

from ..harness.engine import Turn
from ..harness.errors import ModelError, PrhError
from .processor import one_line

W = TypeVar("W")
# Seconds that closing waits for the worker; a step may take minutes, and an interrupt must not.
PATIENCE = 1.0
CLOSED = "the engine is closed: open it again to go on"


class _Stop(BaseException):
    """Raised in the worker from outside, amid a step that nobody waits for any more."""


class Job(Generic[W]):
    """Work that waits for its turn. A cancelled coroutine or a closed scheduler makes it ``abandoned``."""

    def __init__(self, work: W, future: Future[Turn]) -> None:
        self.work = work
        self.future = future

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it any more, or it is finished."""
        return self.future.done()

    def finish(self, turn: Turn) -> None:
        """Hand the turn to whoever waits."""
        try:
            self.future.set_result(turn)
        except InvalidStateError:  # abandoned a moment ago
            return

    def fail(self, error: PrhError) -> None:
        """Hand an error to whoever waits."""
        fail(self.future, error)


def fail(future: Future[Turn], error: BaseException) -> None:
    """Hand an error to whoever waits."""
    try:
        future.set_exception(error)
    except InvalidStateError:  # abandoned a moment ago
        return


class Worker(ABC, Generic[W]):
    """Jobs of any number of coroutines and one thread that serves them."""

    def __init__(self) -> None:
        self._waiting: deque[Job[W]] = deque()
        self._running: list[Job[W]] = []
        self._preparing: set[Future[Turn]] = set()
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    async def submit(self, prepare: Callable[[], W]) -> Turn:
        """Prepare work beside the worker, queue it, and wait for its turn.

        Raises:
            ModelError: the work cannot be prepared or run, or the scheduler is closed.
        """
        future: Future[Turn] = Future()
        with self._changed:
            self._check_open()
            self._preparing.add(future)
        PREPARING.start(lambda: self._prepare(prepare, future))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            with self._changed:
                self._preparing.discard(future)
                self._changed.notify_all()
            raise

    def _prepare(self, prepare: Callable[[], W], future: Future[Turn]) -> None:
        """Prepare work and queue it, or hand over why that cannot be; never raises."""
        job: Job[W] | None = None
        failure: BaseException | None = None
        try:
            job = Job(prepare(), future)
        except PrhError as error:
            failure = error
        except Exception as error:
            failure = ModelError(f"the conversation cannot be encoded: {one_line(error)}")
            failure.__cause__ = error
        except BaseException as error:
            failure = error
        with self._changed:
            self._preparing.discard(future)
            if job is not None and not self._closed and not job.abandoned:
                self._waiting.append(job)
                self._start()
            self._changed.notify_all()
            if self._closed:
                failure = failure or ModelError(CLOSED)
        if failure is not None:
            fail(future, failure)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="prh-engine", daemon=True)
            self._thread.start()

    def _check_open(self) -> None:
        if self._closed:
            raise ModelError(CLOSED)

    def _run(self) -> None:
        with contextlib.suppress(_Stop):
            self._work()

    @abstractmethod
    def _work(self) -> None:
        """Serve jobs until the worker is closed; runs in its thread."""

    async def close(self) -> bool:
        """Abandon what waits and what runs; the worker is waited for only shortly. Whether it has ended."""
        with self._changed:
            self._closed = True
            jobs = [*self._waiting, *self._running]
            self._waiting.clear()
            self._changed.notify_all()
        for job in jobs:
            job.fail(ModelError("the engine was closed before this turn was finished"))
        if self._thread is not None and not await _ended(self._thread, PATIENCE / 2):
            # A step that is still at work when the interpreter ends can abort the process from within torch.
            stop, thread = ctypes.py_object(_Stop), ctypes.c_ulong(self._thread.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, stop)
            return await _ended(self._thread, PATIENCE / 2)
        return True


class Scheduler(Worker[W]):
    """Batches jobs in order of arrival.

    A batch is taken when none is being prepared that could still join it, so what runs together does not
    depend on a clock.

    Attributes:
        run: runs a batch and finishes each job; may raise, having finished some.
        size: most jobs in a batch.
        splits: how many times a failed batch was halved.
    """

    def __init__(self, run: Callable[[Sequence[Job[W]]], None], size: int) -> None:
        super().__init__()
        self.run = run
        self.size = size
        self.splits = 0

    def _work(self) -> None:
        while batch := self._take():
            self._serve(batch)

    def _take(self) -> list[Job[W]]:
        """The next batch; empty once the scheduler is closed."""
        with self._changed:
            self._running = []
            while not self._closed:
                full = len(self._waiting) >= self.size
                if self._waiting and (full or not self._preparing):
                    count = min(self.size, len(self._waiting))
                    self._running = [self._waiting.popleft() for _ in range(count)]
                    return self._running
                self._changed.wait()
        return []

    def _serve(self, batch: Sequence[Job[W]]) -> None:
        batch = [job for job in batch if not job.abandoned]
        if not batch:
            return
        failure: ModelError | None = None
        try:
            self.run(batch)
        except Exception as error:  # a stranger's model may fail in any way; it must cost one conversation
            failure = error if isinstance(error, ModelError) else ModelError(explain(error))
        # Outside the handler, so that the failed batch's tensors are let go of before the next attempt.
        if failure is None:
            return
        left = [job for job in batch if not job.abandoned]
        if len(left) == 1 and len(batch) == 1:
            left[0].fail(failure)
        elif left:
            self.splits += 1
            middle = (len(left) + 1) // 2
            self._serve(left[:middle])
            self._serve(left[middle:])


async def _ended(thread: threading.Thread, seconds: float) -> bool:
    """Whether a thread ends within some time."""
    end = time.monotonic() + seconds
    while thread.is_alive() and time.monotonic() < end:
        await asyncio.sleep(0.005)
    return not thread.is_alive()


class _Pool:
    """A few daemon threads for what is prepared; asyncio's own would hold the interpreter until they are done."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._threads = 0
        self._free = 0
        self._lock = threading.Lock()

    def start(self, task: Callable[[], None]) -> None:
        """Run a task, which must not raise, as soon as a thread is free."""
        with self._lock:
            grow = not self._free and self._threads < self.size
            self._threads += grow
            self._free -= not grow and self._free > 0
        if grow:
            threading.Thread(target=self._serve, args=(task,), name="prh-prepare", daemon=True).start()
        else:
            self._tasks.put(task)

    def _serve(self, task: Callable[[], None]) -> None:
        while True:
            task()
            del task
            with self._lock:
                self._free += 1
            task = self._tasks.get()


# Beyond two, more threads than cores only take the interpreter's lock from one another and from the worker.
PREPARING = _Pool(max(2, min(8, os.cpu_count() or 2)))


def explain(error: BaseException) -> str:
    """Why a turn failed, in one line, and what can be done about it."""
    text = one_line(error)
    if out_of_memory(error):
        return f"out of memory on a single conversation; lower the pixel budget or use a smaller dtype ({text})"
    return f"the model failed on this conversation: {text}"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(
        word in text for word in ("outofmemory", "out of memory", "can't allocate")
    )
