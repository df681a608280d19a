"""The Responses API: a conversation as input items, and a response as a turn.

Nothing is stored at the server: every request holds the whole conversation, as it does in chat completions. A
function's output may show images here, so that each call is answered in its own item. The API knows neither seeds nor
stop strings; a stop string is found in the text instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ..harness.engine import Finish, Turn, Usage
from ..harness.ledger import Conversation, Part
from ..harness.types import Call, Json
from .openai_errors import Mask, ServerError
from .openai_messages import Images, answer_calls, native_calls, pieces
from .openai_replies import checked, count, decoded, read_arguments


def write_items(conversation: Conversation, images: Images) -> list[Json]:
    """The conversation as input items: messages, calls, and an output for each call."""
    items: list[Json] = []
    calls: Sequence[Call] = ()
    for segment in conversation.segments:
        if segment.role == "assistant":
            calls = native_calls(segment)
            if segment.text or not calls:
                items.append({"role": "assistant", "content": segment.text})
            for call in calls:
                arguments = json.dumps(call.arguments)
                items.append({"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments})
            continue
        role = "user" if segment.role == "tool" else segment.role
        parts: Sequence[Part] = segment.parts
        if calls:
            answers, parts = answer_calls(calls, segment, tool_images=True)
            for call, answer in answers:
                output = _content(answer, conversation, images)
                items.append({"type": "function_call_output", "call_id": call.id, "output": output})
        if parts or not calls:
            items.append({"role": role, "content": _content(parts, conversation, images)})
        calls = ()
    return items


def _content(parts: Sequence[Part], conversation: Conversation, images: Images) -> list[Json]:
    found: list[Json] = []
    for piece in pieces(parts, conversation):
        if isinstance(piece, str):
            found.append({"type": "input_text", "text": piece})
        else:
            found.append({"type": "input_image", "image_url": images.url(piece), "detail": "auto"})
    return found or [{"type": "input_text", "text": ""}]


def read_response(body: bytes, stop: Sequence[str], number: int, mask: Mask) -> Turn:
    """The turn that a response body holds; see ``read_reply``. Raises ServerError where it holds none."""
    reply, text = decoded(body, mask)
    output = reply.get("output") if isinstance(reply, dict) else None
    if not isinstance(reply, dict) or not isinstance(output, list):
        raise ServerError(f"the reply has no output: {mask.said(text)}", "reply", passing=True)
    finish = _finish(reply, mask)
    said, refusals = _texts(output)
    calls = _calls(output, number, mask)
    if not said and not calls and finish != "length":
        why = f": the model refuses: {mask.quote(refusals[0])}" if refusals else ""
        raise ServerError(f"the reply has no text content{why}")
    content, cut = _stopped("".join(said), stop)
    usage = read_usage(reply.get("usage"))
    return Turn(
        content, finish=checked(content, "stop" if cut else finish), native_calls=() if cut else calls, usage=usage
    )


def _finish(reply: Mapping[str, Json], mask: Mask) -> Finish:
    status, details, error = (reply.get(name) for name in ("status", "incomplete_details", "error"))
    if status == "completed":
        return "stop"
    reason = details.get("reason") if isinstance(details, dict) else None
    if status == "incomplete" and reason == "max_output_tokens":
        return "length"
    said, code = (error.get("message"), error.get("code")) if isinstance(error, dict) else (None, None)
    why = f": {mask.quote(said)}" if isinstance(said, str) else f" ({mask.quote(str(reason))})" if reason else ""
    message = f"the server ended the turn with status {mask.quote(repr(status))}{why}"
    raise ServerError(message, "reply", passing=code in ("server_error", "rate_limit_exceeded"))


def _texts(output: Sequence[Json]) -> tuple[list[str], list[str]]:
    """The texts of the messages, and the refusals among them."""
    said: list[str] = []
    refusals: list[str] = []
    for item in output:
        content = item.get("content") if isinstance(item, dict) and item.get("type") == "message" else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict):
                text, refusal = part.get("text"), part.get("refusal")
                said += [text] if part.get("type") == "output_text" and isinstance(text, str) else []
                refusals += [refusal] if isinstance(refusal, str) else []
    return said, refusals


def _calls(output: Sequence[Json], number: int, mask: Mask) -> tuple[Call, ...]:
    calls: list[Call] = []
    for item in output:
        if not isinstance(item, dict) or item.get("type") != "function_call":
            continue
        name, given = item.get("name"), item.get("call_id")
        if not isinstance(name, str):
            raise ServerError("a tool call of the reply names no function")
        fresh = isinstance(given, str) and given and given not in [call.id for call in calls]
        own = str(given) if fresh else f"call-{number}-{len(calls) + 1}"
        calls.append(Call(name, read_arguments(item.get("arguments"), mask), own))
    return tuple(calls)


def _stopped(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text up to the first stop string, which it keeps, and whether there was one."""
    ends = [text.find(word) + len(word) for word in stop if word in text]
    return (text[: min(ends)], True) if ends else (text, False)


def read_usage(value: Json) -> Usage:
    """The tokens of a response; 0 for what the server does not say."""
    if not isinstance(value, dict):
        return Usage()
    details = value.get("input_tokens_details")
    cached = count(details, "cached_tokens") if isinstance(details, dict) else 0
    return Usage(count(value, "input_tokens"), count(value, "output_tokens"), cached)
