"""The small details that objects carry, each painted on a grey plate at its centre.

A legible one is plain ink, large enough for the overview. A hidden one is finer, and what the overview
would show of it is taken out: counted dots become specks, a coloured dot a halftone of specks, and
digits are drawn with a thin pen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...harness.task import Mark
from ...harness.types import Box
from .glyphs import strokes
from .hiding import Array, conceal
from .patterns import bold, discs, halftone, pen, snapped, specks

Kind = Literal["dot", "count", "digit"]

PLATE = 60
SHAPE = (PLATE, PLATE)
# White and three colours on axes of their own: even a pattern of a colour and its complement tells which.
INKS: dict[str, tuple[int, int, int]] = {
    "white": (1, 1, 1),
    "yellow": (1, 1, -1),
    "cyan": (-1, 1, 1),
    "magenta": (1, -1, 1),
}
VALUES: dict[Kind, tuple[str, ...]] = {
    "dot": tuple(INKS),
    "count": ("1", "2", "3", "4"),
    "digit": tuple("0123456789"),
}
# Sizes in pixels: a dot's diameter, the distance between counted dots, the side of a digit's cell.
LEGIBLE: dict[Kind, tuple[int, ...]] = {"dot": (30, 34, 38, 42), "count": (26, 28, 30), "digit": (7, 8)}
HIDDEN: dict[Kind, tuple[int, ...]] = {"dot": (22, 26, 30), "count": (18, 20, 22, 24), "digit": (5, 6)}
CORNERS = ((-1, -1), (1, -1), (-1, 1), (1, 1))


def point(label: str, x: float, y: float, legible: bool) -> Mark:
    """A mark at a place of a picture."""
    return Mark(label, Box(x, y, x, y), legible)


@dataclass(frozen=True, slots=True)
class Detail:
    """What an object's plate shows.

    Attributes:
        value: the name of the ink of a dot, or what is counted or read, as it stands in an answer.
        size: in pixels, as ``LEGIBLE`` and ``HIDDEN`` list it.
        legible: whether the overview shows it.
        order: in which order counted dots take the corners of a square.
        side: of the plate.
    """

    kind: Kind
    value: str
    size: int
    legible: bool
    order: tuple[int, ...] = (0, 1, 2, 3)
    side: ClassVar[int] = PLATE

    def ink(self) -> tuple[int, int, int]:
        """The direction from grey, by channel."""
        return INKS[self.value if self.kind == "dot" else "white"]

    def pattern(self, left: int, top: int) -> Array:
        """How much ink each pixel of the plate gets, from -1 to 1, where the plate lies at this place."""
        return self._plain() if self.legible else conceal(self._fine(left, top), left, top)

    def marks(self, left: int, top: int) -> list[Mark]:
        """What is to be seen on the plate, where it lies at this place."""
        x, y = left + PLATE / 2, top + PLATE / 2
        if self.kind == "count":
            return [point("dot", x + across, y + down, self.legible) for across, down in self._places()]
        return [point(self.value, x, y, self.legible)]

    def _places(self) -> list[tuple[float, float]]:
        half = self.size / 2
        return [(CORNERS[i][0] * half, CORNERS[i][1] * half) for i in self.order[: int(self.value)]]

    def _plain(self) -> Array:
        if self.kind == "dot":
            return discs(SHAPE, [(0, 0)], self.size)
        if self.kind == "count":
            return discs(SHAPE, self._places(), self.size * 0.6)
        return bold(SHAPE, self.value, self.size)

    def _fine(self, left: int, top: int) -> Array:
        if self.kind == "digit":
            return pen(SHAPE, [(x * self.size, y * self.size) for x, y in strokes(self.value)], 0.55 * self.size)
        if self.kind == "count":
            return specks(SHAPE, snapped(self._places(), left, top, PLATE), 1.8)
        inside = [(x, y) for x, y in halftone(left, top, PLATE) if 4 * (x * x + y * y) <= self.size**2]
        return specks(SHAPE, inside, 1.5)
