"""Scenes: pure data that say everything about a picture, and how they are drawn.

Drawing uses integers and fixed arithmetic only, no font, no anti-aliasing and no global state, so that
the same scene gives the same pixels everywhere.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...harness.task import Mark
from ...harness.types import Box
from .hiding import SIDE, Array
from .patterns import paint

Shape = Literal["square", "circle", "triangle", "diamond"]
Texture = Literal["stripes", "noise"]
Canvas = NDArray[np.uint8]
Shade = tuple[int, int, int]

SHAPES: tuple[Shape, ...] = ("square", "circle", "triangle", "diamond")
TEXTURES: tuple[Texture, ...] = ("stripes", "noise")
COLOURS: dict[str, Shade] = {
    "red": (220, 45, 45),
    "orange": (240, 135, 30),
    "yellow": (230, 210, 45),
    "green": (45, 175, 60),
    "blue": (50, 80, 220),
    "purple": (150, 50, 185),
}
# The least and greatest width of each shape: each holds the plate with colour all round it.
WIDTHS: dict[Shape, tuple[int, int]] = {
    "square": (104, 136),
    "circle": (116, 148),
    "triangle": (148, 168),
    "diamond": (148, 168),
}


class Showing(Protocol):
    """What an object's plate shows, as ``marks.Detail`` does: its side, its ink, and how much of it goes where."""

    @property
    def side(self) -> int: ...

    def ink(self) -> tuple[int, int, int]: ...

    def pattern(self, left: int, top: int) -> Array: ...

    def marks(self, left: int, top: int) -> list[Mark]: ...


D = TypeVar("D", bound=Showing)


@dataclass(frozen=True, slots=True)
class Thing(Generic[D]):
    """A named object: as high as it is wide, with a grey plate that shows its detail."""

    shape: Shape
    colour: str
    left: int
    top: int
    width: int
    detail: D

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def box(self) -> Box:
        return Box(self.left, self.top, self.left + self.width, self.top + self.width)

    @property
    def plate(self) -> tuple[int, int]:
        """Left and top of its plate; a triangle's is lowered to where there is room."""
        side = self.detail.side
        room = self.width - side
        down = room - (self.width - 2 * side) // 3 if self.shape == "triangle" else room // 2
        return self.left + room // 2, self.top + down


@dataclass(frozen=True, slots=True)
class Clutter:
    """Something grey that no question names: stripes, noise, or a plain shape.

    Attributes:
        shades: the two greys between which stripes and noise vary; a shape has the first.
        grain: width of a stripe or side of a noise cell.
        seed: of the noise.
    """

    kind: Texture | Shape
    left: int
    top: int
    width: int
    shades: tuple[int, int]
    grain: int
    seed: int

    @property
    def box(self) -> Box:
        return Box(self.left, self.top, self.left + self.width, self.top + self.width)


@dataclass(frozen=True, slots=True)
class Scene(Generic[D]):
    """One picture, 640 x 640. The objects that its question names come first."""

    background: Shade
    clutter: tuple[Clutter, ...]
    things: tuple[Thing[D], ...]


def silhouette(shape: Shape, width: int) -> NDArray[np.bool_]:
    """The pixels of a shape in its bounding square, decided in integers."""
    y, x = 2 * np.mgrid[:width, :width] + 1 - width
    if shape == "square":
        return np.ones((width, width), dtype=np.bool_)
    inside = {
        "circle": x * x + y * y <= width * width,
        "diamond": abs(x) + abs(y) <= width,
        "triangle": 2 * abs(x) <= y + width + 1,
    }[shape]
    return np.asarray(inside, dtype=np.bool_)


def _region(canvas: Canvas, left: int, top: int, width: int) -> Canvas:
    return canvas[top : top + width, left : left + width]


def draw_clutter(canvas: Canvas, item: Clutter) -> None:
    """Put a grey thing on a canvas, in place."""
    region = _region(canvas, item.left, item.top, item.width)
    low, high = item.shades
    if item.kind == "stripes":
        bands = np.arange(item.width) // item.grain % 2
        region[...] = np.where(bands, low, high).astype(np.uint8)[None, :, None]
    elif item.kind == "noise":
        cells = -(-item.width // item.grain)
        dice = random.Random(item.seed)  # noqa: S311 - a picture, not a secret
        values = np.frombuffer(dice.randbytes(cells * cells), np.uint8).reshape(cells, cells).astype(np.int64)
        grain = np.kron(low + values * (high - low) // 255, np.ones((item.grain, item.grain), np.int64))
        region[...] = grain[: item.width, : item.width, None].astype(np.uint8)
    else:
        region[silhouette(item.kind, item.width)] = low


def draw(scene: Scene[D]) -> Canvas:
    """The pixels of a scene, RGB."""
    canvas = np.empty((SIDE, SIDE, 3), dtype=np.uint8)
    canvas[...] = scene.background
    for item in scene.clutter:
        draw_clutter(canvas, item)
    for thing in scene.things:
        region = _region(canvas, thing.left, thing.top, thing.width)
        region[silhouette(thing.shape, thing.width)] = COLOURS[thing.colour]
        plate = _region(canvas, *thing.plate, thing.detail.side)
        paint(plate, thing.detail.pattern(*thing.plate), thing.detail.ink())
    return canvas


def marks_of(scene: Scene[D]) -> tuple[Mark, ...]:
    """The things of a scene and what their plates show."""
    things = [Mark(thing.name, thing.box, legible=True) for thing in scene.things]
    return (*things, *(mark for thing in scene.things for mark in thing.detail.marks(*thing.plate)))


def picture(scene: Scene[D]) -> Image.Image:
    """A scene as an image."""
    return Image.fromarray(draw(scene))
