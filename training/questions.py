"""The questions that a reinforcement asks, and the order in which they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..harness import registry
from ..harness.errors import UsageError
from ..harness.evaluate import load_profile, load_task
from ..harness.manifest import check_samples, dataset_fingerprint
from ..harness.scoring import check_reads
from ..harness.settings import Layer, Setting, resolve
from ..harness.task import DataOptions, Profile, Task
from ..harness.types import Json, Sample
from .grpo_config import GrpoConfig, QueryPart

Query = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Questions:
    """The questions of one task, and how they are asked and scored.

    Attributes:
        samples: by id, in the task's order.
        setting: that of an evaluation, but for the sampling.
    """

    task: Task
    samples: Mapping[str, Sample]
    setting: Setting
    profile: Profile
    fingerprint: str


def gather(config: GrpoConfig, root: Path, defaults: Mapping[str, Json]) -> dict[str, Questions]:
    """The questions that a configuration names, by task. Raises PrhError."""
    found = {part.task: _questions(part, config, root, defaults) for part in config.data}
    total = sum(len(one.samples) for one in found.values())
    wanted = config.rollout.queries * config.rollout.waves
    if total < wanted:
        raise UsageError(f"a round may take {wanted} questions and the data hold {total}; lower rollout.queries")
    return found


def _questions(part: QueryPart, config: GrpoConfig, root: Path, defaults: Mapping[str, Json]) -> Questions:
    task = load_task(part.task)
    if part.editions > 1:
        kind = type(task)
        if not hasattr(task, "editions"):
            raise UsageError(f"data of {part.task}: only a synthetic miniature has editions")
        task = registry.guarded(f"task {part.task}", lambda: kind(part.editions))  # type: ignore[call-arg]
    options = DataOptions(root / part.data if part.data else None, "train")
    dataset = registry.guarded(f"task {part.task}", lambda: task.load(options))
    check_samples(dataset.samples, part.task)
    chosen = [one for one in dataset.samples if not part.slices or set(part.slices) & {one.category, *one.slices}]
    chosen = chosen[: part.limit or None]
    if not chosen:
        raise UsageError(f"data of {part.task}: no question of its train split is of `slices` {list(part.slices)}")
    profile = load_profile(config.rollout.profile)
    check_reads(profile, task)
    sampling: dict[str, Json] = {"temperature": config.rollout.temperature, "top_p": 1.0}
    layers: list[Layer] = [
        ("task", task.settings),
        ("prh.json", defaults),
        ("setting", config.setting),
        ("rollout", {"sampling": sampling}),
    ]
    setting = resolve(layers, config.train.seed)
    return Questions(task, {one.id: one for one in chosen}, setting, profile, dataset_fingerprint(chosen))


class Stream:
    """The order in which questions come: each once an epoch, in an order of that epoch's own."""

    def __init__(self, questions: Mapping[str, Questions], seed: int) -> None:
        self.queries: list[Query] = [(name, key) for name, one in questions.items() for key in one.samples]
        self.seed = seed

    def at(self, position: int) -> Query:
        """The question at a place of the stream, from 0."""
        epoch, place = divmod(position, len(self.queries))
        return self.queries[int(np.random.default_rng([self.seed, epoch]).permutation(len(self.queries))[place])]

    def take(self, position: int, count: int, without: Sequence[Query] = ()) -> tuple[list[Query], int]:
        """The next questions that are not among those at hand, and where the stream goes on."""
        found: list[Query] = []
        known = set(without)
        while len(found) < count:
            query = self.at(position)
            position += 1
            if query not in known:
                known.add(query)
                found.append(query)
        return found, position
