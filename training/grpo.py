"""``prh train grpo``: reinforce what pays, over the harness's own episode loop.

A round samples rollouts with the weights as they are, judges them in complete groups, and makes a few updates of what
they teach. Its folder is a training's (see ``checkpoints``), with besides:

    rollouts/round-000003/TASK/   what the round sampled, as runs
    best/, best.json              the checkpoint with the highest evaluation so far, the earliest of equals

``log.jsonl`` has a line for each update (a step), with these keys; ``null`` where there is nothing to tell:

    step, round                                   updates done; the round that it belongs to, from 0
    rapr, op_error_rate, accuracy, operations     of the round's rollouts, as an evaluation counts them
    rapr.needs_operation, ...                     the same of questions that need an operation
    reward, reward.TERM                           mean reward, and what each term adds to it
    groups, groups_filtered                       questions, and of these the ones that teach nothing
    rollouts, errors, over_limit, left_out        rollouts; that failed; that met a limit; not learned
    response_tokens                               mean tokens that a rollout says
    rows, replayed                                rollouts in this update; drawn again, or from earlier rounds
    loss, norm, rate                              as a supervised training logs them
    entropy, clip_share, drift, kl                means over trained tokens: entropy; share whose gradient
                                                  was clipped; divergence from the weights that sampled;
                                                  from the reference
    logprob_gap                                   mean |log-probability of learner - of sampler| with the
                                                  same weights
    trained_tokens, tokens, area                  tokens with a loss; ids in the update; ids with padding
    images, images_shown                          images through the vision tower; places that show them
    tokens_per_second, rollout_tokens_per_second  ids learned and tokens sampled by wall clock; the latter
                                                  null where rollouts were at hand
    seconds, cpu_seconds, prepare_seconds         of the update; waiting for its preparation among them
    round_seconds                                 of sampling and judging its round

An evaluation's line has ``step`` and ``TASK.METRIC``; an end before its time ``step``, ``end`` and ``message``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

from accelerate.tracking import GeneralTracker

from ..harness.settings import check_keys, resolve
from ..harness.types import Json
from .grpo_config import GrpoConfig
from .grpo_run import GrpoRun
from .grpo_training import GrpoTraining
from .questions import gather
from .rewards import compose
from .rollouts import Speaker
from .sft import blank, check_tasks, check_trackers, conduct, joined, plain_parts
from .trainable import open_trainable
from .watcher import Watcher

# What may change between the parts of a training: how a step is computed and what is kept, not what comes of it.
LOOSE = {
    "model": ("base", "checkpointing"),
    "rollout": ("batch", "concurrency", "keep", "max_error_share", "options", "server"),
    "train": ("micro", "layout", "save", "keep", "patience"),
}


def prepare(config: GrpoConfig, out: Path, root: Path) -> GrpoTraining:
    """Open everything a reinforcement needs and check that it fits together. Raises PrhError."""
    check_keys(config.setting, "setting")
    check_trackers(config.trackers)
    check_tasks(config.eval.tasks)
    reward = compose(config.reward)
    batch = 1 if config.train.deterministic else config.rollout.batch
    engine, defaults = open_trainable(config.model.base, config.model.dtype, config.model.attention, batch=batch)
    questions = gather(config, root, defaults)
    setting = resolve([("prh.json", defaults), ("setting", config.setting)], 0)
    pinned: dict[str, Json] = {"protocol": setting.protocol.name, "padding": setting.protocol.padding}
    plain = cast("dict[str, dict[str, Json]]", asdict(config))
    names = ("model", "reward", "rollout", "guards", "advantage", "replay", "loss", "train", "optim", "lora")
    parts: dict[str, Json] = {
        name: {key: value for key, value in plain[name].items() if key not in LOOSE.get(name, ())} for name in names
    }
    return GrpoTraining(
        config=config,
        out=out,
        base=config.model.base,
        engine=cast(Speaker, engine),
        questions=questions,
        reward=reward,
        defaults=defaults,
        setting=setting,
        layers={**joined(defaults, config.setting), **pinned},
        blank=blank(engine, setting),
        epoch=config.updates,
        steps=config.steps,
        identity={
            "base": engine.fingerprint,
            "questions": {name: one.fingerprint for name, one in questions.items()},
            "settings": {name: replace(one.setting, seed=0).identity() for name, one in questions.items()},
            **plain_parts(parts),
        },
    )


def train(
    config: GrpoConfig,
    out: Path,
    root: Path,
    watcher: Callable[[], Watcher] = Watcher,
    trackers: Sequence[GeneralTracker] = (),
) -> Path:
    """Reinforce, or go on where the same reinforcement ended; returns the last checkpoint.

    Args:
        root: where relative paths of data begin.
        watcher: makes what is told of it, on the main process.
        trackers: of accelerate, beside those that the configuration names.

    Raises:
        PrhError: a setting, the data or the base do not fit, the folder holds something else, or it ended early.
    """
    return conduct(out, lambda: prepare(config, out, root), lambda training: GrpoRun(training, watcher(), trackers))
