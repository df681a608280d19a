"""A chat completion as a turn: everything in it is untrusted and checked here, whatever the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..harness.engine import Finish, Turn, Usage
from ..harness.types import Call, Json
from ..harness.untrusted import loads
from .openai_errors import Mask, ServerError
from .processor import VISION_TOKENS

# What a float counts exactly: no turn has more tokens.
MOST_TOKENS = 1 << 53
FINISHES: Mapping[Json, Finish] = {"stop": "stop", "tool_calls": "stop", "length": "length"}


def read_reply(body: bytes, stop: Sequence[str], number: int, mask: Mask) -> Turn:
    """The turn that a response body holds.

    A reply without content is a failure, except where it is all calls, or where its tokens ran out before any
    content (a reasoning parser keeps thoughts elsewhere): that turn was truncated, and counts as such.

    Args:
        stop: the stop strings that were asked for.
        number: of the turn, from 1; names calls that have no id.

    Raises:
        ServerError: it holds none.
    """
    reply, text = decoded(body, mask)
    choice = _first(reply)
    message = choice.get("message") if choice else None
    if choice is None or not isinstance(message, dict):
        raise ServerError(f"the reply has no message: {mask.said(text)}", "reply", passing=True)
    reason = choice.get("finish_reason")
    finish = FINISHES.get(reason) if isinstance(reason, str) else None
    if finish is None:
        raise ServerError(f"the server ended the turn with finish_reason {mask.quote(repr(reason))}")
    calls = read_calls(message.get("tool_calls"), number, mask)
    if reason == "tool_calls" and not calls:
        raise ServerError("the server ended the turn for tool calls and gives none")
    content = message.get("content")
    if content is None and (calls or finish == "length"):
        content = ""
    if not isinstance(content, str):
        refused = message.get("refusal")
        why = f": the model refuses: {mask.quote(refused)}" if isinstance(refused, str) and refused else ""
        raise ServerError(f"the reply has no text content{why}")
    if finish == "stop" and not calls:
        content = with_stop(content, stop, choice)
    usage = read_usage(reply.get("usage") if isinstance(reply, dict) else None)
    return Turn(content, finish=checked(content, finish), native_calls=calls, usage=usage)


def decoded(body: bytes, mask: Mask) -> tuple[Json, str]:
    """A body's JSON without the key, and its text. Raises ServerError, which may pass: a proxy answers so as well."""
    text = body.decode("utf-8", "replace")
    try:
        return mask.value(loads(body.decode())), text
    except ValueError as error:
        said = f"the reply is not JSON ({mask.quote(str(error))}): {mask.quote(text)}"
        raise ServerError(said, "reply", passing=True) from None


def _first(reply: Json) -> Mapping[str, Json] | None:
    choices = reply.get("choices") if isinstance(reply, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else None


def checked(text: str, finish: Finish) -> Finish:
    """A length cut may split a character; undecodable bytes elsewhere, or a vision token, make a turn malformed."""
    whole = text.rstrip("\ufffd") if finish == "length" else text
    return "malformed" if "\ufffd" in whole or any(token in text for token in VISION_TOKENS) else finish


def with_stop(text: str, stop: Sequence[str], choice: Mapping[str, Json]) -> str:
    """The text with the stop string that ended it, where the server drops the string and names it.

    vLLM names it in ``stop_reason``, SGLang in ``matched_stop``. A server that names none leaves it unknown
    whether the model stopped by itself, and the text stays as it came.
    """
    for name in ("stop_reason", "matched_stop"):
        found = choice.get(name)
        if isinstance(found, str) and found in stop and not text.endswith(found):
            return text + found
    return text


def read_calls(value: Json, number: int, mask: Mask) -> tuple[Call, ...]:
    """The native calls of a message. Arguments that are no JSON stay text, which no operation accepts.

    Raises:
        ServerError: they are not what the format says.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ServerError("the reply's tool_calls are no list")
    calls: list[Call] = []
    for position, entry in enumerate(value, 1):
        function = entry.get("function") if isinstance(entry, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(entry, dict) or not isinstance(function, dict) or not isinstance(name, str):
            raise ServerError("a tool call of the reply names no function")
        given = entry.get("id")
        # Every id is answered, so that each must be there and its turn's own.
        fresh = isinstance(given, str) and given and given not in [call.id for call in calls]
        calls.append(
            Call(
                name,
                read_arguments(function.get("arguments"), mask),
                str(given) if fresh else f"call-{number}-{position}",
            )
        )
    return tuple(calls)


def read_arguments(value: Json, mask: Mask) -> Json:
    """The arguments of a call; those that are no JSON stay text, which no operation accepts."""
    if not isinstance(value, str):
        return value
    try:
        return mask.value(loads(value))
    except ValueError:
        return value


def read_usage(value: Json) -> Usage:
    """The tokens of a turn; 0 for what the server does not say."""
    if not isinstance(value, dict):
        return Usage()
    details = value.get("prompt_tokens_details")
    cached = count(details, "cached_tokens") if isinstance(details, dict) else 0
    return Usage(count(value, "prompt_tokens"), count(value, "completion_tokens"), cached)


def count(value: Mapping[str, Json], name: str) -> int:
    """A number of tokens, 0 where there is none."""
    number = value.get(name)
    return number if isinstance(number, int) and not isinstance(number, bool) and 0 < number <= MOST_TOKENS else 0
