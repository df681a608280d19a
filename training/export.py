"""Trajectories in the format of Pixel Reasoner's released SFT data, for the trainers that read it.

``message_list.json`` is a list of ``{"qid", "message_list"}``; a message is ``{"role", "content"}``, its content a list
of ``{"text"}``, ``{"image": path}`` and ``{"video": [paths of frames]}``, paths relative to the file. The first user
message has its text before its media, as released. The format has no place for which turns are trained: the release
trains the last two of the assistant's, which leaves out the over-large crop of a further zoom too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from ..harness.digests import file_digest
from ..harness.errors import DataError, StoreError
from ..harness.media import inside
from ..harness.record import Record
from ..harness.store import read_records, write_json
from ..harness.types import Json

FILE, IMAGES = "message_list.json", "images"


def export(run: Path, target: Path) -> int:
    """Write the trajectories of a run folder into another folder; returns how many.

    Raises:
        StoreError: the run cannot be read or the folder not be written.
        DataError: a record names a file outside the run.
    """
    written: dict[str, str] = {}
    rows: list[Json] = []
    for record in read_records(run):
        if record["end"] != "answered":
            continue
        try:
            rows.append(_row(run, target, record, written))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise DataError(f"{run}: record {record['id']!r} cannot be exported: {reason}") from None
    write_json(target / FILE, rows)
    return len(rows)


def _row(run: Path, target: Path, record: Record, written: dict[str, str]) -> dict[str, Json]:
    media = {
        int(cast(int, item["index"])): _items(run, target, item, written)
        for item in cast("list[dict[str, Json]]", record["media"])
    }
    return {"qid": record["id"], "message_list": _messages(record, media)}


def _messages(record: Record, media: Mapping[int, Json]) -> list[Json]:
    messages: list[Json] = []
    for number, segment in enumerate(cast("list[dict[str, Json]]", record["segments"])):
        parts = cast("list[dict[str, Json]]", segment["parts"])
        opening = number < 2
        ordered = sorted(parts, key=lambda part: "media" in part) if opening else parts
        content = [
            {"text": part["text"]} if "text" in part else media[int(cast(int, part["media"]))] for part in ordered
        ]
        messages.append({"role": segment["role"], "content": cast(Json, content)})
    return messages


def _items(run: Path, target: Path, item: Mapping[str, Json], written: dict[str, str]) -> Json:
    """A media item as content, its files beside the export."""
    digest = "" if item["parent"] else str(item["digest"])
    names: list[Json] = [_file(run, target, name, written, digest) for name in cast("list[str]", item["files"])]
    return {"video": names} if item["kind"] == "video" else {"image": names[0]}


def _file(run: Path, target: Path, name: str, written: dict[str, str], digest: str) -> str:
    """A file's name in the export; an input that is kept under the digest of its content must still have it."""
    if name in written:
        return written[name]
    source, kept = inside(run, name), f"{IMAGES}/{Path(name).name}"
    if not source.is_file():
        raise DataError(f"{run}: {name} is missing; restore it, or make the folder again")
    if source.stem == digest and file_digest(source) != digest:
        raise DataError(f"{run}: {name} is not the file that was kept; restore it, or make the folder again")
    place = target / kept
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            _linked(source, place)
    except OSError as error:
        raise StoreError(f"cannot write {place}: {error.strerror or error}; choose another folder") from None
    written[name] = kept
    return kept


def _linked(source: Path, place: Path) -> None:
    """The same file under another name where the disk can do that, else a copy."""
    with contextlib.suppress(OSError):
        os.link(source, place)
        return
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    shutil.copyfile(source, temporary)
    temporary.replace(place)
