"""Images in the body of a request, put in as it is sent: never copied, escaped or kept once more for each request.

A conversation is sent whole for every turn. As JSON of its own, a request with three megapixel images is some 8 MB,
written anew each turn and held as long as the server takes. So a message names an image by a token that no text can
guess, and where the token stands in the body, the encoded image of the cache is sent, piece by piece. What comes
back may not grow without end.
"""

from __future__ import annotations

import importlib
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import cache
from types import ModuleType
from typing import Any, Protocol

from PIL import Image

from .openai_errors import ServerError
from .openai_messages import PngCache

# What one write takes: a server that reads slowly holds back no more than this of each request.
PIECE = 1 << 18
# Bytes of a reply: many times what the longest turn has, log-probabilities included.
MOST = 64 << 20
_NONCE = f"prh-image-{secrets.token_hex(16)}-"
_TOKEN = re.compile(re.escape(_NONCE).encode() + rb"\d+-")
_HELD: ContextVar[Mapping[bytes, bytes] | None] = ContextVar("held", default=None)


class Placed:
    """Gives images tokens instead of data URLs.

    Attributes:
        held: the data URL of each token, shared with the cache.
    """

    def __init__(self, images: PngCache) -> None:
        self.held: dict[bytes, bytes] = {}
        self._images = images

    def url(self, image: Image.Image) -> str:
        """The token that stands for an image's data URL."""
        token = f"{_NONCE}{len(self.held)}-"
        self.held[token.encode()] = self._images.data(image)
        return token


def hold(held: Mapping[bytes, bytes]) -> None:
    """From here on, in this task, requests are sent with these."""
    _HELD.set(held)


def parts(body: bytes, held: Mapping[bytes, bytes]) -> list[bytes]:
    """A body with what its tokens stand for in their places, as pieces that are the same objects."""
    found: list[bytes] = []
    start = 0
    for token in _TOKEN.finditer(body):
        found += [body[start : token.start()], held[token[0]]]
        start = token.end()
    return [*found, body[start:]]


class Request(Protocol):
    """What is used of httpx's request."""

    content: bytes
    headers: Any
    stream: object


async def put_in(request: Request) -> None:
    """Send a request's images with it: a hook of httpx, which runs in the task that asked."""
    held = _HELD.get()
    if held and _TOKEN.search(request.content):
        body = parts(request.content, held)
        request.headers["Content-Length"] = str(sum(map(len, body)))
        request.stream = _stream(type(request).__module__)(body)


@cache
def _stream(module: str) -> Callable[[Sequence[bytes]], object]:
    """A body in pieces, as this httpx wants it."""
    base: Any = importlib.import_module(module.partition(".")[0]).AsyncByteStream

    class Pieces(base):  # type: ignore[misc]
        def __init__(self, body: Sequence[bytes]) -> None:
            self.body = body

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for part in self.body:
                for start in range(0, len(part), PIECE):
                    yield part[start : start + PIECE]

    return Pieces


class Response(Protocol):
    """What is used of httpx's response."""

    stream: Any


async def bound(response: Response) -> None:
    """End a reply that is larger than any turn's: a hook of httpx, which runs before the body is read."""
    response.stream = _bounded(type(response).__module__)(response.stream)


@cache
def _bounded(module: str) -> Callable[[Any], object]:
    """A stream of at most ``MOST`` bytes, as this httpx wants it."""
    base: Any = importlib.import_module(module.partition(".")[0]).AsyncByteStream

    class Bounded(base):  # type: ignore[misc]
        def __init__(self, whole: Any) -> None:
            self.whole = whole

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for piece in self.whole:
                size += len(piece)
                if size > MOST:
                    raise ServerError(f"the reply has more than {MOST >> 20} MiB")
                yield piece

        async def aclose(self) -> None:
            await self.whole.aclose()

    return Bounded


def http_client(concurrency: int) -> Any:
    """The client of HTTP that the package openai uses, with room for so many requests and our images put in.

    A server that sends elsewhere is refused: where images go, and who answers, is for the user to say.
    """
    from openai import DefaultAsyncHttpxClient

    flavour = _flavour(DefaultAsyncHttpxClient)
    limits = flavour.Limits(max_connections=max(concurrency + 8, 64), max_keepalive_connections=max(concurrency, 64))
    hooks: dict[str, list[Callable[[Any], Awaitable[None]]]] = {"request": [put_in], "response": [bound]}
    return DefaultAsyncHttpxClient(limits=limits, event_hooks=hooks, follow_redirects=False)


def _flavour(kind: type) -> ModuleType:
    """The httpx that a client is made of: newer releases of openai have another."""
    base = next(base for base in kind.__mro__ if base.__name__ == "AsyncClient")
    return importlib.import_module(base.__module__.partition(".")[0])
