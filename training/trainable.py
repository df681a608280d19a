"""What the trainers need of an engine: its module, and conversations as that module is run on them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from ..harness.engine import EngineOptions
from ..harness.errors import UsageError
from ..harness.evaluate import find_engine
from ..harness.ledger import Conversation
from ..harness.registry import guarded
from ..harness.types import Json, Size, Span

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from transformers import PreTrainedModel


class View(Protocol):
    """A conversation as a model is run on it; see ``prh.models.encode.TokenView``."""

    @property
    def ids(self) -> Sequence[int]: ...

    @property
    def spans(self) -> Sequence[tuple[int, int]]: ...

    @property
    def turns(self) -> Sequence[tuple[int, int]]: ...

    @property
    def trained(self) -> Sequence[bool]: ...

    @property
    def positions(self) -> torch.Tensor | None: ...

    @property
    def inputs(self) -> Mapping[str, torch.Tensor]: ...

    @property
    def exact(self) -> bool: ...


class Preparer(Protocol):
    """What turns images into tensors.

    Attributes:
        factor: seen sides are multiples of it; 1 where the family's own processor resizes.
    """

    factor: int

    def tensors(self, text: str, images: Sequence[Image.Image]) -> Mapping[str, torch.Tensor]: ...


class Processor(Preparer, Protocol):
    """A preparer that knows what ids say."""

    def decode(self, ids: Sequence[int]) -> str: ...


class Trainable(Protocol):
    """An engine whose model can be trained.

    Attributes:
        context: most tokens of a conversation.
        pad: an id to fill rows with.
    """

    module: PreTrainedModel
    fingerprint: str
    context: int
    pad: int

    @property
    def processor(self) -> Processor: ...

    def fit(self, size: Size, budget: Span) -> Size: ...

    def encode(self, conversation: Conversation, *, pixels: bool = True) -> View: ...

    def save(
        self, folder: Path, module: PreTrainedModel, dtype: str, weights: Mapping[str, torch.Tensor] | None = None
    ) -> None:
        """Write weights and every file beside them that an engine needs to open the folder. Raises ModelError."""
        ...

    def quickened(self) -> AbstractContextManager[None]:
        """The vision tower faster while this lasts, where that is possible."""
        ...

    def describe(self) -> Mapping[str, Json]: ...


def own_device() -> str:
    """The device of this process among those that a launcher has started on a machine, else ``auto``."""
    import torch

    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return "cpu"
    rank = os.environ.get("LOCAL_RANK", "")
    return f"cuda:{rank}" if rank.isdecimal() and torch.cuda.is_available() else "auto"


def open_trainable(
    model: str, dtype: str, attention: str, device: str | None = None, batch: int = 16
) -> tuple[Trainable, Mapping[str, Json]]:
    """A checkpoint opened for training, and its ``prh.json``.

    Args:
        device: None for this process's own.
        batch: most turns that run at once where it is asked for any.

    Raises:
        UsageError: it has no weights that can be trained here.
        ModelError, Prerequisite: it cannot be opened.
    """
    device = own_device() if device is None else device
    factory = find_engine(model, None)
    options = EngineOptions(dtype=dtype, attention=attention, device=device, batch=batch)
    defaults = dict(guarded(f"the engine of {model}", lambda: factory.defaults(model)))
    engine = guarded(f"the engine of {model}", lambda: factory.open(model, options))
    if not all(hasattr(engine, name) for name in ("module", "encode", "save")):
        raise UsageError(f"{model} has no weights to train: give a checkpoint of the Hugging Face format")
    if hasattr(cast(Trainable, engine).module, "peft_config"):
        raise UsageError(f"{model} is an adapter: merge it into its base first, and train what comes of it")
    return cast(Trainable, engine), defaults
