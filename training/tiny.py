"""``prh train tiny``: the embedded checkpoints, from random weights to the last, by one command.

    sight/     the vision tower alone learns what its tokens show
    practice/  drills about drawn pictures: to point, to read, to answer at once
    further/   the same from there on, with other drills; its end is ``tiny-base``
    lessons/   trajectories that ``prh synth`` makes of the miniatures' train splits
    warm/      a short warm start on them: ``tiny-warm``
    sft/       all of them to the end: ``tiny-sft``
    rl/        the warm start reinforced: ``tiny-rl``; beside it ``rl-no-curiosity/``
    evals/     the published checkpoints on the test splits, for their model cards

Each part goes on where it was interrupted, and is left alone where it is done.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from ..harness.settings import resolve
from ..harness.store import read_json, write_json
from ..harness.types import Json
from . import checkpoints
from .config import SftConfig, build, override, read_recipe
from .examples import check_choice
from .grpo import train as reinforce
from .grpo_config import GrpoConfig
from .learner import PRECISIONS
from .practice import PracticeConfig, practise
from .recipe import read
from .sft import train
from .sight import SightConfig, train_sight
from .synth import Order, Screen, synthesise
from .tiny_cards import write_card
from .trainable import open_trainable
from .watcher import Watcher

INIT = "tiny-init"
DTYPE = "bfloat16"


@dataclass(frozen=True, slots=True)
class TinyConfig:
    """The making of the embedded checkpoints.

    Attributes:
        lessons: the recipe of `prh synth` for their trajectories.
        warm, sft: configurations of `prh train sft`, their base and lessons left out.
        rl: the recipe of `prh train grpo` that reinforces the warm start; ``arms`` what is set over it, by name.
    """

    sight: SightConfig
    practice: PracticeConfig
    further: PracticeConfig
    lessons: str = "synth-mini"
    warm: Mapping[str, Json] = field(default_factory=dict)
    sft: Mapping[str, Json] = field(default_factory=dict)
    rl: str = "grpo-tiny"
    arms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def make(
    config: TinyConfig,
    out: Path,
    until: str,
    say: Callable[[str], None],
    watchers: tuple[Callable[[], Watcher], Callable[[], Watcher]] = (Watcher, Watcher),
) -> Path:
    """Make the checkpoints up to ``base``, ``warm``, ``sft`` or ``rl``; returns the last one's folder.

    Its weights are in bfloat16, whatever they were trained in.

    Args:
        watchers: of what learns from trajectories, and of reinforcement.

    Raises:
        PrhError: a setting does not fit, a folder holds something else, or a part ended early.
    """
    for name in ("sight", "practice", "further"):
        check_choice(getattr(config, name).precision, PRECISIONS, f"{name}.precision")
    start = time.process_time()
    base = make_base(config, out, say)
    made = publish(base, out / "tiny-base", say)
    if until == "base":
        return made
    lessons = out / "lessons"
    recipe, root = read_recipe(config.lessons)
    order = Order(read(override(recipe, ())), root, lessons, estimate=False, command=["prh", "train", "tiny"])
    synthesise(order, Screen())
    for part, values in (("warm", config.warm), ("sft", config.sft)):
        say(f"{part}: {time.process_time() - start:.0f} CPU seconds so far")
        final = train(_sft(values, base, lessons), out / part, Path(), watchers[0])
        made = publish(final, out / f"tiny-{part}", say)
        if part == until:
            return made
    for part, sets in config.arms.items():
        say(f"{part}: {time.process_time() - start:.0f} CPU seconds so far")
        recipe, root = read_recipe(config.rl)
        chosen = build(GrpoConfig, override(recipe, [*sets, f"model.base={json.dumps(str(out / 'tiny-warm'))}"]))
        made = publish(reinforce(chosen, out / part, root, watchers[1]), out / f"tiny-{part}", say)
    return made


def _sft(values: Mapping[str, Json], base: Path, lessons: Path) -> SftConfig:
    model: dict[str, Json] = {**cast("dict[str, Json]", values.get("model", {})), "base": str(base)}
    data: dict[str, Json] = {**cast("dict[str, Json]", values.get("data", {})), "lessons": [str(lessons)]}
    return build(SftConfig, {**values, "model": model, "data": data})


def make_base(config: TinyConfig, out: Path, say: Callable[[str], None]) -> Path:
    """Sight, then practice, twice. Raises PrhError."""
    engine, layers = open_trainable(INIT, "float32", config.practice.attention)
    setting = resolve([("prh.json", layers)], 0)
    seen = train_sight(config.sight, engine, setting, out / "sight", layers, say)
    practised = practise(replace(config.practice, base=str(seen)), out / "practice", say)
    return practise(replace(config.further, base=str(practised)), out / "further", say)


def publish(source: Path, target: Path, say: Callable[[str], None]) -> Path:
    """A copy of a checkpoint in bfloat16 and without the training's own files, with its card. Raises PrhError."""
    if (target / "README.md").is_file():
        return target
    if not target.is_dir():
        _copy(source, target)
    write_card(target, target.parent / "evals" / target.name, say)
    return target


def _copy(source: Path, target: Path) -> None:
    engine, layers = open_trainable(str(source), "float32", "eager")
    workplace = checkpoints.begin(target)
    engine.save(workplace, engine.module, DTYPE)
    write_json(workplace / "prh.json", dict(layers))
    write_json(workplace / checkpoints.MANIFEST, _portable(read_json(source / checkpoints.MANIFEST), target.parent))
    checkpoints.finish(workplace, target)


def _portable(value: Json, root: Path) -> Json:
    """A manifest whose paths below a folder are relative to it."""
    if isinstance(value, dict):
        return {key: _portable(part, root) for key, part in value.items()}
    if isinstance(value, list):
        return [_portable(part, root) for part in value]
    return value.removeprefix(f"{root.resolve()}/").removeprefix(f"{root}/") if isinstance(value, str) else value
