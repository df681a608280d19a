"""Reproduce the learning trap on the synthetic miniatures: ``make trap``, some of it by ``make trap RUNS=full-0``.

Trains what ``plan.toml`` says, two at a time on one thread each, evaluates every end on the test splits, and writes
beside this file ``results/ARM-SEED.json`` for each training, and from all of these ``table.md`` and ``curves.svg``.
Trainings and evaluations lie in ``runs/trap`` and go on where they were interrupted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from prh.reports.curves import band, read_training
from prh.training.config import build, read_recipe

HERE = Path(__file__).parent
OUT = Path("runs/trap")
PLAN = tomllib.loads((HERE / "plan.toml").read_text(encoding="utf-8"))
SHORT = {
    "vstar-mini": "V*",
    "tallyqa-complex-mini": "TallyQA",
    "mvbench-mini": "MVBench",
    "infographicsvqa-mini": "Info",
}
# What is kept of a training's log, and over how many of its steps a point of the curves is the mean.
CURVES = {
    "rapr.needs_operation": "RaPR where an operation is needed",
    "op_error_rate": "op-error rate",
    "accuracy.needs_operation": "accuracy where an operation is needed",
    "accuracy": "accuracy, all questions",
}
WIDE = 5
Figures = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Arm:
    """A row of the table: trainings that differ in their seed alone; without seeds, a checkpoint as it is."""

    name: str
    title: str
    base: str = ""
    set: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    without: tuple[str, ...] = ()
    steps: int = 0

    @property
    def start(self) -> str:
        """The checkpoint that it begins with."""
        return str(OUT / "starts" / self.name / "final") if self.without else self.base


ARMS = [build(Arm, arm) for arm in PLAN["arm"]]
# What reinforcement begins with, and what the same trajectories make alone, as rows of the table too.
STARTS = [
    Arm("tiny-sft", "SFT to the end, no RL", "tiny-sft"),
    Arm("tiny-warm", "Warm start, no RL", "tiny-warm"),
    Arm("tiny-base", "Neither", "tiny-base"),
]


def prh(*words: object) -> None:
    """Run a command of prh on one thread, what it tells into a file; a failure ends this one."""
    OUT.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "prh", *map(str, words)]
    with (OUT / "log.txt").open("a", encoding="utf-8") as log:
        own = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, check=False, env=own, stdout=log, stderr=log)  # noqa: S603 - our own command
    if done.returncode:
        sys.exit(f"`prh {' '.join(map(str, words))}` ended with {done.returncode}; {OUT / 'log.txt'} says why")


def begin(arm: Arm) -> None:
    """Make the start of an arm that has one of its own: as `tiny-warm` is made, without some kinds of lessons."""
    lessons, target = OUT / "lessons", OUT / "starts" / arm.name
    if not arm.without or (target / "final").is_dir():
        return
    prh("synth", "synth-mini", "--out", lessons)
    recipe, _ = read_recipe("tiny")
    warm: dict[str, Any] = {**cast("dict[str, Any]", recipe["warm"])}
    sets = [f"{part}.{key}={json.dumps(value)}" for part, own in warm.items() for key, value in own.items()]
    sets += ["model.base=tiny-base", f"data.lessons={json.dumps([str(lessons.resolve())])}"]
    sets += [f"data.without={json.dumps(arm.without)}", f"train.steps={arm.steps}"]
    prh("train", "sft", "sft-tiny", "--out", target, *(word for one in sets for word in ("--set", one)))


def train(arm: Arm, seed: int) -> None:
    """Train, evaluate, and keep the figures."""
    name = f"{arm.name}-{seed}"
    sets = [f"train.seed={seed}", f"train.rounds={PLAN['rounds']}", *arm.set]
    if arm.start != "tiny-warm":
        sets.append(f"model.base={Path(arm.start).resolve() if arm.without else arm.start}")
    prh("train", "grpo", "grpo-tiny", "--out", OUT / name, *(word for one in sets for word in ("--set", one)))
    keep(name, str(OUT / name / "final"), curves(read_training(OUT / name).rows))


def keep(name: str, model: str, drawn: Mapping[str, Sequence[float | None]]) -> None:
    """Evaluate a checkpoint on the test splits and write what is kept of it."""
    tasks = PLAN["tasks"]
    prh("eval", "--model", model, "--task", ",".join(tasks), "--out", OUT / "evals" / name)
    found = {}
    for task in tasks:
        told = json.loads((OUT / "evals" / name / task / "metrics.json").read_text(encoding="utf-8"))
        hard = told["slices"]["needs_operation"]
        found[task] = {
            "n": told["n"],
            **{key: told["metrics"][key] for key in (told["primary"], "rapr", "op_error_rate")},
            "needs_operation": {key: hard[key] for key in (told["primary"], "rapr")},
        }
    (HERE / "results").mkdir(exist_ok=True)
    text = json.dumps({"curves": drawn, "tasks": found}, indent=1)
    (HERE / "results" / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


def curves(rows: Sequence[Figures]) -> dict[str, list[float | None]]:
    """Figures by step, some steps together."""
    groups = [rows[start : start + WIDE] for start in range(0, len(rows), WIDE)]
    drawn: dict[str, list[float | None]] = {"step": [group[-1]["step"] for group in groups]}
    for key in CURVES:
        values = [[row[key] for row in group if key in row] for group in groups]
        drawn[key] = [round(sum(own) / len(own), 4) if own else None for own in values]
    return drawn


def kept(arm: Arm) -> Iterator[Figures]:
    """What is kept of the trainings of an arm that were done."""
    for name in [f"{arm.name}-{seed}" for seed in arm.seeds] or [arm.name]:
        path = HERE / "results" / f"{name}.json"
        if path.is_file():
            yield json.loads(path.read_text(encoding="utf-8"))


def table() -> str:
    """The final table, in the paper's form: methods by benchmarks; RaPR and op-error rate beside them."""
    tasks = PLAN["tasks"]
    means = ["mean", "mean where needed", "RaPR where needed", "op errors"]
    heads = ["method", "seeds", *(SHORT[task] for task in tasks), *means]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for arm in (*ARMS, *STARTS):
        runs = [figures(run["tasks"]) for run in kept(arm)]
        if runs:
            cells = [shown([value for run in runs if (value := run[head]) is not None]) for head in (*tasks, *means)]
            lines.append(f"| {' | '.join([arm.title, str(len(runs)) if arm.seeds else '-', *cells])} |")
    return "\n".join(lines) + "\n"


def figures(tasks: Figures) -> dict[str, float | None]:
    """What one checkpoint has in the table: the primary metric by task, and means over tasks."""
    found: dict[str, float | None] = {}
    columns: dict[str, list[float | None]] = {
        "mean": [],
        "mean where needed": [],
        "RaPR where needed": [],
        "op errors": [],
    }
    for task, own in tasks.items():
        hard = own["needs_operation"]
        primary = next(key for key in hard if key != "rapr")
        found[task] = own[primary]["value"]
        values = (found[task], hard[primary]["value"], hard["rapr"]["value"], own["op_error_rate"]["value"])
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    for head, column in columns.items():
        known = [value for value in column if value is not None]
        found[head] = sum(known) / len(known) if known else None
    return found


def shown(values: Sequence[float]) -> str:
    """Per cent, with half of the interval over seeds."""
    if not values:
        return "-"
    mean, low, _ = band([100 * value for value in values])
    return f"{mean:.1f} ± {mean - low:.1f}" if len(values) > 1 else f"{mean:.1f}"


def draw(path: Path) -> None:
    """The curves of all arms, the mean over seeds and the span from lowest to highest."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "prh", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(9.2, 5.6), layout="constrained")
        for axes, (key, title) in zip(figure.subplots(2, 2).flat, CURVES.items(), strict=True):
            for arm in ARMS:
                runs = [run["curves"] for run in kept(arm)]
                if not runs:
                    continue
                columns = [
                    [value for value in column if value is not None]
                    for column in zip(*(run[key] for run in runs), strict=False)
                ]
                steps = [step for step, column in zip(runs[0]["step"], columns, strict=False) if column]
                columns = [column for column in columns if column]
                (line,) = axes.plot(steps, [sum(column) / len(column) for column in columns], label=arm.title)
                axes.fill_between(
                    steps, [*map(min, columns)], [*map(max, columns)], color=line.get_color(), alpha=0.15, linewidth=0
                )
            axes.set_title(title)
            axes.set_ylim(0, 1 if key.startswith("rapr") else None)
            axes.grid(axis="y", linewidth=0.4)
            axes.spines[["top", "right"]].set_visible(False)
        figure.axes[0].legend(frameon=False)
        figure.supxlabel("step")
        figure.savefig(path, metadata={"Date": None})


def main(*names: str) -> None:
    """Do what is asked for, and write what is known then."""
    known = [f"{arm.name}-{seed}" for arm in ARMS for seed in arm.seeds] + [arm.name for arm in STARTS]
    if unknown := set(names) - set(known):
        sys.exit(f"there is no run {', '.join(sorted(unknown))}; choose from {', '.join(known)}")
    wanted = [(arm, seed) for arm in ARMS for seed in arm.seeds if not names or f"{arm.name}-{seed}" in names]
    for arm in {arm.name: arm for arm, _ in wanted}.values():
        begin(arm)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(train, arm, seed) for arm, seed in wanted]
        jobs += [pool.submit(keep, arm.name, arm.base, {}) for arm in STARTS if not names or arm.name in names]
        for job in jobs:
            job.result()
    (HERE / "table.md").write_text(table(), encoding="utf-8")
    draw(HERE / "curves.svg")


if __name__ == "__main__":
    main(*sys.argv[1:])
