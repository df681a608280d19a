"""The pictures of a report: each stored once by content, as thumbnails or whole, and frames of a video side by side.

Nothing of a run folder is believed: a path that leaves it is refused, what is no image is named as missing, and
only what was decoded here is embedded.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from PIL import Image, features

from ..harness.errors import DataError
from ..harness.media import decode, inside, read_bytes
from ..harness.types import Size

Images = Literal["thumb", "full", "none"]
Coder = Literal["AVIF", "WEBP"]
COLUMNS = 4
MIME = {".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
# Longest sides that a thumbnail may have: the first at which all of a report's are about BUDGET bytes, or the last.
SIDES = (640, 512, 416, 336, 288, 240, 208)
BUDGET = 1_100_000
# How much larger than its side a thumbnail may be to be a whole part of its image.
ROUNDING = 1.12
CROP_SHARE = 0.6
FRAME_SIDE = 112


@dataclass(frozen=True, slots=True)
class Stored:
    """An embedded picture.

    Attributes:
        uri: a ``data:`` address.
        columns: cells in a row of a sheet of frames, 0 for a single picture.
        frames: how many of its cells are filled.
    """

    uri: str
    size: Size
    columns: int = 0
    frames: int = 1


@dataclass(slots=True)
class Album:
    """Collects the pictures of a report.

    Attributes:
        images: ``thumb``, ``full`` or ``none``.
        side: about the longest side of a thumbnail of a source image.
        coder: how thumbnails are written: photographs are smaller as AVIF, drawings as WebP, in half the time.
        stored: by key, in the order in which they came.
        missing: files that are not there or are no images.
    """

    images: Images
    side: int = SIDES[0]
    coder: Coder = "WEBP"
    stored: dict[str, Stored] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    _known: dict[tuple[Path, tuple[str, ...], int], str] = field(default_factory=dict)

    @classmethod
    def sized(cls, images: Images, pictures: float, probes: Sequence[tuple[Path, str]]) -> Album:
        """An album for about so many pictures of a size, with thumbnails as large as its budget allows.

        Args:
            probes: some of the pictures, by run and file; what cannot be read among them says nothing.
        """
        if images != "thumb":
            return cls(images)
        decoded = _decoded(probes)
        if not decoded:
            return cls(images)

        @cache
        def weight(side: int, coder: Coder) -> float:
            return pictures * sum(len(_thumbnail(image, side, coder)) for image in decoded) / len(decoded)

        coders: list[Coder] = ["AVIF", "WEBP"] if features.check("avif") else ["WEBP"]
        coder = min(coders, key=lambda one: weight(SIDES[-1], one))
        place = bisect_left(range(len(SIDES) - 1), -BUDGET, key=lambda at: -round(weight(SIDES[at], coder)))
        return cls(images, SIDES[place], coder)

    def add(self, run: Path, files: Sequence[str], share: float = 1.0) -> str:
        """Embed an image, or the frames of a video as one sheet; returns its key, empty where it cannot be shown.

        Args:
            share: of a thumbnail's side, for what is shown smaller.
        """
        side = FRAME_SIDE if len(files) > 1 else max(48, round(self.side * share))
        side = 0 if self.images == "full" else side
        asked = (run, tuple(files), side)
        if asked not in self._known:
            self._known[asked] = "" if self.images == "none" or not files else self._embed(run, files, side)
        return self._known[asked]

    def _embed(self, run: Path, files: Sequence[str], side: int) -> str:
        try:
            sources = [read_bytes(inside(run, name), name) for name in files]
            digest = hashlib.sha256(b"".join(hashlib.sha256(source).digest() for source in sources)).hexdigest()
            key = f"{digest[:20]}-{side}"
            if key not in self.stored:
                whole = len(sources) == 1
                coder = self.coder
                self.stored[key] = _single(sources[0], side, coder) if whole else _sheet(sources, side, coder)
        except DataError as error:
            self.missing.add(str(error))
            return ""
        return key


def _decoded(probes: Sequence[tuple[Path, str]]) -> list[Image.Image]:
    """Those of some pictures that can be read."""
    found = []
    for run, name in probes:
        with contextlib.suppress(DataError):
            found.append(decode(read_bytes(inside(run, name), name), "picture").image)
    return found


def _single(source: bytes, side: int, coder: Coder) -> Stored:
    picture = decode(source, "picture")
    if not side and picture.suffix:
        return Stored(_uri(source, MIME[picture.suffix]), picture.size)
    image = _within(picture.image, side)
    return Stored(_encoded(image, coder if side else None), Size(*image.size))


def _sheet(sources: Sequence[bytes], side: int, coder: Coder) -> Stored:
    """Frames in rows of ``COLUMNS``, each in a cell as large as the first."""
    frames = [_within(decode(source, "frame").image, side) for source in sources]
    cell = frames[0].size
    sheet = Image.new("RGB", (cell[0] * COLUMNS, cell[1] * -(-len(frames) // COLUMNS)))
    for number, frame in enumerate(frames):
        place = (number % COLUMNS * cell[0], number // COLUMNS * cell[1])
        sheet.paste(frame if frame.size == cell else frame.resize(cell), place)
    if max(sheet.size) > 16383:  # more than WebP holds
        sheet = _scaled(sheet, 16383)
    return Stored(_encoded(sheet, coder if side else None), Size(*cell), COLUMNS, len(frames))


def _within(image: Image.Image, side: int) -> Image.Image:
    """The image with no side above ``side``, or little above it where that is a whole part; 0 leaves it as it is.

    A pixel of a whole part is the plain mean of a square of pixels: sharper than resampling, and four times as fast.
    """
    longest = max(image.size)
    if not side or longest <= side:
        return image
    part = longest // side
    if part > 1 and longest <= ROUNDING * part * side:
        return image.reduce(part)
    return _scaled(image, side)


def _scaled(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.HAMMING, reducing_gap=2.0)


def _encoded(image: Image.Image, coder: Coder | None) -> str:
    """An image as a ``data:`` address, lossless where no coder is named."""
    if coder:
        return _uri(_coded(image, coder), f"image/{coder.lower()}")
    buffer = io.BytesIO()
    fmt = "WEBP" if max(image.size) <= 16383 else "PNG"
    image.save(buffer, fmt, **({"lossless": True, "quality": 60, "method": 2} if fmt == "WEBP" else {}))
    return _uri(buffer.getvalue(), f"image/{fmt.lower()}")


def _thumbnail(image: Image.Image, side: int, coder: Coder) -> bytes:
    return _coded(_within(image, side), coder)


def _coded(image: Image.Image, coder: Coder) -> bytes:
    buffer = io.BytesIO()
    if coder == "AVIF":
        image.save(buffer, coder, quality=40, speed=9, max_threads=1)  # threads would change the bytes
    else:
        image.save(buffer, coder, quality=50, method=2)
    return buffer.getvalue()


def _uri(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
