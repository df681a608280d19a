"""The configuration of a reinforcement by GRPO: TOML into frozen records, every key and value checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..harness.errors import UsageError
from ..harness.types import Json
from .advantages import AdvantagePart
from .config import EvalPart, LoraPart, ModelPart, check_model
from .examples import check_choice
from .losses import LossPart
from .replay import ReplayPart
from .rewards import Guards
from .schedule import Optimisation

LAYOUTS = ("shared", "padded", "packed")
OVER_LIMIT = ("mask", "zero", "keep")


@dataclass(frozen=True, slots=True)
class QueryPart:
    """Where questions come from: always the train split of a task.

    Attributes:
        data: folder or file of the task's data, a relative one counted from the configuration's own; empty for its
            default place.
        editions: of a miniature, how many times its number of questions.
        slices: only questions of one of these categories or with one of these labels; all where there are none.
        limit: only so many questions; 0 for all.
    """

    task: str
    data: str = ""
    editions: int = 1
    slices: tuple[str, ...] = ()
    limit: int = 0

    def __post_init__(self) -> None:
        if self.editions < 1 or self.limit < 0:
            raise UsageError(f"data of {self.task}: `editions` must be from 1 and `limit` from 0")


@dataclass(frozen=True, slots=True)
class RolloutPart:
    """How rollouts are sampled.

    Attributes:
        queries: questions a round, over all processes; the weights stay as they are while a round is sampled.
        group: rollouts of each question.
        over_limit: what becomes of a rollout that reached a limit: ``mask``: it is neither learned nor counted in its
            group's mean; ``zero``: its reward is 0; ``keep``: it is rewarded as it is.
        waves: how many times as many questions a round may take until ``queries`` of them have rewards that differ
            (dynamic sampling); 1 takes them as they come.
        batch: rollouts that run at once on a process; ``concurrency`` that are under way.
        profile: how answers are read.
        max_error_share: share of rollouts that may end in errors before the training ends.
        engine: another engine to sample from, one in each process: ``vllm``, with its ``options``; empty for the one
            that is trained. It takes the weights from files, and is put aside while the learner works.
        server: URL of a running `vllm serve` from which all processes sample instead; it sees ``--out`` by the same
            path.
        copy: whether to sample from a copy of the weights, of ``dtype``; weights that are sharded always are copied.
        keep: how many rounds' rollouts stay on the disk; 0 for all.
    """

    queries: int = 16
    group: int = 8
    temperature: float = 1.0
    top_p: float = 1.0
    over_limit: str = "keep"
    waves: int = 1
    batch: int = 16
    concurrency: int = 24
    profile: str = "strict"
    max_error_share: float = 0.05
    engine: str = ""
    server: str = ""
    options: Mapping[str, Json] = field(default_factory=dict)
    copy: bool = False
    dtype: str = "auto"
    keep: int = 0

    def __post_init__(self) -> None:
        check_choice(self.over_limit, OVER_LIMIT, "rollout.over_limit")
        check_choice(self.dtype, ("auto", "float32", "bfloat16", "float16"), "rollout.dtype")
        for name, low in {"queries": 1, "group": 2, "waves": 1, "batch": 1, "concurrency": 1, "keep": 0}.items():
            if getattr(self, name) < low:
                raise UsageError(f"rollout.{name} must be a whole number from {low}, not {getattr(self, name)}")
        if not 0 < self.temperature < math.inf:
            raise UsageError(f"rollout.temperature must be above 0, not {self.temperature}: rollouts must differ")
        if self.top_p != 1:
            message = "a ratio of probabilities needs those of all tokens, which top-p takes from some"
            raise UsageError(f"rollout.top_p must be 1, not {self.top_p}: {message}")
        if self.server and self.engine != "vllm":
            raise UsageError('rollout.server is a `vllm serve`: it needs rollout.engine = "vllm"')
        if self.engine and self.copy:
            raise UsageError("rollout.copy is for the engine that is trained; leave it out with rollout.engine")
        if not 0 <= self.max_error_share <= 1:
            raise UsageError(f"rollout.max_error_share must be a share from 0 to 1, not {self.max_error_share}")


@dataclass(frozen=True, slots=True)
class GrpoPart:
    """How long and in what portions.

    Attributes:
        rounds: how many times rollouts are sampled.
        batch: rollouts an update, over all processes.
        micro: most tokens, padding included, that go through the model at once on one process.
        layout: ``shared``: rollouts of a question share a row and what they have in common; ``padded``, ``packed``.
        save: steps between checkpoints; 0 for one at the end of each round.
        keep: how many checkpoints before the last stay; 0 for all.
        patience: rounds in a row that may bring nothing to learn before the training ends.
        deterministic: whether rollouts are sampled one by one from empty caches on one thread, so that a training
            that was interrupted ends with the very weights of one that was not.
    """

    rounds: int = 1
    batch: int = 128
    micro: int = 8192
    layout: str = "shared"
    save: int = 0
    keep: int = 0
    patience: int = 8
    seed: int = 0
    deterministic: bool = False

    def __post_init__(self) -> None:
        check_choice(self.layout, LAYOUTS, "train.layout")
        lowest = {"rounds": 1, "batch": 1, "micro": 1, "save": 0, "keep": 0, "patience": 1, "seed": 0}
        for name, low in lowest.items():
            if getattr(self, name) < low:
                raise UsageError(f"train.{name} must be a whole number from {low}, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class GrpoConfig:
    """A reinforcement.

    Attributes:
        reward: settings of each term by name; see ``training.rewards``.
        setting: what ``prh.json`` of the checkpoints says, over that of the base: protocol, padding, budget, limits.
        trackers: of accelerate: ``wandb``, ``tensorboard``, ``trackio``.
    """

    model: ModelPart
    data: tuple[QueryPart, ...]
    reward: Mapping[str, Json]
    rollout: RolloutPart = RolloutPart()
    guards: Guards = field(default_factory=Guards)
    advantage: AdvantagePart = field(default_factory=AdvantagePart)
    replay: ReplayPart = field(default_factory=ReplayPart)
    loss: LossPart = field(default_factory=LossPart)
    train: GrpoPart = GrpoPart()
    optim: Optimisation = field(default_factory=Optimisation)
    lora: LoraPart = field(default_factory=LoraPart)
    eval: EvalPart = field(default_factory=EvalPart)
    setting: Mapping[str, Json] = field(default_factory=dict)
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_model(self.model, self.lora)
        if not self.data:
            raise UsageError('there is no [[data]] table; it names a task, such as task = "vstar-mini"')
        tasks = [part.task for part in self.data]
        if len(set(tasks)) < len(tasks):
            raise UsageError("data names a task twice; each has a folder of its own")
        for name in ("every", "limit"):
            if getattr(self.eval, name) < 0:
                raise UsageError(f"eval.{name} must be a whole number from 0, not {getattr(self.eval, name)}")
        rows = self.rollout.queries * self.rollout.group
        if self.train.batch > rows:
            raise UsageError(f"train.batch is {self.train.batch}, and a round has {rows} rollouts")

    @property
    def rows(self) -> int:
        """Rollouts that a round learns from at most."""
        whole = self.rollout.queries * self.rollout.group
        return round(self.replay.fill * whole) or 1 if self.replay.fill else whole

    @property
    def updates(self) -> int:
        """Updates a round."""
        return -(-self.rows // self.train.batch)

    @property
    def steps(self) -> int:
        """Updates in all."""
        return self.updates * self.train.rounds
