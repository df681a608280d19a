"""The beginning of a checkpoint: drills about pictures that are drawn as they are needed, in stages.

Pictures are drawn beside the running step and stay in a pool for a while, so that each is met a few times, and
never again. What a step learns from depends on its number alone, so that an interrupted practice goes on to the
same end.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch

from ..harness.errors import StoreError
from ..harness.settings import Setting, resolve
from ..harness.store import write_json
from ..harness.types import Json
from . import checkpoints
from .batches import Batch, Feed, split
from .drills import Drill, drills
from .examples import Cache, Example, Weighing
from .exercises import Reduced, exercise
from .learner import FEATURES, Learner, computed_in, look, new_accelerator
from .pictures import Album
from .probe import Probe
from .publish import versions
from .schedule import Optimisation
from .shared import Bundle, collate_shared, width
from .trainable import Trainable, open_trainable
from .weights import load_weights

# What may change between the parts of a practice.
LOOSE = ("base", "micro", "probe", "save")
PARTS = ("overview", "closeup", "text", "attempt")
# What a drill counts, by kind: an overview is asked for many places at once, and for a reading only now and then.
WORTH = {"closeup": 4, "direct": 4, "side": 6, "choice": 4, "call": 4, "attempt": 4}


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a practice.

    Attributes:
        mix: how often overviews, close-ups, texts and attempts of a task are met, as ``{"vstar-mini/overview": 2.0}``.
        batch: pictures a step, overviews and close-ups; 0 for as many as otherwise.
        rate: how many times the rate that the schedule says.
        anew: whether it begins with optimizers that remember nothing of the stages before.
        fresh: pictures drawn anew each step; 0 for as many as otherwise. What has been met too often is learned by
            heart: with one a step and 32 to a batch, the loss falls and nothing else rises.
        tower: share of the rate at which the vision tower learns. Of a tower that sees already, 0 at first: what
            comes back from a language model that knows nothing yet is noise, and every update is as large as any.
    """

    steps: int
    mix: Mapping[str, Json]
    tower: float = 1.0
    rate: float = 1.0
    anew: bool = False
    batch: int = 0
    fresh: int = 0


@dataclass(frozen=True, slots=True)
class PracticeConfig:
    """A practice.

    Attributes:
        base: the checkpoint it begins with.
        batch: pictures a step, overviews and close-ups.
        micro: most tokens, padding included, that go through the model at once.
        fresh: pictures drawn anew each step; ``pool``: how many stay.
        questions: most about one overview at once.
        precision: as for ``SightConfig``.
        probe: steps between looks at pictures that are not practised; ``save``: between checkpoints.
    """

    base: str
    stages: tuple[Stage, ...]
    optim: Optimisation
    batch: int = 64
    micro: int = 8192
    fresh: int = 8
    pool: int = 2048
    questions: int = 8
    precision: str = "bf16"
    attention: str = "eager"
    weigh: str = "turns"
    seed: int = 0
    probe: int = 500
    save: int = 500

    def stage(self, step: int) -> Stage:
        """The stage that a step, from 0, belongs to."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]

    def last(self, step: int) -> int:
        """How many pictures have been drawn when a step, from 0, is taken, the first pool apart."""
        total = 0
        for stage in self.stages:
            taken = max(0, min(step + 1, stage.steps))
            total += taken * (stage.fresh or self.fresh)
            step -= stage.steps
        return total

    def drawing(self, number: int) -> Stage:
        """The stage in which a picture, from 0 after the first pool, is drawn."""
        for stage in self.stages:
            count = stage.steps * (stage.fresh or self.fresh)
            if number < count:
                return stage
            number -= count
        return self.stages[-1]

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)


def part(drill: Drill) -> str:
    """Which part of a mix a drill belongs to."""
    if not drill.frames:
        return "text"
    return "attempt" if drill.kind == "attempt" else "closeup" if drill.close else "overview"


class Kept:
    """The drills of one part about one picture, encoded when they are first met.

    Attributes:
        number: of the picture.
    """

    def __init__(self, number: int, drills: Sequence[Drill], alike: bool, encoded: Callable[[Drill], Example]) -> None:
        self.number = number
        self.drills = drills
        self._alike = alike
        self._encoded = encoded
        self._examples: dict[int, Example] = {}
        self._seen: dict[int, torch.Tensor] = {}

    def some(self, places: Sequence[int]) -> list[Example]:
        """The drills at these places."""
        for place in places:
            if place not in self._examples:
                self._examples[place] = self._encoded(self.drills[place])
        return [self._examples[place] for place in places]

    def seen(self, places: Sequence[int], look: Callable[[Example], torch.Tensor]) -> Bundle:
        """The drills at these places with what the frozen tower makes of their images instead of them.

        Args:
            look: runs the tower.
        """
        made = self.some(places)
        if not made[0].images:
            return made
        for place, one in zip(places, made, strict=True):
            if self._key(place) not in self._seen:
                self._seen[self._key(place)] = look(one)
        return [
            replace(one, images=(), inputs={FEATURES: self._seen[self._key(place)]})
            for place, one in zip(places, made, strict=True)
        ]

    def forget(self) -> None:
        """What a tower made of images that has learned since."""
        self._seen.clear()

    def _key(self, place: int) -> int:
        return 0 if self._alike else place


class Pool:
    """The drills about the last few pictures, by task and part."""

    def __init__(self, config: PracticeConfig, engine: Trainable, setting: Setting) -> None:
        self.config, self.engine, self.setting = config, engine, setting
        self._albums: dict[str, Album] = {}
        self._drawn: dict[str, int] = defaultdict(int)
        self._number = 0
        self._held: dict[str, deque[Kept]] = defaultdict(deque)

    def _name(self, number: int) -> str:
        """The task that the picture of this number is of: as often as its drills are met in that stage."""
        mix = self.config.drawing(number).mix
        weights: dict[str, float] = defaultdict(float)
        for key, weight in mix.items():
            weights[key.split("/")[0]] += float(cast(float, weight))
        rng = np.random.default_rng([self.config.seed, 1, number])
        return str(rng.choice(list(weights), p=np.array(list(weights.values())) / sum(weights.values())))

    def advance(self, step: int) -> None:
        """Draw what a step, from 0, needs that is not there yet, and let go of what is too old."""
        last = self.config.pool + self.config.last(step)
        first = last - self.config.pool
        while self._number < last:
            name = self._name(max(0, self._number - self.config.pool))
            place = self._drawn[name]
            self._drawn[name] += 1
            if self._number >= first:
                self._draw(name, place)
            self._number += 1
        for held in self._held.values():
            while held and held[0].number < first:
                held.popleft()

    def _draw(self, name: str, place: int) -> None:
        if name not in self._albums:
            self._albums[name] = Album(name, self.config.seed)
        rng = random.Random(f"{self.config.seed} {name} {place}")  # noqa: S311 - exercises, not secrets
        found: dict[str, list[Drill]] = defaultdict(list)
        for drill in drills(self._albums[name](place), rng):
            found[part(drill)].append(drill)
        encoded = partial(self._encoded, {})
        for which, some in found.items():
            self._held[f"{name}/{which}"].append(Kept(self._number, some, which != "closeup", encoded))

    def _encoded(self, seen: Reduced, drill: Drill) -> Example:
        how = cast(Weighing, self.config.weigh)
        made = exercise("drill", drill, self.engine, self.setting, how, seen)
        return replace(made, weights=made.weights * WORTH.get(drill.kind, 1))

    def _look(self, example: Example) -> torch.Tensor:
        """What the frozen tower makes of an example's images, alone, so that nothing depends on what stands beside."""
        halved = computed_in(self.config.precision) == "bf16"
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=halved):
            return look(self.engine, example.images)

    def forget(self) -> None:
        """What the tower made of images before it learned."""
        for held in self._held.values():
            for kept in held:
                kept.forget()

    def choose(self, step: int) -> list[Bundle]:
        """The bundles of a step, from 0: overviews with all their questions, and close-ups with one."""
        self.advance(step)
        stage = self.config.stage(step)
        mix = {key: float(cast(float, weight)) for key, weight in stage.mix.items()}
        keys = [key for key in mix if self._held.get(key)]
        weights = np.array([mix[key] for key in keys])
        rng = np.random.default_rng([self.config.seed, 2, step])
        picked = rng.choice(len(keys), size=stage.batch or self.config.batch, p=weights / weights.sum())
        chosen = [self._one(keys[place], rng) for place in picked]
        if stage.tower:
            return [kept.some(places) for kept, places in chosen]
        return [kept.seen(places, self._look) for kept, places in chosen]

    def _one(self, key: str, rng: np.random.Generator) -> tuple[Kept, list[int]]:
        held = self._held[key]
        kept = held[int(rng.integers(len(held)))]
        alone = key.endswith(("closeup", "attempt"))
        places = rng.permutation(len(kept.drills))[: 1 if alone else self.config.questions]
        return kept, [int(place) for place in places]


class PracticeFeed(Feed):
    """Micro-batches of drills."""

    def __init__(self, pool: Pool, engine: Trainable, config: PracticeConfig) -> None:
        nothing = Cache(lambda _: (), 0)
        super().__init__(
            nothing, engine.processor, count=0, batch=config.batch, micro=config.micro, seed=0, pad=engine.pad
        )
        self.pool = pool

    def step(self, step: int) -> list[Batch]:
        bundles = self.pool.choose(step)
        groups = split([width(bundle) for bundle in bundles], self.micro)
        return [collate_shared([bundles[place] for place in group], self.preparer, self.pad) for group in groups]


def practise(config: PracticeConfig, out: Path, say: Callable[[str], None]) -> Path:
    """Practise to the end, or go on where it ended; returns the last checkpoint. Raises PrhError."""
    engine, defaults = open_trainable(config.base, "float32", config.attention)
    setting = resolve([("prh.json", defaults)], 0)
    accelerator = new_accelerator(mixed_precision=computed_in(config.precision), cpu=True)
    learner = Learner(accelerator, engine.module, config.optim, config.steps)
    first = _go_on(config, learner, out)
    if first:
        say(f"going on after step {first}")
    tasks = {key.split("/")[0] for stage in config.stages for key in stage.mix}
    probe = Probe(tasks, config.micro, engine, setting)
    feed = PracticeFeed(Pool(config, engine, setting), engine, config)
    start, losses = time.process_time(), deque[float](maxlen=100)
    with engine.quickened():
        for done, loss in _steps(config, learner, feed, first):
            losses.append(loss)
            if done % config.probe == 0 or done == config.steps:
                seen = {key: round(value, 3) for key, value in probe(learner.model).items()}
                cpu, mean = time.process_time() - start, sum(losses) / len(losses)
                checkpoints.append_log(out, {"step": done, "cpu_seconds": cpu, "loss": mean, **seen})
                shown = "  ".join(f"{key} {value:.2f}" for key, value in seen.items())
                say(f"step {done}  cpu {cpu:.0f} s ({cpu / (done - first):.3f} a step)  loss {mean:.3f}  {shown}")
            if done % config.save == 0 or done == config.steps:
                _save(config, out, engine, learner, defaults, done)
    return checkpoints.place(out, config.steps)


def _steps(config: PracticeConfig, learner: Learner, feed: PracticeFeed, first: int) -> Iterator[tuple[int, float]]:
    """Take the steps from this one, from 0; how many are done, and the loss of the last.

    What a stage learns from is prepared when the stage before it has ended: a frozen tower is looked through then.
    """
    begin = 0
    for stage in config.stages:
        end = begin + stage.steps
        if first < end:
            learner.pace(stage.rate, stage.tower)
            if stage.anew and first <= begin:
                learner.forget()
            feed.pool.forget()
            for step, batches in enumerate(feed.steps(max(first, begin), end), max(first, begin)):
                yield step + 1, learner.update(step, batches).loss
        begin = end


def _go_on(config: PracticeConfig, learner: Learner, out: Path) -> int:
    """Take up the last checkpoint there is; the steps that are done. Raises PrhError."""
    out.mkdir(parents=True, exist_ok=True)
    found = checkpoints.latest(out)
    first = 0
    if not found and checkpoints.checkpoints(out):
        raise StoreError(f"{out} has checkpoints, and none can be gone on from; remove them or choose another --out")
    if found:
        checkpoints.check_recipe(found[1], cast("dict[str, Json]", asdict(config)), LOOSE)
        load_weights(learner.accelerator.unwrap_model(learner.model), found[1], "float32")
        first = checkpoints.load_states(found[1] / checkpoints.STATE, learner.optimizers)
    checkpoints.trim_log(out, first)
    return first


def _save(
    config: PracticeConfig, out: Path, engine: Trainable, learner: Learner, layers: Mapping[str, Json], step: int
) -> None:
    target = checkpoints.place(out, step)
    workplace = checkpoints.begin(target)
    engine.save(workplace, learner.accelerator.unwrap_model(learner.model), "float32")
    write_json(workplace / "prh.json", dict(layers))
    said: dict[str, Json] = {"schema": 1, "kind": "practice", "step": step, "config": cast(Json, asdict(config))}
    write_json(workplace / checkpoints.MANIFEST, {**said, "versions": versions()})
    checkpoints.save_states(workplace / checkpoints.STATE, [one.state_dict() for one in learner.optimizers], step)
    checkpoints.finish(workplace, target)
    checkpoints.prune(out, 2)
