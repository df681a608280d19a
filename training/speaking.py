"""What draws a reinforcement's rollouts, and how it comes by the weights as they are."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate import Accelerator

from ..harness.engine import Engine, EngineOptions, Place
from ..harness.errors import ModelError, PrhError, UsageError
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
# Of what one process tells the others, in bytes.
LONGEST = 600


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
    leads: bool

    async def load_weights(self, version: int, folder: Path) -> None: ...

    def aside(self) -> AbstractAsyncContextManager[None]: ...


class Peers:
    """The processes of a training. Whatever is asked here, every process must ask."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.device: int | None = accelerator.device.index if accelerator.device.type == "cuda" else None

    def told(self, text: str) -> list[str]:
        """What each process says, in their order, cut to ``LONGEST`` bytes."""
        if self.world == 1:
            return [text]
        data = text.encode()[:LONGEST].ljust(LONGEST, b"\0")
        mine = torch.tensor([list(data)], dtype=torch.uint8, device=self._accelerator.device)
        every = cast(torch.Tensor, self._accelerator.gather(mine)).cpu()
        return [bytes(row.tolist()).rstrip(b"\0").decode(errors="ignore") for row in every]


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
        part, rank = config.rollout, config.lora.rank
        factory: Any = find_engine(config.model.base, part.engine)
        if not hasattr(factory, "versioned"):
            raise UsageError(f"rollout.engine {part.engine!r} takes no weights while it runs; use transformers or vllm")
        extra = {key: str(value) for key, value in part.options.items()}
        options = EngineOptions(dtype=part.dtype, extra=extra)
        name = peers.told(f"prh-{secrets.token_hex(4)}")[0]
        place = Place(peers.rank, peers.world, peers.device, part.server, name)
        self._write, self._run, self._peers = write, run, peers
        self._main, self._whole = peers.rank == 0, not rank
        self._folder = (training.out / SPOKEN).absolute()
        self._aside = AsyncExitStack()
        self.engine: Versioned = guarded(
            f"the engine {part.engine}", lambda: factory.versioned(config.model.base, options, rank, place)
        )

    def sync(self, step: int) -> None:
        self._together(self._aside.aclose)
        if step <= self.engine.version:
            return
        self._write(self._folder, step)
        self._peers.told("")  # the folder is there for all
        for leads in (True, False):
            mine = self.engine.leads is leads
            self._together(partial(self.engine.load_weights, step, self._folder) if mine else None)
        if self._main and self._whole:  # an adapter may be read again
            checkpoints.drop(self._folder)

    def _together(self, work: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
        """Do something, and learn whether all could. Raises ModelError on every process where one of them does."""
        fault = ""
        try:
            if work:
                self._run(work())
        except ModelError as error:
            fault = str(error)
        found = [(rank, one) for rank, one in enumerate(self._peers.told(fault)) if one]
        if found:
            rank, one = found[0]
            raise ModelError(f"process {rank}: {one}" if self._peers.world > 1 else one)

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
