"""Where a call points: boxes on a coarse grid and frames of a video, right ones and wrong ones.

Boxes are drawn in cells of a grid, so that a call's coordinates have few digits, and are tried on the protocol
itself: what it would cut, padding included, decides whether a box is large enough, apart from the evidence, or
around it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from typing import NamedTuple

from ..harness.errors import OperationError, UsageError
from ..harness.protocol import Protocol
from ..harness.types import Box, Size

# A crop's corners are rounded to whole pixels, which may cost half of one on a side.
SLACK = 1.0
WIDER = (1.5, 3.0)
TRIES = 32


class Cells(NamedTuple):
    """A box in cells of a grid, edges from 0 to the number of cells a side."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    def apart(self, other: Cells) -> bool:
        """Whether they share no cell."""
        across = self.right <= other.left or other.right <= self.left
        return across or self.bottom <= other.top or other.bottom <= self.top


@dataclass(frozen=True, slots=True)
class Grid:
    """What edges are rounded to, as a share of the image: 0.1 gives coordinates such as 0.3."""

    share: Decimal

    @classmethod
    def of(cls, share: float) -> Grid:
        """A grid whose cells fill the image. Raises UsageError for any other."""
        chosen = Decimal(str(share))
        if chosen.is_nan() or not Decimal("0.001") <= chosen <= Decimal("0.25") or 1 % chosen != 0:
            raise UsageError(f"`grid` must be a share that divides the image, such as 0.1 or 0.01, not {share}")
        return cls(chosen)

    @property
    def cells(self) -> int:
        """Cells a side."""
        return int(1 / self.share)


@dataclass(frozen=True, slots=True)
class Canvas:
    """An image that calls point at.

    Attributes:
        size: in pixels, of what the protocol cuts from.
    """

    size: Size
    grid: Grid
    protocol: Protocol

    def written(self, cells: Cells) -> list[float]:
        """The numbers of ``bbox_2d``, in the protocol's coordinates: fractions, thousandths or pixels."""
        edges = [edge * self.grid.share for edge in cells]
        if self.protocol.coordinates == "unit":
            return [float(edge) for edge in edges]
        per_mille = self.protocol.coordinates == "per-mille"
        sides = (1000, 1000) if per_mille else (self.size.width, self.size.height)
        exact = [edge * side for edge, side in zip(edges, (*sides, *sides), strict=True)]
        return [math.floor(exact[0]), math.floor(exact[1]), math.ceil(exact[2]), math.ceil(exact[3])]

    def cut(self, cells: Cells) -> Box | None:
        """What the protocol cuts for a box, in pixels; None where it would be too small."""
        try:
            return self.protocol.read_box({"bbox_2d": [*self.written(cells)]}, self.size)[1]
        except OperationError:
            return None

    def around(self, box: Box) -> Cells | None:
        """The smallest box of cells around a box in pixels that the protocol cuts; None where there is none.

        One too small to be cut grows on every side, as far as the image goes.
        """
        count = self.grid.cells
        x, y = count / self.size.width, count / self.size.height
        left, top = math.floor(box.left * x + 1e-9), math.floor(box.top * y + 1e-9)
        right, bottom = math.ceil(box.right * x - 1e-9), math.ceil(box.bottom * y - 1e-9)
        right, bottom = max(right, left + 1), max(bottom, top + 1)
        for grown in range(count):
            edges = (left - grown, top - grown, right + grown, bottom + grown)
            cells = Cells(*(min(max(edge, 0), count) for edge in edges))
            if (cut := self.cut(cells)) is not None:
                return cells if holds(cut, box) else None
        return None


def holds(outer: Box, inner: Box) -> bool:
    """Whether a box holds another, up to the rounding of its corners."""
    return (
        outer.left <= inner.left + SLACK
        and outer.top <= inner.top + SLACK
        and outer.right >= inner.right - SLACK
        and outer.bottom >= inner.bottom - SLACK
    )


def union(boxes: Sequence[Box]) -> Box:
    """The smallest box around boxes, of which there is at least one."""
    lows = [min(edges) for edges in zip(*((box.left, box.top) for box in boxes), strict=True)]
    highs = [max(edges) for edges in zip(*((box.right, box.bottom) for box in boxes), strict=True)]
    return Box(*lows, *highs)


def elsewhere(
    canvas: Canvas, cue: Cells, evidence: Sequence[Box], rng: random.Random, taken: Sequence[Cells] = ()
) -> Cells | None:
    """A wrong box: as large as the cue where there is room, else smaller; None where there is no room at all.

    It shares no cell with the cue, and what is cut for it shows nothing of the evidence.
    """

    def fits(cells: Cells) -> bool:
        if cells in taken or not cells.apart(cue):
            return False
        cut = canvas.cut(cells)
        return cut is not None and all(cut.intersection(box).area == 0 for box in evidence)

    for width, height in _sizes(canvas.grid.cells, cue):
        found = next(filter(fits, _placed(canvas.grid.cells, width, height, rng)), None)
        if found:
            return found
    return None


def _sizes(count: int, cue: Cells) -> list[tuple[int, int]]:
    """Sizes of wrong boxes, the likeliest to be taken for the cue's first: its own, then what fits beside it."""
    beside, below = max(cue.left, count - cue.right), max(cue.top, count - cue.bottom)
    fitted = [(cue.width, cue.height), (min(cue.width, beside), cue.height), (cue.width, min(cue.height, below))]
    smaller = [(round(cue.width * share), round(cue.height * share)) for share in (0.75, 0.5, 0.25)]
    least = [(min(cue.width, max(beside, 1)), min(cue.height, max(below, 1)))]
    return [(max(1, width), max(1, height)) for width, height in [*fitted, *smaller, *least]]


def _placed(count: int, width: int, height: int, rng: random.Random) -> Iterator[Cells]:
    """Boxes of a size wherever chance puts them: some at random, then every one in a random order."""
    across, down = count - width, count - height
    if across < 0 or down < 0:
        return
    for _ in range(TRIES):
        left, top = rng.randint(0, across), rng.randint(0, down)
        yield Cells(left, top, left + width, top + height)
    places = [(left, top) for left in range(across + 1) for top in range(down + 1)]
    rng.shuffle(places)
    for left, top in places:
        yield Cells(left, top, left + width, top + height)


def wider(canvas: Canvas, cue: Cells, rng: random.Random) -> Cells | None:
    """An over-large box around the cue that is not the whole image; None where the cue leaves no room for one."""
    count, inner = canvas.grid.cells, canvas.cut(cue)
    for _ in range(TRIES):
        factor = rng.uniform(*WIDER)
        width, height = (min(count, math.ceil(side * factor)) for side in (cue.width, cue.height))
        left = rng.randint(max(0, cue.right - width), min(cue.left, count - width))
        top = rng.randint(max(0, cue.bottom - height), min(cue.top, count - height))
        cells = Cells(left, top, left + width, top + height)
        outer = canvas.cut(cells)
        if inner is None or outer is None:
            return None
        whole = outer.area >= canvas.size.width * canvas.size.height
        if not whole and outer.area >= WIDER[0] * inner.area and holds(outer, inner):
            return cells
    return None


def spread(frames: Sequence[int], most: int) -> tuple[int, ...]:
    """At most so many of the frames, evenly, the first and the last among them; of one alone the middle."""
    if len(frames) <= most:
        return tuple(frames)
    if most == 1:
        return (frames[len(frames) // 2],)
    return tuple(frames[i * (len(frames) - 1) // (most - 1)] for i in range(most))


def runs(frames: Sequence[int]) -> list[list[int]]:
    """Frames parted where one is left out: each run is one thing that happens."""

    def add(parts: list[list[int]], frame: int) -> list[list[int]]:
        if parts and frame == parts[-1][-1] + 1:
            parts[-1].append(frame)
        else:
            parts.append([frame])
        return parts

    first: list[list[int]] = []
    return reduce(add, sorted(set(frames)), first)


def other_frames(count: int, avoid: Sequence[int], wanted: int, rng: random.Random) -> tuple[int, ...] | None:
    """Wrong frames: up to so many of ``1..count`` that are none of these, in order; None where all are."""
    left = [frame for frame in range(1, count + 1) if frame not in set(avoid)]
    return tuple(sorted(rng.sample(left, min(wanted, len(left))))) if left else None
