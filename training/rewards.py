"""What a rollout is worth: terms over complete groups, each a plugin of the group ``prh.rewards``.

A term is a class whose constructor takes its settings by name, all with defaults; its instances are called with
every rollout of one question and give a number for each. Sources: Pixel Reasoner (arXiv 2505.15966, section 4) and
its released ``experience_maker.py``; DeepEyes' released ``vl_agent`` reward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import Protocol, cast

from ..harness import registry
from ..harness.errors import UsageError
from ..harness.record import Record
from ..harness.task import Row
from ..harness.types import Box, EndState, Json, finite
from .config import build

WEIGHT = "weight"


@dataclass(frozen=True, slots=True)
class Rollout:
    """One rollout as terms see it.

    Attributes:
        end: how it ended.
        correct: the primary metric of the task's own scorer, from 0 to 1.
        readable: whether an answer was read in its end.
        calls: operations attempted, failed ones included.
        used: of these, the ones that the guards let count.
        unread: calls that could not be read as such.
        unresolved: whether the last operation before its end failed.
        video: whether the question shows a video.
        tokens: how many were said.
        record: all that is known of it, as its run keeps it.
    """

    end: EndState = "answered"
    correct: float = 0.0
    readable: bool = True
    calls: int = 0
    used: int = 0
    unread: int = 0
    unresolved: bool = False
    video: bool = False
    tokens: int = 0
    record: Record = field(default_factory=dict)


Group = Sequence[Rollout]


class Term(Protocol):
    """One term of a reward."""

    def __call__(self, group: Group) -> Sequence[float]:
        """A number for each rollout of one question, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Guards:
    """Which operations count as such where a term pays for them. Without any, every attempt does, as in the paper.

    Attributes:
        succeed: one that failed does not count.
        whole: nor one that shows this share of what it was cut from, or more; 0 lets any count.
        repeat: nor one that shows what an earlier one has shown.
    """

    succeed: bool = False
    whole: float = 0.0
    repeat: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.whole <= 1:
            raise UsageError(f"guards.whole must be a share from 0 to 1, not {self.whole}")

    def count(self, record: Record) -> int:
        """How many of a rollout's operations count."""
        seen: set[str] = set()
        counted = 0
        media = {item["index"]: item for item in cast("list[dict[str, Json]]", record["media"])}
        for operation in cast("list[dict[str, Json]]", record["operations"]):
            shows = repr([operation[name] for name in ("name", "media", "root_box", "frames")])
            again = operation["error"] is None and shows in seen
            seen |= {shows} if operation["error"] is None else set()
            if self.succeed and operation["error"] is not None:
                continue
            if self.whole and operation["error"] is None and _share(operation, media) >= self.whole:
                continue
            counted += not (self.repeat and again)
        return counted


def _share(operation: Mapping[str, Json], media: Mapping[Json, Mapping[str, Json]]) -> float:
    """How much of what an operation was applied to it shows: of an image's area, or of a video's frames."""
    source = media[operation["media"]]
    frames = cast("list[int]", operation["frames"])
    if frames:
        return len(set(frames)) / max(1, len(cast("list[str]", source["frames"])))
    box = cast("list[float] | None", operation["root_box"])
    if box is None:
        return 0.0
    return Box(*box).area / max(1.0, Box(*cast("list[float]", source["root_box"])).area)


def rollout(record: Record, row: Row | None, primary: str, guards: Guards) -> Rollout:
    """A recorded rollout as terms see it.

    Args:
        row: how the task judged it; None for one that ended in an error.
    """
    operations = cast("list[dict[str, Json]]", record["operations"])
    return Rollout(
        end=cast(EndState, record["end"]),
        correct=row.scores[primary] if row else 0.0,
        readable=bool(row and row.answer is not None),
        calls=len(operations),
        used=guards.count(record),
        unread=sum(operation["error"] == "parse" for operation in operations),
        unresolved=bool(operations) and operations[-1]["error"] is not None,
        video=any(item["kind"] == "video" for item in cast("list[dict[str, Json]]", record["media"])),
        tokens=cast("dict[str, int]", record["usage"])["new_tokens"],
        record=record,
    )


def rate(group: Group) -> float:
    """RaPR of a group: the share of its rollouts with an operation that counts."""
    return sum(one.used > 0 for one in group) / len(group)


@dataclass(frozen=True, slots=True)
class Correct:
    """What the task's own scorer gives.

    Attributes:
        unreadable: for a rollout in which no answer is read; -1 in the release.
        unresolved: whether an answer right after a failed operation is worth nothing, as in the release.
    """

    unreadable: float = 0.0
    unresolved: bool = False

    def __call__(self, group: Group) -> list[float]:
        return [self._one(one) for one in group]

    def _one(self, one: Rollout) -> float:
        if not one.readable:
            return self.unreadable
        return 0.0 if self.unresolved and one.unresolved else one.correct


@dataclass(frozen=True, slots=True)
class CuriosityPaper:
    """The paper's bonus for operations where a group seldom uses them, and its price of each beyond ``calls``.

    ``alpha * max(target - RaPR, 0) * [used] + beta * min(calls - n, 0)``
    """

    alpha: float = 0.5
    beta: float = 0.05
    target: float = 0.3
    calls: int = 1

    def __call__(self, group: Group) -> list[float]:
        bonus = self.alpha * max(self.target - rate(group), 0.0)
        return [bonus * (one.used > 0) + self.beta * min(self.calls - one.calls, 0) for one in group]


@dataclass(frozen=True, slots=True)
class CuriosityReleased:
    """The bonus as the release computes it: divided by the call rate, less for images than for videos.

    ``max(target - RaPR, 0) / d * 0.25 / RaPR - beta * (n - 1)`` for a rollout that calls, d = 2 for an image and 1.5
    for a video; nothing for one that does not.
    """

    beta: float = 0.05
    target: float = 0.3
    image: float = 2.0
    video: float = 1.5
    scale: float = 0.25

    def __post_init__(self) -> None:
        if self.image <= 0 or self.video <= 0:
            raise UsageError("reward.curiosity-released: `image` and `video` divide and must be above 0")

    def __call__(self, group: Group) -> list[float]:
        share = rate(group)
        gap = max(self.target - share, 0.0)

        def one(rollout: Rollout) -> float:
            bonus = gap / (self.video if rollout.video else self.image) * self.scale / share if rollout.used else 0.0
            return bonus - self.beta * (rollout.calls - 1) * (rollout.calls > 0)

        return [one(rollout) for rollout in group]


@dataclass(frozen=True, slots=True)
class Format:
    """Whether a rollout ends in an answer that can be read, after calls that could all be read."""

    right: float = 0.0
    wrong: float = -1.0

    def __call__(self, group: Group) -> list[float]:
        return [self.right if one.readable and not one.unread else self.wrong for one in group]


@dataclass(frozen=True, slots=True)
class ConditionalTool:
    """DeepEyes' bonus: 1 for an answer that is right and was found with an operation.

    Attributes:
        least: from what value of the task's metric on an answer is right.
    """

    least: float = 0.5

    def __call__(self, group: Group) -> list[float]:
        return [float(one.readable and one.correct > self.least and one.used > 0) for one in group]


@dataclass(frozen=True, slots=True)
class CallCost:
    """A price of each operation beyond the first ``free`` ones."""

    cost: float = 0.05
    free: int = 0

    def __call__(self, group: Group) -> list[float]:
        return [-self.cost * max(one.calls - self.free, 0) for one in group]


@dataclass(frozen=True, slots=True)
class Reward:
    """A weighted sum of terms.

    Attributes:
        terms: by name, each with its weight.
    """

    terms: Mapping[str, tuple[float, Term]]

    def __call__(self, group: Group) -> tuple[list[float], dict[str, list[float]]]:
        """The reward of each rollout of a group, and what each term adds to it. Raises UsageError for a bad plugin."""
        parts = {name: self._part(name, weight, term, group) for name, (weight, term) in self.terms.items()}
        return [math.fsum(values) for values in zip(*parts.values(), strict=True)], parts

    def _part(self, name: str, weight: float, term: Term, group: Group) -> list[float]:
        if not weight:
            return [0.0] * len(group)
        given = registry.guarded(f"reward {name}", lambda: [float(value) for value in term(group)])
        if len(given) != len(group) or not all(map(math.isfinite, given)):
            raise UsageError(f"reward {name} must give a finite number for each of {len(group)} rollouts: {given}")
        return [weight * value for value in given]


def _term(name: str, kind: type[object], own: Mapping[str, Json]) -> Term:
    """A term from its settings; a dataclass has their names and kinds checked."""
    if is_dataclass(kind):
        return cast(Term, build(kind, own, f"reward.{name}."))
    return registry.guarded(f"reward {name}", lambda: cast("Callable[..., Term]", kind)(**own))


def compose(tables: Mapping[str, Json]) -> Reward:
    """A reward from ``[reward.NAME]`` tables: settings of each term, and its ``weight``, 1 by default.

    Raises:
        UsageError: there is no such term or setting, or no term at all.
    """
    terms: dict[str, tuple[float, Term]] = {}
    for name, table in tables.items():
        kind = registry.load("rewards", name)
        if not isinstance(table, dict) or not isinstance(kind, type):
            raise UsageError(f"`reward.{name}` must be a table of settings, such as [reward.{name}]")
        weight = finite(table.get(WEIGHT, 1.0))
        if weight is None:
            raise UsageError(f"`reward.{name}.weight` must be a number, not {table[WEIGHT]!r}")
        own = {key: value for key, value in table.items() if key != WEIGHT}
        terms[name] = weight, _term(name, kind, own)
    if not terms:
        raise UsageError("there is no [reward.NAME] table; [reward.correct] pays for right answers")
    return Reward(terms)
