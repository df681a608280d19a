"""Drawn pictures to learn from, as many as are wanted, none of them in any split of a task."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from ..harness.errors import UsageError
from ..harness.evaluate import load_task
from ..harness.task import Illustrates, Illustration


class Album:
    """The pictures of one task, endlessly, by number."""

    def __init__(self, name: str, seed: int) -> None:
        task = load_task(name)
        if not isinstance(task, Illustrates):
            raise UsageError(f"{name} draws no pictures to practise with; use a synthetic miniature")
        self._task = task
        self._seed = seed * 100_000
        self._edition = -1
        self._held: Sequence[Callable[[], Illustration]] = ()
        self._size = len(task.illustrations(self._seed))

    def __call__(self, number: int) -> Illustration:
        edition, place = divmod(number, self._size)
        if edition != self._edition:
            held = list(self._task.illustrations(self._seed + edition))
            random.Random(f"{self._seed} {edition}").shuffle(held)  # noqa: S311 - an order, not a secret
            self._edition, self._held = edition, held
        return self._held[place]()
