"""The inputs of trajectories, kept beside them as they came: by content, once, images and videos alike."""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from ..harness.digests import file_digest
from ..harness.errors import StoreError
from ..harness.media import Media
from ..harness.store import write_atomic
from ..harness.types import Json


def keep_inputs(folder: Path, media: Sequence[Media]) -> list[Json]:
    """Store a sample's media below a run folder; returns what ``read_lessons`` finds them by.

    Raises:
        DataError: a file cannot be read.
        StoreError: the folder cannot be written.
    """
    return [_entry(folder, medium) for medium in media]


def _entry(folder: Path, medium: Media) -> Json:
    value: dict[str, Json] = {"kind": medium.kind, "name": medium.name}
    if isinstance(medium.source, tuple):
        value["files"] = [_kept_file(folder, path) for path in medium.source]
    elif isinstance(medium.source, Path):
        value["file"] = _kept_file(folder, medium.source, medium.name)
    else:
        digest = hashlib.sha256(medium.source).hexdigest()
        name = _name(digest, medium.name)
        if not (folder / name).exists():
            write_atomic(folder / name, medium.source)
        value["file"] = name
    if medium.kind == "video":
        window: dict[str, Json] = {"start": medium.start, "end": medium.end, "fps": medium.fps}
        value.update(window, frames=medium.frames)
    return value


def _name(digest: str, known_as: str) -> str:
    """Where content of this digest is kept; its suffix is that of its name, where that is a plain one."""
    suffix = Path(known_as).suffix.lower()
    return f"media/{digest[:2]}/{digest}{suffix if re.fullmatch(r'[.][a-z0-9]{1,5}', suffix) else ''}"


def _kept_file(folder: Path, path: Path, known_as: str = "") -> str:
    """A file copied by content; what stands there already is the same, and is left."""
    name = _name(file_digest(path), path.name if path.suffix else known_as)
    target = folder / name
    if target.exists():
        return name
    temporary = target.with_name(f".{target.name}.{threading.get_ident()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, temporary)
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"cannot copy {path} to {target}: {error.strerror or error}; run again to go on") from None
    return name
