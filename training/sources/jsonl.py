"""Questions of one's own, an object a line of JSONL.

==================  ======================================================================================
``id``              text or whole number, unique
media               one of ``image`` (path), ``images`` (paths), ``video`` (path of a file or of a folder of
                    frames) and ``frames`` (paths of frames in order); paths start at the file's folder
``start``, ``end``  of a video: the seconds shown; ``fps`` of a folder or list of frames; ``shown``: how many
                    frames the model is shown (16)
``question``        bare, without options; may be left out with the answer, and then a teacher is to propose it
``choices``         2 to 26 texts
``answer``          or ``answers``: text, number, or a list of accepted ones; for a question with choices their
                    letters or their texts
``answer_kind``     ``option``, ``integer``, ``number`` or ``text``; by default what the answers are
``box``             or ``boxes``: ``[left, top, right, bottom]`` of the evidence, with ``box_unit``: ``pixels`` of
                    the image, or ``unit`` for shares of its sides; ``box_image``: which image, from 1 (1)
``evidence_frames`` numbers of the frames shown, from 1, that answer the question
``category``        text
``licence``         of this row; else the setting
``split``           rows of other splits than the chosen one are passed over
``notes``           an object, for teachers
==================  ======================================================================================

Any other key is refused: it may be one of these misspelt. An image is decoded as its row is read; a video is when it
is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import cast, get_args

from ...harness.errors import DataError
from ...harness.media import Media, refuse_truncated
from ...harness.types import AnswerKind, Box, Evidence, Json, Sample, finite
from ...harness.video import frame_folder
from ..seeds import Seed, SourceOptions
from .asked import asked
from .baked import kind_of, letters_of
from .rows import Row, is_text, json_lines, sifted, split_files

MEDIA = ("image", "images", "video", "frames")
KEYS = (
    *("id", *MEDIA, "start", "end", "fps", "shown", "question", "choices", "answer", "answers", "answer_kind"),
    *("box", "boxes", "box_unit", "box_image", "evidence_frames", "category", "licence", "split", "notes"),
)
# Frames of one video that a model is shown; they are all held in memory.
MOST_SHOWN = 1024
KINDS: tuple[AnswerKind, ...] = get_args(AnswerKind)


class JSONL:
    """Seeds from JSONL as this module describes it.

    ``data`` is a file or a folder of ``.jsonl`` files, those of the split chosen by their names. Settings: ``licence``
    (of rows that state none), ``faulty``.
    """

    name = "jsonl"
    summary = "questions of your own: JSONL with images or videos, answers, and boxes or frames as evidence"
    licence = "unstated"

    def seeds(self, options: SourceOptions) -> Iterable[Seed]:
        """See ``Source``."""
        asking = asked(self.name, options, {"licence": self.licence})
        files = split_files(asking.root, options.split, (".jsonl",))
        rows = chain.from_iterable(_rows(path, asking.text("licence"), options.split) for path in files)
        return sifted(self.name, rows, _seeds, asking.faulty)


@dataclass(frozen=True, slots=True)
class _Line:
    row: Row
    folder: Path
    licence: str
    split: str

    @property
    def where(self) -> str:
        return self.row.where


def _rows(path: Path, licence: str, split: str) -> Iterator[_Line]:
    return (_Line(row, path.parent, licence, split) for row in json_lines(path))


def _seeds(line: _Line) -> Iterator[Seed]:
    row = line.row
    row.only(KEYS)
    if row.has("split") and row.text("split") != line.split:
        return
    name, media = row.identifier("id"), _media(line)
    choices = row.choices("choices") if row.has("choices") else ()
    question = row.text("question").strip() if row.has("question") else ""
    notes = dict(row.table("notes").values) if row.has("notes") else {}
    if question:
        gold = _gold(row, choices)
        kind = _kind(row, choices, gold)
    else:
        if choices or row.has("answer") or row.has("answers"):
            row.fail("there is an answer but no `question`; leave out both for a teacher to propose them")
        gold, kind, notes = (), "option", {**notes, "propose": True}
    evidence = _evidence(row, media)
    category = row.text("category") if row.has("category") else ""
    sample = Sample(f"jsonl/{name}", question, media, gold, kind, choices, category, (), media[0].name, evidence)
    licence = row.text("licence") if row.has("licence") else line.licence
    yield Seed(sample, JSONL.name, licence, {**row.origin, "split": line.split}, cast("dict[str, Json]", notes))


def _media(line: _Line) -> tuple[Media, ...]:
    row, folder = line.row, line.folder
    given = [key for key in MEDIA if row.has(key)]
    if len(given) != 1:
        row.fail(f"expected one of the keys {', '.join(MEDIA)}, found {', '.join(given) or 'none'}")
    key = given[0]
    names = row.texts(key)
    if key in ("image", "video") and not isinstance(row.values[key], str):
        row.refuse(key, "a path")
    paths = tuple(row.path(key, folder, name) for name in names)
    if key in ("image", "images"):
        surplus = [key for key in ("start", "end", "fps", "shown", "evidence_frames") if row.has(key)]
        if surplus:
            row.fail(f"`{surplus[0]}` is of videos, and this row has images")
        return tuple(Media("image", name, path) for name, path in zip(names, paths, strict=True))
    return (_video(row, names[0], paths if key == "frames" else paths[0]),)


def _video(row: Row, name: str, source: Path | tuple[Path, ...]) -> Media:
    frames = _source(row, name, source)
    start, end, fps = (row.number(key) if row.has(key) else None for key in ("start", "end", "fps"))
    if (start or 0) < 0 or (end is not None and end <= (start or 0)):
        row.fail(f"`start` {start} and `end` {end} are no window; expected seconds, 0 <= start < end")
    if fps is not None and (fps <= 0 or isinstance(frames, Path)):
        row.refuse("fps", "frames a second, more than 0, for a folder or list of frames; a file knows its own times")
    if fps is None and isinstance(frames, tuple) and (start is not None or end is not None):
        row.fail("a window of frames needs their `fps`")
    shown = row.whole("shown", 1) if row.has("shown") else 16
    if shown > MOST_SHOWN:
        row.refuse("shown", f"a whole number from 1 to {MOST_SHOWN}")
    return Media("video", name, frames, start, end, fps, shown)


def _source(row: Row, name: str, source: Path | tuple[Path, ...]) -> Path | tuple[Path, ...]:
    """A file, or the frames in order, each of which is there."""
    try:
        frames = frame_folder(source) if isinstance(source, Path) and source.is_dir() else source
        if isinstance(frames, Path):
            refuse_truncated(frames, name)
    except DataError as error:
        row.fail(error)
    missing = next((path for path in frames if not path.is_file()), None) if isinstance(frames, tuple) else None
    if missing is not None:
        row.fail(f"{name}: there is no frame {missing.name!r}; fetch it, or fix the path")
    return frames


def _gold(row: Row, choices: tuple[str, ...]) -> tuple[str, ...]:
    key = row.either("answer", "answers")
    value = row.values[key]
    items = value if isinstance(value, list) else [value]
    texts = [item.strip() if isinstance(item, str) else _plain(item) for item in items]
    if not texts or not all(map(is_text, texts)):
        row.refuse(key, "an answer or a list of them: texts or numbers")
    if not choices:
        return tuple(texts)
    letters = [letters_of(text, choices) for text in texts]
    if not all(letters):
        row.refuse(key, "letters or texts of the choices")
    return tuple(dict.fromkeys(letter for some in letters for letter in some))


def _plain(value: object) -> str:
    """A number as one writes it; empty for anything else."""
    number = finite(value)
    return "" if number is None else str(value)


def _kind(row: Row, choices: tuple[str, ...], gold: tuple[str, ...]) -> AnswerKind:
    kind = kind_of(choices, gold)
    if not row.has("answer_kind"):
        return kind
    chosen = next((known for known in KINDS if known == row.values["answer_kind"]), None)
    wider = {"option": ("option",), "integer": ("integer", "number", "text"), "number": ("number", "text")}
    if chosen is None or chosen not in wider.get(kind, ("text",)):
        row.refuse("answer_kind", f"{', '.join(KINDS)}, and one that fits answers of kind {kind}")
    return chosen


def _evidence(row: Row, media: tuple[Media, ...]) -> tuple[Evidence, ...]:
    videos = media[0].kind == "video"
    sizes = [] if videos else [row.picture(image) for image in media]
    if row.has("box") or row.has("boxes"):
        if videos:
            row.fail("a box is of an image, and this row has a video; give `evidence_frames`")
        number = row.whole("box_image", 1) if row.has("box_image") else 1
        if number > len(media):
            row.refuse("box_image", f"a number from 1 to {len(media)}")
        size = sizes[number - 1]
        unit = row.values.get("box_unit")
        if unit not in ("pixels", "unit"):
            row.refuse("box_unit", "pixels or unit; it says what the boxes are in")
        scale = size if unit == "unit" else (1, 1)
        boxes = [row.fitted(key, box.scaled(*scale), size) for key, box in _boxes(row)]
        return tuple(Evidence(number, box) for box in boxes)
    if row.has("evidence_frames"):
        return (Evidence(frames=row.whole_numbers("evidence_frames", 1, media[0].frames)),)
    return ()


def _boxes(row: Row) -> Iterator[tuple[str, Box]]:
    key = row.either("box", "boxes")
    value = row.values[key]
    if key == "box":
        yield key, row.four(key)
        return
    if not isinstance(value, list) or not value:
        row.refuse(key, "a list of boxes, each four finite numbers")
    for number, one in enumerate(value, 1):
        yield key, Row(f"{row.where}: box {number}", {key: one}).four(key)
