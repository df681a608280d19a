r"""``TIGER-Lab/PixelReasoner-RL-Data``: the questions that Pixel Reasoner was trained on by reinforcement.

``release.parquet`` holds ``question`` (options baked in as ``\nchoices:\nA: ..``, maybe ``<image>`` before it),
``answer`` (a text or a list of texts, each ``\boxed{..}``, which may hold a list), ``image`` (paths; for a video its
frames in order), ``is_video`` (null for images in some rows) and ``qid`` (``<benchmark>-<number>``). JSON versions
have ``gt_answer``. Read off the release (``datasets/prompts_dataset.py``, ``onestep_evaluation/``) and public readers
of the data. ``images.zip`` and ``videos.zip`` are to be unpacked beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

from ...harness.media import Media
from ...harness.types import Sample
from ...harness.video import IMAGES
from ..seeds import Seed, SourceOptions
from .asked import asked
from .baked import question, unboxed, unpicked
from .rows import Row, sifted, split_files, table_rows

COLUMNS = ("qid", "question", "answer", "gt_answer", "image", "is_video")
FOLDERS = ("", "images", "videos")


class PixelReasonerRL:
    """Questions of the release, which says nothing of where their answers are to be seen.

    ``data`` is the folder with its archives unpacked, or a parquet file in it. Settings: ``media`` (folder that paths
    start from; by default that of the data), ``faulty``.
    """

    name = "pixelreasoner-rl"
    summary = "TIGER-Lab/PixelReasoner-RL-Data: its questions, without evidence"
    licence = "Apache-2.0"

    def seeds(self, options: SourceOptions) -> Iterable[Seed]:
        """See ``Source``."""
        asking = asked(self.name, options, {"media": ""})
        base = asking.root if asking.root.is_dir() else asking.root.parent
        files = split_files(asking.root, options.split, (".parquet",))
        rows = chain.from_iterable(table_rows(path, COLUMNS) for path in files)
        make = partial(_seed, base / Path(asking.text("media")).expanduser(), options.split)
        return sifted(self.name, rows, make, asking.faulty)


def _seed(media: Path, split: str, row: Row) -> Iterator[Seed]:
    yield Seed(query(row, media), PixelReasonerRL.name, PixelReasonerRL.licence, {**row.origin, "split": split})


def query(row: Row, root: Path) -> Sample:
    """One question, its id the ``qid`` and its category what stands before the last ``-`` of it.

    Options and instructions are taken out of the question where they have a known shape; answers out of their box.

    Args:
        root: where paths start, which none may leave; they are tried below ``images`` and ``videos`` in it too.

    Raises:
        DataError: naming file and row.
    """
    name = row.identifier("qid") if row.has("qid") else str(row.origin["row"])
    gold = tuple(
        dict.fromkeys(answer for text in row.texts(row.either("answer", "gt_answer")) for answer in unboxed(text))
    )
    text = row.text("question")
    if not gold or not unpicked(text)[0]:
        row.fail("there must be a question and an answer; one of them is blank within its instructions or box")
    video = row.values.get("is_video")
    if not isinstance(video, bool | None):
        row.refuse("is_video", "true, false or null")
    names = row.texts("image")
    paths = tuple(row.file("image", root, one, FOLDERS) for one in names)
    images = tuple(Media("image", one, path) for one, path in zip(names, paths, strict=True))
    return question(name, text, (clip(names[0], paths),) if video else images, gold)


def clip(name: str, paths: tuple[Path, ...]) -> Media:
    """A video of frames, all of which are shown, or of one file."""
    if len(paths) == 1 and paths[0].suffix.lower() not in IMAGES:
        return Media("video", name, paths[0])
    return Media("video", name, paths, frames=len(paths))
