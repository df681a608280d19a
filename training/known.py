"""What must not be learnt from: the images and videos of every evaluation set that is at hand, by content.

An image is known by the digest of its file and by that of its pixels, so that another file format does not hide it;
a video by its file and by the pixels of the frames that are shown. A picture that was cropped, resized or compressed
again has other pixels and is not found.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import cast

from PIL import Image

from ..harness import registry
from ..harness.digests import cache_dir, json_digest
from ..harness.errors import DataError, PrhError, StoreError, UsageError
from ..harness.evaluate import load_task
from ..harness.manifest import dataset_fingerprint
from ..harness.media import Media, load_image, pixel_digest
from ..harness.store import write_json
from ..harness.task import DataOptions, Dataset
from ..harness.types import Json, Sample
from ..harness.video import read_frames

VERSION = 1


@dataclass(frozen=True, slots=True)
class Marks:
    """What a medium is known by: digests of its content and of its pixels, one a frame."""

    content: str
    pixels: tuple[str, ...]


def marks(media: Media) -> Marks:
    """The marks of an image, or of a whole video whatever its window. Raises DataError."""
    if media.kind == "image":
        return Marks(media.digest(), (pixel_digest(load_image(media).image),))
    whole = replace(media, start=None, end=None, fps=None, frames=16)
    shown = [frame for frame in read_frames(media).frames if not _plain(frame)]
    return Marks(whole.digest(), tuple(dict.fromkeys(map(pixel_digest, shown))))


def _plain(frame: Image.Image) -> bool:
    """Whether a frame has one colour: such a frame is in every other film."""
    return all(low == high for low, high in cast("Sequence[tuple[float, float]]", frame.getextrema()))


@dataclass(slots=True)
class Known:
    """The media of evaluation sets.

    Attributes:
        where: the set and sample of each digest, of files and of pixels.
        compared: the sets that were at hand: task, split, samples, media, fingerprint.
        absent: those that were not, and why.
    """

    where: dict[str, str] = field(default_factory=dict)
    compared: list[dict[str, Json]] = field(default_factory=list)
    absent: list[dict[str, Json]] = field(default_factory=list)

    def holds(self, found: Marks) -> str:
        """Where a medium is evaluated, empty where it is not."""
        return next((self.where[mark] for mark in (found.content, *found.pixels) if mark in self.where), "")

    def json(self) -> Json:
        """What was compared with, and what could not be."""
        return {"compared": cast(Json, self.compared), "absent": cast(Json, self.absent)}


def evaluation_sets(against: Sequence[str]) -> list[tuple[str, Path | None]]:
    """The tasks to compare with and local copies of their data. Raises UsageError for an unknown task."""
    chosen: dict[tuple[str, Path | None], None] = {}
    for entry in against:
        if entry == "all":
            chosen.update({(name, None): None for name in registry.names("tasks")})
            continue
        name, _, folder = entry.partition("=")
        load_task(name)
        if folder and not Path(folder).exists():
            raise UsageError(f"`synth.against`: {folder} does not exist; give a local copy of {name}")
        chosen[name, Path(folder) if folder else None] = None
    return list(chosen)


def _datasets(name: str, data: Path | None, progress: Callable[[int, int], None]) -> dict[str, Dataset | str]:
    """The evaluation splits of a task, or why one is not at hand; nothing is fetched."""
    try:
        task = load_task(name)
    except UsageError as error:
        return {"": str(error)}
    found: dict[str, Dataset | str] = {}
    for split in task.splits:
        if split.startswith("train"):
            continue
        options = DataOptions(data=data, split=split, offline=True, progress=progress)
        try:
            found[split] = registry.guarded(f"task {name}", partial(task.load, options))
        except PrhError as error:
            found[split] = str(error)
    return found


async def know(against: Sequence[str], progress: Callable[[str, int, int], None]) -> Known:
    """Look at every evaluation set that is at hand. Raises UsageError for an unknown task."""
    known = Known()
    seen: set[str] = set()
    for name, data in evaluation_sets(against):
        report = partial(progress, name)
        for split, dataset in (await asyncio.to_thread(_datasets, name, data, report)).items():
            if isinstance(dataset, str):
                known.absent.append({"task": name, "split": split, "reason": dataset})
                continue
            fingerprint = await asyncio.to_thread(dataset_fingerprint, dataset.samples)
            if fingerprint in seen:
                continue
            seen.add(fingerprint)
            found = await _marked(fingerprint, dataset.samples, report)
            for mark, sample in found.items():
                known.where.setdefault(mark, f"{name} ({split}), sample {sample}")
            counts: dict[str, Json] = {"samples": len(dataset.samples), "digests": len(found)}
            known.compared.append({"task": name, "split": split, **counts, "fingerprint": fingerprint})
    return known


async def _marked(fingerprint: str, samples: Sequence[Sample], progress: Callable[[int, int], None]) -> dict[str, str]:
    """The digests of samples' media, kept in the cache from one run to the next."""
    path = cache_dir() / "known" / f"{json_digest([VERSION, fingerprint])}.json"
    try:
        return {str(mark): str(name) for mark, name in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        pass
    media: dict[Media, str] = {}
    for sample in samples:
        for medium in sample.media:
            media.setdefault(replace(medium, name=""), sample.id)
    items, found = list(media.items()), dict[str, str]()
    for start in range(0, len(items), 32):
        block = items[start : start + 32]
        for number, one in enumerate(
            await asyncio.gather(*(asyncio.to_thread(_safely, medium) for medium, _ in block))
        ):
            found.update(dict.fromkeys(filter(None, (one.content, *one.pixels)), block[number][1]))
        progress(min(start + 32, len(items)), len(items))
    with contextlib.suppress(StoreError):  # a cache that cannot be written costs time alone
        write_json(path, cast(Json, found))
    return found


def _safely(media: Media) -> Marks:
    """The marks of an evaluation item; one that cannot be read can be in no one's training data either."""
    try:
        return marks(media)
    except DataError:
        return Marks("", ())


def summary(known: Known) -> Mapping[str, Json]:
    """What must be the same for a run to go on."""
    return {"compared": [*sorted(str(one["fingerprint"]) for one in known.compared)]}
