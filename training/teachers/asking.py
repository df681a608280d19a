"""Asking a model through the harness's engines: opened when it is first needed, each reply kept on disk.

A reply is kept under a digest of all that it depends on, so that a synthesis that goes on, or is made again, asks
for nothing twice.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...harness import registry
from ...harness.digests import cache_dir, json_digest
from ...harness.engine import Engine, EngineOptions, TurnSpec
from ...harness.errors import DataError, ModelError, StoreError, UsageError
from ...harness.evaluate import find_engine
from ...harness.ledger import Conversation, MediaRef
from ...harness.media import pixel_digest
from ...harness.store import write_json
from ...harness.types import Json, Size, Span

# What the engine openai says of one request that its server will never take: too long, or against its policy.
UNACCEPTABLE = re.compile(r"the server answers (?:400|413|422)\b")


@dataclass(frozen=True, slots=True)
class Cost:
    """What trajectories cost to write. Tokens are estimates: four characters, or 28 x 28 pixels, each."""

    requests: float = 0
    images: float = 0
    prompt_tokens: float = 0
    new_tokens: float = 0

    def times(self, count: float) -> Cost:
        """So many times as much."""
        return Cost(self.requests * count, self.images * count, self.prompt_tokens * count, self.new_tokens * count)

    def plus(self, other: Cost) -> Cost:
        """Both."""
        return Cost(
            self.requests + other.requests,
            self.images + other.images,
            self.prompt_tokens + other.prompt_tokens,
            self.new_tokens + other.new_tokens,
        )


def cost_of(conversation: Conversation, new_tokens: int) -> Cost:
    """The cost of one reply, at most so long, to a conversation."""
    shown = list(conversation.images())
    text = sum(len(segment.text) for segment in conversation.segments)
    return Cost(1, len(shown), text / 4 + sum(image.width * image.height for image in shown) / 28**2, new_tokens)


def served_name(model: str) -> str:
    """A model's name without the server's address, which is nobody's business and may change."""
    address, mark, name = model.partition("#")
    return name if mark and address.startswith(("http://", "https://")) else model


@dataclass(slots=True)
class Asker:
    """A model, and what it has said.

    Attributes:
        asked: requests made, those answered from the disk left out.
    """

    model: str
    extra: Mapping[str, Json]
    role: str
    asked: int = 0
    reused: int = 0
    _engine: Engine | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        if not self.model:
            where = f"teacher.{self.role}.model"
            raise UsageError(
                f"the teacher {self.role} asks a model; name it with --set {where}=http://HOST:PORT/v1#NAME"
            )

    async def engine(self) -> Engine:
        """The engine, opened by whoever needs it first. Raises ModelError, UsageError or Prerequisite."""
        async with self._lock:
            if self._engine is None:
                options = EngineOptions(extra={name: str(value) for name, value in self.extra.items()})
                factory = find_engine(self.model, None)
                owner = f"the engine of {self.model}"
                self._engine = await asyncio.to_thread(
                    lambda: registry.guarded(owner, lambda: factory.open(self.model, options))
                )
            return self._engine

    def kept(self, key: str) -> str | None:
        """A reply that was given before."""
        try:
            value = json.loads(self._path(key).read_text(encoding="utf-8"))
            text = value["text"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        self.reused += 1
        return text if isinstance(text, str) else None

    def keep(self, key: str, text: str) -> None:
        """Keep a reply; a cache that cannot be written costs requests alone."""
        try:
            write_json(self._path(key), {"model": served_name(self.model), "text": text})
        except StoreError:
            return

    def _path(self, key: str) -> Path:
        return cache_dir() / "replies" / key[:2] / f"{key}.json"

    async def say(self, conversation: Conversation, spec: TurnSpec) -> str:
        """One reply. Raises DataError for a request that is never taken, ModelError for a model that is not there."""
        engine = await self.engine()
        try:
            turn = await engine.turn(conversation, spec)
        except ModelError as error:
            raise unacceptable(str(error)) or error from None
        self.asked += 1
        return turn.text if turn.finish == "stop" else f"(cut off: {turn.finish}) {turn.text}"

    async def close(self) -> None:
        """Close the engine where it was opened."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()


def unacceptable(text: str) -> DataError | None:
    """What an engine's error says of one request alone; None where it says that none can be answered."""
    return DataError(f"the model does not take the request: {text}") if UNACCEPTABLE.search(text) else None


def conversation_key(conversation: Conversation, *more: Json) -> str:
    """A digest of what a model is shown, to the pixel, and of what else its reply depends on."""
    said: list[Json] = []
    for segment in conversation.segments:
        for part in segment.parts:
            if isinstance(part, MediaRef):
                said += [pixel_digest(image) for image in conversation.pixels(part.index).seen]
            else:
                said.append([segment.role, part.text])
    return json_digest([said, *more])


def about(size: Size, budget: Span) -> Size:
    """About the size that any model sees, before one is opened."""
    scale = min(1.0, (budget.high / (size.width * size.height)) ** 0.5)
    return Size(max(1, int(size.width * scale)), max(1, int(size.height * scale)))
