"""What becomes of a model's weights around a training: adapted, frozen, loaded again."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from fnmatch import translate
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..harness.errors import ModelError, UsageError
from ..harness.store import read_json, write_json
from .checkpoints import DAMAGED, STATE, load_tensors, sharded_as
from .config import LoraPart, SftConfig
from .grpo_config import GrpoConfig
from .learner import freeze
from .trainable import open_trainable

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

ADAPTER, ADAPTER_CONFIG, MASTER = "adapter_model.safetensors", "adapter_config.json", "model.safetensors"


def ready(module: PreTrainedModel, config: SftConfig | GrpoConfig) -> PreTrainedModel:
    """A model as a configuration trains it: what is frozen is frozen, an adapter is around it. Raises UsageError."""
    if config.model.checkpointing:
        _checkpoint(module)
    idle = freeze(module, config.model.freeze)
    if idle:
        raise UsageError(f"model.freeze: no parameter is called like {idle[0]!r}")
    if config.lora.rank:
        module = adapt(module, config.lora, config.model.freeze)
        freeze(module, config.model.freeze)
    if not any(weight.requires_grad for weight in module.parameters()):
        raise UsageError("model.freeze leaves nothing to train")
    return module


def _checkpoint(module: PreTrainedModel) -> None:
    new = getattr(module, "activation_checkpointing_enable", None)  # its name in newer transformers
    enable = new or module.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def adapt(module: PreTrainedModel, lora: LoraPart, frozen: tuple[str, ...] = ()) -> PreTrainedModel:
    """A model with a LoRA adapter, none of it in modules whose names match ``frozen``. Raises UsageError."""
    from peft import LoraConfig, get_peft_model

    targets: Any = list(lora.targets)
    if len(targets) == 1 and any(mark in targets[0] for mark in "*|("):
        targets = targets[0]
    alpha: Any = lora.alpha
    never = "|".join(translate(pattern) for pattern in frozen)
    made = LoraConfig(
        r=lora.rank, lora_alpha=alpha, lora_dropout=lora.dropout, target_modules=targets, exclude_modules=never or None
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft still uses names that transformers has retired
            return cast("PreTrainedModel", get_peft_model(module, made))
    except (ValueError, re.error) as error:
        raise UsageError(f"lora.targets: {' '.join(str(error).split())[:300]}") from None


def name_base(folder: Path, base: str) -> None:
    """Let an adapter name its base as it was given, which holds where the place of a cached file does not."""
    path = folder / ADAPTER_CONFIG
    if path.is_file():
        known = str(Path(base).resolve()) if Path(base).is_dir() else base
        write_json(path, {**read_json(path), "base_model_name_or_path": known})


def load_weights(module: PreTrainedModel, folder: Path, dtype: str) -> None:
    """Put a checkpoint's weights into the model it was written from, sharded or not. Raises ModelError, StoreError."""
    if (folder / ADAPTER).is_file():
        held = {name.replace(".weight", ".default.weight"): w for name, w in load_tensors(folder / ADAPTER).items()}
    elif (folder / STATE / MASTER).is_file():
        held = load_tensors(folder / STATE / MASTER)
    else:
        try:
            held = open_trainable(str(folder), dtype, "auto", "cpu")[0].module.state_dict()
        except ModelError as error:
            raise ModelError(f"{folder}: {error}; {DAMAGED}") from None
    own = module.state_dict()
    adapted = hasattr(module, "peft_config")
    lost = set(own) - set(held) - set(_tied(own))
    if set(held) - set(own) or (not adapted and lost) or (adapted and any("lora_" in name for name in lost)):
        raise ModelError(f"{folder} holds the weights of another model; {DAMAGED}")
    if wrong := next((name for name, value in held.items() if value.shape != own[name].shape), ""):
        raise ModelError(f"{folder}: {wrong} has another shape than the model's; {DAMAGED}")
    for name, value in held.items():
        own[name].detach().copy_(sharded_as(value, own[name]))


def masters(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights by name, each once."""
    tied = set(_tied(weights))
    return {name: value.detach().cpu().contiguous() for name, value in weights.items() if name not in tied}


def _tied(weights: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of weights that are another's under a second name."""
    first: dict[int, str] = {}
    whole = (getattr(value, "_local_tensor", value) for value in weights.values())
    places = [value.data_ptr() for value in whole]
    return [name for name, place in zip(weights, places, strict=True) if first.setdefault(place, name) != name]
