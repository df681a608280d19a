"""From a round's recorded rollouts to what is learned of them: rewards, advantages, which rows make which update.

Everything here is a function of complete groups and of seeds: not of how many processes sampled them, of the order in
which they ended, or of where the training was interrupted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from statistics import fmean
from typing import Literal, cast

import numpy as np

from ..harness.record import Record, key_of
from ..harness.scoring import process_metrics, score_records
from ..harness.types import ERROR_STATES, EndState, Json
from .advantages import AdvantagePart
from .batches import step_seed
from .grpo_config import GrpoConfig
from .questions import Questions
from .replay import Entry, Store
from .rewards import Reward, Rollout, rollout
from .rollouts import Round

# End states at which an episode met a limit; an answer never follows.
OVER_LIMIT: tuple[EndState, ...] = ("turn_limit", "image_limit", "token_limit", "truncated", "malformed")
# The slice whose rates are told apart.
NEEDS = "needs_operation"

Left = Literal["", "error", "over_limit", "stray", "silent"]


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A rollout with what it is worth.

    Attributes:
        left: why nothing is learned from it, if so: an error, a limit, an id that only an image may bring, or no token.
        parts: what each term adds to its reward.
        advantage: None where nothing is learned from it, or its group teaches nothing.
    """

    task: str
    record: Record
    rollout: Rollout
    left: Left
    reward: float
    parts: Mapping[str, float]
    advantage: float | None = None

    @property
    def group(self) -> tuple[str, str]:
        """The question that it is about."""
        return self.task, str(self.record["id"])


def said(record: Record) -> list[dict[str, Json]]:
    """The assistant's turns of a record."""
    segments = cast("list[dict[str, Json]]", record["segments"])
    return [segment for segment in segments if segment["role"] == "assistant"]


class Jury:
    """Judges groups.

    Attributes:
        stray: ids that only an image may bring: a rollout with one is left out, whatever is decided of limits.
    """

    def __init__(self, config: GrpoConfig, reward: Reward, stray: Collection[int] = ()) -> None:
        self.config, self.reward = config, reward
        self.stray = frozenset(stray)

    def judge(self, own: Questions, records: Sequence[Record]) -> list[Judged]:
        """The rollouts of one task, group by group. Raises DataError, UsageError."""
        tag = own.setting.protocol.answer_tag
        rows = {(row.id, row.repeat): row for row in score_records(records, own.task, own.profile, tag)}
        found: list[Judged] = []
        for _, each in groupby(sorted(records, key=key_of), key=lambda record: record["id"]):
            group = list(each)
            seen = [rollout(one, rows.get(key_of(one)), own.task.primary, self.config.guards) for one in group]
            found += self._group(own.task.name, group, seen)
        return found

    def _group(self, task: str, records: Sequence[Record], seen: Sequence[Rollout]) -> list[Judged]:
        left = [self._left(record) for record in records]
        whole = [number for number, why in enumerate(left) if why != "error"]
        values, parts = self.reward([seen[number] for number in whole]) if whole else ([], {})
        judged = [Judged(task, *one, 0.0, {}) for one in zip(records, seen, left, strict=True)]
        for place, number in enumerate(whole):
            nothing = self.config.rollout.over_limit == "zero" and seen[number].end in OVER_LIMIT
            worth = 0.0 if nothing else values[place]
            own = {name: 0.0 if nothing else terms[place] for name, terms in parts.items()}
            judged[number] = replace(judged[number], reward=worth, parts=own)
        return _compared(judged, self.config.advantage)

    def _left(self, record: Record) -> Left:
        if record["end"] in ERROR_STATES:
            return "error"
        ids = [number for segment in said(record) for number in cast("list[int]", segment.get("ids") or ())]
        if not ids:
            return "silent"
        if not self.stray.isdisjoint(ids):
            return "stray"
        return "over_limit" if self.config.rollout.over_limit == "mask" and record["end"] in OVER_LIMIT else ""


def _compared(group: Sequence[Judged], part: AdvantagePart) -> list[Judged]:
    """A group with advantages among those of it that are learned."""
    counted = [number for number, one in enumerate(group) if not one.left]
    found = part.of([group[number].reward for number in counted])
    made = dict(zip(counted, found, strict=True)) if found else {}
    return [replace(one, advantage=made.get(number)) for number, one in enumerate(group)]


@dataclass(frozen=True, slots=True)
class Told:
    """What a round's groups came to.

    Attributes:
        live: groups with rewards that differ; ``uniform`` ones teach nothing.
    """

    live: int
    uniform: int
    values: Mapping[str, Json]


def tell(judged: Sequence[Judged]) -> Told:
    """The figures of a round, by the keys of the log. See ``grpo``."""
    groups: dict[tuple[str, str], list[Judged]] = {}
    for one in judged:
        groups.setdefault(one.group, []).append(one)
    live = sum(any(one.advantage is not None for one in group) for group in groups.values())
    sound = [one for one in judged if one.left != "error"]
    values: dict[str, Json] = {
        "groups": len(groups),
        "groups_filtered": len(groups) - live,
        "rollouts": len(judged),
        "errors": len(judged) - len(sound),
        "over_limit": sum(one.record["end"] in OVER_LIMIT for one in sound),
        "left_out": sum(bool(one.left) for one in sound),
        **_rates("", sound),
        **_rates(f".{NEEDS}", [one for one in sound if NEEDS in cast("list[str]", one.record["slices"])]),
        "reward": _mean([one.reward for one in sound]),
        **{f"reward.{name}": _mean([one.parts[name] for one in sound]) for name in (sound[0].parts if sound else ())},
        "response_tokens": _mean([float(one.rollout.tokens) for one in sound]),
    }
    return Told(live, len(groups) - live, values)


def _rates(suffix: str, judged: Sequence[Judged]) -> dict[str, Json]:
    """Accuracy, RaPR and op-error rate as the harness counts them; None where there is nothing to count."""
    metrics = process_metrics([one.record for one in judged])
    return {
        f"accuracy{suffix}": _mean([one.rollout.correct for one in judged]),
        f"rapr{suffix}": metrics["rapr"].value,
        f"op_error_rate{suffix}": metrics["op_error_rate"].value,
        f"operations{suffix}": metrics["operations"].value,
    }


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def trim(judged: Sequence[Judged], queries: Sequence[tuple[str, str]], count: int) -> list[Judged]:
    """The rollouts, but no more than ``count`` groups of them to be learned: the first that teach something."""
    live = {one.group for one in judged if one.advantage is not None}
    kept = set([query for query in queries if query in live][:count])
    return [one if one.group in kept else replace(one, advantage=None) for one in judged]


def entries(judged: Sequence[Judged], wanted: Round) -> list[Entry]:
    """The rollouts that something can be learned from, by task, id and repeat."""
    return sorted(
        Entry(wanted.number, one.task, *key_of(one.record), one.advantage, wanted.version)
        for one in judged
        if one.advantage is not None
    )


def plan(judged: Sequence[Judged], wanted: Round, store: Store, config: GrpoConfig) -> list[list[Entry]]:
    """What each update of a round learns from, in order; the store takes in what the round brought.

    Rollouts of a question stay together as far as they can, so that what they share is run once.
    """
    rng = np.random.default_rng(step_seed(config.train.seed, wanted.number, 1 << 20))
    fresh = entries(judged, wanted)
    store.add(wanted.number, fresh)
    rows = store.select(fresh, config.rows, rng)
    groups: dict[tuple[int, str, str], list[Entry]] = {}
    for one in sorted(rows):
        groups.setdefault((one.round, one.task, one.id), []).append(one)
    order = [key for _, key in sorted(zip(rng.permutation(len(groups)).tolist(), groups, strict=True))]
    laid = [one for key in order for one in groups[key]]
    bounds = [len(laid) * number // config.updates for number in range(config.updates + 1)]
    return [laid[start:end] for start, end in pairwise(bounds)]


def deal(rows: Sequence[Entry], sizes: Sequence[int], world: int) -> list[list[int]]:
    """The places of an update's rows for each process: rollouts of a question together, about as much for each.

    Args:
        sizes: tokens of each row.
    """
    groups: dict[tuple[int, str, str], list[int]] = {}
    for place, one in enumerate(rows):
        groups.setdefault((one.round, one.task, one.id), []).append(place)
    loads = [0] * world
    dealt: list[list[int]] = [[] for _ in range(world)]
    for places in sorted(groups.values(), key=lambda places: (-sum(sizes[place] for place in places), places)):
        rank = loads.index(min(loads))
        loads[rank] += sum(sizes[place] for place in places)
        dealt[rank] += places
    return dealt
