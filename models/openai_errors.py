"""What a server says when something fails: made safe to show, told apart, and how long to wait before trying again."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from ..harness.errors import PrhError
from ..harness.terminal import safe
from ..harness.types import Json, finite
from ..harness.untrusted import loads

MASK = "[key]"
# A shorter key is a placeholder for a server that wants any, such as `x`: to hide it would rewrite what models say.
SHORTEST = 8
QUOTED = 300
# Characters of a text that are looked at for it.
LOOKED = 20 * QUOTED
# What may pass by itself: overload, a restart, a proxy that lost its server. Proxies and APIs have numbers of their own
# for it, such as 520 to 524 and 529; not what a server does not know how to do.
PASSING = frozenset({408, 429, *range(500, 600)} - {501, 505})
# A spent account answers 429 like a busy server, and stays spent.
LASTING = ("insufficient_quota", "billing_hard_limit_reached")
CREDENTIAL = re.compile(r"(?i)\b(bearer\s+|sk-)[^\s\"',;]+")
SURROGATE = re.compile(r"[\ud800-\udfff]")
CONTEXT = re.compile(r"(?i)context|max_model_len|too long|too many tokens|prompt is too|longer than")


class ServerError(PrhError):
    """A request that failed, or a reply that is none.

    Attributes:
        kind: what retries are counted under: a status, ``timeout`` or ``connection``; else empty.
        status: the HTTP status, 0 where there is none.
        passing: whether trying again may help.
        after: seconds that the server asks to wait, or None.
    """

    def __init__(
        self, message: str, kind: str = "", *, status: int = 0, passing: bool = False, after: float | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.passing = passing
        self.after = after


class Mask:
    """Keeps a key out of everything that is shown or stored, should a server give it back."""

    def __init__(self, key: str) -> None:
        self._key = key if len(key) >= SHORTEST else ""

    def value(self, value: Json) -> Json:
        """JSON without the key, and with lone surrogates, which no file can hold, as U+FFFD."""
        if isinstance(value, str):
            plain = value.replace(self._key, MASK) if self._key else value
            return SURROGATE.sub("\ufffd", plain)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {str(self.value(name)): self.value(item) for name, item in value.items()}
        return value

    def quote(self, text: str) -> str:
        """Untrusted text for a message: one line, visible, without credentials, cut to ``QUOTED`` characters."""
        hidden = CREDENTIAL.sub(lambda found: f"{found[1]}{MASK}", str(self.value(text))[:LOOKED])
        line = safe(" ".join(hidden.split()))
        return line if len(line) <= QUOTED else f"{line[: QUOTED - 3]}..."

    def said(self, body: str) -> str:
        """The message in an error's body, quoted; all of the body where it holds none."""
        try:
            value = self.value(loads(body))
        except ValueError:
            return self.quote(body)
        return self.quote(_message(value) or json.dumps(value, ensure_ascii=False))


def _message(value: Json) -> str:
    """The message of an error as OpenAI (``error.message``), vLLM (``message``) and FastAPI (``detail``) write it."""
    for name in ("error", "message", "detail"):
        if isinstance(value, dict) and value.get(name):
            value = value[name]
    return value if isinstance(value, str) else ""


def error_of(error: Exception, mask: Mask) -> ServerError:
    """What an exception of the client means."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return refusal(error.status_code, error.response.text, error.response.headers, mask)
    if isinstance(error, (TimeoutError, openai.APITimeoutError)):
        return ServerError("no reply in time", "timeout", passing=True)
    cause = error.__cause__ or error
    if isinstance(cause, ServerError):
        return cause
    reason = mask.quote(f"{type(cause).__name__}: {cause}")
    if isinstance(error, openai.APIConnectionError):
        return ServerError(f"the connection failed ({reason})", "connection", passing=True)
    return ServerError(f"the request failed ({reason})")


def refusal(status: int, body: str, headers: Mapping[str, str], mask: Mask) -> ServerError:
    """What an answer with an error status means."""
    said = mask.said(body)
    message = f"the server answers {status}: {said or 'nothing more'}"
    if status in (401, 403):
        message += "; check OPENAI_API_KEY"
    elif 300 <= status < 400 and headers.get("location"):
        message += f"; it points to {mask.quote(headers['location'])}: give the base URL that this belongs to"
    elif status in (400, 413, 422) and CONTEXT.search(said):
        message += "; lower the pixel budget, limits.turns or limits.new_tokens"
    passing = status in PASSING and not any(code in body for code in LASTING)
    return ServerError(
        message, str(status), status=status, passing=passing, after=retry_after(headers.get("retry-after"))
    )


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds to wait by a ``Retry-After`` header: a number or an HTTP date (RFC 9110, section 10.2.3)."""
    if not value:
        return None
    try:
        seconds = finite(float(value))
    except ValueError:
        seconds = _until(value, time.time() if now is None else now)
    return None if seconds is None else max(0.0, seconds)


def _until(date: str, now: float) -> float | None:
    try:
        then = parsedate_to_datetime(date)
        return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, OverflowError):
        return None


def pause(tries: int, after: float | None, first: float, longest: float) -> float:
    """Seconds before the next try: what the server asks for, else doubling from ``first``; at most ``longest``.

    Both are spread at random, so that many turns refused at once do not come back at once (M. Brooker,
    "Exponential Backoff And Jitter", 2015).

    Args:
        tries: how many were retries before this one, from 0.
    """
    chance = random.random()  # noqa: S311 - spreads load, hides nothing
    if after is not None:
        return min(after + chance * first, longest)
    return min(first * 2.0 ** min(tries, 30), longest) * (0.5 + chance / 2)
