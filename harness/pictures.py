"""Decoded images, each made once while there is room, however many samples and repeats show it."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path

from PIL import Image

from .media import Picture, decode, pixel_digest, resize
from .types import Size

LEAST, MOST = 1 << 26, 1 << 27
# Several processes may share a machine, each with pictures of its own beside a model.
SHARE = 256


def room(system: Path = Path("/")) -> int:
    """Bytes of pixels to keep: a share of the memory that is free, one in 256, from 64 MiB to 128 MiB.

    Free is what the system says is available, and no more than the limit of the control group.

    Args:
        system: where the files of the system are.
    """
    found: list[int] = []
    with suppress(OSError, ValueError):
        lines = (system / "proc/meminfo").read_text(encoding="utf-8").splitlines()
        found = [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError, AttributeError):
        found = found or [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError, ValueError):  # the limit is the word "max" where there is none
        found.append(int((system / "sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    return max(LEAST, min(MOST, min(found, default=0) // SHARE))


class Pictures:
    """Images by content and size; what was used longest ago goes first. From any thread.

    An image from here is shared by conversations and must not be changed.

    Attributes:
        cap: bytes of pixels that may be kept; found out with the first image, once a model is loaded, unless given.
        decoded: how many images were decoded.
    """

    def __init__(self, cap: int | None = None) -> None:
        self.cap = cap
        self.decoded = 0
        self._kept: OrderedDict[Hashable, Picture] = OrderedDict()
        self._bytes = 0
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def open(self, digest: str, data: bytes, name: str) -> Picture:
        """The image of some encoded bytes. Raises DataError naming it."""

        def make() -> Picture:
            self.decoded += 1
            return decode(data, name)

        return self._get(digest, make)

    def resized(self, digest: str, image: Image.Image, *sizes: Size) -> Image.Image:
        """The image with this digest, brought to one size after another."""
        if not sizes:
            return image
        before = self.resized(digest, image, *sizes[:-1])
        if before.size == tuple(sizes[-1]):
            return before
        return self._get((digest, *sizes), lambda: Picture(resize(before, sizes[-1]), "")).image

    def _get(self, key: Hashable, make: Callable[[], Picture]) -> Picture:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._kept:
                    return self._kept[key]
            try:
                made = make()
                self._keep(key, made)
            finally:
                with self._lock:
                    self._making.pop(key, None)
            return made

    def _keep(self, key: Hashable, made: Picture) -> None:
        with self._lock:
            if self.cap is None:
                self.cap = room()
            self._kept[key] = made
            self._bytes += _size(made)
            while self._bytes > self.cap:
                self._bytes -= _size(self._kept.popitem(last=False)[1])


def _size(picture: Picture) -> int:
    return picture.image.width * picture.image.height * 4  # Pillow keeps three colours in four bytes


class Digests:
    """What ``media.pixel_digest`` says of images that a ledger shows, computed once while each lives."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Image.Image], str]] = {}

    def __call__(self, image: Image.Image) -> str:
        """The digest of an image that is not changed any more."""
        number = id(image)
        known, digest = self._known.get(number, (None, ""))
        if known is None or known() is not image:
            digest = pixel_digest(image)
            self._known[number] = weakref.ref(image, lambda _: self._known.pop(number, None)), digest
        return digest


PICTURES = Pictures()
shown_digest = Digests()
