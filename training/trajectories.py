"""Trajectories to learn from: what is said in them is written, what is shown in them is really done.

A script holds the assistant's turns. It is performed by the harness's own episode loop, which executes every
call and words every observation, so that what a trainer shows a model is what an evaluation shows it, at the
pixel budgets of the very checkpoint that is trained.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from ..harness.digests import file_digest
from ..harness.engine import Caps, Turn, TurnSpec
from ..harness.episode import Trajectory, run_episode
from ..harness.errors import DataError
from ..harness.ledger import Conversation, Fit
from ..harness.media import Media, inside
from ..harness.record import Record, sample_of, text_of, to_record
from ..harness.settings import Setting
from ..harness.store import read_run
from ..harness.types import Json, Sample, Size, Span
from .notices import Notice


@dataclass(frozen=True, slots=True)
class Said:
    """One turn of the assistant, and whether a trainer's loss covers it."""

    text: str
    trained: bool = True


Script = tuple[Said, ...]


@dataclass(frozen=True, slots=True)
class Lesson:
    """A sample and what is to be said about it.

    Attributes:
        name: unique in its set.
        provenance: who made it from what.
    """

    name: str
    sample: Sample
    script: Script
    provenance: Mapping[str, Json]


class _Performer:
    """An engine that says a script."""

    caps = Caps()
    fingerprint = "script"

    def __init__(self, script: Script, fit: Fit) -> None:
        self.script = script
        self._fit = fit

    def fit(self, size: Size, budget: Span) -> Size:
        return self._fit(size, budget)

    async def turn(self, conversation: Conversation, spec: TurnSpec) -> Turn:
        if conversation.turns >= len(self.script):
            raise DataError("its last turn makes a call and gives no answer")
        return Turn(self.script[conversation.turns].text)

    async def release(self, conversation: Conversation) -> None:
        return None

    def describe(self) -> Mapping[str, Json]:
        return {"name": "script"}

    async def close(self) -> None:
        return None


async def perform(sample: Sample, script: Script, setting: Setting, fit: Fit, repeat: int = 0) -> Trajectory:
    """Run a script as an episode and mark what is trained.

    Args:
        fit: the rule for the size an image is seen at, of the engine that is to learn.

    Raises:
        DataError: the episode does not end where the script does, in an answer.
    """
    trajectory = await run_episode(sample, _Performer(script, fit), setting, repeat)
    conversation = trajectory.conversation
    if trajectory.end != "answered" or conversation.turns != len(script):
        reason = trajectory.error or f"it ends in {trajectory.end} after {conversation.turns} of {len(script)} turns"
        raise DataError(f"the trajectory of {sample.id!r} cannot be performed: {reason}")
    turns = iter(script)
    conversation.segments[:] = [
        replace(segment, trained=next(turns).trained) if segment.role == "assistant" else segment
        for segment in conversation.segments
    ]
    return trajectory


def to_lesson_record(
    trajectory: Trajectory, files: Mapping[int, Sequence[str]], inputs: Sequence[Json], provenance: Mapping[str, Json]
) -> Record:
    """A performed trajectory as a record, with what performs it again.

    Args:
        inputs: the sample's media as the folder keeps them: objects with ``kind``, ``name``, ``file`` or ``files``
            (relative to the folder, content unchanged), and for a video ``start``, ``end``, ``fps``, ``frames``.
    """
    return {**to_record(trajectory, files), "inputs": list(inputs), "provenance": dict(provenance)}


def read_lessons(folder: Path) -> list[Lesson]:
    """The trajectories of a run folder that ended in an answer, to be performed again.

    An evaluation's trajectories are read as well, all their turns untrained or trained as they are marked;
    its videos are kept only as the model saw them, and are refused.

    A damaged line of the journal is left out, and said in a ``Notice``.

    Raises:
        StoreError: the folder is no run.
        DataError: a record lacks what performs it again, or an input is no longer what it was.
    """
    records, damaged = read_run(folder)
    for line in damaged:
        warnings.warn(f"{folder}: {line}; the synthesis, run again, makes what is missing", Notice, stacklevel=2)
    return [_read(folder, record) for record in records if record["end"] == "answered"]


def _read(folder: Path, record: Record) -> Lesson:
    try:
        return _lesson(folder, record)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise DataError(f"{folder}: record {record['id']!r} holds no trajectory: {reason}") from None


def _lesson(folder: Path, record: Record) -> Lesson:
    sample = replace(sample_of(record), media=_media(folder, record))
    segments = cast("list[dict[str, Json]]", record["segments"])
    said = (segment for segment in segments if segment["role"] == "assistant")
    script = tuple(Said(text_of(segment), bool(segment.get("trained"))) for segment in said)
    if not script:
        raise DataError(f"{folder}: record {record['id']!r} holds no turn of an assistant")
    provenance = record.get("provenance") or {}
    if not isinstance(provenance, dict):
        raise DataError(f"{folder}: record {record['id']!r}: `provenance` must be an object")
    return Lesson(f"{record['id']}#{record['repeat']}", sample, script, provenance)


def _media(folder: Path, record: Record) -> tuple[Media, ...]:
    inputs = record.get("inputs")
    kept = inputs is not None
    if inputs is None:
        inputs = _inputs(folder, record)
    if not isinstance(inputs, list):
        raise DataError(f"{folder}: record {record['id']!r}: `inputs` must be a list")
    try:
        media = tuple(_medium(folder, cast("Mapping[str, Json]", value)) for value in inputs)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{folder}: record {record['id']!r}: its inputs cannot be read: {error}") from None
    if kept:
        _check_content(folder, record, media)
    return media


def _check_content(folder: Path, record: Record, media: Sequence[Media]) -> None:
    """Refuse inputs that are no longer what they were kept as: their files are named after their content."""
    for medium in media:
        sources = medium.source if isinstance(medium.source, tuple) else (medium.source,)
        for path in sources:
            named = isinstance(path, Path) and re.fullmatch(r"[0-9a-f]{64}", path.stem)
            if isinstance(path, Path) and named and file_digest(path) != path.stem:
                message = f"{path.name} is not the file that was kept under this name"
                raise DataError(f"{folder}: record {record['id']!r}: {message}; restore it, or make the folder again")


def _medium(folder: Path, value: Mapping[str, Json]) -> Media:
    name = str(value["name"])
    if value["kind"] == "image":
        return Media("image", name, inside(folder, str(value["file"])))
    files = value.get("files")
    source: Path | tuple[Path, ...] = (
        tuple(inside(folder, str(file)) for file in files)
        if isinstance(files, list)
        else inside(folder, str(value["file"]))
    )
    start, end, fps = (None if value.get(key) is None else float(str(value[key])) for key in ("start", "end", "fps"))
    return Media("video", name, source, start, end, fps, int(str(value["frames"])))


def _inputs(folder: Path, record: Record) -> list[Json]:
    """The inputs of an evaluation's record: its images as they were."""
    inputs: list[Json] = []
    for item in cast("list[dict[str, Json]]", record["media"]):
        if item["parent"]:
            continue
        if item["kind"] != "image":
            message = "its video is kept only as the model saw it; make trajectories of it with `prh synth`"
            raise DataError(f"{folder}: record {record['id']!r} cannot be performed again: {message}")
        inputs.append({"kind": "image", "name": item["name"], "file": cast("list[str]", item["files"])[0]})
    return inputs
