"""A trained model as a checkpoint folder like any other: its weights, and its base's files beside them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..harness.errors import ModelError
from ..harness.types import Json
from .checkpoint import ADAPTER, CONFIG, FILES, Checkpoint, read_object
from .processor import one_line, quiet

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# Written by save_pretrained from what the model is now.
WRITTEN = (CONFIG, "generation_config.json")


def save_checkpoint(
    base: Checkpoint,
    folder: Path,
    module: PreTrainedModel,
    dtype: str,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write a model trained from ``base``; an adapter alone where ``module`` is one.

    The model's own weights are left as they are, whatever ``dtype`` is written.

    Args:
        weights: its weights by name, where they are gathered from several processes.

    Raises:
        ModelError: the folder cannot be written.
    """
    import torch

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with quiet(always=True):
            if hasattr(module, "peft_config"):
                # Asked whether embeddings belong to an adapter, peft would look on the hub.
                module.save_pretrained(
                    str(folder), state_dict=dict(weights) if weights else None, save_embedding_layers=False
                )
            else:
                _save(module, folder, getattr(torch, dtype), module.state_dict() if weights is None else weights)
        _copy(base.folder, folder, adapter=(folder / ADAPTER).is_file())
        _permit(folder)
    except OSError as error:
        raise ModelError(f"cannot write the checkpoint {folder}: {error.strerror or error}") from None
    except Exception as error:  # whatever a stranger's model makes of being saved
        raise ModelError(f"the checkpoint {folder} cannot be written: {one_line(error)}") from None


def _save(module: PreTrainedModel, folder: Path, kind: torch.dtype, weights: Mapping[str, torch.Tensor]) -> None:
    made: dict[tuple[int, tuple[int, ...]], torch.Tensor] = {}  # by place in memory, so that tied weights stay tied
    held = {
        name: made.setdefault(
            (value.data_ptr(), tuple(value.shape)),
            value.detach().to("cpu", kind if value.is_floating_point() else value.dtype),
        )
        for name, value in weights.items()
    }
    module.save_pretrained(folder, state_dict=held)
    config = _typed(read_object(folder / CONFIG), str(kind).removeprefix("torch."))
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _typed(config: Mapping[str, Json], dtype: str) -> dict[str, Json]:
    """A configuration, and those in it, with the type of the weights that are written."""
    deep = {
        key: cast(Json, _typed(value, dtype)) if isinstance(value, dict) and "dtype" in value else value
        for key, value in config.items()
    }
    return {**deep, "dtype": dtype}


def _copy(source: Path, folder: Path, *, adapter: bool) -> None:
    """Copy tokenizer, processor and template files, and for a whole model its code."""
    for pattern in FILES:
        for path in source.glob(pattern):
            target = folder / path.relative_to(source)
            if path.is_file() and not (target.name in WRITTEN or (adapter and target.name == CONFIG)):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


def _permit(folder: Path) -> None:
    """Let weights be read by whoever may read the other files; safetensors keeps them to their owner."""
    mode = (folder / CONFIG if (folder / CONFIG).is_file() else folder / ADAPTER).stat().st_mode
    for path in folder.glob("*.safetensors"):
        os.chmod(path, mode)  # noqa: PTH101 - with the mode of a file, not one made up
