"""A checkpoint's weights on a device, every one of them from its files, or an error in one line."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..harness.engine import EngineOptions
from ..harness.errors import ModelError, Prerequisite, UsageError
from .checkpoint import Checkpoint, read_object
from .processor import one_line, quiet, title

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

DTYPES = ("auto", "float32", "bfloat16", "float16")
MOST_THREADS = 1024
ATTENTION = ("auto", "eager", "sdpa", "flash_attention_2")


def choose_device(name: str) -> torch.device:
    """The device that ``auto`` or a torch device name means. Raises UsageError or ModelError."""
    import torch

    if name in ("auto", "cuda") and torch.cuda.is_available() and os.environ.get("LOCAL_RANK", "").isdigit():
        name = f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"  # a device for each rank
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device {name!r} is not known: use auto, cpu, cuda, cuda:N or mps") from None
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if not there.get(device.type, False):
        raise ModelError(f"device {name!r}: torch {torch.__version__} cannot use one here; use --device cpu")
    return device


def set_threads() -> int:
    """Torch's threads on the CPU: ``PRH_TORCH_THREADS``, else one on two cores or fewer, else torch's own number.

    Two threads on two busy cores were measured 4 to 40 times slower than one. Raises UsageError.
    """
    import torch

    wanted = os.environ.get("PRH_TORCH_THREADS", "")
    if wanted and not (re.fullmatch("[1-9][0-9]{0,3}", wanted) and int(wanted) <= MOST_THREADS):
        raise UsageError(f"PRH_TORCH_THREADS must be a whole number from 1 to {MOST_THREADS}, not {wanted[:40]!r}")
    if wanted or (os.cpu_count() or 1) <= 2:
        torch.set_num_threads(int(wanted or 1))
    return torch.get_num_threads()


def load_config(folder: Path, trust_remote_code: bool) -> PreTrainedConfig:
    """A model folder's configuration. Raises ModelError, also where it is no image-text-to-text model's."""
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig

    try:
        config = cast("PreTrainedConfig", AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code))
    except Exception as error:  # a stranger's files may fail in any way
        hint = "" if trust_remote_code else "; a model with its own code needs --trust-remote-code"
        raise ModelError(f"{title(folder)}: its config cannot be loaded: {one_line(error)}{hint}") from None
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not getattr(config, "auto_map", None):
        raise ModelError(f"{title(folder)} is of type {config.model_type}, which is no image-text-to-text model")
    return config


def load_module(checkpoint: Checkpoint, options: EngineOptions, device: torch.device) -> PreTrainedModel:
    """The model with its adapter, in evaluation mode on a device.

    ``auto`` means float32 on the CPU and the checkpoint's own type elsewhere. In float32, convolutions do not
    fall back to TF32.

    Raises:
        UsageError: an unknown dtype or attention.
        ModelError: its generation config cannot be read, or its files do not hold all of its weights.
        Prerequisite: a package is missing.
    """
    import torch

    _check("dtype", options.dtype, DTYPES)
    _check("attention", options.attention, ATTENTION)
    if options.attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise Prerequisite("attention flash_attention_2 needs flash-attn, which is not installed: use sdpa")
    generation = checkpoint.folder / "generation_config.json"
    if generation.is_file():
        read_object(generation)  # transformers does without a file that it cannot read, and so without its end tokens
    dtype = "float32" if options.dtype == "auto" and device.type == "cpu" else options.dtype
    chosen = None if options.attention == "auto" else options.attention
    try:
        with quiet(weights=True):
            module = _load(checkpoint.folder, dtype, chosen, options.trust_remote_code)
            if checkpoint.adapter:
                module = _adapt(module, checkpoint.adapter)
            torch.nn.Module.to(module, device).train(mode=False)
    except ImportError as error:
        raise Prerequisite(f"{title(checkpoint.folder)} needs another package: {one_line(error)}") from None
    except (RuntimeError, MemoryError) as error:
        raise ModelError(f"{title(checkpoint.folder)} cannot be put on {device}: {one_line(error)}") from None
    if module.dtype == torch.float32:
        torch.backends.cudnn.allow_tf32 = False
    return module


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{name} {value!r} is not known: use one of {', '.join(known)}")


def _load(folder: Path, dtype: str, attention: str | None, trust_remote_code: bool) -> PreTrainedModel:
    from transformers import AutoModelForImageTextToText

    try:
        loaded = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported below, instead of an error that advises this option
            output_loading_info=True,
        )
    except ImportError:
        raise
    except Exception as error:  # a stranger's files may fail in any way
        raise ModelError(f"{title(folder)} cannot be loaded: {one_line(error)}") from None
    module, report = cast("tuple[PreTrainedModel, Mapping[str, Iterable[object]]]", loaded)
    missing = sorted(map(str, report["missing_keys"]))
    if missing:
        message = (
            f"{title(folder)}: its files do not hold {len(missing)} of the model's weights, {missing[0]} the first"
        )
        raise ModelError(f"{message}; they would be random: download or save the checkpoint again")
    mismatched = sorted(cast("Iterable[tuple[str, Sequence[int], Sequence[int]]]", report["mismatched_keys"]))
    if mismatched:
        name, held, wanted = mismatched[0]
        message = f"{title(folder)}: {len(mismatched)} of its weights have other shapes than its config says"
        shapes = f"{name} the first, {list(held)} instead of {list(wanted)}"
        raise ModelError(f"{message}, {shapes}: config.json and the weights are of different models")
    return module


def _adapt(module: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    try:
        from peft import PeftModel
    except ImportError:
        raise Prerequisite("a checkpoint that is an adapter needs peft: pip install 'prh[hf]'") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft still uses names that transformers has retired
            return cast("PreTrainedModel", PeftModel.from_pretrained(module, str(adapter)))
    except Exception as error:  # a stranger's files may fail in any way
        raise ModelError(f"the adapter {title(adapter)} cannot be put on its base: {one_line(error)}") from None


def base_model(module: PreTrainedModel) -> PreTrainedModel:
    """The model without the adapter around it."""
    unwrap = getattr(module, "get_base_model", None)
    return cast("PreTrainedModel", unwrap()) if callable(unwrap) else module


def versions() -> dict[str, str]:
    """Versions of the packages that decide what is computed."""
    names = ("torch", "transformers", "tokenizers", "peft", "PIL")
    found = {name: getattr(sys.modules.get(name), "__version__", "") for name in names}
    return {name: version for name, version in found.items() if version}
