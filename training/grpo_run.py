"""One process's part of a reinforcement: round after round, update after update, kept and gone on with."""

from __future__ import annotations

import asyncio
import copy
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from accelerate.tracking import GeneralTracker

from ..harness.errors import ModelError, StoreError, UsageError
from ..harness.evaluate import load_task
from ..harness.store import read_json, write_json
from ..harness.types import Json
from . import checkpoints
from .batches import Batch, step_seed
from .compose import Composer, Library, by_row
from .garbage import settled
from .grpo_training import Ended, GrpoTraining, Sampled, State, engine_dead
from .lean import Lean, lean
from .loop import Work
from .policy import PolicyLearner, PolicyUpdate, Voice
from .questions import Stream
from .replay import Entry, Store
from .rollouts import Drawn, Rollouts, Round, Sampler, check_whole
from .rounds import Judged, Jury, entries, plan, tell, trim
from .speaking import Apart, Own, Speaking
from .watcher import Watcher

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STATE = "grpo.json"
BEST = "best"


class GrpoRun(Work[GrpoTraining]):
    """One process's part of a reinforcement."""

    def __init__(self, training: GrpoTraining, watcher: Watcher, trackers: Sequence[GeneralTracker] = ()) -> None:
        self.lean: Lean | None = None
        if training.config.train.deterministic:
            torch.set_num_threads(1)
        super().__init__(training, watcher, trackers)
        config = training.config
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        self.runner = asyncio.Runner()
        self.rollouts = Rollouts(config, training.questions, training.out, rank, world, self.runner.run)
        self.speaking = self._speaking()
        self.sampler = Sampler(self.speaker, deterministic=config.train.deterministic)
        self.jury = Jury(config, training.reward, self.speaker.vision_ids)
        self.stream = Stream(training.questions, config.train.seed)
        self.store = Store(config.replay)
        self.state = State()
        self.step = 0
        self.library = Library(self.rollouts, config.replay.age)
        empty = training.blank if self.several else None
        self.composer = Composer(config, self.library, training.engine, empty, once=self.lean is not None)

    def _learner(self, module: PreTrainedModel) -> PolicyLearner:
        config = self.training.config
        reference = None
        if config.loss.beta and not config.lora.rank:
            reference = copy.deepcopy(module).requires_grad_(requires_grad=False).train(mode=False)
            reference = reference.to(self.accelerator.device)
            lean(reference)
        self.lean = lean(module)
        voice = Voice(
            config.rollout.temperature, tuple(sorted(self.training.engine.vision_ids)), lean=self.lean is not None
        )
        made = PolicyLearner(self.accelerator, module, config.optim, self.training.steps, config.loss, voice, reference)
        if reference is not None and made.sharded:
            raise UsageError(
                "loss.beta: weights that are sharded have no whole copy to measure KL from; train an adapter"
            )
        return made

    @property
    def policy(self) -> PolicyLearner:
        """The learner of what pays."""
        return cast(PolicyLearner, self.learner)

    def _speaking(self) -> Speaking:
        config = self.training.config
        if not config.rollout.engine:
            return Own(self.training, self.policy, main=self.main)
        if config.train.deterministic:
            reason = "the trained engine, since `deterministic` empties its caches"
            raise UsageError(f"rollout.engine {config.rollout.engine!r} cannot be used here: this needs {reason}")
        return Apart(self.training, partial(self._write, resumable=False), self.runner.run, self.peers)

    @property
    def speaker(self) -> Drawn:
        """The engine that samples."""
        return self.speaking.engine

    def _sync(self) -> None:
        """Let the engine speak with the weights as they are; every process must take part. Raises Ended."""
        with engine_dead():
            self.speaking.sync(self.step)

    # -- to the end ------------------------------------------------------------------------------

    def go(self) -> Path:
        training = self.training
        self.step = self._resume()
        if self.main:
            self.watcher.opened(training, self.step)
        self._evaluate_again(self.step)
        try:
            with settled():
                while self.state.round < training.config.train.rounds:
                    self._round()
        except Ended as end:
            self._stop(end)
        finally:
            self.speaking.close()
            self.runner.close()
        training.engine.module.train(mode=False)
        if self.accelerator.trackers:
            self.accelerator.end_training()
        return self._end()

    def _stop(self, end: Ended) -> None:
        """Keep everything and say why it ends. Raises ModelError, StoreError."""
        out = self.training.out
        kept = checkpoints.place(out, self.step)
        if self.step and not kept.is_dir():
            self._save(self.step)
        row: dict[str, Json] = {"step": self.step, "end": end.name, "message": str(end)}
        self.peers.lead(lambda: checkpoints.append_log(out, row))
        where = f"{kept} holds the weights" if self.step else "no update was made"
        raise ModelError(f"the training ended ({end.name}) after step {self.step}: {end}; {where}")

    def _restore(self, state: Path | None) -> None:
        if state is None:
            return
        held = read_json(state / STATE)
        try:
            self.state = State(**{name: int(cast(int, held[name])) for name in ("round", "begun", "position", "idle")})
        except (LookupError, TypeError, ValueError) as error:
            raise StoreError(f"{state / STATE} cannot be gone on from: {error}; {checkpoints.DAMAGED}") from None
        self.store.load(held.get("replay"))

    def _keep(self, state: Path) -> None:
        write_json(state / STATE, {**cast("dict[str, Json]", asdict(self.state)), "replay": self.store.json()})

    # -- one round -------------------------------------------------------------------------------

    def _round(self) -> None:
        """Sample, judge, learn. Raises Ended, PrhError."""
        config, state = self.training.config, self.state
        start = time.perf_counter()
        self.library.turn_to(state.round)
        sampled = self._sampled()
        with engine_dead():
            self.speaking.rest()
        # The store as it was stays until the round is done: whoever goes on amid it plans it again.
        store = copy.deepcopy(self.store)
        updates = plan(sampled.judged, sampled.wanted, store, config)
        if config.loss.correction != "none":
            self._recompute(sampled)
        values = {**sampled.values, "round_seconds": time.perf_counter() - start}
        idle = 0 if any(updates) else state.idle + 1
        after = State(state.round + 1, state.begun + len(updates), sampled.position, idle)
        done = self.step - state.begun
        with ThreadPoolExecutor(1, "prh-compose") as beside:
            ahead = self._ahead(beside, updates, done)
            for number in range(done, len(updates)):
                batches, ahead = ahead, self._ahead(beside, updates, number + 1)
                self._update(updates[number], batches, values)
                if number + 1 == len(updates):
                    self.state, self.store = after, store
                self._after()
        if idle >= config.train.patience:
            message = f"{idle} rounds in a row had only groups whose rewards are alike, and nothing was there to replay"
            raise Ended("nothing_to_learn", f"{message}; take harder or easier questions, or a higher temperature")
        if config.rollout.keep:
            self._prune()

    def _after(self) -> None:
        if self._due(self.step):
            self._save(self.step)
        if self._is_evaluated(self.step):
            self._evaluate(self.step)

    def _prune(self) -> None:
        """Drop rollouts that are older than what is kept, what may be replayed, and the last checkpoint."""
        part = self.training.config
        kept = [self.state.round - max(part.rollout.keep, part.replay.age)]
        found = checkpoints.latest(self.training.out)
        if found is None:
            return
        held = read_json(found[1] / checkpoints.STATE / STATE)
        kept.append(int(cast(int, held["round"])) - part.replay.age)
        if self.main:
            self.rollouts.prune(min(kept))

    def _sampled(self) -> Sampled:
        """The round's rollouts, sampled where they are not at hand, in complete groups. Raises Ended, PrhError."""
        config, state = self.training.config, self.state
        part = config.rollout
        queries, position = self.stream.take(state.position, part.queries)
        wanted = Round(state.round, state.begun, queries)
        fresh = self.step == state.begun
        if fresh:
            self._sync()
        start = time.perf_counter()
        count = self._draw(wanted) if fresh else 0
        judged = self._judged(wanted)
        for _ in range(1, part.waves):
            if tell(judged).live >= part.queries:
                break
            more, position = self.stream.take(position, part.queries, wanted.queries)
            wanted = replace(wanted, queries=[*wanted.queries, *more])
            count += self._draw(wanted) if fresh else 0
            judged = self._judged(wanted)
        seconds = time.perf_counter() - start
        values = dict(tell(judged).values)
        spoken = sum(one.rollout.tokens for one in judged if one.left != "error")
        whole_round = count * self.rollouts.world >= len(judged) > 0
        values["rollout_tokens_per_second"] = spoken / seconds if whole_round else None
        self._check_alive(judged)
        judged = trim(judged, wanted.queries, part.queries) if part.waves > 1 else judged
        return Sampled(wanted, judged, position, values)

    def _draw(self, wanted: Round) -> int:
        """Sample what is missing of a round, on all processes; how many rollouts that were on this one."""
        if self.main:
            self.rollouts.begin(wanted, self.sampler, ["prh", *sys.argv[1:]])
        self.accelerator.wait_for_everyone()
        count = self.rollouts.sample(wanted, self.sampler)
        self.accelerator.wait_for_everyone()
        if self.main:
            self.rollouts.finish(wanted)
        return count

    def _judged(self, wanted: Round) -> list[Judged]:
        found: list[Judged] = []
        for task, own in self.training.questions.items():
            ids = {key for name, key in wanted.queries if name == task}
            if ids:
                records = [one for one in self.rollouts.read(wanted.number, task) if one["id"] in ids]
                self.library.hold(wanted.number, task, records)
                check_whole(
                    records, len(ids) * self.training.config.rollout.group, self.rollouts.folder(wanted.number, task)
                )
                found += self.jury.judge(own, records)
        return found

    def _check_alive(self, judged: Sequence[Judged]) -> None:
        """Raises Ended where too many rollouts are errors."""
        failed = [one for one in judged if one.left == "error"]
        share = len(failed) / len(judged)
        if share > self.training.config.rollout.max_error_share:
            reason = str(failed[0].record["error"])
            raise Ended("engine_dead", f"{len(failed)} of {len(judged)} rollouts failed, the first for: {reason}")

    def _recompute(self, sampled: Sampled) -> None:
        """Compute the learner's log-probabilities of what the round sampled, before any update. Every process."""
        number = sampled.wanted.number
        if self.library.has_old(number, self.rollouts.world):
            return
        found: dict[Entry, Sequence[float]] = {}
        parts = self.composer.parts(entries(sampled.judged, sampled.wanted), None)
        with self.training.engine.quickened():
            for part in parts:
                batch = self.composer.batch(part)
                rows = [entry for bundle in part for entry, _ in bundle]
                found |= zip(rows, by_row(batch, self.policy.logprobs(batch), len(rows)), strict=True)
            for _ in range(self._most(len(parts)) - len(parts)):  # where weights are sharded, all run as often
                self.policy.logprobs(self.composer.idle())
        self.library.keep_old(number, self.rollouts.rank, found)
        self.accelerator.wait_for_everyone()

    def _most(self, count: int) -> int:
        """The highest of all processes' counts."""
        mine = torch.tensor([count], device=self.accelerator.device)
        return int(cast(torch.Tensor, self.accelerator.gather(mine)).max())

    # -- one update ------------------------------------------------------------------------------

    def _ahead(
        self, beside: ThreadPoolExecutor, updates: Sequence[Sequence[Entry]], number: int
    ) -> Future[list[Batch]] | None:
        """The micro-batches of an update, prepared beside the running one."""
        if number >= len(updates) or not updates[number]:
            return None
        version = self.state.begun + number
        return beside.submit(self.composer.update, updates[number], version)

    def _update(self, rows: Sequence[Entry], batches: Future[list[Batch]] | None, values: Mapping[str, Json]) -> None:
        start, cpu = time.perf_counter(), time.process_time()
        made: PolicyUpdate | None = None
        prepared = batches.result() if batches else []
        waited = time.perf_counter() - start
        seen = (self.lean.encoded, self.lean.shown) if self.lean else (0, 0)
        if rows:
            torch.manual_seed(step_seed(self.training.config.train.seed, self.step, self.accelerator.process_index))
            idle = self.composer.idle() if self.several else None
            try:
                with self.training.engine.quickened():
                    made = self.policy.learn(self.step, prepared, idle)
            except ModelError as error:
                raise Ended("not_finite", str(error)) from None
        seconds = time.perf_counter() - start
        self.step += 1
        shown = (self.lean.encoded - seen[0], self.lean.shown - seen[1]) if self.lean else (None, None)
        state = self.state
        row: dict[str, Json] = {
            "step": self.step,
            "round": state.round,
            **values,
            "rows": len(rows),
            "replayed": sum(one.round < state.round for one in rows) + len(rows) - len(set(rows)),
            **_learned(made, seconds),
            "rate": self.training.config.optim.rate(self.step - 1, self.training.steps),
            "images": shown[0],
            "images_shown": shown[1],
            "seconds": seconds,
            "cpu_seconds": time.process_time() - cpu,
            "prepare_seconds": waited,
        }
        self._log(row)

    def _judge(self, row: Mapping[str, Json], checkpoint: Path) -> None:
        """Keep the best checkpoint: the highest mean of the tasks' primary metrics, the earliest of equals."""
        out, step = self.training.out, cast(int, row["step"])
        names = [f"{task}.{load_task(task).primary}" for task in self.training.config.eval.tasks]
        value = _score(row, names)
        before = [
            _score(one, names) for one in checkpoints.read_log(out) if cast(int, one["step"]) < cast(int, row["step"])
        ]
        if value is not None and all(other is None or value > other for other in before):
            checkpoints.copy(checkpoint, out / BEST)
            write_json(out / f"{BEST}.json", {"step": step, "value": value, "metrics": cast(Json, names)})


def _score(row: Mapping[str, Json], names: Sequence[str]) -> float | None:
    """The mean of some figures of a line of the log; None where one is missing."""
    values = [row.get(name) for name in names]
    if not values or any(value is None for value in values):
        return None
    return sum(cast("list[float]", values)) / len(values)


def _learned(made: PolicyUpdate | None, seconds: float) -> dict[str, Json]:
    """What an update came to, by the keys of the log."""
    if made is None:
        names = ("loss", "norm", "entropy", "clip_share", "drift", "kl", "logprob_gap", "tokens_per_second")
        return {**dict.fromkeys(names), "trained_tokens": 0, "tokens": 0, "area": 0}
    return {
        "loss": made.update.loss,
        "norm": made.update.norm,
        "entropy": made.entropy,
        "clip_share": made.clip,
        "drift": made.drift,
        "kl": made.kl,
        "logprob_gap": made.gap,
        "tokens_per_second": made.update.tokens / seconds,
        "trained_tokens": made.trained,
        "tokens": made.update.tokens,
        "area": made.update.area,
    }
