"""The loop of the fast engine: turns join and leave the running batch between two steps.

One thread runs the model. Beside it conversations are encoded and images prepared, so that a turn is admitted at
the first step after it is ready, whatever the others are doing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..harness.errors import ModelError
from .batching import Job, Worker, explain, out_of_memory
from .decode import Vocabulary, Work
from .prefixes import agreeing
from .running import Batch, Live
from .sampling import draw
from .trails import Ints

if TYPE_CHECKING:
    import torch

# Most new tokens of all rows that join at one step, and how many of them must be shared to let one read for the others.
MOST_TOKENS = 8192
SHARED = 16


class Continuous(Worker[Work]):
    """Runs turns as they come.

    Attributes:
        batch: the rows that run.
        near_ties: tokens that rounding could have made others, as ``sampling.Draw`` counts them.
    """

    def __init__(self, batch: Batch, words: Vocabulary) -> None:
        super().__init__()
        self.batch = batch
        self.words = words
        self.near_ties = 0
        self._paused: dict[Job[Work], Live] = {}
        self._released: deque[tuple[Ints, int]] = deque()
        self._marks: object = None
        self._stale = False

    @property
    def splits(self) -> int:
        """Forwards that failed, for want of memory above all, and were halved."""
        return self.batch.splits

    def release(self, keys: Ints, start: int) -> None:
        """Forget a conversation's own tokens from ``start`` on, at the next step."""
        self._released.append((keys, start))

    def forget(self) -> None:
        """Forget everything before the next rows join, once none are left; what slots hold, rows write over."""
        self._stale = True

    def _work(self) -> None:
        import torch

        with torch.inference_mode():
            while (waiting := self._arrived()) is not None:
                try:
                    self._admit(waiting)
                    self._step()
                except Exception as error:  # whatever it is, nobody may wait for ever
                    for row in list(self.batch.rows):
                        row.job.fail(ModelError(explain(error)))
                        self.batch.leave(row)
                    self.batch.slots.drop()
                    self.batch.relieve()

    def _arrived(self) -> list[Job[Work]] | None:
        """What waits to be admitted, in order; sleeps while there is nothing to do. None once closed."""
        with self._changed:
            self._running = [row.job for row in self.batch.rows]
            while not self._closed and not self.batch.rows:
                # With nothing to run, nothing is lost by waiting for those that are about to be ready.
                if self._waiting and (len(self._waiting) >= self.batch.limit or not self._preparing):
                    break
                start = time.perf_counter()
                self._changed.wait()
                self.batch.meter.spend("idle", time.perf_counter() - start)
            waiting = None if self._closed else list(self._waiting)
        while self._released:
            self.batch.prefixes.forget(*self._released.popleft())
        return waiting

    def _admit(self, waiting: Sequence[Job[Work]]) -> None:
        """Let rows join as long as there is room."""
        batch, joined, tokens = self.batch, list[Ints](), 0
        if waiting and not batch.rows:
            self._check_weights()
        for job in waiting:
            if len(batch.rows) >= batch.limit:
                return
            row = self._paused.get(job) or Live(job, self.words, generator(job.work.spec.seed))
            if job.abandoned:
                self._take(job)
                continue
            keys = row.keys()
            pieces = batch.prefixes.find(keys[:-1])
            known = sum(piece.shape[3] for piece in pieces)
            # One that shares more with a row that is only now being read waits a step, and finds it read.
            if any(agreeing(keys, other) - known >= SHARED for other in joined):
                continue
            longest = max(batch.longest(), row.total) + 1
            if (joined and tokens + len(keys) - known > MOST_TOKENS) or not batch.fits(len(batch.rows) + 1, longest):
                return
            if not self._load(row, pieces):
                return
            self._take(job)
            joined.append(keys)
            tokens += len(keys) - known

    def _load(self, row: Live, pieces: Sequence[torch.Tensor]) -> bool:
        """Whether a row found room; the last attempt of one that is alone fails its job."""
        batch = self.batch
        try:
            batch.load(row, pieces)
        except Exception as error:
            failure = ModelError(explain(error))
            if not out_of_memory(error):
                row.job.fail(failure)
                return True
        else:
            return True
        batch.relieve()
        batch.limit = max(1, len(batch.rows))
        if not batch.rows and batch.slots.count:
            batch.slots.drop()
        elif not batch.rows:
            row.job.fail(failure)
        return False

    def _take(self, job: Job[Work]) -> None:
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
            if not job.abandoned:
                self._running.append(job)
        self._paused.pop(job, None)

    def _put_back(self, rows: Sequence[Live]) -> None:
        with self._changed:
            for row in rows:
                if not row.job.abandoned and not self._closed:
                    self._paused[row.job] = row
                    self._waiting.appendleft(row.job)

    def _step(self) -> None:
        """One token for every row."""
        batch = self.batch
        for row in [row for row in batch.rows if row.job.abandoned]:
            batch.leave(row)
        if batch.rows:
            self._put_back(batch.make_room())
        if not batch.rows:
            return
        rows, logits = batch.step()
        if logits is None:
            return
        with batch.meter.timed("decode"):
            drawn = draw(logits, [row.job.work.spec for row in rows], [row.generator for row in rows])
            self.near_ties += drawn.near_ties
            batch.meter.sampled += len(rows)
            for row, token, logprob in zip(rows, drawn.tokens, drawn.logprobs, strict=True):
                row.take(token, logprob)
                if row.finish:
                    batch.keep(row)
                    batch.leave(row)
                    row.end()

    def _check_weights(self) -> None:
        """Forget everything if the weights have changed since the last batch, as they do while a model is trained."""
        marks = [(weight.data_ptr(), weight._version) for weight in self.batch.model.weights]
        if self._stale or (self._marks is not None and self._marks != marks):
            self.batch.prefixes.clear()
            self.batch.gallery.clear()
        self._marks, self._stale = marks, False


def generator(seed: int) -> torch.Generator:
    """A row's own source of numbers."""
    import torch

    return torch.Generator().manual_seed(seed)
