"""The configuration of a training: TOML into frozen records, every key and value checked."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TypeVar, cast, get_args, get_origin, get_type_hints

from ..harness.errors import UsageError
from ..harness.settings import put
from ..harness.types import Json
from .examples import MASKS, WEIGHINGS, check_choice
from .schedule import Optimisation
from .templates import KINDS

T = TypeVar("T")
DTYPES = ("float32", "bfloat16")
# The least value of every setting that is a number.
LOWEST = {
    **dict.fromkeys(("train.epochs", "train.batch", "train.micro", "data.longest"), 1),
    **dict.fromkeys(
        (
            "train.steps",
            "train.save",
            "train.keep",
            "train.seed",
            "data.cache",
            "data.answer",
            "eval.every",
            "eval.limit",
        ),
        0,
    ),
}


@dataclass(frozen=True, slots=True)
class ModelPart:
    """What is trained.

    Attributes:
        base: an embedded name, a hub id or a folder, a relative one counted from the working directory.
        dtype: of the weights that are updated.
        saved: dtype of the checkpoints, empty for ``dtype``; what is updated is kept beside it, to go on from.
        precision: ``no``, or ``bf16`` to compute in bfloat16 over weights of ``dtype``.
        attention: as ``prh eval`` has it.
        freeze: name patterns of parameters that stay as they are, such as ``model.visual.*``.
        checkpointing: compute activations twice to hold fewer of them.
    """

    base: str
    dtype: str = "float32"
    saved: str = ""
    precision: str = "no"
    attention: str = "auto"
    freeze: tuple[str, ...] = ()
    checkpointing: bool = False


@dataclass(frozen=True, slots=True)
class LoraPart:
    """A LoRA adapter; rank 0 trains the weights themselves.

    Attributes:
        targets: endings of module names, or a pattern for the whole name.
    """

    rank: int = 0
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class DataPart:
    """What is learned.

    Attributes:
        lessons: folders that `prh synth` wrote; a relative one is counted from the configuration's own.
        released: JSON files of released conversations, their images beside them; likewise.
        without: kinds of trajectories that are left out, such as ``recrop-once``.
        mask: ``flags``: turns are trained as their trajectories say; ``last-two``: as the release does; ``all``: every
            turn, erroneous operations included, for ablations.
        weigh: ``tokens``, ``samples`` or ``turns``; see ``training.examples.weigh``.
        answer: how many times as much a token of what stands in the last ``\\boxed{}`` counts: among the words of a
            trajectory a single letter is soon drowned.
        longest: most tokens of a trajectory.
        cache: bytes of encoded trajectories kept between epochs.
    """

    lessons: tuple[str, ...] = ()
    released: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    mask: str = "flags"
    weigh: str = "tokens"
    answer: float = 1.0
    longest: int = 16384
    cache: int = 4 << 30


@dataclass(frozen=True, slots=True)
class TrainPart:
    """How long and in what portions.

    Attributes:
        steps: how many, whatever the number of trajectories; 0 for as many as ``epochs`` have.
        batch: trajectories a step, over all processes.
        micro: most tokens, padding included, that go through the model at once on one process.
        packed: lay trajectories end to end instead of filling rows; needs an attention of variable length to pay.
        save: steps between checkpoints; 0 for one at the end of each epoch.
        keep: how many checkpoints before the last stay; 0 for all.
    """

    epochs: int = 1
    steps: int = 0
    batch: int = 32
    micro: int = 8192
    packed: bool = False
    save: int = 0
    keep: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class EvalPart:
    """The evaluation that runs as the training goes on.

    Attributes:
        tasks: none for no evaluation.
        every: steps between evaluations; 0 for one at each checkpoint.
        limit: samples of each task; 0 for all.
    """

    tasks: tuple[str, ...] = ()
    every: int = 0
    limit: int = 0


@dataclass(frozen=True, slots=True)
class SftConfig:
    """A supervised training.

    Attributes:
        setting: what ``prh.json`` of the checkpoints says, over that of the base: protocol, padding, budget, limits.
        trackers: of accelerate: ``wandb``, ``tensorboard``, ``trackio``.
    """

    model: ModelPart
    data: DataPart
    train: TrainPart = TrainPart()
    optim: Optimisation = field(default_factory=Optimisation)
    lora: LoraPart = LoraPart()
    eval: EvalPart = EvalPart()
    setting: Mapping[str, Json] = field(default_factory=dict)
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_choice(self.data.mask, MASKS, "data.mask")
        check_choice(self.data.weigh, WEIGHINGS, "data.weigh")
        for kind in self.data.without:
            check_choice(kind, KINDS, "data.without")
        check_model(self.model, self.lora)
        for name, low in LOWEST.items():
            table, key = name.split(".")
            value = getattr(getattr(self, table), key)
            if not low <= value < math.inf:
                raise UsageError(f"{name} must be a number from {low}, not {value}")
        if not self.data.lessons and not self.data.released:
            raise UsageError("data.lessons names no folder of trajectories; make one with `prh synth`")


def check_model(model: ModelPart, lora: LoraPart) -> None:
    """Refuse values that no training can have. Raises UsageError."""
    check_choice(model.precision, ("no", "bf16"), "model.precision")
    check_choice(model.dtype, DTYPES, "model.dtype")
    check_choice(model.saved, ("", *DTYPES), "model.saved")
    for name in ("rank", "alpha", "dropout"):
        if not 0 <= getattr(lora, name) < math.inf:
            raise UsageError(f"lora.{name} must be a number from 0, not {getattr(lora, name)}")
    if lora.dropout >= 1:
        raise UsageError(f"lora.dropout must be a share below 1, not {lora.dropout}")
    if lora.rank and not lora.targets:
        raise UsageError("lora.targets names no module")


def recipe_files() -> list[Traversable]:
    """The recipes that come with this package, and the launchers' configurations beside them."""
    found = files(__package__).joinpath("recipes").iterdir()
    return sorted((entry for entry in found if entry.is_file()), key=lambda entry: entry.name)


def read_recipe(name: str) -> tuple[dict[str, Json], Path]:
    """The values of a TOML file, or of a recipe of this package by its name, and where relative paths begin.

    Raises:
        UsageError: there is none, or it is not TOML.
    """
    path = Path(name)
    recipes = {Path(entry.name).stem: entry for entry in recipe_files() if entry.name.endswith(".toml")}
    try:
        if path.suffix == ".toml" or path.is_file():
            return cast("dict[str, Json]", tomllib.loads(path.read_text(encoding="utf-8"))), path.parent
        if name in recipes:
            return cast("dict[str, Json]", tomllib.loads(recipes[name].read_text(encoding="utf-8"))), Path()
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{name} cannot be read: {error}") from None
    raise UsageError(f"there is no file {name} and no recipe of that name; recipes: {', '.join(sorted(recipes))}")


def build(kind: type[T], values: Mapping[str, Json], where: str = "") -> T:
    """A record from a TOML table. Raises UsageError for a key that does not exist or a value of a wrong kind."""
    hints = get_type_hints(kind)
    known = {one.name: one for one in fields(cast("type", kind))}
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1) or sorted(known)
            raise UsageError(f"`{where}{key}` is not a setting; use {' or '.join(close)}")
    missing = [
        name
        for name, one in known.items()
        if one.default is MISSING and one.default_factory is MISSING and name not in values
    ]
    for name in missing:
        if not hasattr(hints[name], "__dataclass_fields__"):
            raise UsageError(f"`{where}{name}` is missing")
    given = {**dict.fromkeys(missing, cast(Json, {})), **values}
    return kind(**{key: _value(hints[key], value, f"{where}{key}") for key, value in given.items()})


def _value(hint: object, value: Json, where: str) -> object:
    if hasattr(hint, "__dataclass_fields__"):
        if not isinstance(value, dict):
            raise UsageError(f"`{where}` must be a table")
        return build(cast("type[object]", hint), value, f"{where}.")
    if get_origin(hint) is tuple:
        inner, count = get_args(hint)[0], 0 if get_args(hint)[-1] is ... else len(get_args(hint))
        if not isinstance(value, list) or (count and len(value) != count):
            raise UsageError(f"`{where}` must be a list{f' of {count}' if count else ''}, not {value!r}")
        return tuple(_value(inner, item, where) for item in value)
    if get_origin(hint) is not None:  # a table that is handed on as it is
        if not isinstance(value, dict):
            raise UsageError(f"`{where}` must be a table")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) >= 10**300:
            raise UsageError(f"`{where}` must be a number that can be computed with, below 1e300")
        return float(value)
    if not isinstance(value, cast(type, hint)) or (isinstance(value, bool) and hint is not bool):
        raise UsageError(f"`{where}` must be {_named(hint)}, not {value!r}")
    return value


def _named(hint: object) -> str:
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(
        cast(type, hint), str(hint)
    )


def override(values: dict[str, Json], sets: Sequence[str]) -> dict[str, Json]:
    """Values with ``KEY.KEY=VALUE`` of the command line over them, each VALUE in TOML or else a text."""
    for item in sets:
        key, found, text = item.partition("=")
        if not found or not key:
            raise UsageError(f"--set {item!r} must be KEY=VALUE, such as train.epochs=2")
        try:
            value = cast(Json, tomllib.loads(f"value = {text}")["value"])
        except tomllib.TOMLDecodeError:
            value = text
        except (ValueError, RecursionError):  # what Python itself does not take: digits or brackets by the thousand
            raise UsageError(f"--set {key}: its value is too long a number, or nested too deep") from None
        put(values, key, value, f"--set {key}")
    return values
