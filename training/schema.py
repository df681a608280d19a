"""The JSON schema of a record of trajectories: what ``schema.json`` beside them says."""

from __future__ import annotations

from ..harness.record import SCHEMA
from ..harness.types import END_STATES, Json
from .templates import KINDS, Part

_TEXT: Json = {"type": "string"}
_WHOLE: Json = {"type": "integer", "minimum": 0}
_NUMBER: Json = {"type": "number"}
_FILES: Json = {"type": "array", "items": {"type": "string", "pattern": "^media/"}}
_BOX: Json = {"type": ["array", "null"], "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
_WHOLES: Json = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_MAYBE: Json = {"type": ["number", "null"]}
_ROLES: Json = {"enum": ["system", "user", "assistant", "tool"]}


def _list(items: Json, least: int = 0) -> Json:
    return {"type": "array", "items": items, "minItems": least}


def _object(required: dict[str, Json], optional: dict[str, Json] | None = None) -> Json:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
        "additionalProperties": False,
    }


def _provenance() -> Json:
    parts = [*Part.__args__]  # type: ignore[attr-defined]
    step = _object({"part": {"enum": parts}, "name": _TEXT, "arguments": {"type": "object"}})
    return _object(
        {
            "source": _TEXT,
            "label": _TEXT,
            "licence": _TEXT,
            "origin": {"type": "object"},
            "teacher": {"type": "object", "required": ["name", "model", "how"]},
            "proposed": {"type": "boolean"},
            "template": {"enum": [*KINDS]},
            "steps": _list(step),
            "seed": {"type": "integer"},
            "grid": _NUMBER,
            "versions": {"type": "object", "required": ["prh", "templates", "wording"]},
        }
    )


def _operation() -> Json:
    return _object(
        {
            "turn": {"type": "integer", "minimum": 1},
            "name": _TEXT,
            "arguments": {},
            "media": _WHOLE,
            "box": _BOX,
            "root_box": _BOX,
            "frames": _WHOLES,
            "produced": _WHOLES,
            "error": {"type": ["string", "null"]},
            "message": _TEXT,
        }
    )


def _media() -> Json:
    size: Json = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 2}
    return _object(
        {
            "index": {"type": "integer", "minimum": 1},
            "kind": {"enum": ["image", "video", "crop", "frame"]},
            "name": _TEXT,
            "digest": _TEXT,
            "files": _FILES,
            "original": size,
            "seen": size,
            "parent": _WHOLE,
            "root": {"type": "integer", "minimum": 1},
            "root_box": _BOX,
            "frame": _WHOLE,
            "frames": _list(_TEXT),
        }
    )


def _segment() -> Json:
    part: Json = {"anyOf": [_object({"text": _TEXT}), _object({"media": {"type": "integer", "minimum": 1}})]}
    optional: dict[str, Json] = {
        "calls": _list({"type": "object"}),
        "finish": _TEXT,
        "trained": {"type": "boolean"},
        "new_tokens": _WHOLE,
        "seconds": {"type": "number", "minimum": 0},
    }
    return _object({"role": _ROLES, "parts": _list(part, 1)}, optional)


def _input() -> Json:
    window: dict[str, Json] = {
        "start": _MAYBE,
        "end": _MAYBE,
        "fps": _MAYBE,
        "frames": {"type": "integer", "minimum": 1},
    }
    known: dict[str, Json] = {"file": {"type": "string", "pattern": "^media/"}, "files": _FILES, **window}
    return _object({"kind": {"enum": ["image", "video"]}, "name": _TEXT}, known)


def schema() -> dict[str, Json]:
    """The schema of one record, JSON Schema 2020-12."""
    evidence = _object({"media": {"type": "integer", "minimum": 1}, "box": _BOX, "frames": _WHOLES})
    fields: dict[str, Json] = {
        "schema": {"const": SCHEMA},
        "id": _TEXT,
        "repeat": _WHOLE,
        "cluster": _TEXT,
        "category": _TEXT,
        "slices": _list(_TEXT),
        "answer_kind": {"enum": ["option", "integer", "number", "text"]},
        "question": {"type": "string", "minLength": 1},
        "choices": _list(_TEXT),
        "gold": _list(_TEXT, 1),
        "evidence": _list(evidence),
        "end": {"enum": [*END_STATES]},
        "error": {"type": ["string", "null"]},
        "operations": _list(_operation()),
        "media": _list(_media()),
        "segments": _list(_segment(), 3),
        "usage": {"type": "object"},
        "seconds": {"type": "object"},
        "decoders": _list(_TEXT),
        "inputs": _list(_input()),
        "provenance": _provenance(),
    }
    head: dict[str, Json] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A trajectory to learn from, as prh synth writes it",
        "description": "One line of records.jsonl, less the checksum that its first key holds.",
    }
    body = _object(fields, {"crc": {"type": "string", "pattern": "^[0-9a-f]{8}$"}})
    return {**head, **body} if isinstance(body, dict) else head
