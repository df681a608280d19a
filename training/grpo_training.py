"""A reinforcement ready to run, and where it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..harness.errors import ModelError
from ..harness.types import Json
from .grpo_config import GrpoConfig
from .loop import Training
from .publish import grpo_card, grpo_manifest
from .questions import Questions
from .rewards import Reward
from .rollouts import Round, Speaker
from .rounds import Judged


@dataclass(slots=True, kw_only=True)
class GrpoTraining(Training):
    """A reinforcement ready to run.

    Attributes:
        engine: also speaks.
    """

    config: GrpoConfig
    engine: Speaker
    questions: Mapping[str, Questions]
    reward: Reward
    defaults: Mapping[str, Json] = field(default_factory=dict)

    def manifest(self) -> dict[str, Json]:
        return grpo_manifest(self)

    def card(self, step: int) -> str:
        return grpo_card(self, step)

    def opening(self) -> Sequence[str]:
        part = self.config.rollout
        held = ", ".join(f"{len(one.samples)} of {name}" for name, one in self.questions.items())
        return (
            f"train  {self.base}  questions: {held}",
            f"rounds {self.config.train.rounds} of {part.queries} questions, {part.group} rollouts each",
            f"steps  {self.steps} of {self.config.train.batch} rollouts, {self.epoch} a round",
        )


class Ended(Exception):  # noqa: N818 - not a fault of ours: it names how a training came to its end
    """A training cannot go on.

    Attributes:
        name: ``not_finite``, ``nothing_to_learn`` or ``engine_dead``.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@contextmanager
def engine_dead() -> Iterator[None]:
    """Where the engine that samples fails, the training ends, with everything kept. Raises Ended."""
    try:
        yield
    except ModelError as error:
        raise Ended("engine_dead", str(error)) from None


@dataclass(frozen=True, slots=True)
class State:
    """Where a reinforcement is, besides its weights.

    Attributes:
        round: that goes on, or is next.
        begun: updates that were done when it began; its rollouts have this version.
        position: of the stream of questions as it began.
        idle: rounds in a row, before it, that taught nothing.
    """

    round: int = 0
    begun: int = 0
    position: int = 0
    idle: int = 0


@dataclass(frozen=True, slots=True)
class Sampled:
    """A round as it was sampled and judged.

    Attributes:
        position: where the stream of questions goes on.
        values: its figures, by the keys of the log.
    """

    wanted: Round
    judged: Sequence[Judged]
    position: int
    values: Mapping[str, Json]
