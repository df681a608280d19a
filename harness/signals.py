"""SIGINT and SIGTERM: the first drains, the second forces, and a step that will not end is not waited for."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

NUMBERS = (signal.SIGINT, signal.SIGTERM)
TERMINATED = 128 + signal.SIGTERM


class Drain:
    """While it is entered, a signal sets ``event``; ``seconds`` later the process ends whatever is running.

    The handler is Python's own rather than the event loop's, so that it works while the loop is blocked; the
    finished episodes are in the journal, so that ending at once loses none.

    Attributes:
        number: of the signal that came, else 0.
    """

    def __init__(self, event: asyncio.Event, seconds: float, say: Callable[[int], str]) -> None:
        self.event = event
        self.seconds = seconds
        self.say = say
        self.number = 0
        self.loop = asyncio.get_running_loop()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Drain:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in NUMBERS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.number:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.number = number
        self.loop.call_soon_threadsafe(self.event.set)
        threading.Thread(target=self._force, daemon=True).start()

    def _force(self) -> None:
        threading.Event().wait(self.seconds)
        sys.stderr.write(f"{self.say(self.number)}\n")
        sys.stderr.flush()
        os._exit(128 + self.number)


@contextmanager
def stoppable(message: str) -> Iterator[None]:
    """While it is entered, SIGTERM ends the process as an exception does; either signal is answered with a message."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _end) if main else None
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, KeyboardInterrupt) or stop.code == TERMINATED:
            sys.stderr.write(f"\n{message}\n")
        raise
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def interrupting() -> Iterator[list[int]]:
    """While it is entered, SIGTERM raises KeyboardInterrupt, as SIGINT does; gives the numbers of those that came.

    For libraries that wait in code of their own: they let KeyboardInterrupt through, and no other exception.
    """
    came: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in NUMBERS} if main else {}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)
