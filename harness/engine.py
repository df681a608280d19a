"""The engine's seam: what produces the next turn of a conversation.

An engine is a plugin of the group ``prh.engines``: a factory with ``accepts`` and ``open``. Importing its
module must be cheap; torch, servers and files are touched in ``open``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from .ledger import Conversation
from .types import Call, Json, Sample, Size, Span

if TYPE_CHECKING:
    from .protocol import Tool

Finish = Literal["stop", "length", "malformed"]


@dataclass(frozen=True, slots=True)
class Caps:
    """What an engine can do."""

    token_ids: bool = False
    logprobs: bool = False
    seeds: bool = False
    roles: tuple[str, ...] = ("system", "user", "assistant")
    native_calls: bool = False
    native_video: bool = False


@dataclass(frozen=True, slots=True)
class TurnSpec:
    """How one turn is drawn.

    Attributes:
        seed: of this turn alone, derived from the run's seed, the sample, the repeat and the turn.
        stop: strings that end the turn; kept in its text.
        banned_ids: token ids that must not be sampled, besides those the engine bans itself.
        tools: the operations of a protocol that declares them beside its prompt; only to engines with native calls.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    banned_ids: tuple[int, ...] = ()
    tools: tuple[Tool, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one turn. ``prompt_tokens`` is the whole context before it, images included; ``cost`` is in dollars."""

    prompt_tokens: int = 0
    new_tokens: int = 0
    cached_tokens: int = 0
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Turn:
    """What an engine produced. ``finish`` is ``malformed`` for undecodable output or a vision token."""

    text: str
    ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    finish: Finish = "stop"
    native_calls: tuple[Call, ...] = ()
    usage: Usage = Usage()
    seconds: float = 0.0


class Engine(Protocol):
    """Produces turns. Serves any number of conversations at once and orders its own work.

    Attributes:
        fingerprint: digest of weights, adapter, config, tokenizer and processor files; never a path.
    """

    caps: Caps
    fingerprint: str

    def fit(self, size: Size, budget: Span) -> Size:
        """The size the model will really see an image of this size at."""
        ...

    async def turn(self, conversation: Conversation, spec: TurnSpec) -> Turn:
        """The next turn. Raises ModelError where it cannot be produced; that ends one episode only."""
        ...

    async def release(self, conversation: Conversation) -> None:
        """Free what is kept for a conversation."""
        ...

    def describe(self) -> Mapping[str, Json]:
        """What a manifest should say of it: name, dtype, device, versions, and what it has done so far.

        ``notice`` is a line that its user should read before a run; ``work`` counts what it has done: ``new_tokens``,
        ``occupancy`` and ``cache_share`` from 0 to 1, and ``seconds`` by what they were spent on. Numbers that grow in
        a run are counts, which a manifest adds up over its sessions; others stand under ``settings`` or do not change.
        """
        ...

    async def close(self) -> None:
        """Free everything. A turn still running is abandoned."""
        ...


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What an engine may need to open a model.

    Attributes:
        samples: the samples of the evaluated task, for baselines that read annotations.
        train: samples of the task's train split, empty where it has none.
        extra: options of one engine alone.
    """

    dtype: str = "auto"
    device: str = "auto"
    attention: str = "auto"
    batch: int = 16
    trust_remote_code: bool = False
    revision: str | None = None
    offline: bool = False
    protocol: str = ""
    samples: Callable[[], Iterable[Sample]] = tuple
    train: Callable[[], Iterable[Sample]] = tuple
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the processes that draw one training's rollouts this is, for an engine whose weights change.

    Attributes:
        rank, world: this process, and how many there are; the first hands weights over where all draw from one server.
        device: the GPU of this process by number; None where it has none of its own.
        server: URL of a running server to draw from instead of an engine in this process; empty for none.
        name: of the training, in what a server calls its weights; no two trainings have the same.
    """

    rank: int = 0
    world: int = 1
    device: int | None = None
    server: str = ""
    name: str = "prh"


class EngineFactory(Protocol):
    """What the group ``prh.engines`` registers.

    Besides, ``models`` may map names that need no file of the user's to a line about each, for ``prh list models``;
    an engine that accepts its own name is such a model too.
    """

    summary: str

    def accepts(self, model: str) -> bool:
        """Whether ``--model`` means this engine when ``--engine`` does not say."""
        ...

    def open(self, model: str, options: EngineOptions) -> Engine:
        """Load a model. Raises ModelError, or Prerequisite where a package or file is missing."""
        ...

    def defaults(self, model: str) -> Mapping[str, Json]:
        """The checkpoint's ``prh.json`` (protocol, budgets, limits), empty where it has none."""
        ...


def smart_resize(size: Size, budget: Span, factor: int) -> Size:
    """The size Qwen's processors give an image: sides multiples of ``factor``, area within the budget.

    Follows ``smart_resize`` of Qwen2-VL in transformers, ``factor`` = patch size x merge size. An image
    more than 200 times as long as wide, which it refuses, is first brought to that ratio.
    """
    width, height = max(size.width, 1), max(size.height, 1)
    width, height = max(width, -(-height // 200)), max(height, -(-width // 200))
    wide = max(factor, round(width / factor) * factor)
    high = max(factor, round(height / factor) * factor)
    if wide * high > budget.high:
        beta = (width * height / budget.high) ** 0.5
        wide = max(factor, int(width / beta / factor) * factor)
        high = max(factor, int(height / beta / factor) * factor)
    elif wide * high < budget.low:
        beta = (budget.low / (width * height)) ** 0.5
        wide = -int(-(width * beta) // factor) * factor
        high = -int(-(height * beta) // factor) * factor
    return Size(wide, high)
