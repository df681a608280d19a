"""What a run is made of, resolved from the command line, ``prh.toml``, the checkpoint, the task and the protocol."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from . import registry
from .digests import json_digest
from .errors import OperationError, UsageError
from .ledger import Conversation, MediaItem
from .operations import Operation, Outcome
from .protocol import Protocol, schemas
from .types import AnswerKind, BadCall, Box, Json, Limits, PixelBudget, Sample, Sampling, Size, Span, finite

Layer = tuple[str, Mapping[str, Json]]
DEFAULT_PROTOCOL = "pixel-reasoner"
CONFIG_KEYS = (
    "protocol",
    "profile",
    "padding",
    "operations",
    "limits",
    "budget",
    "sampling",
    "attention",
    "batch",
    "offline",
    "split",
    "max_error_share",
    "options_seed",
    "model_revision",
    "engine",
    "executor",
)
SECRET = ("key", "token", "secret", "password")
# Where lmms-eval's clients and the engine ``openai`` look for it.
SECRET_VARIABLES = {"api_key": "OPENAI_API_KEY"}
OTHER_TABLES = ("gate",)  # of prh.toml, read by other commands
T = TypeVar("T", Limits, PixelBudget, Sampling)


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything that decides what an episode is, besides the sample and the engine.

    Attributes:
        origins: for each resolved field, which layer gave it.
    """

    protocol: Protocol
    limits: Limits
    budget: PixelBudget
    sampling: Sampling
    seed: int
    origins: Mapping[str, str]

    def identity(self) -> dict[str, Json]:
        """What must be equal for two runs to be comparable and for a run to be resumed."""
        protocol = self.protocol
        return {
            "protocol": protocol.name,
            "prompt": prompt_digest(protocol),
            "operations": [operation.name for operation in protocol.operations],
            "padding": protocol.padding,
            "limits": cast(Json, asdict(self.limits)),
            "budget": budget_json(self.budget),
            "sampling": cast(Json, asdict(self.sampling)),
            "seed": self.seed,
        }


def read_config(path: Path | None) -> dict[str, Json]:
    """``prh.toml``: the given file, or the one in the working directory where there is one. Raises UsageError."""
    chosen = path or Path("prh.toml")
    if path is None and not chosen.is_file():
        return {}
    try:
        values = cast("dict[str, Json]", tomllib.loads(chosen.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UsageError(f"{chosen} cannot be read: {reason}") from None
    check_keys({key: value for key, value in values.items() if key not in OTHER_TABLES}, str(chosen))
    return values


def read_sets(sets: Sequence[str]) -> dict[str, Json]:
    """What ``--set`` gives: ``KEY=VALUE`` with dotted keys and values as TOML, else as text. Raises UsageError."""
    values: dict[str, Json] = {}
    for text in sets:
        key, equals, raw = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text!r} must be KEY=VALUE, such as limits.turns=3")
        try:
            value = cast(Json, tomllib.loads(f"value = {raw}")["value"])
        except (ValueError, RecursionError):
            value = raw[:200]
        put(values, key.strip(), value, f"--set {text!r}")
    return values


def put(values: dict[str, Json], key: str, value: Json, where: str) -> None:
    """Set what a dotted key names, in tables that are made where they are missing.

    Args:
        where: how the error begins.

    Raises:
        UsageError: a part of the key before the last has a value that is no table.
    """
    *tables, last = key.split(".")
    for name in tables:
        inner = values.setdefault(name, {})
        if not isinstance(inner, dict):
            raise UsageError(f"{where}: `{name}` has a value already")
        values = inner
    values[last] = value


def check_keys(values: Mapping[str, Json], where: str) -> None:
    """Refuse settings that do not exist, and secrets. Raises UsageError."""
    refuse_secrets(values, where)
    for key in values:
        if key not in CONFIG_KEYS:
            raise UsageError(f"{where}: `{key}` is not a setting; use one of {', '.join(CONFIG_KEYS)}")


def refuse_secrets(values: Mapping[str, Json], where: str, prefix: str = "") -> None:
    """Refuse a value under a name such as ``api_key``, which would be written into runs and reports. Raises UsageError.

    A name that is ``key`` and nothing else is an option of the engine ``lmms`` that holds the name of an argument.
    """
    for name, value in values.items():
        if isinstance(value, dict):
            refuse_secrets(value, where, f"{prefix}{name}.")
        elif name != "key" and name.lower().endswith(SECRET) and str(value).lower() not in ("", "true", "false"):
            variable = SECRET_VARIABLES.get(name.lower(), name.upper())
            raise UsageError(
                f"{where}: `{prefix}{name}` looks like a secret, and settings are written into the run; leave it out "
                f"and set the environment variable {variable}"
            )


def resolve(layers: Sequence[Layer], seed: int) -> Setting:
    """The setting from its layers, the weakest first. Raises UsageError."""
    origins: dict[str, str] = {}

    def pick(key: str, default: Json) -> Json:
        for layer, values in reversed(layers):
            if key in values:
                origins[key] = layer
                return values[key]
        origins[key] = "protocol"
        return default

    name = str(pick("protocol", DEFAULT_PROTOCOL))
    try:
        kind = cast("type[Protocol]", registry.load("protocols", name))
    except UsageError as error:
        raise UsageError(f"{origins['protocol']}: {error}") from None
    chosen = pick("operations", list(kind.operation_names))
    if not isinstance(chosen, list):
        raise UsageError(f"{origins['operations']}: `operations` must be a list of names, not {chosen!r}")
    if len(set(map(str, chosen))) < len(chosen):
        raise UsageError(f"{origins['operations']}: `operations` names one twice: {chosen}")
    operations = [cast(Operation, registry.make("operations", str(item))) for item in chosen]
    padding = pick("padding", kind.padding)
    share = finite(padding)
    if share is None or not 0 <= share <= 1:
        raise UsageError(f"{origins['padding']}: `padding` must be a share of the image from 0 to 1, not {padding!r}")
    protocol = kind(operations, share)
    limits = resolve_limits(protocol.limits, layers, origins)
    budget = resolve_budget(protocol.budget, layers, origins)
    sampling = resolve_sampling(Sampling(), layers, origins)
    if not 0 < sampling.top_p <= 1:
        raise UsageError(f"`sampling.top_p` must be above 0 and at most 1, not {sampling.top_p}")
    return Setting(protocol, limits, budget, sampling, seed, origins)


def prompt_digest(protocol: Protocol) -> str:
    """Digest of all that a protocol says by itself: its opening for each kind of answer, observations and errors."""
    nothing = Conversation("", "", lambda size, _: size, PixelBudget(*[Span(1, 1)] * 4))
    whole = Box(0, 0, 2, 2)
    image = MediaItem(1, "image", "", "", Size(2, 2), Size(2, 2), 0, 1, whole)
    nothing.items.append(image)
    crop = MediaItem(2, "crop", "", "", Size(2, 2), Size(2, 2), 1, 1, whole)
    frames = [MediaItem(number, "frame", "", "", Size(2, 2), Size(2, 2), 1, 1, whole, number) for number in (2, 3)]
    sizes = [Size(2, 2)] * 2
    said: list[object] = [
        [_probe(protocol.opening, _question(kind), nothing) for kind in get_args(AnswerKind)],
        _probe(protocol.render_observation, Outcome((), 1, noun="{noun}"), [crop], sizes, [image]),
        _probe(protocol.render_observation, Outcome((), 1, noun="{noun}"), frames, sizes, [image]),
        _probe(protocol.render_error, OperationError("parse", "{error}"), BadCall("{error}"), nothing),
        [protocol.stop(), protocol.observation_role, protocol.coordinates, protocol.working, protocol.answer_tag],
        [protocol.min_side, protocol.max_frames, protocol.length_answers],
    ]
    if protocol.native:
        said.append(schemas(protocol.declared()))
    return json_digest(repr(said))


def _question(kind: AnswerKind) -> Sample:
    return Sample("", "{question}", (), (), kind, ("{a}", "{b}") if kind == "option" else ())


def _probe(render: Callable[..., object], *arguments: object) -> object:
    """What a protocol renders for a probe; a protocol may refuse what it is never asked."""
    try:
        return render(*arguments)
    except Exception as error:  # a refusal is part of what it says
        return repr(error)


def budget_json(budget: PixelBudget) -> dict[str, Json]:
    """A budget as JSON: ``[fewest, most]`` pixels for each kind of image."""
    return {f.name: list(span) if (span := getattr(budget, f.name)) else None for f in fields(budget)}


def resolve_limits(base: Limits, layers: Sequence[Layer], origins: dict[str, str]) -> Limits:
    """Limits from layers, the weakest first. Raises UsageError naming the layer of a bad value."""
    limits = _resolve("limits", base, layers, origins, _whole)
    for name in ("turns", "images", "new_tokens", "tokens"):
        if getattr(limits, name) < 1:
            raise UsageError(f"{origins[f'limits.{name}']}: `limits.{name}` must be at least 1")
    return limits


def resolve_sampling(base: Sampling, layers: Sequence[Layer], origins: dict[str, str]) -> Sampling:
    """Sampling from layers, the weakest first."""
    return _resolve("sampling", base, layers, origins, _number)


def resolve_budget(base: PixelBudget, layers: Sequence[Layer], origins: dict[str, str]) -> PixelBudget:
    """Pixel budgets from layers, the weakest first; each value is ``[fewest, most]`` pixels."""
    return _resolve("budget", base, layers, origins, _span)


def _resolve(name: str, base: T, layers: Sequence[Layer], origins: dict[str, str], read: Any) -> T:
    known = {f.name for f in fields(base)}
    origins.update({f"{name}.{key}": "protocol" for key in known if f"{name}.{key}" not in origins})
    for layer, values in layers:
        section = values.get(name, {})
        if not isinstance(section, dict):
            raise UsageError(f"{layer}: `{name}` must be a table, not {section!r}")
        for key, value in section.items():
            if key not in known:
                raise UsageError(f"{layer}: `{name}.{key}` is not known; use one of {', '.join(sorted(known))}")
            base = replace(base, **{key: read(value, f"{layer}: `{name}.{key}`")})
            origins[f"{name}.{key}"] = layer
    return base


def _whole(value: Json, where: str) -> int:
    number = finite(value)
    if number is None or number != int(number) or number < 0:
        raise UsageError(f"{where} must be a whole number, not {value!r}")
    return int(number)


def _number(value: Json, where: str) -> float:
    number = finite(value)
    if number is None or number < 0:
        raise UsageError(f"{where} must be a number from 0, not {value!r}")
    return number


def _span(value: Json, where: str) -> Span | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise UsageError(f"{where} must be [fewest, most] pixels, not {value!r}")
    low, high = _whole(value[0], where), _whole(value[1], where)
    if not 0 < high >= low:
        raise UsageError(f"{where} must be [fewest, most] pixels with fewest <= most, not {value!r}")
    return Span(low, high)
