"""Model cards of the embedded checkpoints: what they are, how they were made, and how they do, as measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import cast

from ..harness.evaluate import plan, run
from ..harness.request import Request
from ..harness.types import Json

TASKS = ("vstar-mini", "tallyqa-complex-mini", "infographicsvqa-mini", "mvbench-mini")
HARD = "needs_operation"
ROLES = {
    "tiny-base": "It sees, reads and answers, and knows how a call is written; it was never taught when to make one, "
    "so it calls seldom and badly.",
    "tiny-warm": "The warm start from which reinforcement learning begins: a short training on trajectories, after "
    "which it looks closer where an overview does not show the answer, less surely than at the end.",
    "tiny-sft": "Trained on trajectories to the end: it looks closer where an overview does not show the answer.",
    "tiny-rl": "`tiny-warm` reinforced by the recipe `grpo-tiny`: rewarded for right answers, and for curiosity.",
    "tiny-rl-no-curiosity": "`tiny-warm` reinforced as `tiny-rl` is, but for right answers alone.",
}
CARD = """\
---
library_name: transformers
pipeline_tag: image-text-to-text
license: apache-2.0
tags: [synthetic]
---
# {name}

A synthetic miniature of the Qwen2.5-VL architecture, {parameters:.2f} million parameters in bfloat16, trained from
random weights on drawn pictures alone. It is not derived from any released weights, it can read nothing but such
pictures, and what it scores on the synthetic miniatures says nothing about the benchmarks that they are named after.

{role}

## How it was made

    prh train tiny --out DIR

writes it to `DIR/{name}`, beside the others. `training.json` holds the configuration of its last part and the
versions; the settings of all parts are the recipe `tiny`. It speaks protocol `pixel-reasoner`, and `prh.json` holds
its pixel budgets and limits:

    prh eval --model {name} --task vstar-mini

## Results

Test splits, of whose pictures none was trained on; greedy decoding; per cent with 95 % intervals. `{hard}`
are the questions whose answer an overview does not show; RaPR is the share of episodes with at least one operation;
the crop IoU is the median overlap of a crop with what the question asks about, 1 where they are the same.

| task | n | metric | all | `{hard}` | RaPR | op-error rate | crop IoU |
|---|---|---|---|---|---|---|---|
{rows}
"""
Figures = Mapping[str, Mapping[str, Json]]


def write_card(folder: Path, out: Path, say: Callable[[str], None]) -> None:
    """Evaluate a checkpoint on the miniatures' test splits and write what it does into its card.

    Args:
        out: where the runs go; what is done there is not done again.

    Raises:
        PrhError: it cannot be evaluated.
        OSError: the card cannot be written.
    """
    rows = []
    for task in TASKS:
        metrics = run(plan(Request(str(folder), task, out / task))).metrics
        rows.append(_row(task, metrics))
        say(f"{folder.name}: {rows[-1]}")
    text = CARD.format(
        name=folder.name, role=ROLES[folder.name], parameters=_parameters(folder), hard=HARD, rows="\n".join(rows)
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _row(task: str, metrics: Mapping[str, Json]) -> str:
    primary, whole = str(metrics["primary"]), cast(Figures, metrics["metrics"])
    hard = cast("Mapping[str, Figures]", metrics["slices"]).get(HARD, {})
    cells = [whole[primary], hard.get(primary), whole["rapr"], whole["op_error_rate"]]
    overlap = whole["crop_iou"]["value"] if "crop_iou" in whole else None
    shown = " | ".join([*map(_shown, cells), "-" if overlap is None else f"{cast(float, overlap):.2f}"])
    return f"| {task} | {metrics['n']} | {primary} | {shown} |"


def _shown(figure: Mapping[str, Json] | None) -> str:
    """A share as it stands in a table, such as ``62.3 (55.2-68.9)``."""
    if not figure or figure["value"] is None:
        return "-"
    value, low, high = (100 * cast(float, figure[key]) for key in ("value", "low", "high"))
    return f"{value:.1f} ({low:.1f}-{high:.1f})"


def _parameters(folder: Path) -> float:
    """In millions."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as weights:
        sizes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118 - no mapping
    return sum(map(prod, sizes)) / 1e6
