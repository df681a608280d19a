"""Media on disk or in a dataset row, read safely.

A media item is an image or a video. Its source is a file, the bytes of a dataset cell, or a folder's
frames in order. Nothing here trusts what it reads: sizes are checked before pixels are decoded, paths
from data never leave their folder, and every fault is a ``DataError`` naming the item.
"""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from PIL import Image, ImageOps, UnidentifiedImageError

from .digests import file_digest, json_digest
from .errors import DataError
from .types import Size

MAX_PIXELS = 178_956_970
_HEADER = threading.Lock()
_BOXES = (b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"uuid", b"pnot")
_MAX_BOXES = 1 << 20
_BROWSER_FORMATS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}


@dataclass(frozen=True, slots=True)
class Media:
    """An image or a video that a sample shows.

    Attributes:
        name: what a reader knows it by, such as the file name in the dataset.
        source: a file, the encoded bytes, or the frame files of a video in order.
        start: second within a video at which it begins, its first frame being at 0; None for the whole.
        end: second before which it ends.
        fps: frames a second of a frame folder; a file knows its own times.
        frames: how many frames of a video the model is shown, spread as ``harness.video`` says.
    """

    kind: Literal["image", "video"]
    name: str
    source: Path | bytes | tuple[Path, ...]
    start: float | None = None
    end: float | None = None
    fps: float | None = None
    frames: int = 16

    def digest(self) -> str:
        """SHA-256 of the content, hex; for a video of its window, rate and number of frames too.

        Raises:
            DataError: a file cannot be read.
        """
        content = self._content()
        if self.kind == "image":
            return content
        cut = [None if value is None else float(value) for value in (self.start, self.end, self.fps)]
        return json_digest([content, *cut, self.frames])

    def _content(self) -> str:
        if isinstance(self.source, bytes):
            return hashlib.sha256(self.source).hexdigest()
        if isinstance(self.source, Path):
            return file_digest(self.source)
        return hashlib.sha256("".join(file_digest(p) for p in self.source).encode()).hexdigest()

    def encoded(self) -> bytes:
        """The encoded bytes of an image."""
        if isinstance(self.source, bytes):
            return self.source
        if isinstance(self.source, Path):
            return read_bytes(self.source, self.name)
        raise DataError(f"{self.name}: a video has no single encoded image")


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image and how it may be kept: ``suffix`` is empty where it must be re-encoded."""

    image: Image.Image
    suffix: str

    @property
    def size(self) -> Size:
        return Size(*self.image.size)


def inside(folder: Path, relative: str) -> Path:
    """A path from a dataset row, refused where it leaves ``folder`` (``..``, absolute, or a link out).

    Raises:
        DataError: naming the path.
    """
    root = folder.resolve()
    try:
        path = (root / relative).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle
        raise DataError(f"media path {relative!r} in {folder} cannot be used: {error}") from None
    if not path.is_relative_to(root):
        raise DataError(f"media path {relative!r} leaves the dataset folder {folder}; fix the row or move the file")
    return path


@contextmanager
def opened(path: Path, name: str) -> Iterator[BinaryIO]:
    """A file opened for reading; what is none, such as a folder or a pipe, is refused.

    Raises:
        DataError: naming the item, also for what goes wrong while it is read.
    """
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{name}: {path} is not a file; check the dataset folder")
        with path.open("rb") as file:
            yield file
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise DataError(f"{name}: cannot read {path}: {reason}; check the dataset folder") from None


def read_bytes(path: Path, name: str) -> bytes:
    """The content of a file. Raises DataError naming the item."""
    with opened(path, name) as file:
        return file.read()


def refuse_truncated(source: Path | bytes, name: str) -> None:
    """Refuse a video that has no bytes, or fewer than its container says: MP4, Matroska and AVI do.

    Decoders end quietly where the bytes end, and the frames that are left would be spread over a shorter clip.

    Raises:
        DataError: naming the item.
    """
    with opened(source, name) if isinstance(source, Path) else io.BytesIO(source) as file:
        head = file.read(512)
        size = file.seek(0, io.SEEK_END)
        ends = _ends(file, head, size)
    if not size:
        raise DataError(f"{name}: the video is empty (0 bytes); fetch it again")
    if ends > size:
        raise DataError(f"{name}: the video is truncated: {size:,} of {ends:,} bytes; fetch it again")


def _ends(file: BinaryIO, head: bytes, size: int) -> int:
    """The size in bytes that a container declares, 0 where it declares none."""
    if head[:4] == b"RIFF":
        length = int.from_bytes(head[4:8], "little")
        return 0 if length in (0, 0xFFFFFFFF) else 8 + length
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _matroska_ends(head)
    return _boxes_end(file, size) if head[4:8] in _BOXES else 0


def _matroska_ends(head: bytes) -> int:
    """Where the segment after the EBML header ends; 0 where its size is left open, as live writers do."""
    length, at = _vint(head, 4)
    at += length
    if head[at : at + 4] != b"\x18\x53\x80\x67":
        return 0
    length, at = _vint(head, at + 4)
    return at + length if length else 0


def _vint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-size integer of EBML (RFC 8794) and where it ends; 0 for the unknown size and for none."""
    width = 9 - data[at].bit_length() if at < len(data) else 9
    number = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return (0 if width > 8 or number == (1 << 7 * width) - 1 else number), at + width


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Where the last box of an MP4 that holds media or its index ends (ISO/IEC 14496-12)."""
    at = 0
    for _ in range(_MAX_BOXES):
        file.seek(at)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if len(head) < 8 or length < 8:
            break
        at += length
        if at > size:
            return at if kind in (b"moov", b"mdat", b"moof") else 0
    return 0


def decode(data: bytes, name: str) -> Picture:
    """Decode an image into RGB as a person would see it.

    EXIF rotation is applied, transparency is laid over white (as the released code does), 16-bit and
    CMYK are converted, an animation gives its first frame, the suffix of the file is not believed.

    Raises:
        DataError: empty, truncated, not an image, or more than ``MAX_PIXELS`` pixels.
    """
    if not data:
        raise DataError(f"{name}: the image is empty (0 bytes)")
    try:
        with _HEADER, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        image.load()
        return _as_seen(image, image.format or "")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{name}: more than {MAX_PIXELS:,} pixels; refused as a decompression bomb") from None
    except UnidentifiedImageError:
        raise DataError(f"{name}: not an image in a format that can be read") from None
    except Exception as error:  # Pillow's plugins raise whatever the bytes provoke
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{name}: the image cannot be decoded: {reason}") from None


def _as_seen(image: Image.Image, fmt: str) -> Picture:
    plain = image.mode in ("RGB", "L") and getattr(image, "n_frames", 1) == 1
    rotated = image.getexif().get(0x0112, 1) not in (None, 1)
    suffix = _BROWSER_FORMATS.get(fmt, "") if plain and not rotated else ""
    if rotated:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_eight_bits(image)
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGB", rgba.size, (255, 255, 255))
        image.paste(rgba, mask=rgba.getchannel("A"))
    return Picture(image if image.mode == "RGB" else image.convert("RGB"), suffix)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        return image.convert("L")
    top = image.convert("I").getextrema()[1]
    scale = 1 / 257 if isinstance(top, (int, float)) and top > 255 else 1.0
    return image.convert("I").point(lambda value: value * scale).convert("L")


def load_image(media: Media) -> Picture:
    """Decode an image item. Raises DataError naming it."""
    return decode(media.encoded(), media.name)


def load_frames(media: Media) -> list[Image.Image]:
    """The frames of a video item that the model is shown, in order, each RGB. Raises DataError naming it."""
    from .video import read_frames  # which builds on this module

    return list(read_frames(media).frames)


def resize(image: Image.Image, size: Size) -> Image.Image:
    """Bicubic with antialiasing, as Qwen's processor and the released code resize; a no-op at equal size."""
    return image if image.size == tuple(size) else image.resize((size.width, size.height), Image.Resampling.BICUBIC)


def pixel_digest(image: Image.Image) -> str:
    """SHA-256 of size and RGB pixels, hex: the content hash of a crop or frame."""
    head = f"{image.width}x{image.height}:".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()
