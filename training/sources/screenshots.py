"""Webpage screenshots with a box around the answer, as VISA stores them (Ma et al. 2024, arXiv 2412.14457).

Pixel Reasoner's seeds of text-rich images are of this kind. The columns, in parquet with encoded images or in JSONL
with paths of image files:

=====================================  =================================================================
``question``                           text
``short_answer``                       text; or ``answers``: a text or a list of accepted texts
``bounding_box``                       ``[left, top, right, bottom]`` in pixels of the image; or ``bbox``
``image``                              bytes, or a struct of ``bytes`` and ``path``; in JSONL a path
``id``                                 optional, text or number; else the row
``url``, ``long_answer_type``          optional; kept as notes
=====================================  =================================================================

Where they were learnt: public readers of ``MrLight/wiki-visa`` and ``MrLight/paper-visa`` name ``id``, ``question``,
``short_answer``, ``bounding_box`` (four corner values in pixels), ``image``, ``image_size``, ``long_answer_type``,
``candidates``, ``pos_idx`` and ``url``; one that keeps VISA as JSONL names ``answers`` and ``bbox``. The hub's own
schema page was not within reach, so neither the whole list of columns nor the licence is confirmed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

from ...harness.media import Media
from ...harness.types import Evidence, Json, Sample
from ..seeds import Seed, SourceOptions
from .asked import asked
from .rows import Row, sifted, split_files, table_rows

COLUMNS = (
    *("id", "question", "short_answer", "answers", "bounding_box", "bbox", "image"),
    *("url", "long_answer_type"),
)


class Screenshots:
    """Questions about screenshots with the box of the answer.

    ``data`` is a parquet or JSONL file, or a folder of such files, those of the split chosen by their names. Settings:
    ``images`` (folder that paths start from; by default that of the file), ``licence`` (of the data at hand),
    ``faulty``.
    """

    name = "screenshots"
    summary = "webpage screenshots with answer boxes (VISA): parquet or JSONL"
    licence = "as the dataset card states"

    def seeds(self, options: SourceOptions) -> Iterable[Seed]:
        """See ``Source``. Every image is decoded, so that a broken one is met here."""
        asking = asked(self.name, options, {"images": "", "licence": self.licence})
        files = split_files(asking.root, options.split, (".parquet", ".jsonl"))
        base = asking.root if asking.root.is_dir() else asking.root.parent
        images = base / Path(asking.text("images")).expanduser()
        rows = chain.from_iterable(table_rows(path, COLUMNS) for path in files)
        reader = _Reader(images, asking.text("licence"), options.split)
        return sifted(self.name, rows, reader.seeds, asking.faulty)


@dataclass(frozen=True, slots=True)
class _Reader:
    images: Path
    licence: str
    split: str

    def seeds(self, row: Row) -> Iterator[Seed]:
        name = row.identifier("id") if row.has("id") else f"{row.origin['file']}/{row.origin['row']}"
        question = row.text("question").strip()
        gold = row.texts(row.either("short_answer", "answers"))
        key = row.either("bounding_box", "bbox")
        corners = row.four(key)
        media = self._image(row, name)
        box = row.fitted(key, corners, row.picture(media))
        evidence = (Evidence(box=box),)
        sample = Sample(f"screenshots/{name}", question, (media,), gold, "text", cluster=media.name, evidence=evidence)
        notes: dict[str, Json] = {key: row.text(key) for key in ("url", "long_answer_type") if row.has(key)}
        yield Seed(sample, Screenshots.name, self.licence, {**row.origin, "split": self.split}, notes)

    def _image(self, row: Row, name: str) -> Media:
        cell = row.values.get("image")
        if isinstance(cell, str):
            return Media("image", cell, row.path("image", self.images))
        fields = cell if isinstance(cell, dict) else {"bytes": cell}
        data, path = fields.get("bytes"), fields.get("path")
        if not isinstance(data, bytes | None) or not isinstance(path, str | None) or not (data or path):
            row.refuse("image", "encoded bytes, a struct of bytes and path, or a path")
        known = PurePosixPath(path).name if path and path.isprintable() else name
        if data:
            return Media("image", known, data)
        return Media("image", known, row.path("image", self.images, path or ""))
