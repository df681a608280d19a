"""What there is to look at in drawn pictures, as a vision tower is taught to say it of each of its tokens."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..harness.media import resize
from ..harness.settings import Setting
from ..harness.task import Illustration, Mark
from ..harness.types import Box, Size
from .drills import CELLS, cells
from .trainable import Trainable

CELL = 28
# Columns of a token in which marks are told apart: as narrow as the glyphs of large print in an overview.
COLUMNS = 4
# A token is one of a thing that covers this share of it, or of which it covers this share; where none is, though most
# of the thing is there, the nearest.
COVER = 0.25
MOST_DOTS = 3
# Windows are cut so that they are shown at a scale between that of the smallest crop and full size.
SCALES = (0.5, 1.0)
SIDES = (2, 3, 4)
# Close-ups of each picture.
CLOSEUPS = 3
# An edge is said in tenths of the picture, from so far before where its token begins to so far behind.
BEFORE, BEHIND = 5, 6
# How many kinds of marks and of words there is room for.
ROOM, VOCABULARY = 48, 128


@dataclass(frozen=True, slots=True, eq=False)
class Glance:
    """An image and what its tokens show.

    Attributes:
        marks: tokens x (columns x kinds of marks), 1 where there is one.
        words: tokens x words, 1 where a token is of a thing that is called so or shows that.
        edges: tokens x 4, left, top, right and bottom of the thing that it is a token of, from 0; -1 for none.
        whole: whether it is a picture as a whole.
    """

    image: Image.Image
    marks: NDArray[np.uint8]
    words: NDArray[np.uint8]
    edges: NDArray[np.int8]
    whole: bool


class Labels:
    """The numbers of what can be seen: of marks by their labels, of words by their text as a sentence has it."""

    def __init__(self) -> None:
        self.marks: dict[str, int] = {}
        self.words: dict[str, int] = {}

    def mark(self, label: str) -> int:
        return self.marks.setdefault(label, len(self.marks))

    def word(self, text: str) -> int:
        return self.words.setdefault(text, len(self.words))


def glance(
    picture: Image.Image, marks: Sequence[Mark], window: Box, size: Size, labels: Labels, *, close: bool
) -> Glance:
    """A window of a picture as it is seen at this size, and its targets.

    Args:
        close: whether marks that an overview hides are to be seen.
    """
    region = tuple(round(edge) for edge in window)
    image = resize(picture.crop(cast("tuple[int, int, int, int]", region)), size)
    x, y = size.width / (region[2] - region[0]), size.height / (region[3] - region[1])
    wide, high = size.width // CELL, size.height // CELL
    seen = [mark for mark in marks if close or mark.legible]
    points = np.zeros((high, wide, COLUMNS, ROOM), np.uint8)
    dots: Counter[tuple[int, int, int]] = Counter()
    words = np.zeros((high, wide, VOCABULARY), np.uint8)
    edges = np.full((high, wide, 4), -1, np.int8)
    most = np.zeros((high, wide))
    whole = region == (0, 0, *picture.size)
    for mark in marks:
        box = mark.box.shifted(-region[0], -region[1]).scaled(x, y)
        if box.area > 0:
            share = _shares(box, wide, high)
            nearest = share.max() if _inside(box, size) > 0.5 else COVER
            tokens = (share > 0) & (share >= min(COVER, nearest))
            for text in _called(mark, seen, region):
                words[tokens, labels.word(text)] = 1
            if whole:
                closest = tokens & (share > most)
                edges[closest] = _edges(cells(box, size), wide, high)[closest]
                most = np.maximum(most, share)
        elif (close or mark.legible) and 0 <= box.left < size.width and 0 <= box.top < size.height:
            place = int(box.top // CELL), int(box.left // CELL), int(box.left % CELL * COLUMNS / CELL)
            if mark.label == "dot":
                dots[place] += 1
            else:
                points[(*place, labels.mark(mark.label))] = 1
    for place, count in dots.items():
        points[(*place, labels.mark(f"dot {min(count, MOST_DOTS)}"))] = 1
    flat = points.reshape(high * wide, -1), words.reshape(high * wide, -1), edges.reshape(high * wide, 4)
    return Glance(image, *flat, whole)


def _shares(box: Box, wide: int, high: int) -> NDArray[np.float64]:
    """How much of each token a box covers, or of the box the token, whichever is more."""
    across, down = _overlap(box.left, box.right, wide), _overlap(box.top, box.bottom, high)
    return np.asarray(down[:, None] * across / min(CELL * CELL, box.area))


def _inside(box: Box, size: Size) -> float:
    """The share of a box that lies in an image."""
    across = min(box.right, size.width) - max(box.left, 0.0)
    down = min(box.bottom, size.height) - max(box.top, 0.0)
    return max(across, 0.0) * max(down, 0.0) / box.area


def _overlap(start: float, end: float, count: int) -> NDArray[np.float64]:
    """How much of each of so many tokens, one after another, lies between two places."""
    begin = np.arange(count) * CELL
    return np.asarray(np.clip(np.minimum(end, begin + CELL) - np.maximum(start, begin), 0, None))


def _edges(box: tuple[int, int, int, int], wide: int, high: int) -> NDArray[np.int8]:
    """The edges of a box in tenths, as each token says them."""
    begin = [np.arange(count) * CELLS // count for count in (wide, high)]
    found = np.empty((high, wide, 4), np.int64)
    for number, edge in enumerate(box):
        from_here = edge - begin[number % 2]
        found[..., number] = from_here[None, :] if number % 2 == 0 else from_here[:, None]
    return np.asarray(np.clip(found, -BEFORE, BEHIND) + BEFORE, np.int8)


def _called(mark: Mark, seen: Sequence[Mark], region: Sequence[int]) -> Iterator[str]:
    """The words for a thing: its name, where that can be seen, and what it shows, where all of that can."""
    named = " " in mark.label
    inside = [one for one in seen if one.box.area == 0 and _holds(mark.box, one.box.left, one.box.top)]
    inside.sort(key=lambda one: one.box.left)
    if named:
        yield f" {mark.label}"
    if not inside or not all(_holds(Box(*region), one.box.left, one.box.top) for one in inside):
        return
    if inside[0].label == "dot":
        yield f" {len(inside)}"
    elif named:
        yield inside[0].label if inside[0].label.isupper() else f" {inside[0].label}"
    elif mark.label.isalpha():
        yield f" {mark.label}"
    else:
        yield f" {mark.label[0]}"
        yield from mark.label[1:]


def _holds(box: Box, x: float, y: float) -> bool:
    return box.left <= x < box.right and box.top <= y < box.bottom


def glances(
    picture: Illustration, setting: Setting, engine: Trainable, labels: Labels, count: int, rng: random.Random
) -> Iterator[Glance]:
    """The overview of a picture, or of some frames of a clip; close-ups as calls make them; windows around marks."""
    clip = len(picture.frames) > 1
    if not clip:
        yield from _closeups(picture, setting, engine, labels, rng)
    chosen = rng.sample(range(len(picture.frames)), min(len(picture.frames), 4))
    cut = [rng.choice(chosen) for _ in range(count)]
    for number in chosen:
        frame, marks = picture.frames[number], picture.marks[number]
        whole = Size(*frame.size)
        seen = engine.fit(whole, setting.budget.video_frame if clip else setting.budget.input)
        yield glance(frame, marks, Box(0, 0, *whole), seen, labels, close=False)
        if clip:
            seen = engine.fit(whole, setting.budget.selected_frame)
            yield glance(frame, marks, Box(0, 0, *whole), seen, labels, close=True)
        near = _by_label(marks)
        for _ in range(cut.count(number) if near else 0):
            scale = 1.0 if clip else rng.uniform(*SCALES)
            size = Size(CELL * rng.choice(SIDES), CELL * rng.choice(SIDES))
            mark = rng.choice(rng.choice(near))
            window = _window(rng, mark.box, whole, Size(round(size.width / scale), round(size.height / scale)))
            yield glance(frame, marks, window, size, labels, close=True)


def _closeups(
    picture: Illustration, setting: Setting, engine: Trainable, labels: Labels, rng: random.Random
) -> Iterator[Glance]:
    """Some things of a picture, cut out as tightly as a call can."""
    size = Size(*picture.frames[0].size)
    for thing in rng.sample(picture.things, min(CLOSEUPS, len(picture.things))):
        window = Box(*cells(thing.box, size)).scaled(size.width / CELLS, size.height / CELLS)
        cut = Size(*(round(b) - round(a) for a, b in ((window.left, window.right), (window.top, window.bottom))))
        seen = engine.fit(cut, setting.budget.crop)
        yield glance(picture.frames[0], picture.marks[0], window, seen, labels, close=True)


def _by_label(marks: Sequence[Mark]) -> list[list[Mark]]:
    """What plates show, by label: what is there many times is not looked at more often than what is there once."""
    found: dict[str, list[Mark]] = {}
    for mark in marks:
        if mark.box.area == 0:
            found.setdefault(mark.label, []).append(mark)
    return list(found.values())


def _window(rng: random.Random, mark: Box, whole: Size, size: Size) -> Box:
    """A window of this size around a mark, within the picture."""
    left = min(max(0, round(mark.left - rng.uniform(0.15, 0.85) * size.width)), max(0, whole.width - size.width))
    top = min(max(0, round(mark.top - rng.uniform(0.15, 0.85) * size.height)), max(0, whole.height - size.height))
    return Box(left, top, min(whole.width, left + size.width), min(whole.height, top + size.height))
