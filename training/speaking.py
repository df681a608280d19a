"""What draws a reinforcement's rollouts, and how it comes by the weights as they are."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, Protocol, cast

import torch

from ..harness.engine import Engine, EngineOptions
from ..harness.errors import UsageError
from ..harness.evaluate import find_engine
from ..harness.registry import guarded
from . import checkpoints
from .grpo_config import GrpoConfig
from .grpo_training import GrpoTraining
from .learner import whole
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
        """Hand over the weights as they are after a step; every process must take part. Raises ModelError."""
        ...

    def rest(self) -> None:
        """Nothing is drawn until the weights are handed over again: the device is the learner's."""
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
        if self.learner.driven:  # written to DeepSpeed's interface, and not tried: the main process alone has them
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

    async def load_weights(self, version: int, folder: Path) -> None: ...

    def aside(self) -> AbstractAsyncContextManager[None]: ...


class Apart:
    """An engine of its own draws, and is put aside while the learner works: that of a factory with ``versioned``.

    Args:
        write: writes a checkpoint of the weights as they are after a step.
        run: runs on the event loop on which everything is drawn.
    """

    def __init__(
        self,
        training: GrpoTraining,
        write: Callable[[Path, int], None],
        run: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        config = training.config
        name, rank = config.rollout.engine, config.lora.rank
        factory: Any = find_engine(config.model.base, name)
        if not hasattr(factory, "versioned"):
            raise UsageError(f"rollout.engine {name!r} takes no weights while it runs; use transformers or vllm")
        extra = {key: str(value) for key, value in config.rollout.options.items()}
        options = EngineOptions(dtype=config.rollout.dtype, extra=extra)
        self._training, self._write, self._run = training, write, run
        self._aside = AsyncExitStack()
        self.engine: Versioned = guarded(
            f"the engine {name}", lambda: factory.versioned(config.model.base, options, rank)
        )

    def sync(self, step: int) -> None:
        self._run(self._aside.aclose())
        if step > self.engine.version:
            folder = self._training.out / SPOKEN
            self._write(folder, step)
            self._run(self.engine.load_weights(step, folder))
            checkpoints.drop(folder)

    def rest(self) -> None:
        self._run(self._aside.enter_async_context(self.engine.aside()))

    def close(self) -> None:
        self._run(self._aside.aclose())
        self._run(cast(Engine, self.engine).close())
