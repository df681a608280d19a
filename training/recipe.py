"""What ``prh synth`` is asked for: a recipe in TOML as frozen records, and the setting that it means."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import cast

from ..harness import registry
from ..harness.digests import json_digest
from ..harness.errors import UsageError
from ..harness.evaluate import find_engine
from ..harness.settings import CONFIG_KEYS, Setting, resolve
from ..harness.types import Json, finite
from .config import build
from .geometry import Grid
from .teachers.asking import served_name
from .templates import KINDS, Kind

TEACHERS = ("annotation", "endpoint", "rejection")


@dataclass(frozen=True, slots=True)
class SourcePart:
    """One source of seeds and what is made of them.

    Attributes:
        name: of the plugin.
        data: where its data are, relative to the recipe.
        split: a training split; any other is refused.
        count: trajectories wanted; 0 for one of every seed.
        each: most trajectories of one seed.
        label: what the yield and the card call it; the plugin's name by default.
        mix: weights of kinds; the paper's by default.
        settings: of the plugin alone.
    """

    name: str
    data: str = ""
    split: str = "train"
    count: int = 0
    each: int = 1
    label: str = ""
    teacher: str = "annotation"
    mix: Mapping[str, Json] = field(default_factory=dict)
    settings: Mapping[str, Json] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Its label, or the plugin's name."""
        return self.label or self.name

    def weights(self) -> dict[Kind, float]:
        """The mix, checked; empty for the paper's. Raises UsageError."""
        found: dict[Kind, float] = {}
        for name, value in self.mix.items():
            weight = finite(value)
            if name not in KINDS:
                close = difflib.get_close_matches(name, KINDS, n=2) or KINDS
                raise UsageError(
                    f"source {self.title}: `mix.{name}` is no kind of trajectory; use {' or '.join(close)}"
                )
            if weight is None or weight < 0:
                raise UsageError(f"source {self.title}: `mix.{name}` must be a number from 0, not {value!r}")
            found[name] = weight
        if found and not any(found.values()):
            raise UsageError(f"source {self.title}: `mix` leaves nothing; give a kind a weight above 0")
        return {kind: weight for kind, weight in found.items() if weight}


@dataclass(frozen=True, slots=True)
class SynthPart:
    """What holds for all sources.

    Attributes:
        grid: what the edges of boxes are rounded outwards to, as a share of the image.
        frames: most frames that one call selects.
        factor: patch size x merge size of the model that is to learn; 0 for that of ``checkpoint``, else 28.
        overview: whether annotations say something of the whole input before the first call.
        checkpoint: whose ``prh.json`` gives protocol, budgets and limits; written ``for`` in a recipe.
        against: the evaluation sets whose images are kept out: ``all``, names of tasks, or NAME=FOLDER.
    """

    seed: int = 0
    grid: float = 0.01
    frames: int = 8
    factor: int = 0
    overview: bool = True
    checkpoint: str = ""
    against: tuple[str, ...] = ("all",)


@dataclass(frozen=True, slots=True)
class EndpointPart:
    """The teacher ``endpoint``.

    Attributes:
        model: what the harness's engines open, such as ``http://host:port/v1#NAME``.
        tries: requests for one trajectory before it is given up.
        pixels: most pixels of an image that is sent.
        engine: options of the engine alone.
    """

    model: str = ""
    tries: int = 3
    temperature: float = 0.7
    new_tokens: int = 600
    pixels: int = 1280 * 28 * 28
    engine: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RejectionPart:
    """The teacher ``rejection``.

    Attributes:
        model: what the harness's engines open.
        samples: replies drawn to a question; the first that is right is kept.
        protocol: how the model is asked; one without tools.
        profile: how its answers are read.
        setting: as in ``prh.toml``, over its own ``prh.json``.
        engine: options of the engine alone.
    """

    model: str = ""
    samples: int = 4
    temperature: float = 1.0
    top_p: float = 1.0
    new_tokens: int = 1024
    protocol: str = "direct"
    profile: str = "strict"
    setting: Mapping[str, Json] = field(default_factory=dict)
    engine: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TeacherPart:
    """Teachers that ask a model."""

    endpoint: EndpointPart = EndpointPart()
    rejection: RejectionPart = RejectionPart()


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is to be made.

    Attributes:
        setting: as in ``prh.toml``: protocol, padding, operations, limits, budget.
    """

    source: tuple[SourcePart, ...]
    synth: SynthPart = SynthPart()
    teacher: TeacherPart = TeacherPart()
    setting: Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Grid.of(self.synth.grid)
        for name, least in (("frames", 1), ("factor", 0)):
            if getattr(self.synth, name) < least:
                raise UsageError(f"`synth.{name}` must be a whole number from {least}")
        for key in self.setting:
            _known(key, CONFIG_KEYS, f"`setting.{key}` is not a setting")
        if not self.source:
            raise UsageError("the recipe has no [[source]]; `prh list sources` shows what there is")
        for part in self.source:
            part.weights()
            _known(part.teacher, TEACHERS, f"source {part.title}: there is no teacher {part.teacher!r}")
            if part.count < 0 or part.each < 1:
                raise UsageError(f"source {part.title}: `count` must be from 0 and `each` from 1")

    def json(self) -> Json:
        """All of it, as a manifest keeps it."""
        return cast(Json, json.loads(json.dumps(asdict(self))))

    def digest(self) -> str:
        """What must be the same for a run to go on; a server may have moved."""
        endpoint, rejection = self.teacher.endpoint, self.teacher.rejection
        endpoint = replace(endpoint, model=served_name(endpoint.model))
        rejection = replace(rejection, model=served_name(rejection.model))
        return json_digest(replace(self, teacher=TeacherPart(endpoint, rejection)).json())


def _known(name: str, known: tuple[str, ...], fault: str) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, n=2, cutoff=0.4) or known
        raise UsageError(f"{fault}; use {' or '.join(close)}")


def read(values: Mapping[str, Json]) -> Recipe:
    """A recipe from its values. Raises UsageError for what does not exist or is no value."""
    values = dict(values)
    synth = values.get("synth")
    if isinstance(synth, dict) and "for" in synth:
        values["synth"] = {**{key: value for key, value in synth.items() if key != "for"}, "checkpoint": synth["for"]}
    return build(Recipe, values)


def setting_of(recipe: Recipe) -> Setting:
    """The protocol, budgets and limits at which trajectories are performed. Raises UsageError, ModelError."""
    name = recipe.synth.checkpoint
    defaults = registry.guarded(f"the engine of {name}", lambda: find_engine(name, None).defaults(name)) if name else {}
    return resolve([("prh.json", defaults), ("recipe", recipe.setting)], recipe.synth.seed)


def factor_of(recipe: Recipe) -> int:
    """The sides of what an image is resized to are multiples of this, in pixels."""
    if recipe.synth.factor:
        return recipe.synth.factor
    path = Path(recipe.synth.checkpoint) / "preprocessor_config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8")) if recipe.synth.checkpoint else {}
        return int(values["patch_size"]) * int(values["merge_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return 28
