"""vLLM as what draws a trainer's rollouts: weights that come in versions, and turns that say which drew them.

The contract, whatever holds the weights: a new version is taken while nothing is drawn; no turn is drawn with two
versions; nothing that an older version computed is used afterwards (its cache is emptied); and every turn's version is
known. ``Synchronised`` keeps it over any ``Holder``: vLLM in this process (``InProcess``: whole weights or an adapter
from files, and putting itself aside while a trainer uses the GPU), or a running ``vllm serve`` (see
``vllm_weights``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from ..harness.engine import Caps, Engine, Turn, TurnSpec
from ..harness.errors import ModelError, PrhError
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
        version: of the weights, 0 for those it was opened with; below that nothing is drawn before some come.
        versions: which version drew each turn of each conversation that has not been released.
        vision_ids: ids that only an image may bring into a conversation, where the engine knows them.
        leads: whether it hands weights over, where several share what holds them; the others come after it.
    """

    def __init__(self, engine: Engine, holder: Holder, *, version: int = 0, leads: bool = True) -> None:
        self.caps: Caps = engine.caps
        self.vision_ids: frozenset[int] = getattr(engine, "vision_ids", frozenset())
        self.version = version
        self.versions: dict[str, list[int]] = {}
        self.leads = leads
        self._engine = engine
        self._holder = holder
        self._drawing = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._open = asyncio.Event()
        self._open.set()
        self._changing = asyncio.Lock()
        self._fault = "" if version >= 0 else "no weights were handed over yet"

    @property
    def fingerprint(self) -> str:
        """The opened checkpoint's, and which version came after it."""
        return self._engine.fingerprint if self.version <= 0 else f"{self._engine.fingerprint}@{self.version}"

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
            await self._told(self._holder.load(folder, version), f"version {version} of the weights could not be taken")
            self.version, self._fault = version, ""

    async def _told(self, work: Awaitable[None], failure: str) -> None:
        """Wait for the holder. Raises ModelError where it fails, and nothing more is drawn."""
        try:
            await work
        except Exception as error:  # whatever vLLM, its workers, the GPU and the network raise
            reason = str(error) if isinstance(error, PrhError) else one_line(error)
            self._fault = f"{failure}: {reason}"
            raise ModelError(self._fault) from None

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[None]:
        """While this is entered nothing is drawn, and the GPU is another's. Raises ModelError."""
        async with self._quiet():
            await self._told(self._holder.sleep(), "the engine could not be put aside")
            try:
                yield
            finally:
                await self._told(self._holder.wake(), "the engine could not be taken up again")

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
            self._engine.check_adapter(folder)
            if self._adapters:
                await self._llm.remove_lora(self._adapters)
            adapter = lora_request(f"version-{version}", version, str(folder))
            await self._llm.add_lora(adapter)  # now: a turn would read the folder when it is asked for
            self._engine.adapter, self._adapters = adapter, version
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
