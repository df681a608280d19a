"""The conversations that run at this moment: their rows, their slots, and one step of all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from ..harness.engine import Usage
from ..harness.errors import ModelError
from .batching import explain, out_of_memory
from .decode import NOT_FINITE, Row
from .flat import Features, FlatModel, Piece, Stream, join_features
from .gallery import Gallery
from .meter import Meter
from .prefixes import Prefixes
from .trails import Ints, Prompt

if TYPE_CHECKING:
    import torch

# After running out of memory, one more row is tried each time this many steps have gone well.
STEPS_OF_GRACE = 64


@dataclass(slots=True, eq=False)
class Live(Row):
    """A turn that is being produced, in the slot whose number is its place among the rows.

    Attributes:
        length: tokens that its slot holds.
        read: how many of these came with the last step.
        cached: tokens of the prompt that were found when it was first admitted, -1 before.
        base: tokens of the prompt.
        last: position of the prompt's last token, the highest of its three.
    """

    length: int = 0
    read: int = 0
    cached: int = -1
    begun: float = 0.0
    base: int = 0
    last: int = 0

    def __post_init__(self) -> None:
        self.base = len(self.prompt.ids)
        self.last = int(self.prompt.positions[:, -1].max())

    @property
    def prompt(self) -> Prompt:
        return cast(Prompt, self.job.work.view)

    @property
    def total(self) -> int:
        """Tokens of prompt and reply so far."""
        return self.base + len(self.ids)

    def keys(self) -> Ints:
        """The keys of prompt and reply so far."""
        return np.concatenate([self.prompt.keys, np.array(self.ids, np.int64)]) if self.ids else self.prompt.keys

    def place(self) -> int:
        """The position of the reply's last token."""
        # After the prompt's last token, not after the highest place: the steps of a long video count seconds and may
        # lie beyond the text that follows them. So a reply has the places that it has once it is history.
        return self.last + len(self.ids)

    def piece(self, slot: int, features: dict[str, Features]) -> Piece:
        """Everything that the slot does not hold yet."""
        prompt, start = self.prompt, self.length
        ids = np.concatenate([prompt.ids, np.array(self.ids, np.int64)])[start:]
        reply = np.arange(1, len(self.ids) + 1) + self.last
        positions = np.concatenate([prompt.positions, np.broadcast_to(reply, (3, len(self.ids)))], 1)[:, start:]
        shots = [shot for shot in prompt.shots if shot.end > start]
        if not shots:
            return Piece(slot, start, ids, positions, np.zeros(0, np.int64))
        visual = np.concatenate([np.arange(max(shot.start, start), shot.end) for shot in shots]) - start
        cuts = [(shot, max(start - shot.start, 0) + shot.first) for shot in shots]
        parts = [features[shot.key].cut(first, shot.first + shot.end - shot.start) for shot, first in cuts]
        return Piece(slot, start, ids, positions, visual, join_features(parts))

    def lacking(self, start: int) -> list[str]:
        """The media whose features are needed to read from ``start`` on."""
        return [shot.key for shot in self.prompt.shots if shot.end > start]

    def end(self) -> None:
        """Hand the finished turn over."""
        cached = max(self.cached, 0)
        turn = self.turn(time.perf_counter() - self.begun, Usage(len(self.prompt.ids), len(self.ids), cached))
        self.job.finish(turn)


class Batch:
    """Rows in slots ``0..n-1``.

    Attributes:
        rows: those that run; a row's place is its slot.
        limit: most rows at present; less than the engine's batch for a while after memory ran out.
        splits: forwards that failed and were halved.
    """

    def __init__(self, model: FlatModel, prefixes: Prefixes, gallery: Gallery, meter: Meter, cap: int) -> None:
        self.model = model
        self.prefixes = prefixes
        self.gallery = gallery
        self.meter = meter
        self.cap = cap
        self.slots = model.slots()
        self.rows: list[Live] = []
        self.limit = meter.size
        self.splits = 0
        self._good = 0

    def fits(self, count: int, longest: int) -> bool:
        """Whether so many rows of at most so many tokens are within the cap; one row always is."""
        return count <= 1 or count * longest * self.slots.token_bytes <= self.cap

    def longest(self) -> int:
        """Tokens of the longest row, the one that is being drawn included."""
        return max((row.total for row in self.rows), default=0)

    def make_room(self) -> list[Live]:
        """Have room for every row's next token; the rows that had to leave for it, the last that came first."""
        left: list[Live] = []
        while len(self.rows) > self.limit or not self.fits(len(self.rows), self.longest() + 1):
            left.append(self._pause(self.rows[-1]))
        for attempt in (1, 2):
            try:
                self.slots.make_room(len(self.rows), self.longest() + 1)
                return left
            except Exception as error:
                if not out_of_memory(error):
                    raise
                failure = ModelError(explain(error))
            self.relieve()
            if attempt == 2:
                break
        if len(self.rows) == 1:
            self.rows[0].job.fail(failure)
        self.limit, self._good = max(1, len(self.rows) // 2), 0
        self.splits += 1
        left += [self._pause(row) for row in reversed(self.rows)]
        self.slots.drop()
        return left

    def _pause(self, row: Live) -> Live:
        self.leave(row)
        row.length = 0
        self.meter.paused += 1
        return row

    def load(self, row: Live, pieces: Sequence[torch.Tensor]) -> None:
        """Give a row the next slot and copy there what is known of it, which must leave its last token to be read."""
        self.slots.make_room(len(self.rows) + 1, max(row.total, self.longest()) + 1)
        row.length = self.slots.load(len(self.rows), pieces)
        self.rows.append(row)
        self.meter.prefilled += row.total - row.length
        if row.cached < 0:
            row.cached, row.begun = row.length, time.perf_counter()
            self.meter.prompted += row.total
            self.meter.cached += row.length
            self.meter.refilled += max(row.prompt.past - row.length, 0)

    def leave(self, row: Live) -> None:
        """Take a row out; the last one moves into its slot."""
        slot = self.rows.index(row)
        last = self.rows.pop()
        if last is not row:
            self.slots.move(len(self.rows), slot, last.length)
            self.rows[slot] = last
        if not self.rows and self.slots.nbytes > self.cap:
            self.slots.drop()

    def keep(self, row: Live) -> None:
        """Remember what a row's slot holds, so that whatever begins alike finds it."""
        slot = self.rows.index(row)
        try:
            self.prefixes.insert(row.keys()[: row.length], lambda start: self.slots.save(slot, start, row.length))
        except Exception as error:
            if not out_of_memory(error):
                raise
            self.relieve()  # what is not kept is read again

    def step(self) -> tuple[list[Live], torch.Tensor | None]:
        """One forward of all rows; those left, in order, and the logits after each: rows x vocabulary.

        Rows that fail are taken out and their jobs failed. There must be room for one token more.
        """
        import torch

        start, seen = time.perf_counter(), self.meter.seconds["vision"]
        lengths = [row.total - row.length for row in self.rows]
        fresh = sum(length for length in lengths if length > 1)
        share = fresh / (fresh + lengths.count(1))
        rows, logits = self._forward(list(self.rows))
        if logits is not None:
            sound = logits.abs().amax(-1).isfinite().tolist()  # the largest is no number where one of them is none
            if not all(sound):
                self._refuse([row for row, fine in zip(rows, sound, strict=True) if not fine], logits.dtype)
                rows = [row for row, fine in zip(rows, sound, strict=True) if fine]
                logits = logits[torch.tensor(sound, device=logits.device)] if rows else None
        for row in rows:
            if row.read > 1:
                self.keep(row)
        self._count(len(rows))
        spent = time.perf_counter() - start - (self.meter.seconds["vision"] - seen)
        self.meter.spend("prefill", spent * share)
        self.meter.spend("decode", spent * (1 - share))
        return rows, logits

    def _count(self, rows: int) -> None:
        self.meter.steps += 1
        self.meter.occupied += rows
        self._good += 1
        if self.limit < self.meter.size and self._good >= STEPS_OF_GRACE:
            self.limit, self._good = self.limit + 1, 0

    def _refuse(self, rows: Sequence[Live], dtype: torch.dtype) -> None:
        """Fail the rows whose logits are no numbers to draw from."""
        name = str(dtype).removeprefix("torch.")
        other = "float32" if name == "bfloat16" else "bfloat16"
        for row in rows:
            self.slots.wipe(self.rows.index(row))
        for row in rows:
            row.job.fail(ModelError(NOT_FINITE.format(name, other)))
            self.leave(row)

    def _forward(self, rows: list[Live]) -> tuple[list[Live], torch.Tensor | None]:
        """Rows in order and their logits; what fails is halved until the row at fault stands alone."""
        import torch

        try:
            return rows, self._logits(rows)
        except Exception as error:  # a stranger's model may fail in any way; it must cost one conversation
            failure = error if isinstance(error, ModelError) else ModelError(explain(error))
            scarce = out_of_memory(error)
        # Outside the handler, so that the failed forward's tensors are let go of before the next attempt.
        if scarce:
            self.relieve()
        if len(rows) == 1:
            rows[0].job.fail(failure)
            self.leave(rows[0])
            return [], None
        self.splits += 1
        middle = (len(rows) + 1) // 2
        if scarce:
            self.limit, self._good = middle, 0
        halves = [self._forward(part) for part in (rows[:middle], rows[middle:])]
        made = [logits for _, logits in halves if logits is not None]
        return [row for part, _ in halves for row in part], torch.cat(made) if made else None

    def _logits(self, rows: Sequence[Live]) -> torch.Tensor:
        """One forward of some rows; their logits in order."""
        place = {id(row): slot for slot, row in enumerate(self.rows)}
        single, fresh = list[Live](), list[Live]()
        for row in rows:
            row.read = row.total - row.length
            # Where rows that left have torn the slots apart, a row beyond the gap is read as new text is.
            beside = not single or place[id(row)] == place[id(single[-1])] + 1
            (single if row.read == 1 and beside else fresh).append(row)
        features = self._features(fresh) if fresh else {}
        stream = Stream(
            place[id(single[0])] if single else 0,
            [row.ids[-1] if row.ids else int(row.prompt.ids[-1]) for row in single],
            [row.place() for row in single],
            [row.length for row in single],
            [row.piece(place[id(row)], features) for row in fresh],
        )
        logits = self.model.forward(stream, self.slots)
        for row in rows:
            row.length += row.read
        if not fresh or not single or rows[: len(single)] == single:
            return logits
        made = {id(row): number for number, row in enumerate((*single, *fresh))}
        return logits[[made[id(row)] for row in rows]]

    def _features(self, rows: Sequence[Live]) -> dict[str, Features]:
        media = {key: row.prompt.media[key] for row in rows for key in row.lacking(row.length)}
        if not media:
            return {}
        with self.meter.timed("vision"):
            return self.gallery.features(media)

    def relieve(self) -> None:
        """Let go of everything that can be made again."""
        import torch

        self.prefixes.clear()
        self.gallery.clear()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
