"""What stands beside the weights of a checkpoint: a manifest of how it was made, and a model card to go on from."""

from __future__ import annotations

import json
import sys
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from ..harness.types import Json
from .card import plain

if TYPE_CHECKING:
    from .grpo_training import GrpoTraining
    from .loop import SftTraining

SCHEMA = 1
PACKAGES = ("prh", "torch", "transformers", "accelerate", "peft", "pillow")
CARD = """\
---
library_name: transformers
pipeline_tag: image-text-to-text
base_model: {quoted}
---
# {name}

Trained by `prh train sft` from {base} on {count} trajectories, {step} of {steps} steps of {batch}.

It speaks protocol `{protocol}`; `prh.json` holds its pixel budgets and limits, so that this is all it takes:

    prh eval --model FOLDER --task TASK

`training.json` holds the configuration, the digests of base and data, and the versions.

## Data

| source | teacher | trajectories |
|---|---|---|
{data}

## Results

No figures yet: run `prh eval` on it and put them here, with the command.
"""

GRPO_CARD = """\
---
library_name: transformers
pipeline_tag: image-text-to-text
base_model: {quoted}
---
# {name}

Trained by `prh train grpo` from {base}: {step} of {steps} updates of {batch} rollouts, {group} of each question,
rewarded for {reward}.

It speaks protocol `{protocol}`; `prh.json` holds its pixel budgets and limits, so that this is all it takes:

    prh eval --model FOLDER --task TASK

`training.json` holds the configuration, the digests of base and questions, and the versions.

## Questions

| task | split | questions |
|---|---|---|
{data}

## Results

No figures yet: run `prh eval` on it and put them here, with the command.
"""


def manifest(training: SftTraining) -> dict[str, Json]:
    """How a checkpoint was made."""
    return {
        "schema": SCHEMA,
        "kind": "sft",
        "base": training.base,
        "identity": dict(training.identity),
        "trajectories": len(training.lessons),
        "steps": training.steps,
        "epoch_steps": training.epoch,
        "versions": versions(),
    }


def versions() -> dict[str, Json]:
    """Versions of the packages that decide what is computed."""
    found: dict[str, Json] = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def card(training: SftTraining, step: int) -> str:
    """A draft of a model card: what is known of the making, and nothing that was not measured."""
    held: Counter[tuple[str, str]] = Counter()
    for lesson in training.lessons:
        provenance = lesson.provenance
        held[str(provenance.get("source", "unknown")), _teacher(provenance.get("teacher"))] += 1
    rows = "\n".join(
        f"| {plain(source)} | {plain(teacher)} | {count} |" for (source, teacher), count in sorted(held.items())
    )
    return CARD.format(
        quoted=json.dumps(training.base),
        base=plain(training.base),
        name=plain(training.out.name),
        count=len(training.lessons),
        step=step,
        steps=training.steps,
        batch=training.config.train.batch,
        protocol=training.setting.protocol.name,
        data=rows,
    )


def _teacher(value: Json) -> str:
    """Who wrote a trajectory: a name, and the model behind it where there is one."""
    if not isinstance(value, dict):
        return str(value or "unknown")
    name, model = str(value.get("name") or "unknown"), value.get("model")
    return f"{name} ({model})" if model else name


def grpo_manifest(training: GrpoTraining) -> dict[str, Json]:
    """How a checkpoint was reinforced."""
    return {
        "schema": SCHEMA,
        "kind": "grpo",
        "base": training.base,
        "identity": dict(training.identity),
        "questions": {name: len(one.samples) for name, one in training.questions.items()},
        "steps": training.steps,
        "round_steps": training.epoch,
        "versions": versions(),
    }


def grpo_card(training: GrpoTraining, step: int) -> str:
    """A draft of a model card, as ``card``."""
    config = training.config
    terms = [name for name, (weight, _) in training.reward.terms.items() if weight]
    return GRPO_CARD.format(
        quoted=json.dumps(training.base),
        base=plain(training.base),
        name=plain(training.out.name),
        step=step,
        steps=training.steps,
        batch=config.train.batch,
        group=config.rollout.group,
        reward=", ".join(map(plain, terms)) or "nothing",
        protocol=training.setting.protocol.name,
        data="\n".join(f"| {plain(name)} | train | {len(one.samples)} |" for name, one in training.questions.items()),
    )
