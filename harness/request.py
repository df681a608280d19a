"""What is asked for: one model on one task, with the settings of the command line and of ``prh.toml``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .engine import EngineOptions
from .errors import UsageError
from .settings import Setting
from .task import DataOptions, Dataset, Selection, Task
from .types import Json, finite

DEFAULT_ERROR_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Request:
    """What to evaluate.

    Attributes:
        overrides: settings from the command line, the strongest layer.
        config: settings from ``prh.toml``.
        concurrency: episodes at once: more than the engine's batch, so that some are ready whenever a row is free.
    """

    model: str
    task: str
    out: Path
    engine: str | None = None
    data: Path | None = None
    revision: str | None = None
    selection: Selection = field(default_factory=Selection)
    repeats: int = 1
    seed: int = 0
    concurrency: int = 24
    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False
    overrides: Mapping[str, Json] = field(default_factory=dict)
    config: Mapping[str, Json] = field(default_factory=dict)
    command: Sequence[str] = ()

    def option(self, key: str, default: Json = None) -> Json:
        """A setting of the command line, else of ``prh.toml``."""
        return self.overrides.get(key, self.config.get(key, default))


def _offline(request: Request) -> bool:
    value = request.option("offline", False)  # noqa: FBT003 - the default of a setting
    if not isinstance(value, bool):
        raise UsageError(f"`offline` must be true or false, not {value!r}")
    return value


def _options_seed(request: Request) -> int:
    """The seed of shuffled options: apart from that of sampling, so that runs of several seeds stay comparable."""
    seed = request.option("options_seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UsageError(f"`options_seed` must be a whole number, not {seed!r}")
    return seed


def data_options(request: Request, task: Task) -> DataOptions:
    """Where the task's data come from. Raises UsageError."""
    return DataOptions(
        data=request.data,
        split=str(request.option("split", task.splits[0])),
        revision=request.revision,
        seed=_options_seed(request),
        offline=_offline(request),
    )


def engine_options(
    request: Request, setting: Setting, task: Task, dataset: Dataset, data: DataOptions
) -> EngineOptions:
    """What the engine is opened with. Raises UsageError."""
    batch = request.option("batch", EngineOptions().batch)
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise UsageError(f"`batch` must be a whole number from 1, not {batch!r}")
    train = DataOptions(None, "train", None, data.seed, data.offline)
    return EngineOptions(
        dtype=request.dtype,
        device=request.device,
        attention=str(request.option("attention", "auto")),
        batch=batch,
        trust_remote_code=request.trust_remote_code,
        revision=str(revision) if (revision := request.option("model_revision")) else None,
        offline=data.offline,
        protocol=setting.protocol.name,
        extra=_extra(request),
        samples=lambda: dataset.samples,
        train=lambda: task.load(train).samples,
    )


def _extra(request: Request) -> dict[str, str]:
    """Options of one engine alone, the table ``[engine]``; the engine checks their names."""
    table = request.option("engine", {})
    if not isinstance(table, dict):
        raise UsageError(f"`engine` must be a table, such as --set engine.factor=32, not {table!r}")
    return {name: str(value) for name, value in table.items()}


def error_share(request: Request) -> float:
    """The share of error episodes above which a run has failed. Raises UsageError."""
    share = finite(request.option("max_error_share", DEFAULT_ERROR_SHARE))
    if share is None or not 0 <= share <= 1:
        raise UsageError("`max_error_share` must be a share from 0 to 1, such as 0.05")
    return share
