"""What draws a reinforcement's rollouts, and how it comes by the weights as they are."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import torch

from ..harness.engine import Engine, EngineOptions, Place
from ..harness.errors import ModelError, PrhError, UsageError
from ..harness.evaluate import find_engine
from ..harness.registry import guarded
from . import checkpoints
from .grpo_config import GrpoConfig
from .grpo_training import GrpoTraining
from .learner import whole
from .peers import Peers
from .policy import PolicyLearner
from .rollouts import Drawn, Speaker
from .trainable import open_trainable
from .weights import ready

SPOKEN = ".spoken"


class Speaking(Protocol):
    """Draws rollouts with the weights that were last handed over.

    Attributes:
        engine: what draws.
    """

    @property
    def engine(self) -> Drawn: ...

    def sync(self, step: int) -> None:
        """Hand over the weights as they are after a step; every process must take part.

        Raises:
            ModelError: they could not be taken, on every process alike.
        """
        ...

    def rest(self) -> None:
        """Nothing is drawn until the weights are handed over again: the device is the learner's. Raises as ``sync``."""
        ...

    def close(self) -> None:
        """Nothing more is drawn."""
        ...


class Own:
    """The engine that is trained draws, or another in this process with a whole copy of the weights."""

    def __init__(self, training: GrpoTraining, learner: PolicyLearner, *, main: bool) -> None:
        self.training, self.learner, self.main = training, learner, main
        self.engine: Speaker = self._opened(training.config)

    def _opened(self, config: GrpoConfig) -> Speaker:
        if not (self.learner.sharded or config.rollout.copy):
            return self.training.engine
        batch = 1 if config.train.deterministic else config.rollout.batch
        engine, _ = open_trainable(config.model.base, config.rollout.dtype, config.model.attention, batch=batch)
        ready(engine.module, config)
        return cast(Speaker, engine)

    def sync(self, step: int) -> None:
        self.learner.model.train(mode=False)
        if self.engine is not self.training.engine:
            self._copy_weights()
        self.engine.module.train(mode=False)
        self.engine.forget()

    @torch.no_grad()
    def _copy_weights(self) -> None:
        own = self.engine.module.state_dict()
        if self.learner.driven:  # the main process alone has them
            held = self.learner.weights()
            for name, value in own.items():
                if self.main:
                    value.copy_(held[name])
                torch.distributed.broadcast(value, 0)
            return
        prefix = "module." if any(name.startswith("module.") for name in self.learner.model.state_dict()) else ""
        for name, value in self.learner.model.state_dict().items():
            own[name.removeprefix(prefix)].copy_(whole(value))

    def rest(self) -> None: ...

    def close(self) -> None: ...


class Versioned(Drawn, Protocol):
    """An engine of its own whose weights come in versions, from files; see ``prh.models.rollout``."""

    version: int
    leads: bool

    async def load_weights(self, version: int, folder: Path) -> None: ...

    def aside(self) -> AbstractAsyncContextManager[None]: ...


def _open(config: GrpoConfig, place: Place) -> Versioned:
    """The engine that a configuration names. Raises PrhError."""
    part = config.rollout
    factory: Any = find_engine(config.model.base, part.engine)
    if not hasattr(factory, "versioned"):
        raise UsageError(f"rollout.engine {part.engine!r} takes no weights while it runs; use transformers or vllm")
    options = EngineOptions(dtype=part.dtype, extra={key: str(value) for key, value in part.options.items()})
    return guarded(
        f"the engine {part.engine}",
        lambda: cast(Versioned, factory.versioned(config.model.base, options, config.lora.rank, place)),
    )


class Apart:
    """An engine of its own draws, and is put aside while the learner works: that of a factory with ``versioned``.

    What fails on one process fails on all of them, with the words of the first.

    Args:
        write: writes a checkpoint of the weights as they are after a step.
        run: runs on the event loop on which everything is drawn.
    """

    def __init__(
        self,
        training: GrpoTraining,
        write: Callable[[Path, int], None],
        run: Callable[[Coroutine[Any, Any, None]], None],
        peers: Peers,
    ) -> None:
        config = training.config
        name = peers.told(f"prh-{secrets.token_hex(4)}")[0]
        place = Place(peers.rank, peers.world, peers.device, config.rollout.server, name)
        self._write, self._run, self._peers = write, run, peers
        self._main, self._whole = peers.rank == 0, not config.lora.rank
        self._folder = (training.out / SPOKEN).absolute()
        self._aside = AsyncExitStack()
        opened: list[Versioned] = []
        try:
            peers.agree(lambda: opened.append(_open(config, place)))
        except PrhError:
            for one in opened:  # on another process it could not be opened
                with suppress(PrhError):
                    run(cast(Engine, one).close())
            raise
        self.engine: Versioned = opened[0]

    def sync(self, step: int) -> None:
        self._together(self._aside.aclose)
        if step <= self.engine.version:
            return
        self._agreed(partial(self._write, self._folder, step))  # from here on the folder is there for all
        for leads in (True, False):
            mine = self.engine.leads is leads
            self._together(partial(self.engine.load_weights, step, self._folder) if mine else None)
        if self._main and self._whole:  # an adapter may be read again
            checkpoints.drop(self._folder)

    def _together(self, work: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
        """The same on the event loop, or nothing on this process. Raises ModelError."""
        self._agreed(lambda: self._run(work()) if work else None)

    def _agreed(self, work: Callable[[], None]) -> None:
        """Do something, and learn whether all could. Raises ModelError on every process where one of them fails."""
        try:
            self._peers.agree(work)
        except PrhError as error:
            raise ModelError(str(error)) from None

    def rest(self) -> None:
        async def put_aside() -> None:
            await self._aside.enter_async_context(self.engine.aside())

        self._together(put_aside)

    def close(self) -> None:
        for work in (self._aside.aclose, cast(Engine, self.engine).close):
            with suppress(PrhError):  # an engine that died has been told of, or has nothing left to draw
                self._run(work())
        if self._main:
            checkpoints.drop(self._folder)
