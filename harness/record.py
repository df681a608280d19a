"""The record of one episode: what a line of ``records.jsonl`` holds, and what two runs must share.

A record holds raw replies and no scores. Its names are a public contract: changing one is a new ``SCHEMA``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import cast

from .episode import Trajectory
from .errors import StoreError
from .ledger import Conversation, MediaItem, Part, Segment, Text
from .types import AnswerKind, BadCall, Box, Call, Evidence, Json, OperationRecord, PixelBudget, Sample, Span

SCHEMA = 1
Record = dict[str, Json]
VOLATILE = ("crc", "seconds", "usage", "decoders", "attempts")
VOLATILE_IN_SEGMENTS = ("logprobs", "new_tokens", "seconds")


def to_record(trajectory: Trajectory, files: Mapping[int, Sequence[str]]) -> Record:
    """A finished trajectory as JSON.

    Args:
        files: where the run folder keeps each media item's images, by index.
    """
    sample, conversation = trajectory.sample, trajectory.conversation
    return {
        "schema": SCHEMA,
        "id": sample.id,
        "repeat": trajectory.repeat,
        "cluster": sample.cluster,
        "category": sample.category,
        "slices": list(sample.slices),
        "answer_kind": sample.answer_kind,
        "question": sample.question,
        "choices": list(sample.choices),
        "gold": list(sample.gold),
        "evidence": [_evidence(evidence) for evidence in sample.evidence],
        "end": trajectory.end,
        "error": trajectory.error or None,
        "operations": [_operation(operation) for operation in trajectory.operations],
        "media": [_media(item, files.get(item.index, ())) for item in conversation.items],
        "segments": [_segment(segment) for segment in conversation.segments],
        "usage": _usage(trajectory),
        "seconds": {name: round(value, 6) for name, value in trajectory.seconds.items()},
        "decoders": cast(Json, sorted({shown.decoder for shown in conversation.shown if shown.decoder})),
    }


def _usage(trajectory: Trajectory) -> Json:
    usage: dict[str, Json] = {
        "turns": trajectory.conversation.turns,
        "images": len(trajectory.conversation.items),
        "prompt_tokens": trajectory.prompt_tokens,
        "new_tokens": trajectory.new_tokens,
        "cached_tokens": trajectory.cached_tokens,
    }
    return {**usage, "cost": round(trajectory.cost, 9)} if trajectory.cost else usage


def failure(sample: Sample, repeat: int, error: str) -> Record:
    """The record of an episode of which nothing can be kept but that it failed."""
    nothing = Span(1, 1)
    empty = Conversation(f"{sample.id}#{repeat}", sample.id, lambda size, _: size, PixelBudget(*[nothing] * 4))
    return to_record(Trajectory(sample, repeat, empty, "engine_error", error=error), {})


def canonical(record: Mapping[str, Json]) -> Record:
    """The part of a record that must be equal in two runs of the same thing.

    Drops seconds, usage, attempts, video decoders, checksums and log-probabilities, those of single turns too.
    """
    kept: Record = {key: value for key, value in record.items() if key not in VOLATILE}
    segments = cast("list[dict[str, Json]]", record.get("segments", []))
    kept["segments"] = [{k: v for k, v in segment.items() if k not in VOLATILE_IN_SEGMENTS} for segment in segments]
    return kept


def key_of(record: Mapping[str, Json]) -> tuple[str, int]:
    """What identifies a record in a run: sample id and repeat."""
    return str(record["id"]), int(cast(int, record["repeat"]))


def sample_of(record: Mapping[str, Json]) -> Sample:
    """The sample that a record is about, without its media: enough to score it again. Raises StoreError."""
    try:
        return Sample(
            id=str(record["id"]),
            question=str(record["question"]),
            media=(),
            gold=_strings(record["gold"]),
            answer_kind=cast(AnswerKind, record["answer_kind"]),
            choices=_strings(record["choices"]),
            category=str(record["category"]),
            slices=_strings(record["slices"]),
            cluster=str(record["cluster"]),
            evidence=evidence_of(record),
        )
    except (KeyError, TypeError) as error:
        raise unreadable(record, error) from None


def evidence_of(record: Mapping[str, Json]) -> tuple[Evidence, ...]:
    """Where a record says that its answer can be seen. Raises StoreError."""
    try:
        return tuple(map(_read_evidence, cast("list[dict[str, Json]]", record.get("evidence", []))))
    except (KeyError, TypeError) as error:
        raise unreadable(record, error) from None


def unreadable(record: Mapping[str, Json], error: Exception) -> StoreError:
    """What is said of a record that lacks something or has it in another shape."""
    return StoreError(f"record {record.get('id')!r} cannot be read: {error}; was it written by another tool?")


def final_text(record: Mapping[str, Json]) -> str | None:
    """The last turn's text where the episode ended in an answer, else None."""
    segments = cast("list[dict[str, Json]]", record["segments"])
    if record["end"] != "answered" or not segments:
        return None
    return text_of(segments[-1])


def text_of(segment: Mapping[str, Json]) -> str:
    """The text parts of a recorded segment, joined."""
    parts = cast("list[dict[str, Json]]", segment["parts"])
    return "".join(str(part["text"]) for part in parts if "text" in part)


def _strings(value: Json) -> tuple[str, ...]:
    return tuple(str(item) for item in cast("Sequence[Json]", value))


def _box(box: Box | None) -> Json:
    return [round(edge, 3) for edge in box] if box else None


def _evidence(evidence: Evidence) -> Json:
    return {"media": evidence.media, "box": _box(evidence.box), "frames": list(evidence.frames)}


def _read_evidence(value: Mapping[str, Json]) -> Evidence:
    box = cast("list[float] | None", value["box"])
    frames = cast("list[int]", value["frames"])
    return Evidence(int(cast(int, value["media"])), Box(*box) if box else None, tuple(frames))


def _operation(operation: OperationRecord) -> Json:
    value = cast("dict[str, Json]", asdict(operation))
    value["box"], value["root_box"] = _box(operation.box), _box(operation.root_box)
    value["frames"], value["produced"] = list(operation.frames), list(operation.produced)
    return value


def _media(item: MediaItem, files: Sequence[str]) -> Json:
    return {
        "index": item.index,
        "kind": item.kind,
        "name": item.name,
        "digest": item.digest,
        "files": list(files),
        "original": list(item.original),
        "seen": list(item.seen),
        "parent": item.parent,
        "root": item.root,
        "root_box": _box(item.root_box),
        "frame": item.frame,
        "frames": list(item.frames),
    }


def _part(part: Part) -> Json:
    return {"text": part.text} if isinstance(part, Text) else {"media": part.index}


def _call(call: Call | BadCall) -> Json:
    if isinstance(call, BadCall):
        return {"error": call.message, "raw": call.raw}
    return {"name": call.name, "arguments": call.arguments, "id": call.id}


def _segment(segment: Segment) -> Json:
    value: dict[str, Json] = {"role": segment.role, "parts": [_part(part) for part in segment.parts]}
    if segment.answers:
        value["answers"] = [list(answer) for answer in segment.answers]
    if segment.role == "assistant":
        value["calls"] = [_call(call) for call in segment.calls]
        value["finish"] = segment.finish
        value["trained"] = segment.trained
        if segment.ids is not None:
            value["ids"] = list(segment.ids)
        if segment.logprobs is not None:
            value["logprobs"] = [round(value, 6) for value in segment.logprobs]
        if segment.new_tokens:
            value["new_tokens"] = segment.new_tokens
    if segment.seconds:
        value["seconds"] = round(segment.seconds, 6)
    return value
