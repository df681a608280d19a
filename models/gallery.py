"""Images on their way into the model: prepared once, encoded once, kept while there is room."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol, cast

from ..harness.pictures import shown_digest
from .flat import Features
from .quicken import Embedding, embedded
from .visual import Medium, Processor, Video

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .visual import Tensors

# Patches that the vision tower is given at once, and bytes of prepared pixels that wait for it.
MOST_PATCHES = 16384
WAITING_BYTES = 1 << 28


class Visual(Protocol):
    """What is used of the tower besides."""

    patch_embed: Embedding


class Seen(Protocol):
    """What the vision tower gives: features of each medium."""

    pooler_output: Sequence[torch.Tensor]


class Inner(Protocol):
    """What is used of a model without its head."""

    visual: Visual

    def get_image_features(self, pixels: torch.Tensor, grids: torch.Tensor, *, return_dict: bool) -> Seen: ...
    def get_video_features(self, pixels: torch.Tensor, grids: torch.Tensor, *, return_dict: bool) -> Seen: ...


class Encode(Protocol):
    """Runs the vision tower on what ``Processor.tensors`` made of several media of one kind."""

    def __call__(self, media: Sequence[Tensors], *, video: bool) -> list[Features]: ...


def medium_key(medium: Medium) -> str:
    """What an image or a video is known by: its pixels as they are seen, and the times of a video's frames."""
    if not isinstance(medium, Video):
        return shown_digest(medium)
    whole = "".join(map(shown_digest, medium.frames)) + repr(medium.seconds)
    return hashlib.sha256(whole.encode()).hexdigest()


class Gallery:
    """Images and videos by key, from pixels to features.

    Attributes:
        encode: runs the vision tower on what ``Processor.tensors`` made of several media of one kind.
        cap: bytes of features that may be kept.
        encoded: how many images and videos went through the vision tower.
        again: how many of these had been through it before and been let go of.
    """

    def __init__(self, processor: Processor, encode: Encode, cap: int) -> None:
        self.processor = processor
        self.encode = encode
        self.cap = cap
        self.encoded = self.again = 0
        self._features: OrderedDict[str, Features] = OrderedDict()
        self._bytes = 0
        self._waiting: OrderedDict[str, Future[Tensors]] = OrderedDict()
        self._ready: OrderedDict[str, int] = OrderedDict()  # bytes of those whose pixels are made
        self._held = 0
        self._known: set[int] = set()
        self._lock = threading.Lock()

    def prepare(self, key: str, medium: Medium) -> None:
        """Make a medium's pixels ready, unless that is done or being done. From any thread."""
        with self._lock:
            if key in self._features or key in self._waiting:
                return
            made: Future[Tensors] = Future()
            self._waiting[key] = made
        try:
            made.set_result(self.processor.tensors("", [medium]))
        except BaseException as error:
            with self._lock:
                if self._waiting.get(key) is made:
                    del self._waiting[key]
            made.set_exception(error)
            raise
        self._count(key, made)

    def missing(self, key: str) -> bool:
        """Whether a medium has still to go through the vision tower."""
        return key not in self._features

    def features(self, wanted: dict[str, Medium]) -> dict[str, Features]:
        """The features of media by key; what is missing is encoded. From the engine's thread."""
        lacking = [key for key in wanted if key not in self._features]
        if lacking:
            self._ahead(lacking)
        lacking = [key for key in lacking if key not in self._features]
        self._see([(key, self._pixels(key, wanted[key])) for key in lacking])
        found = {}
        for key in wanted:
            self._features.move_to_end(key)
            found[key] = self._features[key]
        self._shrink()
        return found

    def clear(self) -> None:
        """Let go of all features."""
        self._features.clear()
        self._bytes = 0

    def _ahead(self, lacking: Sequence[str]) -> None:
        """Encode what is lacking and whatever else is ready: the tower's own cost is paid once for all of it."""
        with self._lock:
            ready = {key: made.result() for key, made in self._waiting.items() if made.done() and not made.exception()}
        if any(key not in ready for key in lacking):
            return
        room = MOST_PATCHES - sum(_patches(ready[key]) for key in lacking)
        chosen = list(lacking)
        for key in [key for key in ready if key not in chosen]:
            room -= _patches(ready[key])
            if room < 0:
                break
            chosen.append(key)
        if len(chosen) > len(lacking):
            # What is at fault may be one of the others; what is lacking is then tried by itself.
            with contextlib.suppress(Exception):
                self._see([(key, ready[key]) for key in chosen])

    def _see(self, pixels: Sequence[tuple[str, Tensors]]) -> None:
        kinds = [[one for one in pixels if ("pixel_values_videos" in one[1]) is kind] for kind in (False, True)]
        for number, some in enumerate(kinds):
            for group in _groups(some):
                self._encode(group, video=bool(number))

    def _pixels(self, key: str, medium: Medium) -> Tensors:
        with self._lock:
            made = self._waiting.get(key)
        return made.result() if made is not None else self.processor.tensors("", [medium])

    def _encode(self, group: Sequence[tuple[str, Tensors]], *, video: bool) -> None:
        made = self.encode([tensors for _, tensors in group], video=video)
        self.encoded += len(group)
        with self._lock:
            for (key, _), features in zip(group, made, strict=True):
                number = int(key[:15], 16)
                self.again += number in self._known
                self._known.add(number)
                self._features[key] = features
                self._bytes += features.nbytes
                self._forget(key)

    def _shrink(self) -> None:
        while self._bytes > self.cap and self._features:
            self._bytes -= self._features.popitem(last=False)[1].nbytes

    def _count(self, key: str, made: Future[Tensors]) -> None:
        """Count pixels that have been made, and let go of those that nobody came for, such as a cancelled turn's."""
        with self._lock:
            if self._waiting.get(key) is not made:
                return  # encoded meanwhile
            self._ready[key] = _size(made.result())
            self._held += self._ready[key]
            while self._held > WAITING_BYTES and len(self._ready) > 1:
                self._forget(next(iter(self._ready)))

    def _forget(self, key: str) -> None:
        self._waiting.pop(key, None)
        self._held -= self._ready.pop(key, 0)


def _size(tensors: Tensors) -> int:
    return sum(value.numel() * value.element_size() for value in tensors.values())


def _patches(tensors: Tensors) -> int:
    return max(len(value) for value in tensors.values())


def _groups(pixels: Sequence[tuple[str, Tensors]]) -> list[list[tuple[str, Tensors]]]:
    """Media that go through the vision tower together."""
    found: list[list[tuple[str, Tensors]]] = []
    total = 0
    for key, tensors in pixels:
        patches = _patches(tensors)
        if not found or total + patches > MOST_PATCHES:
            found.append([])
            total = 0
        total += patches
        found[-1].append((key, tensors))
    return found


def tower(inner: nn.Module, device: torch.device) -> Encode:
    """The vision tower of a Qwen-VL model: the model without its head."""
    model = cast(Inner, inner)

    def encode(media: Sequence[Tensors], *, video: bool) -> list[Features]:
        import torch

        names = ("pixel_values_videos", "video_grid_thw") if video else ("pixel_values", "image_grid_thw")
        pixels = [tensors[names[0]].to(device) for tensors in media]
        grids = torch.cat([tensors[names[1]] for tensors in media]).to(device)
        run = model.get_video_features if video else model.get_image_features
        with embedded(model.visual.patch_embed, pixels, still=not video) as made:
            seen = run(made, grids, return_dict=True)
        counts = [len(rows) for rows in seen.pooler_output]
        # Parted by media as what is pooled is, or, by the transformers before that, whole.
        levels = [
            torch.split(level, counts) if isinstance(level, torch.Tensor) else level
            for level in getattr(seen, "deepstack_features", None) or ()
        ]
        deep = zip(*levels, strict=True) if levels else ((),) * len(seen.pooler_output)
        # Copies, so that letting one go frees its memory.
        return [
            Features(rows.clone(), tuple(level.clone() for level in own))
            for rows, own in zip(seen.pooler_output, deep, strict=True)
        ]

    return encode
