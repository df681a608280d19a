"""SA-1B (Kirillov et al. 2023, Segment Anything): photographs with masks, and no question yet.

An annotation file beside each image, as the released archives unpack::

    {"image": {"image_id", "width", "height", "file_name"},
     "annotations": [{"id", "bbox": [x, y, width, height], "area", "segmentation": {"size", "counts"},
                      "predicted_iou", "stability_score", "crop_box", "point_coords"}]}

checked against excerpts of real files on the hub (``sa_34.json``, ``sa_1010.json``). Boxes are in pixels; a box of
SA-1B ends on the last pixel of its mask. The mask itself is not read: evidence is its box.

A seed has ``sample.question == ""`` and ``notes["propose"] is True``: an endpoint teacher is to propose a fine
detail of the box and a question of four choices about it, or to declare that there is none (Pixel Reasoner,
section 4: seeds).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...harness.errors import DataError
from ...harness.media import Media
from ...harness.types import Box, Evidence, Json, Sample, Size
from ..seeds import Seed, SourceOptions
from .asked import Asked, asked
from .rows import Row, json_object, sifted

MOST = 100


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which masks are taken: see ``SA1B``."""

    seed: int
    area: tuple[float, float]
    iou: float
    stability: float
    min_side: float
    per_image: int


class SA1B:
    """Small masks of SA-1B as places for a question that is still to be asked.

    ``data`` is a folder with images and their ``.json``, or with such folders; every image is of one split. Settings:
    ``area`` (lowest and highest share of the image that a box covers), ``predicted_iou`` and ``stability_score``
    (least), ``min_side`` (pixels of the shorter side of a box), ``per_image`` (boxes taken of an image, chosen by the
    seed, the image and the mask alone), ``faulty`` (``refuse`` or ``skip``).
    """

    name = "sa1b"
    summary = "SA-1B: small masks of photographs, for a teacher that proposes questions"
    licence = "SA-1B Dataset Research License"

    def seeds(self, options: SourceOptions) -> Iterable[Seed]:
        """See ``Source``. Images without a mask that is wanted are passed over."""
        defaults: dict[str, Json] = {
            "area": [0.001, 0.02],
            "predicted_iou": 0.9,
            "stability_score": 0.95,
            "min_side": 24,
        }
        asking = asked(self.name, options, {**defaults, "per_image": 1})
        make = partial(_seeds, _wanted(asking, options.seed))
        return sifted(self.name, _notes(asking.root), make, asking.faulty)


def _wanted(asking: Asked, seed: int) -> _Wanted:
    return _Wanted(
        seed,
        asking.span("area", 0, 1),
        asking.number("predicted_iou", 0, 2),  # a prediction, which may exceed 1
        asking.number("stability_score", 0, 1),
        asking.number("min_side", 1, 1e5),
        asking.whole("per_image", 1, MOST),
    )


def _notes(root: Path) -> Iterator[Path]:
    """The annotation files, in the order of their paths. Raises DataError where there are none."""
    if root.is_file():
        yield root
        return
    below = sorted(path for path in root.glob("*/") if path.is_dir() and not path.name.startswith("."))
    found = [path for folder in (root, *below) for path in sorted(folder.glob("*.json")) if path.is_file()]
    if not found:
        raise DataError(f"{root}: no .json file; give the folder that holds images and their annotations")
    yield from found


def _seeds(wanted: _Wanted, path: Path) -> Iterator[Seed]:
    note = json_object(path)
    head = note.table("image")
    number = head.identifier("image_id")
    size = Size(head.whole("width", 1), head.whole("height", 1))
    found = [(mask.identifier("id"), mask, _box(mask, size)) for mask in note.rows("annotations")]
    names = [name for name, _, _ in found]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        note.fail(f"two annotations have the id {twice!r}; ids must be unique")
    fit = [(name, mask, box) for name, mask, box in found if _fits(wanted, mask, box, size)]
    fit.sort(key=lambda one: _place(wanted.seed, number, one[0]))
    if not fit:
        return
    media = Media("image", head.text("file_name"), head.path("file_name", path.parent))
    true = head.picture(media)
    if true != size:
        head.fail(f"the image has {true.width}x{true.height} pixels, not {size.width}x{size.height}; fetch it again")
    for name, mask, box in fit[: wanted.per_image]:
        sample = Sample(
            f"sa1b/{number}/{name}", "", (media,), (), "option", cluster=media.name, evidence=(Evidence(box=box),)
        )
        notes = {"propose": True, "predicted_iou": mask.number("predicted_iou"), "area": mask.number("area")}
        origin = {"file": f"{path.parent.name}/{path.name}", "annotation": name}
        yield Seed(sample, SA1B.name, SA1B.licence, origin, notes)


def _box(mask: Row, size: Size) -> Box:
    left, top, width, height = mask.four("bbox")
    if width < 0 or height < 0:
        mask.refuse("bbox", "[x, y, width, height] in pixels, none of the sides below 0")
    # the last pixel is within the box: a mask of one pixel has width 0
    return mask.fitted("bbox", Box(left, top, left + width + 1, top + height + 1), size)


def _fits(wanted: _Wanted, mask: Row, box: Box, size: Size) -> bool:
    share = box.area / (size.width * size.height)
    small = wanted.area[0] <= share <= wanted.area[1]
    wide = min(box.right - box.left, box.bottom - box.top) >= wanted.min_side
    sure = mask.number("predicted_iou") >= wanted.iou and mask.number("stability_score") >= wanted.stability
    return small and wide and sure


def _place(seed: int, image: str, mask: str) -> bytes:
    """Where a mask stands in an order drawn from the seed: the same on every machine and Python version."""
    return hashlib.sha256(f"{seed}/{image}/{mask}".encode()).digest()
