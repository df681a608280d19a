"""Posters: pure data that say everything about an infographic of labelled values, and how it is drawn.

A poster has a title and four to six entries, one below the other or in boxes two abreast. Each entry has a
label and a value, printed on grey plates: in large print, which the overview shows, or in small print, of
which it shows nothing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from PIL import Image

from ...harness.task import Mark
from ...harness.types import Box
from .glyphs import strokes
from .hiding import Array, Lens, conceal
from .marks import INKS, point
from .patterns import bold, paint, pen
from .scene import COLOURS, SHAPES, Canvas, Shade, Shape, silhouette

WIDTH, HEIGHT = 560, 840
X, Y = Lens(WIDTH, 112), Lens(HEIGHT, 168)
Layout = Literal["rows", "boxes"]
TITLES = ("DEMAND", "GOODS", "MARKET", "PRICES", "SALES", "STOCK", "SUPPLY", "TRADE")
HEADER = 96
TITLE_CELL = 9
# Width and height of the plates of a label and of a value, and the colour left around them.
LABEL, VALUE, RIM = (216, 60), (148, 60), 16
ICON = 44
# Sides of a cell of large and of small print in pixels.
LARGE, SMALL = (7, 8), (5, 6)


@dataclass(frozen=True, slots=True)
class Print:
    """A word or a number on a grey plate.

    Attributes:
        cell: side of a cell of its glyphs in pixels.
        large: whether the overview shows it.
    """

    text: str
    cell: int
    large: bool
    left: int
    top: int
    width: int
    height: int

    @property
    def box(self) -> Box:
        return Box(self.left, self.top, self.left + self.width, self.top + self.height)

    def marks(self) -> list[Mark]:
        """The plate with what it says, and the glyphs on it."""
        first = self.left + self.width / 2 - (6 * len(self.text) - 1) / 2 * self.cell
        y = self.top + self.height / 2
        glyphs = [
            point(glyph, first + (6 * place + 2.5) * self.cell, y, self.large) for place, glyph in enumerate(self.text)
        ]
        return [Mark(self.text.lower(), self.box, self.large), *glyphs]

    def pattern(self) -> Array:
        """How much ink each pixel of the plate gets, from -1 to 1."""
        shape = self.height, self.width
        if self.large:
            return bold(shape, self.text, self.cell)
        return conceal(_fine(shape, self.text, self.cell), self.left, self.top, X, Y)


@dataclass(frozen=True, slots=True)
class Entry:
    """A label and its value on a coloured ground, with a shape beside them."""

    colour: str
    icon: Shape
    box: Box
    label: Print
    value: Print


@dataclass(frozen=True, slots=True)
class Poster:
    """One poster, 560 x 840."""

    layout: Layout
    title: str
    paper: Shade
    band: Shade
    entries: tuple[Entry, ...]


@cache
def _fine(shape: tuple[int, int], text: str, cell: int) -> Array:
    return pen(shape, [(x * cell, y * cell) for x, y in strokes(text)], 0.55 * cell)


def compose(rng: random.Random, layout: Layout, texts: Sequence[tuple[str, str]], small: Sequence[str]) -> Poster:
    """A poster with these labels and values in chance's order.

    Args:
        small: which part of each entry is in small print: ``label``, ``value`` or neither.
    """
    entries = list(zip(texts, small, grounds(layout, len(texts)), strict=True))
    paper = rng.randint(222, 244)
    red, green, blue = (paper + rng.randint(-8, 8) for _ in range(3))
    dark = rng.randint(30, 60)
    band = (dark, dark + rng.randint(0, 10), dark + rng.randint(10, 40))
    made = tuple(_entry(rng, layout, text, fine, ground) for text, fine, ground in entries)
    return Poster(layout, rng.choice(TITLES), (red, green, blue), band, made)


def grounds(layout: Layout, count: int) -> list[Box]:
    """The coloured grounds of entries, from the top."""
    if layout == "rows":
        pitch = (HEIGHT - HEADER) // count
        tops = [HEADER + pitch * i + (pitch - 92) // 2 for i in range(count)]
        return [Box(20, top, WIDTH - 20, top + 92) for top in tops]
    across, pitch = (WIDTH - 2 * (LABEL[0] + 2 * RIM)) // 3, (HEIGHT - HEADER) // ((count + 1) // 2)
    width, height = LABEL[0] + 2 * RIM, 172
    corners = [
        (across + (width + across) * (i % 2), HEADER + pitch * (i // 2) + (pitch - height) // 2) for i in range(count)
    ]
    return [Box(left, top, left + width, top + height) for left, top in corners]


def _entry(rng: random.Random, layout: Layout, text: tuple[str, str], small: str, ground: Box) -> Entry:
    left, top = round(ground.left) + RIM, round(ground.top) + RIM
    across = left + LABEL[0] + 20 if layout == "rows" else left
    down = top if layout == "rows" else top + LABEL[1] + 20
    label = _print(rng, text[0].upper(), small != "label", (left, top), LABEL)
    value = _print(rng, text[1], small != "value", (across, down), VALUE)
    return Entry(rng.choice(tuple(COLOURS)), rng.choice(SHAPES), ground, label, value)


def _print(rng: random.Random, text: str, large: bool, place: tuple[int, int], size: tuple[int, int]) -> Print:
    cell = rng.choice([cell for cell in (LARGE if large else SMALL) if (6 * len(text) - 1) * cell <= size[0] - 8])
    return Print(text, cell, large, *place, *size)


def draw(poster: Poster) -> Canvas:
    """The pixels of a poster, RGB."""
    canvas = np.empty((HEIGHT, WIDTH, 3), dtype=np.uint8)
    canvas[...] = poster.paper
    canvas[:HEADER] = poster.band
    canvas[:HEADER][bold((HEADER, WIDTH), poster.title, TITLE_CELL) > 0] = 255
    for entry in poster.entries:
        left, top, right, bottom = (round(edge) for edge in entry.box)
        canvas[top:bottom, left:right] = COLOURS[entry.colour]
        icon = canvas[bottom - RIM - ICON - 8 :, right - RIM - ICON :][:ICON, :ICON]
        icon[silhouette(entry.icon, ICON)] = poster.paper
        draw_print(canvas, entry.label)
        draw_print(canvas, entry.value)
    return canvas


def draw_print(canvas: Canvas, text: Print) -> None:
    """Put a plate with its print on a poster, in place."""
    plate = canvas[text.top : text.top + text.height, text.left : text.left + text.width]
    paint(plate, text.pattern(), INKS["white"])


def picture(poster: Poster) -> Image.Image:
    """A poster as an image."""
    return Image.fromarray(draw(poster))
