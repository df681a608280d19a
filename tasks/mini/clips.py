"""Clips: pure data that say everything about a short video, and how its frames are drawn.

A clip lasts sixteen beats, whatever its number of frames. Named objects stand or move in it, and their plates
show signs for some of the time: legible in the frames of the overview, or textures as fine as the pixels
themselves, of which a smaller frame keeps nothing and a selected one everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from ...harness.task import Mark
from ...harness.types import Box
from .glyphs import LETTERS
from .hiding import Array, Lens, conceal
from .marks import INKS, VALUES, point
from .patterns import bold, discs, paint
from .scene import COLOURS, Canvas, Clutter, Shade, Shape, draw_clutter, silhouette

SIDE, SEEN = 140, 84
LENS = Lens(SIDE, SEEN)
BEATS = 16
PLATE = 34
# The least and greatest width of each shape: each holds the plate with colour all round it.
WIDTHS: dict[Shape, tuple[int, int]] = {
    "square": (46, 52),
    "circle": (62, 66),
    "triangle": (86, 90),
    "diamond": (86, 90),
}
Kind = Literal["dot", "digit", "letter"]
SIGNS: dict[Kind, tuple[str, ...]] = {"dot": VALUES["dot"], "digit": VALUES["digit"], "letter": tuple(LETTERS)}
# Sizes in pixels: a dot's diameter, the side of a glyph's cell.
SIZES: dict[Kind, tuple[int, ...]] = {"dot": (18, 20, 22, 24), "digit": (3, 4), "letter": (3, 4)}


@dataclass(frozen=True, slots=True)
class Sign:
    """A dot, a digit or a letter on a plate.

    Attributes:
        value: the name of the ink of a dot, or the glyph.
        legible: whether the overview shows it.
        start, stop: the beats from and before which it is shown.
    """

    kind: Kind
    value: str
    size: int
    legible: bool
    start: int = 0
    stop: int = BEATS

    def ink(self) -> tuple[int, int, int]:
        """The direction from grey, by channel."""
        return INKS[self.value if self.kind == "dot" else "white"]

    def pattern(self, left: int, top: int) -> Array:
        """How much ink each pixel of the plate gets, from -1 to 1, where the plate lies at this place.

        A hidden glyph is a chequerboard, which is as much black as white. A hidden dot must tell its colour,
        so every other pixel of every other line has its ink, and the rest a third of the complement.
        """
        shape = (PLATE, PLATE)
        mark = discs(shape, [(0, 0)], self.size) if self.kind == "dot" else bold(shape, self.value, self.size)
        if self.legible:
            return mark
        y, x = np.mgrid[top : top + PLATE, left : left + PLATE] % 2
        texture = np.where(x + y, -1 / 3, 1.0) if self.kind == "dot" else np.where(x == y, 1.0, -1.0)
        return conceal(mark * texture, left, top, LENS, LENS)


@dataclass(frozen=True, slots=True)
class Actor:
    """A named object, as high as it is wide, and what its plate shows.

    Attributes:
        begin, end: its left and top in the first and in the last frame.
        bare: whether it has a plate only while there is something on it.
    """

    shape: Shape
    colour: str
    width: int
    begin: tuple[int, int]
    end: tuple[int, int]
    signs: tuple[Sign, ...]
    bare: bool = False

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def plate(self) -> tuple[int, int]:
        """Left and top of its plate within it."""
        room = self.width - PLATE
        return room // 2, room - (room - PLATE) // 3 if self.shape == "triangle" else room // 2

    def place(self, frame: int, last: int) -> tuple[int, int]:
        """Its left and top in a frame, from 0, of a clip whose last frame is ``last``."""
        left, top = (a + (b - a) * frame // last for a, b in zip(self.begin, self.end, strict=True))
        return left, top

    def box(self, place: tuple[int, int]) -> Box:
        """What it covers where its left and top are these."""
        left, top = place
        return Box(left, top, left + self.width, top + self.width)

    def sign(self, beat: int) -> Sign | None:
        """What its plate shows in a beat."""
        return next((sign for sign in self.signs if sign.start <= beat < sign.stop), None)

    @property
    def moves(self) -> bool:
        """Whether it is ever anywhere else than at first."""
        return self.begin != self.end

    @property
    def path(self) -> Box:
        """Everywhere it ever is."""
        (left, top), (right, bottom) = (tuple(map(pick, self.begin, self.end)) for pick in (min, max))
        return Box(left, top, right + self.width, bottom + self.width)


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip, 140 x 140. The object that its question is about comes first."""

    background: Shade
    clutter: tuple[Clutter, ...]
    actors: tuple[Actor, ...]
    frames: int

    def beat(self, frame: int) -> int:
        """The beat in which a frame is shown, both from 0."""
        return frame * BEATS // self.frames


@lru_cache(4096)
def _plate(sign: Sign | None, left: int, top: int) -> Canvas:
    plate = np.empty((PLATE, PLATE, 3), dtype=np.uint8)
    paint(plate, sign.pattern(left, top) if sign else np.zeros((PLATE, PLATE)), sign.ink() if sign else INKS["white"])
    return plate


def draw(clip: Clip) -> Iterator[Canvas]:
    """The frames of a clip, RGB."""
    ground = np.empty((SIDE, SIDE, 3), dtype=np.uint8)
    ground[...] = clip.background
    for item in clip.clutter:
        draw_clutter(ground, item)
    for frame in range(clip.frames):
        canvas = ground.copy()
        for actor in clip.actors:
            _draw_actor(canvas, actor, clip.beat(frame), frame, clip.frames - 1)
        yield canvas


def marks_of(clip: Clip, frame: int) -> tuple[Mark, ...]:
    """The things of a frame and what their plates show."""
    found: list[Mark] = []
    for actor in clip.actors:
        left, top = actor.place(frame, clip.frames - 1)
        found.append(Mark(actor.name, actor.box((left, top)), legible=True))
        sign = actor.sign(clip.beat(frame))
        if sign is not None:
            across, down = actor.plate
            x, y = left + across + PLATE / 2, top + down + PLATE / 2
            found.append(point(sign.value, x, y, sign.legible))
    return tuple(found)


def _draw_actor(canvas: Canvas, actor: Actor, beat: int, frame: int, last: int) -> None:
    left, top = actor.place(frame, last)
    body = canvas[top : top + actor.width, left : left + actor.width]
    body[silhouette(actor.shape, actor.width)] = COLOURS[actor.colour]
    sign = actor.sign(beat)
    if sign is None and actor.bare:
        return
    x, y = actor.plate
    body[y : y + PLATE, x : x + PLATE] = _plate(sign, left + x, top + y)
