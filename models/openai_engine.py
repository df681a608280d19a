"""The engine ``openai``: a model behind an OpenAI-compatible server, such as vLLM or SGLang.

``http://host:port/v1#NAME`` names the server's base URL and the model; without ``#NAME`` it is the only model that
the server lists. The key is read from OPENAI_API_KEY, and appears in nothing that is shown or stored.

Chat completions keep nothing between turns, so the whole conversation is sent each time, images included, at the
size that the harness gave them. Whether the server resizes them again, honours the seed, and is the model that it
says it is, is its own word. Options are those of ``openai_server.Settings``.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

from ..harness.engine import Caps, EngineOptions, Turn, TurnSpec, Usage, smart_resize
from ..harness.errors import ModelError, Prerequisite
from ..harness.ledger import Conversation
from ..harness.types import Json, Size, Span
from .openai_body import Placed, hold, http_client
from .openai_errors import Mask, ServerError, error_of, pause
from .openai_messages import PngCache
from .openai_server import IDENTITY, NO_KEY, Address, Server, Settings, find_model, listed, read_key, read_list
from .openai_wire import NEW_LIMIT, OLD_LIMIT, make_wire

if TYPE_CHECKING:
    from openai import AsyncOpenAI

# OpenAI's words; vLLM names both parameters too where a number is too large for its context.
WANTS_NEW = re.compile(rf"(?i)use\W+{NEW_LIMIT}")


@dataclass(frozen=True, slots=True)
class Connection:
    """What belongs to one event loop: connections, and the places for turns."""

    loop: asyncio.AbstractEventLoop
    client: AsyncOpenAI
    places: asyncio.Semaphore


@dataclass(slots=True)
class Used:
    """What all turns so far have used; ``cost`` in dollars, 0 where no price is given."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0
    cost: float = 0.0

    def add(self, usage: Usage) -> None:
        """Count one turn."""
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        self.new_tokens += usage.new_tokens
        self.cost = round(self.cost + usage.cost, 9)


class OpenAIEngine:
    """Serves turns of one model of one server.

    Attributes:
        images: the encoded images.
        retries: how many there were, by what made them necessary.
    """

    def __init__(self, server: Server, settings: Settings) -> None:
        self.server = server
        self.settings = settings
        self.fingerprint = server.fingerprint
        self.images = PngCache(settings.image_cache_mib << 20)
        self.retries: Counter[str] = Counter()
        self._mask = Mask(server.key)
        self._connection: Connection | None = None
        self._closed = False
        self._wire = make_wire(server, settings)
        self.caps = Caps(seeds=self._wire.seeds, native_calls=True)
        self._limit = self._wire.limit
        self._used = Used()
        self._requests = 0
        self._uncounted = 0

    def fit(self, size: Size, budget: Span) -> Size:
        """The size that is sent; a server whose own limits are narrower resizes again."""
        return smart_resize(size, budget, self.settings.factor)

    async def turn(self, conversation: Conversation, spec: TurnSpec) -> Turn:
        """The next turn, tried again where that may help. Raises ModelError; a failure is never a text."""
        start = time.perf_counter()
        placed = Placed(self.images)
        fields = await asyncio.to_thread(self._wire.fields, conversation, spec, placed)
        hold(placed.held)
        number = conversation.turns + 1
        connection = self._here()
        try:
            async with connection.places:
                turn = await self._ask(
                    connection.client,
                    fields,
                    spec.max_new_tokens,
                    lambda body: self._wire.read(body, spec.stop, number, self._mask),
                )
        except ServerError as fault:
            more = await self._names(connection.client) if fault.status == 404 else ""
            address = self.server.address
            raise ModelError(f"{address.url} ({self._mask.quote(address.model)}): {fault}{more}") from None
        self._uncounted += turn.usage == Usage()
        usage = replace(turn.usage, cost=self.settings.cost(turn.usage))
        self._used.add(usage)
        return replace(turn, usage=usage, seconds=time.perf_counter() - start)

    async def _ask(
        self, client: AsyncOpenAI, fields: Mapping[str, Json], tokens: int, read: Callable[[bytes], Turn]
    ) -> Turn:
        """The turn of a good answer. Raises ServerError where trying again cannot help or has been tried enough."""
        own = self.settings
        deadline = time.monotonic() + own.turn_seconds
        tries = 0
        while not self._closed:
            limit = self._limit
            try:
                return read(await self._send(client, {**fields, limit: tokens}, deadline - time.monotonic()))
            except ServerError as fault:
                if fault.status == 400 and limit == OLD_LIMIT and WANTS_NEW.search(str(fault)):
                    self._limit = NEW_LIMIT
                    continue
                if not fault.passing:
                    raise
                wait = pause(tries, fault.after, own.first_wait, own.longest_wait)
                if tries >= own.retries or time.monotonic() + wait > deadline:
                    raise ServerError(f"{fault}; given up after {tries} retries") from None
                tries += 1
                self.retries[fault.kind] += 1
            await asyncio.sleep(wait)
        raise ServerError("the engine is closed")

    async def _send(self, client: AsyncOpenAI, fields: Mapping[str, Json], left: float) -> bytes:
        self._requests += 1
        try:
            # The client's own timeout starts again with every byte that a slow server sends.
            async with asyncio.timeout(min(self.settings.timeout, left)):
                return (await self._wire.create(client)(**cast("dict[str, Any]", fields))).content
        except Exception as error:  # whatever the network stack raises
            raise error_of(error, self._mask) from None

    async def _names(self, client: AsyncOpenAI) -> str:
        try:
            async with asyncio.timeout(min(self.settings.timeout, 10.0)):
                cards = read_list((await client.models.with_raw_response.list()).content, self._mask)
        except Exception:  # the turn's own failure is what there is to tell
            return ""
        return f"; it serves {listed(cards, self._mask)}"

    def _here(self) -> Connection:
        """The connection of the running loop: connections cannot outlive the loop that made them."""
        loop = asyncio.get_running_loop()
        if self._closed:
            raise ModelError(f"{self.server.address.url}: the engine is closed")
        if self._connection is None or self._connection.loop is not loop:
            from openai import AsyncOpenAI

            own = http_client(self.settings.concurrency)
            client = AsyncOpenAI(**client_options(self.server.address, self.server.key, self.settings), http_client=own)
            self._connection = Connection(loop, client, asyncio.Semaphore(self.settings.concurrency))
        return self._connection

    async def release(self, conversation: Conversation) -> None:
        """Nothing is kept for a conversation; its images may be another's too."""

    def describe(self) -> Mapping[str, Json]:
        """The server, what it says of its model, and what was counted so far."""
        address, card = self.server.address, self.server.card
        return {
            "name": "openai",
            "url": address.url,
            "model": address.model,
            "identity": "the server's word",
            "card": {name: card[name] for name in IDENTITY if name in card},
            "listed": bool(card),
            "dtype": "unknown",
            "device": "server",
            "factor": self.settings.factor,
            "mode": self.settings.mode,
            "omit": list(self.settings.omitted),
            "settings": cast(Json, asdict(self.settings)),
            "token_limit": self._limit,
            "requests": self._requests,
            "retries": cast(Json, dict(self.retries)),
            "used": cast(Json, asdict(self._used)),
            "turns_without_usage": self._uncounted,
            "images_encoded": self.images.encoded,
            "images_reused": self.images.reused,
            "versions": {name: version(name) for name in ("prh", "openai")},
        }

    async def close(self) -> None:
        """Close the connections; a turn still running ends in a ModelError."""
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None and connection.loop is asyncio.get_running_loop():
            await connection.client.close()


def client_options(address: Address, key: str, settings: Settings) -> dict[str, Any]:
    """What a client is made of. Its own retries are off, so that ours are the only ones and all are counted."""
    return {"base_url": address.url, "api_key": key or NO_KEY, "max_retries": 0, "timeout": settings.timeout}


class OpenAIFactory:
    """Opens ``http(s)://`` base URLs of OpenAI-compatible servers."""

    summary = "a model behind an OpenAI-compatible server (http://host:port/v1#NAME)"

    def accepts(self, model: str) -> bool:
        """Whether the name is a URL."""
        return model.lower().startswith(("http://", "https://"))

    def defaults(self, model: str) -> Mapping[str, Json]:
        """A server has no ``prh.json``."""
        return {}

    def open(self, model: str, options: EngineOptions) -> OpenAIEngine:
        """Ask a server for its model. Raises ModelError, UsageError or Prerequisite."""
        try:
            from openai import DefaultHttpxClient, OpenAI
        except ImportError:
            raise Prerequisite("a server is asked through the package openai: `pip install 'prh[api]'`") from None
        settings = Settings.read(options.extra)
        address, key = Address.read(model), read_key()
        opening = replace(settings, timeout=min(settings.timeout, 60.0))
        own = DefaultHttpxClient(follow_redirects=False)
        with OpenAI(**client_options(address, key, opening), http_client=own) as client:
            return OpenAIEngine(find_model(client, address, key), settings)
