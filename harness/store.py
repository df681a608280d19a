"""The run folder: a manifest, a checksummed journal of episodes, their images, and what is derived from them.

    run.json         what was run, on what, with what
    records.jsonl    one finished episode a line, appended as it finishes; the only source of truth
    media/ab/...     images by content hash, stored once; inputs keep their own file, others are lossless WebP
    scores/P.jsonl   derived: answers and scores under profile P
    metrics.json     derived
    shards/NAME/     journals of several writers, merged at the end

One writer a folder: the lock is the operating system's, so it dies with its owner, and the owner's process id stands
beside it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast, overload

from filelock import FileLock, Timeout
from PIL import Image

from .errors import StoreError
from .journal import JOURNAL, decode_line, encode_line, json_bytes, read_journal, whole
from .ledger import Conversation, MediaItem, Shown
from .pictures import shown_digest
from .record import SCHEMA, Record, key_of
from .types import ERROR_STATES, Json

T = TypeVar("T")
MANIFEST = "run.json"
METRICS = "metrics.json"
WEBP_SIDE = 16383
# Stored images that a writer remembers; the disk knows of the others.
NAMES = 1 << 13


def key_alone(_: Record) -> Record:
    """Nothing of a record, where it is enough to know that there is one."""
    return {}


def is_run(path: Path) -> bool:
    """Whether a folder is a run folder."""
    return (path / MANIFEST).is_file()


def is_new(folder: Path) -> bool:
    """Whether a run may begin here: nothing is there, or only what a run leaves that ended before its manifest."""
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    journal = folder / JOURNAL
    own = (JOURNAL, "writer.lock", "writer.json")
    rest = [path.name for path in folder.iterdir() if path.name not in own]
    return all(name.startswith(f".{MANIFEST}.") for name in rest) and not (journal.exists() and journal.stat().st_size)


def runs_below(path: Path) -> list[Path]:
    """The run folders that a RUN argument means: the folder itself or those one below it. Raises StoreError."""
    if not path.is_dir():
        raise StoreError(f"{path} is not a folder; give a run folder or a folder of runs")
    if is_run(path):
        return [path]
    found = sorted(child for child in path.iterdir() if is_run(child))
    if not found:
        raise StoreError(f"{path} is no run: it has no {MANIFEST}, nor has any folder in it")
    return found


def read_json(path: Path) -> dict[str, Json]:
    """A JSON object from a file of a run folder. Raises StoreError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{path} is missing; is {path.parent} a run folder?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise StoreError(f"{path} must hold a JSON object")
    return cast("dict[str, Json]", value)


def read_manifest(run: Path) -> dict[str, Json]:
    """The manifest of a run. Raises StoreError, also for a schema this version does not know."""
    manifest = read_json(run / MANIFEST)
    kinds = {"identity": dict, "command": list, "directory": str, "task": str, "model": str, "profile": str}
    for key, kind in kinds.items():
        if manifest.get("schema") == SCHEMA and not isinstance(manifest.get(key), kind):
            raise StoreError(f"{run / MANIFEST} has no `{key}`; was it written by another tool, or edited?")
    if manifest.get("schema") != SCHEMA:
        raise StoreError(
            f"{run / MANIFEST}: schema {manifest.get('schema')!r} cannot be read by this version ({SCHEMA})"
        )
    return manifest


def read_records(run: Path) -> list[Record]:
    """The records of a run, shards included, one a sample and repeat, sorted by id. Raises StoreError."""
    return read_run(run)[0]


@overload
def read_run(run: Path) -> tuple[list[Record], list[str]]: ...


@overload
def read_run(run: Path, part: Callable[[Record], T]) -> tuple[list[T], list[str]]: ...


def read_run(run: Path, part: Callable[[Record], object] = whole) -> tuple[list[Any], list[str]]:
    """The records of a run as ``read_records`` gives them, and a line for each damaged one. Raises StoreError.

    Args:
        part: as for ``read_journal``.
    """
    found = [path for path in journals(run) if path.exists()]
    if not found:
        raise StoreError(f"{run / JOURNAL} is missing; without it nothing is known of the run's episodes")
    held: dict[tuple[str, int], object] = {}
    damaged: list[str] = []

    def keep(record: Record) -> None:
        held[key_of(record)] = part(record)

    for path in found:
        damaged += read_journal(path, keep).damaged
    return [held[key] for key in sorted(held)], damaged


def journals(run: Path) -> list[Path]:
    """The journals of a run: those of its shards, then its own."""
    return [*sorted(run.glob(f"shards/*/{JOURNAL}")), run / JOURNAL]


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old or the new one, never half. Raises StoreError."""
    _write_pieces(path, [data])


def _write_pieces(path: Path, pieces: Iterable[bytes]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        try:
            file = temporary.open("wb")
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = temporary.open("wb")
        with file:
            file.writelines(pieces)
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        message = f"cannot write {path}: {error.strerror or error}; nothing that was written before is lost"
        raise StoreError(message) from None


def write_json(path: Path, value: Json) -> None:
    """Write JSON atomically, indented, keys as given."""
    write_atomic(path, json_bytes(value, indent=2) + b"\n")


def write_lines(path: Path, rows: Iterable[Mapping[str, Json]]) -> None:
    """Write JSON lines atomically."""
    _write_pieces(path, (json_bytes(row) + b"\n" for row in rows))


@dataclass(slots=True)
class RunStore:
    """A run folder opened for writing; use it as a context manager.

    Attributes:
        folder: the run folder.
        part: what to hold of each record.
        records: what it held when it was opened, by key; errors are left out, so that they run again.
        damaged: what was found torn or damaged.
        shard: where several writers write; empty for the only one.
    """

    folder: Path
    shard: str = ""
    part: Callable[[Record], Record] = whole
    records: dict[tuple[str, int], Record] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    _file: int = -1
    _lock: FileLock | None = None
    _kept: set[str] = field(default_factory=set)

    @property
    def place(self) -> Path:
        """Where this writer's journal stands."""
        return self.folder / "shards" / self.shard if self.shard else self.folder

    def __enter__(self) -> RunStore:
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            self._acquire()
            self._open()
        except OSError as error:
            self.close()
            raise StoreError(
                f"cannot write in {self.folder}: {error.strerror or error}; choose another --out"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _acquire(self) -> None:
        owner = self.place / "writer.json"
        self._lock = FileLock(self.place / "writer.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self._lock = None
            try:
                who = f"process {json.loads(owner.read_text())['pid']}"
            except (OSError, ValueError, KeyError, TypeError):
                who = "another process"
            raise StoreError(
                f"{who} is writing to {self.place}; wait for it, end it, or choose another --out"
            ) from None
        owner.write_text(json.dumps({"pid": os.getpid()}))

    def _open(self) -> None:
        path = self.place / JOURNAL
        journal = read_journal(path, self.hold)
        self.damaged = journal.damaged
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        if journal.tail and decode_line(journal.tail) is None:
            os.ftruncate(self._file, os.fstat(self._file).st_size - len(journal.tail))
        elif journal.tail:
            self._write(b"\n")

    def hold(self, record: Record) -> None:
        """Take a record for one that the run holds; an error takes the place of what was held."""
        if record["end"] in ERROR_STATES:
            self.records.pop(key_of(record), None)
        else:
            self.records[key_of(record)] = self.part(record)

    def append(self, record: Mapping[str, Json]) -> None:
        """Append one finished episode; it is in the operating system's hands when this returns.

        Raises:
            StoreError: the disk is full or the folder cannot be written; earlier records are intact.
        """
        self.append_line(encode_line(record))

    def append_line(self, line: bytes) -> None:
        """Append one encoded record; see ``append``."""
        self._write(line)

    def _write(self, data: bytes) -> None:
        start = os.fstat(self._file).st_size
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            os.ftruncate(self._file, start)
            reason = error.strerror or str(error)
            message = (
                f"cannot append to {self.place / JOURNAL}: {reason}; earlier records are intact, run again to go on"
            )
            raise StoreError(message) from None
        if not (self.place / JOURNAL).exists():
            raise StoreError(f"{self.place} was removed while it was being written; its records are lost with it")

    def sync(self) -> None:
        """Bring what was appended to the disk."""
        os.fsync(self._file)

    def keep_media(self, conversation: Conversation) -> dict[int, list[str]]:
        """Store a conversation's images once each, by content; returns their files by media index.

        An input image keeps its own file where a browser can show it; anything else is kept as the model
        saw it, a video as its frames.
        """
        pairs = zip(conversation.items, conversation.shown, strict=True)
        return {item.index: self._keep(item, shown) for item, shown in pairs}

    def kept_media(self, conversation: Conversation) -> dict[int, list[str]] | None:
        """What ``keep_media`` would return, where all of it has been stored and nothing need be hashed to know it."""
        pairs = zip(conversation.items, conversation.shown, strict=True)
        found = {item.index: [_place(item.digest, shown.suffix)] for item, shown in pairs if shown.suffix}
        known = len(found) == len(conversation.items) and all(name in self._kept for [name] in found.values())
        return found if known else None

    def _keep(self, item: MediaItem, shown: Shown) -> list[str]:
        if shown.suffix:
            return [self._put(item.digest, shown.suffix, lambda: shown.encoded)]
        names = []
        for image in shown.seen:
            suffix = ".webp" if max(image.size) <= WEBP_SIDE else ".png"
            names.append(self._put(shown_digest(image), suffix, partial(encode_image, image, suffix)))
        return names

    def _put(self, digest: str, suffix: str, data: Callable[[], bytes]) -> str:
        name = _place(digest, suffix)
        if name not in self._kept:
            if not (self.folder / name).exists():
                write_atomic(self.folder / name, data())
            if len(self._kept) >= NAMES:
                self._kept.clear()
            self._kept.add(name)
        return name

    def close(self) -> None:
        """Flush to the disk and let go of the folder."""
        if self._file >= 0:
            try:
                os.fsync(self._file)
            finally:
                os.close(self._file)
                self._file = -1
        if self._lock is not None:
            (self.place / "writer.json").unlink(missing_ok=True)
            self._lock.release()
            self._lock = None


def _place(digest: str, suffix: str) -> str:
    """Where a run keeps an image."""
    return f"media/{digest[:2]}/{digest}{suffix}"


def encode_image(image: Image.Image, suffix: str) -> bytes:
    """An image as lossless bytes: WebP, or PNG where a side is too long for it."""
    buffer = io.BytesIO()
    if suffix == ".webp":
        image.save(buffer, "WEBP", lossless=True, quality=0, method=0, exact=True)
    else:
        image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
