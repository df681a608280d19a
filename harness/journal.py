"""The journal of a run: one finished episode a line, each with a checksum of its own.

A line is a JSON object whose first key is the CRC-32 of the rest of the line, so that a torn or damaged
line is known for what it is.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, overload

from .errors import StoreError
from .record import SCHEMA, Record
from .types import Json

T = TypeVar("T")
JOURNAL = "records.jsonl"


def json_bytes(value: Json | Mapping[str, Json], indent: int | None = None) -> bytes:
    """JSON as UTF-8; text that UTF-8 cannot hold (a lone surrogate of a model's) is escaped instead."""
    separators = (",", ":") if indent is None else None
    try:
        text = json.dumps(value, ensure_ascii=False, separators=separators, indent=indent, allow_nan=False)
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=separators, indent=indent, allow_nan=False).encode()


def encode_line(record: Mapping[str, Json]) -> bytes:
    """A record as one journal line: JSON with its checksum as the first key, ending in a newline."""
    rest = json_bytes(record)[1:]
    return b'{"crc":"%08x",' % zlib.crc32(rest) + rest + b"\n"


def decode_line(line: bytes) -> Record | None:
    """The record of a journal line, or None where the line is torn or damaged."""
    line = line.rstrip(b"\n")
    rest = line[len(b'{"crc":"00000000",') :]
    if not line.startswith(b'{"crc":"') or line[8:16] != b"%08x" % zlib.crc32(rest):
        return None
    try:
        value = json.loads(b"{" + rest)
    except (ValueError, RecursionError):
        return None
    return cast(Record, value) if isinstance(value, dict) and "schema" in value else None


@dataclass(frozen=True, slots=True)
class Journal(Generic[T]):
    """What a journal holds.

    Attributes:
        records: whole records, or what is kept of each, in order of appending.
        damaged: one line for each torn or damaged line, saying which.
        tail: a last line that lacks its newline.
    """

    records: list[T]
    damaged: list[str]
    tail: bytes = b""


def whole(record: Record) -> Record:
    """All of a record."""
    return record


@overload
def read_journal(path: Path) -> Journal[Record]: ...


@overload
def read_journal(path: Path, part: Callable[[Record], T]) -> Journal[T]: ...


def read_journal(path: Path, part: Callable[[Record], object] = whole) -> Journal[Any]:
    """Every whole record of a journal; what is torn is named, never guessed. Raises StoreError.

    Args:
        part: what to keep of each record, where that is not all of it.
    """
    records: list[object] = []
    damaged: list[str] = []
    tail = b""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                tail = b"" if line.endswith(b"\n") else line
                record = decode_line(line)
                if record is None:
                    torn = " (cut off while it was written)" if tail else ""
                    damaged.append(f"{path.name} line {number}: {len(line)} bytes are damaged{torn} and were left out")
                    continue
                schema = record.get("schema")
                if schema != SCHEMA:
                    raise StoreError(
                        f"{path} line {number}: schema {schema!r} cannot be read by this version ({SCHEMA})"
                    )
                if not _is_record(record):
                    damaged.append(f"{path.name} line {number} holds no episode and was left out")
                    continue
                records.append(part(record))
    except FileNotFoundError:
        return Journal([], [])
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from None
    return Journal(records, damaged, tail)


def _is_record(value: Record) -> bool:
    """Whether a line holds what every reader of a record relies on."""
    texts = all(isinstance(value.get(key), str) for key in ("id", "end"))
    return texts and type(value.get("repeat")) is int and isinstance(value.get("segments"), list)
