"""What a costly function gave lately, so that what is asked of it again is not done again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values by key within a number of bytes, about; what was used longest ago goes first. From any thread.

    Attributes:
        cap: bytes that may be held; a value larger than that is not kept.
        held: bytes that are held.
    """

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.held = 0
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K, make: Callable[[], V], size: Callable[[V], int]) -> V:
        """The value of a key, made where it is not held; it must not be changed. Two threads may both make it.

        Args:
            size: bytes that a value and its key take.
        """
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
        value = make()
        taken = size(value)
        with self._lock:
            if key not in self._values and taken <= self.cap:
                self._values[key] = value, taken
                self.held += taken
                while self.held > self.cap:
                    self.held -= self._values.popitem(last=False)[1][1]
        return value
