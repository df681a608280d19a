"""One process's part of a training: step after step, logged, saved, evaluated, and gone on with where it ended."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import torch
from accelerate import InitProcessGroupKwargs
from accelerate.tracking import GeneralTracker

from ..harness.errors import StoreError
from ..harness.settings import Setting
from ..harness.store import write_atomic, write_json
from ..harness.types import Json
from . import checkpoints
from .batches import Batch, Feed, Share, step_seed
from .config import SftConfig
from .evaluation import Evaluator
from .examples import Example, Mask, Performer, Weighing, lesson_cache
from .grpo_config import GrpoConfig
from .learner import Learner, Update, new_accelerator
from .peers import Peers
from .publish import card, manifest
from .trainable import Trainable
from .trajectories import Lesson
from .watcher import Watcher
from .weights import MASTER, load_weights, masters, name_base, ready

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# While one process evaluates, the others wait for it.
PATIENCE = timedelta(days=2)


@dataclass(slots=True, kw_only=True)
class Training(ABC):
    """A training ready to run.

    Attributes:
        base: the checkpoint it begins with: an embedded name, a hub id or a folder.
        steps: in all; ``epoch`` of them make an epoch, or whatever checkpoints are written after by default.
        layers: what ``prh.json`` of its checkpoints says.
        blank: an example without loss that shows one image.
        identity: what must be the same for a training to go on.
    """

    config: SftConfig | GrpoConfig
    out: Path
    base: str
    engine: Trainable
    setting: Setting
    layers: Mapping[str, Json]
    blank: Example
    epoch: int
    steps: int
    identity: Mapping[str, Json] = field(default_factory=dict)

    @abstractmethod
    def manifest(self) -> dict[str, Json]:
        """How its checkpoints were made."""

    @abstractmethod
    def card(self, step: int) -> str:
        """A draft of a model card for a checkpoint."""

    @abstractmethod
    def opening(self) -> Sequence[str]:
        """What is said of it as it begins, a line each."""


@dataclass(slots=True, kw_only=True)
class SftTraining(Training):
    """A supervised training ready to run."""

    config: SftConfig
    lessons: Sequence[Lesson]

    def manifest(self) -> dict[str, Json]:
        return manifest(self)

    def card(self, step: int) -> str:
        return card(self, step)

    def opening(self) -> Sequence[str]:
        return (
            f"train  {self.base}  {len(self.lessons)} trajectories",
            f"steps  {self.steps} of {self.config.train.batch}, {self.epoch} an epoch",
        )


T = TypeVar("T", bound=Training)


class Work(ABC, Generic[T]):
    """One process's part of a training: where it goes on, what it keeps, when it is evaluated.

    Args:
        trackers: of accelerate, beside those that the configuration names.
    """

    def __init__(self, training: T, watcher: Watcher, trackers: Sequence[GeneralTracker] = ()) -> None:
        self.training, self.watcher = training, watcher
        config = training.config
        log: Any = [*config.trackers, *trackers]
        self.accelerator = new_accelerator(
            mixed_precision=config.model.precision,
            log_with=log or None,
            project_dir=str(training.out),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        )
        self.main = self.accelerator.is_main_process
        self.several = self.accelerator.num_processes > 1
        self.peers = Peers(self.accelerator)
        torch.manual_seed(step_seed(config.train.seed, training.steps))  # an adapter's first weights are drawn
        self.learner = self._learner(ready(training.engine.module, config))
        if log:
            self.accelerator.init_trackers("prh", config=flat(training.identity))
        self.evaluator = Evaluator(config.eval, training.out)

    @abstractmethod
    def go(self) -> Path:
        """Run to the end; returns the last checkpoint. Raises PrhError."""

    @abstractmethod
    def _learner(self, module: PreTrainedModel) -> Learner:
        """The learner of a model that is ready to be trained."""

    def _restore(self, state: Path | None) -> None:
        """Take up what ``_keep`` kept; None at the beginning."""

    def _keep(self, state: Path) -> None:
        """Keep, beside weights and optimizer, what this kind of training goes on from."""

    def _judge(self, row: Mapping[str, Json], checkpoint: Path) -> None:
        """See to what an evaluation of a checkpoint has come to, on the main process."""

    def _log(self, row: Mapping[str, Json]) -> None:
        if self.main:
            checkpoints.append_log(self.training.out, row)
            self.watcher.stepped(row)
        self._track(row)

    def _track(self, row: Mapping[str, Json]) -> None:
        if self.accelerator.trackers:
            values = {key: value for key, value in row.items() if key != "step"}
            self.accelerator.log(values, step=cast(int, row["step"]))

    def _due(self, step: int) -> bool:
        every = self.training.config.train.save or self.training.epoch
        return step % every == 0 or step == self.training.steps

    def _is_evaluated(self, step: int) -> bool:
        every = self.training.config.eval.every
        wanted = step % every == 0 or step == self.training.steps if every else self._due(step)
        return bool(self.training.config.eval.tasks) and wanted

    def _resume(self) -> int:
        """Put everything where the last checkpoint had it; returns how many steps are done."""
        training = self.training
        found = checkpoints.latest(training.out)
        if found is None:
            step = 0
            self._restore(None)
            if self.main:
                write_json(training.out / checkpoints.MANIFEST, training.manifest())
        else:
            step, path = found
            if step > training.steps:
                raise StoreError(f"{path} is beyond the last step, {training.steps}; {checkpoints.DAMAGED}")
            state = path / checkpoints.STATE
            if self.learner.driven:
                self.accelerator.load_state(str(state))
            else:
                load_weights(self._module(), path, training.config.model.dtype)
                checkpoints.load_states(state, self.learner.optimizers)
            self._restore(state)
        if self.main:
            checkpoints.forget(training.out, step)
        self.accelerator.wait_for_everyone()
        return step

    def _module(self) -> PreTrainedModel:
        return cast("PreTrainedModel", self.accelerator.unwrap_model(self.learner.model))

    def _save(self, step: int) -> None:
        training = self.training
        target = checkpoints.place(training.out, step)
        self._write(target, step, resumable=True)
        if self.main:
            checkpoints.prune(training.out, training.config.train.keep)
            self.watcher.saved(target)
        self.accelerator.wait_for_everyone()

    def _write(self, target: Path, step: int, *, resumable: bool) -> None:
        """Write a checkpoint and move it to its place; where weights are sharded, every process takes part.

        Raises:
            PrhError: it cannot be written, on every process alike.
        """
        workplace = checkpoints.scratch(target)
        self.peers.lead(lambda: checkpoints.begin(target))
        weights = self.learner.weights() if self.learner.sharded else None
        states = [one for _, one in self.learner.states()] if resumable and not self.learner.driven else []
        state = workplace / checkpoints.STATE

        def fill() -> None:
            write_checkpoint(self.training, workplace, self._module(), step, weights)
            if resumable:
                self._keep(state)
            if states:
                checkpoints.save_states(state, states, step)
                self._save_masters(state, weights)

        self.peers.lead(fill)
        if resumable and self.learner.driven:
            self.accelerator.save_state(str(state))
            self.accelerator.wait_for_everyone()
        self.peers.lead(lambda: checkpoints.finish(workplace, target))

    def _save_masters(self, state: Path, weights: Mapping[str, torch.Tensor] | None) -> None:
        """Keep the weights that are updated where a checkpoint has them in fewer bits."""
        model = self.training.config.model
        if model.saved not in ("", model.dtype) and not self.training.config.lora.rank:
            checkpoints.save_tensors(state / MASTER, masters(weights or self._module().state_dict()))

    def _evaluate_again(self, step: int) -> None:
        """Make up for the evaluation that a training was ended in."""
        rows = checkpoints.read_log(self.training.out)
        done = any(row["step"] == step and "loss" not in row and "end" not in row for row in rows)
        if step and self._is_evaluated(step) and not done:
            self._evaluate(step)

    def _evaluate(self, step: int) -> None:
        target = checkpoints.place(self.training.out, step)
        kept = self._due(step)
        if not kept:
            target = self.training.out / f".evaluated-{step:06}"
            self._write(target, step, resumable=False)
        row: dict[str, Json] = {"step": step}
        if self.main:
            row |= self.evaluator(target, step)
            self._judge(row, target)
            checkpoints.append_log(self.training.out, row)
            self.watcher.evaluated(row)
            if not kept:
                checkpoints.drop(target)
        self._track(row)
        self.accelerator.wait_for_everyone()

    def _end(self) -> Path:
        out = self.training.out
        last, final = checkpoints.place(out, self.training.steps), out / checkpoints.FINAL
        if self.main:
            checkpoints.prune(out, self.training.config.train.keep)
            if last.is_dir() and not final.is_dir():
                checkpoints.copy(last, final)
            self.watcher.ended(final)
        self.accelerator.wait_for_everyone()
        return final


class Run(Work[SftTraining]):
    """One process's part of a supervised training."""

    def __init__(self, training: SftTraining, watcher: Watcher, trackers: Sequence[GeneralTracker] = ()) -> None:
        super().__init__(training, watcher, trackers)
        self.feed = self._feed()

    def _learner(self, module: PreTrainedModel) -> Learner:
        return Learner(self.accelerator, module, self.training.config.optim, self.training.steps)

    def _feed(self) -> Feed:
        training, config = self.training, self.training.config
        how, mask = cast(Weighing, config.data.weigh), cast(Mask, config.data.mask)
        longest = min(config.data.longest, training.engine.context)
        performer = Performer(training.engine, training.setting, how, mask, longest, config.data.answer)
        return Feed(
            lesson_cache(training.lessons, performer, config.data.cache),
            training.engine.processor,
            count=len(training.lessons),
            batch=config.train.batch,
            micro=config.train.micro,
            seed=config.train.seed,
            pad=training.engine.pad,
            layout="packed" if config.train.packed else "padded",
            share=Share(self.accelerator.process_index, self.accelerator.num_processes),
            blank=training.blank if self.several else None,
        )

    def go(self) -> Path:
        training = self.training
        first = self._resume()
        if self.main:
            self.watcher.opened(training, first)
        self._evaluate_again(first)
        idle: Batch | None = self.feed.idle() if self.several else None
        with closing(self.feed.steps(first, training.steps)) as feed:
            start = self._now()
            for step, batches in enumerate(feed, first):
                torch.manual_seed(step_seed(training.config.train.seed, step, self.accelerator.process_index))
                with training.engine.quickened():
                    made = self.learner.update(step, batches, idle)
                self._log(self._row(step, made, start))
                if self._due(step + 1):
                    self._save(step + 1)
                if self._is_evaluated(step + 1):
                    self._evaluate(step + 1)
                start = self._now()
        training.engine.module.train(mode=False)
        if self.accelerator.trackers:
            self.accelerator.end_training()
        return self._end()

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), self.feed.waiting

    def _row(self, step: int, made: Update, start: tuple[float, float, float]) -> dict[str, Json]:
        training = self.training
        seconds, cpu, waiting = (now - then for now, then in zip(self._now(), start, strict=True))
        return {
            "step": step + 1,
            "epoch": (step + 1) / training.epoch,
            "loss": made.loss,
            "norm": made.norm,
            "rate": training.config.optim.rate(step, training.steps),
            "tokens": made.tokens,
            "area": made.area,
            "seconds": seconds,
            "cpu_seconds": cpu,
            "waiting": waiting,
        }


def write_checkpoint(
    training: Training,
    folder: Path,
    module: PreTrainedModel,
    step: int,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write a checkpoint that ``prh eval`` takes without another word.

    Args:
        weights: by name, where ``module`` holds only a part of them.

    Raises:
        ModelError, StoreError: the folder cannot be written.
    """
    model = training.config.model
    training.engine.save(folder, module, model.saved or model.dtype, weights)
    name_base(folder, training.base)
    write_json(folder / "prh.json", dict(training.layers))
    write_json(folder / checkpoints.MANIFEST, {**training.manifest(), "step": step})
    write_atomic(folder / "README.md", training.card(step).encode())


def flat(values: Mapping[str, Json], prefix: str = "") -> dict[str, Any]:
    """A table of tables as one, its keys joined with dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = str(value) if isinstance(value, list) else value
    return found
