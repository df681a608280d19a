"""The commands that train: ``prh train sft``, and its recipes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import click
from tqdm import tqdm

from ..harness.errors import Prerequisite, UsageError
from ..harness.signals import stoppable
from ..harness.terminal import safe
from ..harness.types import Json
from .config import SftConfig, build, override, read_recipe, recipe_files
from .grpo_config import GrpoConfig
from .notices import notices
from .watcher import Watcher

if TYPE_CHECKING:
    from .loop import Training

LINE_SECONDS = 10.0
STOPPED = "stopped; the same command goes on after the last checkpoint"
PARTS = ("base", "warm", "sft", "rl")


@click.group("train")
def train_group() -> None:
    """Train checkpoints."""


Command = TypeVar("Command", bound=Callable[..., None])
# oneDNN keeps what it compiled for every shape of a batch; of thousands of shapes that is gigabytes.
FEW_SHAPES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")


def trained(command: Command) -> Command:
    """What every training's command takes: its configuration, its folder, and when it is evaluated."""
    for decorate in (
        click.option("--eval-every", type=click.IntRange(1), help="Steps between them. [default: at each checkpoint]"),
        click.option("--eval", "tasks", help="Evaluate checkpoints on this task, or several by comma."),
        click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Over CONFIG, as train.seed=1."),
        click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder; a training there goes on."),
        click.argument("config"),
    ):
        command = decorate(command)
    return command


@train_group.command("sft")
@trained
def sft_command(config: str, out: Path, sets: tuple[str, ...], tasks: str | None, eval_every: int | None) -> None:
    """Learn trajectories: CONFIG is a TOML file, or a recipe of this package by name."""
    values, root = read_recipe(config)
    read = build(SftConfig, override(values, [*sets, *_evaluated(tasks, eval_every)]))
    with installed():
        from . import sft
    with stoppable(STOPPED), notices():
        sft.train(read, out, root, Screen)


@train_group.command("grpo")
@trained
def grpo_command(config: str, out: Path, sets: tuple[str, ...], tasks: str | None, eval_every: int | None) -> None:
    """Reinforce what pays: CONFIG is a TOML file, or a recipe of this package by name."""
    values, root = read_recipe(config)
    read = build(GrpoConfig, override(values, [*sets, *_evaluated(tasks, eval_every)]))
    os.environ.setdefault(*FEW_SHAPES)
    with installed():
        from . import grpo
    with stoppable(f"{STOPPED}, with what was sampled"), notices():
        grpo.train(read, out, root, RoundScreen)


@contextmanager
def installed() -> Iterator[None]:
    """Raises Prerequisite for a package of the extra ``train`` that an import misses."""
    try:
        yield
    except ImportError as error:
        raise Prerequisite(f"training needs {error.name}, which is not installed: pip install 'prh[train]'") from None


def _evaluated(tasks: str | None, every: int | None) -> list[str]:
    """What ``--eval`` and ``--eval-every`` set."""
    more = [f"eval.tasks={[name for name in tasks.split(',') if name]}"] if tasks else []
    return [*more, f"eval.every={every}"] if every else more


@train_group.command("tiny")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder; what is done there stays done.")
@click.option("--recipe", default="tiny", show_default=True, help="TOML file, or a recipe of this package by name.")
@click.option("--until", type=click.Choice(PARTS), default=PARTS[-1], show_default=True, help="Where to stop.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Over the recipe, as practice.seed=1.")
def tiny_command(out: Path, recipe: str, until: str, sets: tuple[str, ...]) -> None:
    """Train tiny checkpoints from nothing: sight, practice, trajectories, warm start, training, reinforcement."""
    values, _ = read_recipe(recipe)
    os.environ.setdefault(*FEW_SHAPES)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with installed():
        from . import tiny
    with stoppable(STOPPED):
        made = tiny.make(build(tiny.TinyConfig, override(values, sets)), out, until, click.echo, (Screen, RoundScreen))
    click.echo(f"wrote {made}")
    click.echo(f"next  prh eval --model {made} --task vstar-mini")


@train_group.command("recipe")
@click.argument("name", required=False)
def recipe_command(name: str | None) -> None:
    """Print a recipe of this package, or a launcher's configuration, to start from; without NAME, list them."""
    found = {entry.name: entry for entry in recipe_files()}
    if name is None:
        click.echo("\n".join(found))
        return
    entry = found.get(name) or found.get(f"{name}.toml")
    if entry is None:
        raise UsageError(f"there is no recipe {name!r}; use one of {', '.join(found)}")
    click.echo(entry.read_text(encoding="utf-8"), nl=False)


class Screen(Watcher):
    """A progress bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self.bar: tqdm[None] | None = None
        self.told = 0.0
        self.total = 0

    def opened(self, training: Training, first: int) -> None:
        click.echo("\n".join(training.opening()))
        if first:
            click.echo(f"going on after step {first}")
        self.total = training.steps
        if sys.stderr.isatty():
            self.bar = tqdm(total=training.steps, initial=first, unit="step")

    def stepped(self, row: Mapping[str, Json]) -> None:
        text = self.told_of(row)
        if self.bar is not None:
            self.bar.set_postfix_str(text)
            self.bar.update()
        elif time.monotonic() - self.told > LINE_SECONDS or row["step"] == self.total:
            self.told = time.monotonic()
            click.echo(f"step {row['step']}/{self.total}  {text}")

    def told_of(self, row: Mapping[str, Json]) -> str:
        """A step in a line."""
        return f"loss {row['loss']:.4f}  norm {_shown(row['norm'])}  rate {row['rate']:.3f}"

    def saved(self, path: Path) -> None:
        self._say(f"saved {path}")

    def evaluated(self, row: Mapping[str, Json]) -> None:
        values = "  ".join(f"{name} {_shown(value)}" for name, value in row.items() if name != "step")
        self._say(f"step {row['step']}  {values}")

    def ended(self, final: Path) -> None:
        if self.bar is not None:
            self.bar.close()
        click.echo(f"wrote {final}")
        click.echo(f"next  prh eval --model {final} --task vstar-mini")

    def _say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.write(safe(text))
        else:
            click.echo(safe(text))


class RoundScreen(Screen):
    """The same for a reinforcement: what its rollouts are like."""

    def told_of(self, row: Mapping[str, Json]) -> str:
        shown = {
            "RaPR": "rapr",
            "op-error": "op_error_rate",
            "accuracy": "accuracy",
            "reward": "reward",
            "entropy": "entropy",
            "clip": "clip_share",
            "gap": "logprob_gap",
        }
        figures = "  ".join(f"{name} {_shown(row[key])}" for name, key in shown.items())
        speed = row["rollout_tokens_per_second"]
        more = f"  {cast(float, speed):.0f} tokens/s" if speed else ""
        return f"{figures}  filtered {row['groups_filtered']}/{row['groups']}{more}"


def _shown(value: Json) -> str:
    return "-" if value is None else f"{cast(float, value):.3f}"
