"""``prh train sft``: learn the trajectories that are there, turn by turn, and say on the way what came of it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import cast

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers
from PIL import Image

from ..harness import registry
from ..harness.digests import json_digest
from ..harness.errors import DataError, Prerequisite, StoreError, UsageError
from ..harness.ledger import Conversation, MediaRef, Segment, Text
from ..harness.media import Media
from ..harness.request import Request, data_options
from ..harness.settings import Setting, check_keys, resolve
from ..harness.store import read_json
from ..harness.task import Task
from ..harness.types import Json
from . import checkpoints
from .config import DataPart, SftConfig
from .examples import Example, encode
from .loop import Run, SftTraining, T, Training, Work, flat, write_checkpoint
from .released import Rule, released_lessons
from .trainable import Trainable, open_trainable
from .trajectories import Lesson, read_lessons
from .watcher import Watcher
from .weights import load_weights

__all__ = ["Run", "Training", "Watcher", "gather", "load_weights", "prepare", "train", "write_checkpoint"]

BLANK = 56
# What may change between the parts of a training: how a step is computed and what is kept, not what comes of it.
LOOSE = {
    "model": ("base", "checkpointing"),
    "data": ("lessons", "released", "without", "longest", "cache"),
    "train": ("micro", "save", "keep"),
}


def gather(config: SftConfig, root: Path) -> list[Lesson]:
    """The lessons that a configuration names. Raises DataError, StoreError or UsageError."""
    lessons: list[Lesson] = []
    for name in config.data.lessons:
        found = read_lessons(root / name)
        if not found:
            raise DataError(f"{root / name} holds no trajectory that ended in an answer")
        lessons += found
    lessons = _without(lessons, config.data)
    rule: Rule = "positional" if config.data.mask == "last-two" else "derived"
    for name in config.data.released:
        path = root / name
        if not path.is_file():
            raise DataError(f"data.released: there is no file {path}; give the release's JSON file, unpacked")
        told = list(released_lessons(path, path.parent, rule))
        if not told:
            raise DataError(f"{path} holds no conversation")
        lessons += told
    idle = next((one.name for one in lessons if not any(said.trained for said in one.script)), None)
    if config.data.mask == "flags" and idle is not None:
        raise DataError(f"{idle}: no turn of it is marked as trained; leave it out, or take data.mask = 'last-two'")
    names = [lesson.name for lesson in lessons]
    if len(set(names)) < len(names):
        lessons = [replace(lesson, name=f"{number}:{lesson.name}") for number, lesson in enumerate(lessons)]
    return lessons


def _without(lessons: Sequence[Lesson], data: DataPart) -> list[Lesson]:
    """The lessons but for the kinds that are left out. Raises UsageError where that does not do what it says."""
    if data.without and data.released:
        raise UsageError("data.without: released conversations do not say of which kind they are; give lessons alone")
    kinds = {str(lesson.provenance.get("template")) for lesson in lessons}
    for kind in data.without:
        if kind not in kinds:
            raise UsageError(f"data.without: there is no trajectory of kind {kind}, only {', '.join(sorted(kinds))}")
    kept = [lesson for lesson in lessons if lesson.provenance.get("template") not in data.without]
    if lessons and not kept:
        raise UsageError("data.without leaves no trajectory to learn")
    return kept


def digest(lessons: Sequence[Lesson]) -> str:
    """SHA-256 of what is said and shown in lessons."""

    def content(lesson: Lesson) -> list[Json]:
        shown: list[Json] = [media.digest() for media in lesson.sample.media]
        said: list[Json] = [[one.text, one.trained] for one in lesson.script]
        sample = lesson.sample
        return [lesson.name, sample.question, list(sample.choices), sample.answer_kind, shown, said]

    return json_digest([*map(content, lessons)])


def prepare(config: SftConfig, out: Path, root: Path) -> SftTraining:
    """Open everything a training needs and check that it fits together. Raises PrhError."""
    check_keys(config.setting, "setting")
    check_trackers(config.trackers)
    check_tasks(config.eval.tasks)
    lessons = gather(config, root)
    engine, defaults = open_trainable(config.model.base, config.model.dtype, config.model.attention)
    setting = resolve([("prh.json", defaults), ("setting", config.setting)], 0)
    pinned: dict[str, Json] = {"protocol": setting.protocol.name, "padding": setting.protocol.padding}
    epoch = -(-len(lessons) // config.train.batch)
    plain = cast("dict[str, dict[str, Json]]", asdict(config))
    parts: dict[str, Json] = {
        name: {key: value for key, value in plain[name].items() if key not in LOOSE.get(name, ())}
        for name in ("model", "data", "train", "optim", "lora")
    }
    if not config.train.steps:  # as many as the epochs have
        cast("dict[str, Json]", parts["train"]).pop("steps")
    return SftTraining(
        config=config,
        out=out,
        base=config.model.base,
        engine=engine,
        lessons=lessons,
        setting=setting,
        layers={**joined(defaults, config.setting), **pinned},
        blank=blank(engine, setting),
        epoch=epoch,
        steps=config.train.steps or epoch * config.train.epochs,
        identity={
            "base": engine.fingerprint,
            "trajectories": digest(lessons),
            "setting": setting.identity(),
            **plain_parts(parts),
        },
    )


def plain_parts(parts: Mapping[str, Json]) -> dict[str, Json]:
    """Parts as they are read back from a manifest, lists for tuples."""
    return {
        name: {key: list(value) if isinstance(value, tuple) else value for key, value in part.items()}
        for name, part in cast("Mapping[str, dict[str, Json]]", parts).items()
    }


def joined(base: Mapping[str, Json], over: Mapping[str, Json]) -> dict[str, Json]:
    """One layer of settings over another, table by table, as both together are resolved."""
    joined = dict(base)
    for key, value in over.items():
        below = joined.get(key)
        joined[key] = {**below, **value} if isinstance(below, dict) and isinstance(value, dict) else value
    return joined


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that accelerate does not know, or that are not installed. Raises UsageError, Prerequisite."""
    there = [str(one) for one in get_available_trackers()]
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise UsageError(f"trackers: there is no {name!r}; use one of {', '.join(sorted(LOGGER_TYPE_TO_CLASS))}")
        if name not in there:
            raise Prerequisite(f"trackers: {name} is not installed: pip install {name}")


def check_tasks(names: Sequence[str]) -> None:
    """Find out now, and not at the first evaluation, whether a task's data are there."""
    for name in names:
        task = cast(Task, registry.make("tasks", name))
        options = data_options(Request("", name, Path()), task)
        registry.guarded(f"task {name}", partial(task.load, options))


def blank(engine: Trainable, setting: Setting) -> Example:
    """An example without loss that shows one image."""
    conversation = Conversation("blank", "blank", engine.fit, setting.budget)
    picture = Image.new("RGB", (BLANK, BLANK))
    conversation.open([Media("image", "blank", _png(picture))])
    conversation.commit(Segment("user", (MediaRef(1), Text(" "))))
    conversation.commit(Segment("assistant", (Text(" "),), trained=True))
    made = encode("blank", conversation, engine, "tokens", 1 << 30)
    return replace(made, weights=made.weights * 0)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def train(
    config: SftConfig,
    out: Path,
    root: Path,
    watcher: Callable[[], Watcher] = Watcher,
    trackers: Sequence[GeneralTracker] = (),
) -> Path:
    """Train, or go on where a training of the same things ended; returns the last checkpoint.

    Args:
        root: where relative paths of data begin.
        watcher: makes what is told of it, on the main process.
        trackers: of accelerate, beside those that the configuration names.

    Raises:
        PrhError: a setting, the data or the base do not fit, or the folder holds something else.
    """
    return conduct(out, lambda: prepare(config, out, root), lambda training: Run(training, watcher(), trackers))


def conduct(out: Path, prepare: Callable[[], T], run: Callable[[T], Work[T]]) -> Path:
    """Prepare a training and run it in a folder that is held against others. Raises PrhError."""
    if not (out / checkpoints.MANIFEST).is_file() and not checkpoints.is_free(out):
        raise StoreError(f"{out} exists and is no training's folder; choose another --out")
    training = prepare()
    with checkpoints.claimed(out) if os.environ.get("RANK", "0") == "0" else nullcontext():
        if (out / checkpoints.MANIFEST).is_file():
            _check_same(read_json(out / checkpoints.MANIFEST), training)
        return run(training).go()


def _check_same(held: Mapping[str, Json], training: Training) -> None:
    identity = held.get("identity")
    if not isinstance(identity, dict):
        path = training.out / checkpoints.MANIFEST
        raise StoreError(f"{path} does not say what was trained; was it edited? restore it, or choose another --out")
    before = flat(identity)
    now = flat(training.identity)
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            message = f"{training.out} holds a training with another `{key}`"
            raise UsageError(f"{message}: {before.get(key)} there, {now.get(key)} here; choose another --out")
