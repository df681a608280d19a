"""What is kept of a record for a page: what the index counts of an entrant's episodes, and what turns took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from ..harness.types import Box, Json
from .episodes import Table
from .statistics import RIGHT


@dataclass(slots=True)
class Cell:
    """What the index says of one entrant's episodes of a sample."""

    score: float | None = None
    ends: int = 0
    operations: int = 0
    turns: int = 0
    faults: int = 0
    answer: str = ""
    boxes: list[Json] = field(default_factory=list)
    answers: list[str | None] = field(default_factory=list)
    likely: list[float] = field(default_factory=list)

    @property
    def sure(self) -> float | None:
        """The share of several repeats that gave the commonest answer; of one, the probability of its tokens."""
        if len(self.answers) > 1:
            return round(max(Counter(self.answers).values()) / len(self.answers), 3)
        return self.likely[0] if self.likely else None

    @property
    def right(self) -> bool | None:
        """Whether it is right; None where every episode ended in an error."""
        return None if self.score is None else self.score >= RIGHT

    def row(self) -> Json:
        score = None if self.score is None else round(self.score, 4)
        return [score, self.ends, self.operations, self.turns, self.faults, self.answer, self.sure]


@dataclass(slots=True)
class Spent:
    """What turns of one number took, over the judged episodes that have one.

    Attributes:
        seconds, operating: of the engine, and of the operations that a turn called; sums.
        timed: turns of which seconds are recorded.
    """

    turns: int = 0
    tokens: int = 0
    timed: int = 0
    seconds: float = 0.0
    operating: float = 0.0

    def add(self, tokens: int | None, seconds: float | None, operating: float | None) -> None:
        """Count one turn."""
        self.turns += 1
        self.tokens += tokens or 0
        if seconds is not None:
            self.timed += 1
            self.seconds += seconds
        self.operating += operating or 0.0


@dataclass(slots=True)
class Kept:
    """What was read of one sample, by entrant: cells, and episodes as JSON texts in order of run and repeat.

    Attributes:
        text: of what is shared, as JSON.
    """

    shared: Table
    text: str
    cells: dict[int, Cell] = field(default_factory=dict)
    episodes: dict[int, list[str]] = field(default_factory=dict)

    @property
    def category(self) -> str:
        return str(self.shared["category"])

    @property
    def slices(self) -> list[str]:
        return cast("list[str]", self.shared["slices"])


def interest(kept: Kept, candidate: int) -> tuple[float, ...]:
    """Lost, won, errors, disagreement; within each by score, by how sure it was, in tenths, and by where they looked.

    The least comes first.
    """
    before, after = kept.cells.get(0), kept.cells.get(candidate)
    if before is None or after is None:
        return (9, 0, 0, 0)
    if candidate == 0:
        return (1 if before.right is None else 2 if before.right else 0, 0, _surely(before), -before.operations)
    apart = -_apart(before.boxes, after.boxes)
    if before.score is None or after.score is None:
        return (2, 0, 0, apart)
    group = {(True, False): 0, (False, True): 1, (False, False): 4, (True, True): 5}
    rank = group[bool(before.right), bool(after.right)]
    if rank == 4 and before.answer != after.answer:
        rank = 3
    return (rank, -abs(before.score - after.score), _surely(before if after.right else after), apart)


def _surely(cell: Cell) -> float:
    """What sorts those first that are wrong and were sure of it; nothing where that is not known."""
    return 0.0 if cell.right or cell.sure is None else -round(cell.sure, 1)


def _apart(before: Sequence[Json], after: Sequence[Json]) -> float:
    """How differently two episodes looked: 1 less the best overlap of their boxes; 1 where only one looked."""
    if not before or not after:
        return float(bool(before) != bool(after))
    sides = [[Box(*cast("list[float]", cast(Table, box)["asked"])) for box in boxes] for boxes in (before, after)]
    return 1 - max(one.iou(other) for one in sides[0] for other in sides[1])
