"""Requests to one ``vllm serve``: what its refusals mean, and which are tried again. Images are not copied."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..harness.errors import Prerequisite
from ..harness.types import Json
from .openai_body import http_client
from .openai_errors import Mask, ServerError, pause, refusal
from .openai_replies import decoded
from .openai_server import Address

# By the beginning of a route: what a server needs to have it.
NEEDS = {
    "/inference/": "it needs vLLM 0.31 or newer, started with --enable-scale-out",
    "/v1/models": "is it the URL of a `vllm serve`?",
    "/v1/": "it needs --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1",
    "/sleep": "it needs VLLM_SERVER_DEV_MODE=1 and --enable-sleep-mode",
    "/": "it needs vLLM 0.31 or newer, started with VLLM_SERVER_DEV_MODE=1",
}
# What a web server says of a route that it does not have.
NO_ROUTE = "Not Found"


class Patience(Protocol):
    """How long a server is waited for, and by how many at once."""

    @property
    def concurrency(self) -> int: ...
    @property
    def timeout(self) -> float: ...
    @property
    def retries(self) -> int: ...
    @property
    def first_wait(self) -> float: ...
    @property
    def longest_wait(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Connection:
    """What belongs to one event loop: connections, and the places for requests."""

    loop: asyncio.AbstractEventLoop
    client: Any
    places: asyncio.Semaphore


class Line:
    """Requests to one server, no more at once than its ``concurrency``; connections belong to the loop that runs.

    Attributes:
        root: the server's URL, without ``/v1``.
        retried: requests that were sent again.
    """

    def __init__(self, url: str, key: str, patience: Patience) -> None:
        """Raises UsageError where it is no URL."""
        self.root = Address.read(url).url.removesuffix("/v1")
        self.mask = Mask(key)
        self.retried = 0
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        self._patience = patience
        self._connection: Connection | None = None

    async def send(self, method: str, route: str, body: Mapping[str, Json] | None = None) -> bytes:
        """One request's answer; the wait for a place is not of its time. Raises ServerError, Prerequisite."""
        content = None if body is None else json.dumps(body).encode()
        connection = self._here()
        async with connection.places:
            reply = await self._reply(connection.client, method, route, content)
        if reply.status_code >= 300:
            fault = refusal(reply.status_code, reply.text, reply.headers, self.mask)
            raise ServerError(
                f"{method} {route}: {fault}{_needs(route, fault)}",
                fault.kind, status=fault.status, passing=fault.passing, after=fault.after,
            )  # fmt: skip
        return bytes(reply.content)

    async def _reply(self, client: Any, method: str, route: str, content: bytes | None) -> Any:
        """What comes back, whatever its status. Raises ServerError where nothing does."""
        limit = self._patience.timeout
        try:
            async with asyncio.timeout(limit):
                return await client.request(
                    method, self.root + route, content=content, headers=self._headers, timeout=limit
                )
        except TimeoutError:
            raise ServerError(f"{method} {route}: no reply in time", "timeout", passing=True) from None
        except ServerError:
            raise
        except Exception as error:  # whatever the network stack raises
            reason = self.mask.quote(f"{type(error).__name__}: {error}")
            message = f"cannot be reached ({reason}); check that the server runs and that its address is right"
            raise ServerError(message, "connection", passing=True) from None

    async def ask(self, route: str, body: Mapping[str, Json] | None = None) -> Mapping[str, Json]:
        """An answer in JSON, asked for again where that may help; with no body, by GET. Raises ServerError."""
        own, tries = self._patience, 0
        while True:
            try:
                found, text = decoded(await self.send("GET" if body is None else "POST", route, body), self.mask)
                if not isinstance(found, dict):
                    raise ServerError(f"{route} gives no object: {self.mask.said(text)}", "reply", passing=True)
            except ServerError as fault:
                if not fault.passing or tries >= own.retries:
                    raise
                wait = pause(tries, fault.after, own.first_wait, own.longest_wait)
                tries += 1
                self.retried += 1
            else:
                return found
            await asyncio.sleep(wait)

    def _here(self) -> Connection:
        """The connection of the running loop. Raises Prerequisite."""
        loop = asyncio.get_running_loop()
        if self._connection is None or self._connection.loop is not loop:
            most = self._patience.concurrency
            try:
                self._connection = Connection(loop, http_client(most), asyncio.Semaphore(most))
            except ImportError:
                raise Prerequisite("a server is asked through the package openai: `pip install 'prh[api]'`") from None
        return self._connection

    async def close(self) -> None:
        """Close the connections of the running loop."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.loop is asyncio.get_running_loop():
            await connection.client.aclose()


def _needs(route: str, fault: ServerError) -> str:
    """What a server that has no such route, or forbids it, was started without."""
    if fault.status != 403 and not (fault.status in (404, 405, 501) and NO_ROUTE in str(fault)):
        return ""
    return "; " + next(text for start, text in NEEDS.items() if route.startswith(start))
