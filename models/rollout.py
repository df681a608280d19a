"""vLLM as what draws a trainer's rollouts: weights that come in versions, and turns that say which drew them.

The contract, whatever holds the weights: a new version is taken while nothing is drawn; no turn is drawn with two
versions; nothing that an older version computed is used afterwards (its cache is emptied); and every turn's version is
known. ``Synchronised`` keeps it over any ``Holder``: vLLM in this process (``InProcess``: whole weights or an adapter
from files, and putting itself aside while a trainer uses the GPU), or a ``vllm serve`` that was started with
``VLLM_SERVER_DEV_MODE=1`` and ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=1`` (``Served``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from ..harness.engine import Caps, Engine, Turn, TurnSpec
from ..harness.errors import ModelError
from ..harness.ledger import Conversation
from ..harness.types import Json, Size, Span
from .checkpoint import ADAPTER, holds
from .processor import one_line
from .vllm_engine import VLLMEngine, lora_request

# vLLM's level of sleep that keeps the weights, in main memory.
KEEP = 1


class Holder(Protocol):
    """What holds weights. Its calls come one at a time, and never while a turn is drawn."""

    async def load(self, folder: Path, version: int) -> None:
        """Take the weights, or the adapter, in a folder, and forget what older ones computed. Raises ModelError."""
        ...

    async def sleep(self) -> None:
        """Free the GPU."""
        ...

    async def wake(self) -> None:
        """Be ready to draw again."""
        ...


class Synchronised:
    """An engine whose weights change between turns.

    Attributes:
        version: of the weights, 0 for those it was opened with.
        versions: which version drew each turn of each conversation that has not been released.
        vision_ids: ids that only an image may bring into a conversation, where the engine knows them.
    """

    def __init__(self, engine: Engine, holder: Holder) -> None:
        self.caps: Caps = engine.caps
        self.vision_ids: frozenset[int] = getattr(engine, "vision_ids", frozenset())
        self.version = 0
        self.versions: dict[str, list[int]] = {}
        self._engine = engine
        self._holder = holder
        self._drawing = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._open = asyncio.Event()
        self._open.set()
        self._changing = asyncio.Lock()
        self._fault = ""

    @property
    def fingerprint(self) -> str:
        """The opened checkpoint's, and which version came after it."""
        return self._engine.fingerprint if not self.version else f"{self._engine.fingerprint}@{self.version}"

    def fit(self, size: Size, budget: Span) -> Size:
        """As the engine."""
        return self._engine.fit(size, budget)

    async def turn(self, conversation: Conversation, spec: TurnSpec) -> Turn:
        """The next turn, drawn with one version. Waits while weights change. Raises ModelError."""
        while not self._open.is_set():
            await self._open.wait()
        if self._fault:
            raise ModelError(self._fault)
        self._drawing += 1
        self._idle.clear()
        version = self.version
        try:
            turn = await self._engine.turn(conversation, spec)
        finally:
            self._drawing -= 1
            if not self._drawing:
                self._idle.set()
        self.versions.setdefault(conversation.key, []).append(version)
        return turn

    async def load_weights(self, version: int, folder: Path) -> None:
        """Take a new version once the turns that run are done.

        Raises:
            ModelError: the version is not newer, or the weights cannot be taken: then nothing more is drawn, since
                nobody knows with what.
        """
        async with self._quiet():
            if version <= self.version:
                raise ModelError(f"the weights are of version {self.version}; {version} is not newer")
            try:
                await self._holder.load(folder, version)
            except Exception as error:
                self._fault = f"version {version} of the weights could not be taken: {one_line(error)}"
                raise ModelError(self._fault) from None
            self.version, self._fault = version, ""

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[None]:
        """While this is entered nothing is drawn, and the GPU is another's."""
        async with self._quiet():
            await self._holder.sleep()
            try:
                yield
            finally:
                await self._holder.wake()

    @asynccontextmanager
    async def _quiet(self) -> AsyncIterator[None]:
        async with self._changing:
            self._open.clear()
            try:
                await self._idle.wait()
                yield
            finally:
                self._open.set()

    async def release(self, conversation: Conversation) -> None:
        """Forget a conversation and its versions."""
        self.versions.pop(conversation.key, None)
        await self._engine.release(conversation)

    def describe(self) -> Mapping[str, Json]:
        """As the engine, with the version."""
        return {**self._engine.describe(), "version": self.version}

    async def close(self) -> None:
        """Close the engine."""
        await self._engine.close()


class InProcess:
    """The weights of vLLM in this process; it must have been opened with ``engine.sleep=true`` to be put aside."""

    def __init__(self, engine: VLLMEngine) -> None:
        self._engine = engine
        self._llm: Any = engine.llm
        self._adapters = 0

    async def load(self, folder: Path, version: int) -> None:
        """Weights are read anew in every worker; an adapter gets a name of its own, by which caches are kept apart."""
        if holds(folder, ADAPTER):
            previous, self._adapters = self._adapters, version
            self._engine.adapter = lora_request(f"version-{version}", version, str(folder))
            if previous:
                await self._llm.remove_lora(previous)
            return
        await self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        await self._forget()

    async def _forget(self) -> None:
        """Neither keys and values nor what images looked like to older weights may be used again."""
        if await self._llm.reset_prefix_cache() is False:
            raise ModelError("vLLM did not empty its prefix cache: a request still runs")
        await self._llm.reset_encoder_cache()

    async def sleep(self) -> None:
        """Weights to main memory, the cache given up."""
        await self._llm.sleep(level=KEEP)

    async def wake(self) -> None:
        """Weights back, an empty cache."""
        await self._llm.wake_up()
        await self._forget()


Post = Callable[[str, Mapping[str, Json]], Awaitable[Json]]


class Served:
    """The weights of a ``vllm serve``, through its routes for developers.

    Args:
        post: sends JSON to a route of the server's root, such as ``/sleep``, and raises where it is refused.
    """

    def __init__(self, post: Post) -> None:
        self._post = post
        self._adapter = ""

    async def load(self, folder: Path, version: int) -> None:
        """As ``InProcess``; the folder must be one that the server sees. An adapter is asked for by its name."""
        if holds(folder, ADAPTER):
            name = f"version-{version}"
            await self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
            if self._adapter:
                await self._post("/v1/unload_lora_adapter", {"lora_name": self._adapter})
            self._adapter = name
            return
        body: dict[str, Json] = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        await self._post("/collective_rpc", body)
        await self._forget()

    async def _forget(self) -> None:
        await self._post("/reset_prefix_cache", {})
        await self._post("/reset_encoder_cache", {})

    async def sleep(self) -> None:
        """Weights to main memory, the cache given up."""
        await self._post(f"/sleep?level={KEEP}", {})

    async def wake(self) -> None:
        """Weights back, an empty cache."""
        await self._post("/wake_up", {})
        await self._forget()
