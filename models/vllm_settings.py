"""What vLLM is started with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path

from ..harness.engine import EngineOptions
from ..harness.errors import ModelError, UsageError
from ..harness.types import Json
from .checkpoint import ADAPTER, Checkpoint, read_object
from .loading import DTYPES
from .options import read_options, read_plain, refused

BACKENDS = ("mp", "ray")
# What vLLM makes room for where nothing is said, and the ranks it knows.
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
WEIGHTS = "adapter_model.safetensors"
# Modules that see, as the families that transformers knows call them.
TOWERS = ("visual", "vision_tower", "vision_model", "multi_modal_projector", "connector")
# What a launcher tells its processes of one another. vLLM's own would believe it: with torchrun's store they wait for
# a server that is not theirs (torch.distributed.rendezvous, ``TORCHELASTIC_USE_AGENT_STORE``).
LAUNCHED = (
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "ROLE_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
DEVICES = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class Settings:
    """The names and defaults of ``EngineOptions.extra``; 0 leaves the choice to vLLM.

    Attributes:
        tensor_parallel: GPUs that one copy of the model is spread over.
        data_parallel: copies of the model; a conversation stays with one, which keeps its cache.
        backend: ``mp`` on one machine, ``ray`` over the machines of a Ray cluster.
        memory: share of a GPU's memory that may be used.
        context: most tokens of prompt and reply together.
        rows: most conversations in a step.
        eager: without compiling or graphs: slower, but it starts at once.
        sleep: whether weights and cache can be put aside, as a trainer on the same GPU needs.
        lora_rank: the highest of adapters that come later; 0 where none does.
        tower_lora: whether adapters that come later may change the vision tower.
    """

    tensor_parallel: int = 1
    data_parallel: int = 1
    backend: str = "mp"
    memory: float = 0.9
    context: int = 0
    rows: int = 0
    eager: bool = False
    sleep: bool = False
    lora_rank: int = 0
    tower_lora: bool = False

    @classmethod
    def read(cls, extra: Mapping[str, str]) -> Settings:
        """Settings from text. Raises UsageError for an unknown name or a value that is none."""
        return read_options(cls, "vllm", extra, _read)


def _read(name: str, text: str, default: object) -> object:
    """One setting; the only number that is not whole is a share. Raises UsageError where the text is none."""
    if isinstance(default, str):
        if text not in BACKENDS:
            raise refused("vllm", name, f"one of {', '.join(BACKENDS)}", text)
        return text
    return read_plain("vllm", name, text, default, zero=default == 0, most=1 if isinstance(default, float) else inf)


def engine_arguments(checkpoint: Checkpoint, options: EngineOptions, settings: Settings) -> dict[str, object]:
    """The arguments of vLLM's ``AsyncEngineArgs``. Raises UsageError or ModelError."""
    if options.dtype not in DTYPES:
        raise UsageError(f"dtype {options.dtype!r} is not known: use one of {', '.join(DTYPES)}")
    arguments: dict[str, object] = {
        "model": str(checkpoint.folder),
        "tokenizer": str(checkpoint.holding("tokenizer_config.json")),
        "dtype": options.dtype,
        "trust_remote_code": options.trust_remote_code,
        "tensor_parallel_size": settings.tensor_parallel,
        "data_parallel_size": settings.data_parallel,
        "gpu_memory_utilization": settings.memory,
        "enforce_eager": settings.eager,
        "enable_sleep_mode": settings.sleep,
        "enable_prefix_caching": True,
        # Log-probabilities under the distribution that a token was drawn from, after temperature and bans.
        "logprobs_mode": "processed_logprobs",
        # Videos are shown as their frames.
        "limit_mm_per_prompt": {"video": 0},
        "disable_log_stats": True,
    }
    if settings.backend == "ray":
        arguments |= {"data_parallel_backend": "ray", "distributed_executor_backend": "ray"}
    arguments |= {"max_model_len": settings.context} if settings.context else {}
    arguments |= {"max_num_seqs": settings.rows} if settings.rows else {}
    if checkpoint.adapter is not None:
        arguments |= {"enable_lora": True, "max_lora_rank": lora_rank(checkpoint.adapter)}
    elif settings.lora_rank:
        arguments |= {"enable_lora": True, "max_lora_rank": fitting(settings.lora_rank, "engine.lora_rank")}
    # Without it vLLM leaves out what an adapter has for the vision tower, and says nothing.
    arguments |= {"enable_tower_connector_lora": True} if settings.tower_lora else {}
    return arguments


def changes_tower(adapter: Path) -> bool:
    """Whether an adapter has weights for the vision tower, or for what connects it. Raises ModelError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(adapter / WEIGHTS), framework="numpy") as file:
            names = list(file.keys())
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{adapter / WEIGHTS} cannot be read: {' '.join(str(error).split())[:200]}") from None
    return any(part in TOWERS for name in names for part in name.split("."))


def lora_rank(adapter: Path) -> int:
    """The least rank that vLLM knows and the adapter fits in. Raises ModelError."""
    return fitting(read_object(adapter / ADAPTER).get("r"), str(adapter / ADAPTER))


def fitting(rank: Json, where: str) -> int:
    """The least rank that vLLM knows and this one fits in. Raises ModelError."""
    found = [known for known in RANKS if isinstance(rank, int) and known >= rank > 0]
    if not found:
        raise ModelError(f"{where}: the rank {rank!r} cannot be served by vLLM: at most {RANKS[-1]}")
    return found[0]


def launched() -> int | None:
    """This process's GPU by number, where a launcher started several processes; else None."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    rank, local, size = (os.environ.get(name, "") for name in names)
    return int(local) if rank and local.isdigit() and size not in ("", "1") else None


def own_gpu(settings: Settings) -> None:
    """Refuse a vLLM on several GPUs where each of several processes has its own. Raises UsageError."""
    if settings.tensor_parallel * settings.data_parallel > 1:
        message = "each of several processes has a vLLM on its own GPU: leave tensor_parallel and data_parallel at 1"
        raise UsageError(f"{message}, or draw from a server")


@contextmanager
def alone(device: int | None) -> Iterator[None]:
    """While this is entered, processes that are started believe that no launcher started this one.

    Args:
        device: the only GPU that they see, counted among those that this process sees; None for all of them.
    """
    hidden = [name for name in os.environ if name in LAUNCHED or name.startswith("TORCHELASTIC_")]
    before = {name: os.environ.get(name) for name in (*hidden, DEVICES)}
    for name in hidden:
        del os.environ[name]
    if device is not None:
        seen = [name for name in (before[DEVICES] or "").split(",") if name]
        os.environ[DEVICES] = seen[device % len(seen)] if seen else str(device)
    try:
        yield
    finally:
        os.environ.pop(DEVICES, None)
        os.environ.update({name: value for name, value in before.items() if value is not None})
