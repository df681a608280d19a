"""Rows of training data as they lie on disk, not yet trusted, and what every source does with them.

JSON is parsed strictly and never evaluated; a number that JSON cannot say, such as NaN, is refused in the row that
holds it. Every fault is one line that names the file and the row.
"""

from __future__ import annotations

import codecs
import reprlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypeGuard, TypeVar

from ...harness.errors import DataError
from ...harness.media import Media, decode, inside
from ...harness.types import LETTERS, Box, Json, Size, finite
from ...harness.untrusted import loads
from ..notices import Notice
from ..seeds import Seed

T = TypeVar("T")
TOLERANCE = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    """One row: every reader returns what it promises or raises DataError naming file, row and key.

    Attributes:
        where: file and row, for messages.
        origin: file name and row number, for provenance.
    """

    where: str
    values: Mapping[str, object]
    origin: Mapping[str, Json] = field(default_factory=dict)

    def fail(self, problem: object) -> NoReturn:
        """Raise DataError for what is wrong with the row, in one line."""
        raise DataError(f"{self.where}: {' '.join(str(problem).split())}")

    def refuse(self, key: str, expected: str) -> NoReturn:
        """Raise DataError for a value that is not what it must be."""
        if key not in self.values:
            self.fail(f"no `{key}`; expected {expected}, found the keys {_listed(self.values)}")
        self.fail(f"`{key}` must be {expected}, found {reprlib.repr(self.values[key])}")

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self.values.get(key) is not None

    def either(self, *keys: str) -> str:
        """The first of these keys that is there and not null; one of them must be."""
        found = next((key for key in keys if self.has(key)), None)
        return found or self.fail(f"none of the keys {_listed(keys)}; found {_listed(self.values)}")

    def only(self, known: Iterable[str]) -> None:
        """Refuse a key that is not known: it may be a known one misspelt."""
        surplus = [key for key in self.values if key not in set(known)]
        if surplus:
            self.fail(f"unknown keys {_listed(surplus)}; known are {', '.join(known)}")

    def text(self, key: str) -> str:
        """Text that is not blank and can be written as UTF-8."""
        value = self.values.get(key)
        return value if is_text(value) else self.refuse(key, "text that is not blank")

    def identifier(self, key: str) -> str:
        """Text or a whole number, as text."""
        value = self.values.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return value if is_text(value) else self.refuse(key, "text or a whole number")

    def number(self, key: str) -> float:
        """A finite number."""
        number = finite(self.values.get(key))
        return number if number is not None else self.refuse(key, "a finite number")

    def whole(self, key: str, least: int = 0) -> int:
        """A whole number of at least ``least``."""
        value = self.values.get(key)
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
        return value if isinstance(value, int) and whole else self.refuse(key, f"a whole number from {least}")

    def table(self, key: str) -> Row:
        """An object."""
        value = self.values.get(key)
        return self._child(key, value) if isinstance(value, dict) else self.refuse(key, "an object")

    def rows(self, key: str) -> tuple[Row, ...]:
        """A list of objects."""
        value = self.values.get(key)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.refuse(key, "a list of objects")
        return tuple(self._child(f"{key} {number}", item) for number, item in enumerate(value, 1))

    def _child(self, name: str, values: Mapping[str, object]) -> Row:
        return Row(f"{self.where}: {name}", values, self.origin)

    def texts(self, key: str, least: int = 1, most: int = 1 << 20) -> tuple[str, ...]:
        """A list of texts, none blank; a text alone is a list of one."""
        value = self.values.get(key)
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not least <= len(items) <= most or not all(map(is_text, items)):
            self.refuse(key, f"a list of {least} to {most} texts, none blank" if least > 1 else "texts, none blank")
        return tuple(items)

    def choices(self, key: str) -> tuple[str, ...]:
        """The options of a question: two or more, no more than there are letters."""
        return self.texts(key, 2, len(LETTERS))

    def whole_numbers(self, key: str, low: int, high: int) -> tuple[int, ...]:
        """A list of whole numbers within ``low`` to ``high``, at least one, none twice."""
        value = self.values.get(key)
        if not isinstance(value, list) or not value or not all(type(item) is int for item in value):
            self.refuse(key, f"a list of whole numbers from {low} to {high}")
        if len(set(value)) < len(value) or not low <= min(value) <= max(value) <= high:
            self.refuse(key, f"a list of whole numbers from {low} to {high}, none twice")
        return tuple(value)

    def four(self, key: str) -> Box:
        """Four finite numbers."""
        value = self.values.get(key)
        numbers = [finite(item) for item in value] if isinstance(value, list) else []
        known = [number for number in numbers if number is not None]
        return Box(*known) if len(known) == len(numbers) == 4 else self.refuse(key, "a list of four finite numbers")

    def path(self, key: str, folder: Path, name: str = "") -> Path:
        """A path that the row names, below ``folder``; ``name`` stands for a text of a list under the key."""
        text = name or self.text(key)
        if any(character < " " for character in text):
            self.refuse(key, "a path without control characters")
        try:
            return inside(folder, text)
        except DataError as error:
            self.fail(error)
        except RuntimeError:  # what Python 3.11 and 3.12 raise
            self.fail(f"`{key}`: {text!r} is a link that leads to itself; fix the link or the row")

    def file(self, key: str, root: Path, name: str, folders: Sequence[str] = ("",)) -> Path:
        """A file that the row names, in the first of the ``folders`` of ``root`` that has it."""
        paths = [self.path(key, root / folder, name) for folder in folders if not folder or (root / folder).is_dir()]
        found = next((path for path in paths if path.is_file()), None)
        return found or self.fail(f"`{key}`: no file {name!r} in {root}; fetch it, unpack its archive or fix the path")

    def picture(self, media: Media) -> Size:
        """The size in pixels of an image, which is decoded so that a truncated one is met here."""
        try:
            return decode(media.encoded(), media.name).size
        except DataError as error:
            self.fail(error)

    def fitted(self, key: str, box: Box, size: Size) -> Box:
        """A box that lies in an image, cut at its edges where it overhangs by no more than a pixel."""
        if box.left >= box.right or box.top >= box.bottom:
            self.refuse(key, "a box whose corners are in order and that has an area")
        edges = (size.width + TOLERANCE, size.height + TOLERANCE)
        if box.left < -TOLERANCE or box.top < -TOLERANCE or box.right > edges[0] or box.bottom > edges[1]:
            self.refuse(key, f"a box within the image of {size.width}x{size.height} pixels")
        cut = box.intersection(Box(0, 0, *size))
        if min(cut.right - cut.left, cut.bottom - cut.top) < 1:
            self.refuse(key, "a box of at least one pixel each way; is it in pixels?")
        return cut


def _listed(names: Iterable[object]) -> str:
    """Names on one line, whatever is in them."""
    return ", ".join(repr(name)[1:-1] for name in names)[:300] or "none"


def is_text(value: object) -> TypeGuard[str]:
    """Whether a value is text that is not blank and can be written as UTF-8."""
    if not isinstance(value, str) or not value.strip():
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _unsayable(text: str) -> Json:
    return {"not JSON": text}  # no reader takes an object for a number, so the row that holds it is named


def parsed(data: bytes, where: str) -> Json:
    """JSON of a file or line. Raises DataError naming it."""
    try:
        return loads(data.decode("utf-8"), _unsayable)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except ValueError as error:
        reason = "a byte order mark" if data.startswith(codecs.BOM_UTF8) else " ".join(str(error).split())
        raise DataError(f"{where}: not valid JSON: {reason}; fix it or fetch it again") from None


def read_data(path: Path) -> bytes:
    """The bytes of a file that the user named. Raises DataError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; check the data folder") from None


def json_object(path: Path) -> Row:
    """A file that holds one JSON object. Raises DataError naming it."""
    value = parsed(read_data(path), str(path))
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected one JSON object, found {type(value).__name__}")
    return Row(str(path), value, {"file": path.name})


def json_list(path: Path) -> Iterator[Row]:
    """The objects of a file that holds a JSON list of them. Raises DataError naming file and row."""
    value = parsed(read_data(path), str(path))
    if not isinstance(value, list):
        raise DataError(f"{path}: expected a JSON list of objects, found {type(value).__name__}")
    for number, item in enumerate(value, 1):
        yield _object(path, f"{path} row {number}", number, item)


def json_lines(path: Path) -> Iterator[Row]:
    """The objects of a file with one a line; blank lines are passed over. Raises DataError naming file and line."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    where = f"{path} line {number}"
                    yield _object(path, where, number, parsed(line, where))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; check the data folder") from None


def _object(path: Path, where: str, number: int, value: Json) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return Row(where, value, {"file": path.name, "row": number})


def parquet_rows(path: Path, columns: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of a table, one in memory at a time.

    Args:
        columns: those that are read where they are; all of them for none.

    Raises:
        DataError: not a parquet file.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        # without a buffer a row group is read at once, with one a page at a time
        with parquet.ParquetFile(path, buffer_size=1 << 20) as file:
            found = file.schema_arrow.names
            chosen = [column for column in columns or found if column in found]
            number = 0
            for batch in file.iter_batches(batch_size=1, columns=chosen, use_threads=False):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{path} row {number}", values, {"file": path.name, "row": number})
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: not a readable parquet file: {reason}; fetch or copy it again") from None


def table_rows(path: Path, columns: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of a ``.parquet``, ``.jsonl`` or ``.json`` file, by its suffix. Raises DataError."""
    if path.suffix == ".parquet":
        return parquet_rows(path, columns)
    return json_lines(path) if path.suffix == ".jsonl" else json_list(path)


def split_files(root: Path, split: str, suffixes: Sequence[str]) -> list[Path]:
    """The files of a split: ``root`` itself, or those below it whose name or folder begins with the split's name.

    Where no name says a split, all are taken; where they say others alone, none.

    Raises:
        DataError: there are none.
    """
    if root.is_file():
        return [root]
    found = sorted(path for path in root.glob("**/*") if path.suffix in suffixes and path.is_file())
    if not found:
        raise DataError(f"{root}: no {' or '.join(suffixes)} file; give the folder that holds them")
    said = {path: _split_of(path) for path in found}
    files = [path for path in found if said[path] == split] or [path for path in found if not said[path]]
    if not files:
        raise DataError(f"{root}: no {split} split; found {_listed(sorted(set(said.values())))}")
    return files


def _split_of(path: Path) -> str:
    """The split that a file's name or its folder's says, empty for none."""
    words = (path.stem.replace("_", "-").split("-")[0], path.parent.name)
    known = {"train": "train", "training": "train", "validation": "validation", "val": "validation", "test": "test"}
    return next((known[word] for word in words if word in known), "")


def sifted(source: str, rows: Iterable[T], make: Callable[[T], Iterable[Seed]], faulty: str) -> Iterator[Seed]:
    """The seeds of rows, refusing a second one of the same id.

    Args:
        faulty: ``refuse`` raises at the first row that is at fault; ``skip`` passes over such rows and says in one
            warning, at the end, how many and what was wrong with the first.

    Raises:
        DataError: naming file and row; a file or a line that cannot be parsed is refused in both cases.
    """
    seen: set[str] = set()
    faults: list[str] = []
    for row in rows:
        try:
            seeds = tuple(make(row))
            ids = [seed.sample.id for seed in seeds]
            twice = [name for place, name in enumerate(ids) if name in seen or name in ids[:place]]
            if twice:
                where = getattr(row, "where", row)
                raise DataError(f"{where}: the id {twice[0]!r} is not the first of its name; ids must be unique")
        except DataError as error:
            if faulty != "skip":
                raise
            faults.append(str(error))
            continue
        seen.update(ids)
        yield from seeds
    if faults:
        message = f"{source}: {len(faults)} faulty rows passed over, the first: {faults[0]}"
        warnings.warn(message, Notice, stacklevel=2)
