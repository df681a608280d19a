"""The command ``prh synth``."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path

import click

from ..harness.errors import UsageError
from ..harness.record import Record
from ..harness.signals import stoppable
from ..harness.terminal import safe, table
from .config import override, read_recipe
from .export import FILE, export
from .gates import Refused
from .known import Known
from .notices import notices
from .recipe import Recipe, read
from .synth import Made, Order, Screen, synthesise
from .teachers.asking import Cost

LINE_SECONDS = 10.0
WIDTH = 30


class Progress(Screen):
    """A bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self.source, self.wanted = "", 0
        self.made = self.refused = self.before = 0
        self.start = self.last = time.monotonic()

    def comparing(self, task: str, done: int, total: int) -> None:
        self._line(f"looking at {task}: {done}/{total} evaluation media", done == total)

    def reading(self, source: str, done: int, total: int) -> None:
        self._line(f"{source}: {done}/{total} read or drawn", done == total, done / max(total, 1))

    def opened(self, order: Order, known: Known, kept: int) -> None:
        recipe = order.recipe
        compared = ", ".join(f"{one['task']} ({one['split']})" for one in known.compared) or "nothing"
        click.echo(f"recipe    {len(recipe.source)} sources, seed {recipe.synth.seed}, grid {recipe.synth.grid:g}")
        click.echo(f"kept out  the media of {compared}")
        if known.absent:
            click.echo(f"          not at hand: {', '.join(sorted({str(one['task']) for one in known.absent}))}")
        click.echo(f"run       {order.out}" + (f", {kept} trajectories made before" if kept else ""))

    def begun(self, source: str, wanted: int) -> None:
        self.source, self.wanted = source, wanted
        self.made = self.refused = 0
        self.start = time.monotonic()

    def finished(self, source: str, record: Record | None, refusal: Refused | None) -> None:
        self.made += record is not None
        self.refused += refusal is not None
        rate = self.made / max(time.monotonic() - self.start, 1e-9)
        of = f"/{self.wanted}" if self.wanted else ""
        text = f"{self.source}: {self.made}{of} made, {self.refused} refused, {rate:.0f}/s"
        share = self.made / self.wanted if self.wanted else None
        self._line(text, share == 1.0, share)

    def costs(self, source: str, teacher: str, count: int, one: Cost) -> None:
        all_of = one.times(count or 1)
        each = "" if count else " for each trajectory"
        click.echo(
            f"cost      {source}: {teacher} asks about {all_of.requests:,.0f} requests with {all_of.images:,.0f} "
            f"images, {all_of.prompt_tokens:,.0f} prompt tokens and at most {all_of.new_tokens:,.0f} new tokens{each}"
        )

    def _line(self, text: str, last: bool, share: float | None = None) -> None:
        now, terminal = time.monotonic(), sys.stdout.isatty()
        if now - self.last < (0.1 if terminal else LINE_SECONDS) and not last:
            return
        self.last = now
        bar = "" if share is None else f"[{'#' * round(share * WIDTH):<{WIDTH}}] "
        click.echo(f"\r{bar}{safe(text)}\x1b[K" if terminal else safe(text), nl=last or not terminal)


@click.command("synth")
@click.argument("config")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; a synthesis there goes on.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Over the recipe, such as synth.seed=1.")
@click.option("--concurrency", type=click.IntRange(1), default=8, show_default=True, help="Trajectories at once.")
@click.option("--limit", type=click.IntRange(1), help="At most so many trajectories of each source.")
@click.option("--estimate", is_flag=True, help="Say what would be made and what models would be asked, and stop.")
@click.option("--export", "target", type=click.Path(path_type=Path), help="Write the run CONFIG here as released data.")
def synth_command(
    config: str,
    out: Path | None,
    sets: tuple[str, ...],
    concurrency: int,
    limit: int | None,
    estimate: bool,
    target: Path | None,
) -> None:
    """Make trajectories to learn from: CONFIG is a TOML file, or a recipe of this package by name.

    \b
    prh synth synth-mini --out runs/lessons
    prh synth --export released runs/lessons
    """
    if target is not None:
        count = export(Path(config), target)
        click.echo(f"wrote {count} trajectories to {target / FILE}")
        return
    values, root = read_recipe(config)
    recipe = limited(read(override(values, sets)), limit)
    if out is None and not estimate:
        raise UsageError("say with --out where the trajectories go, such as --out runs/lessons")
    command = ["prh", *sys.argv[1:]]
    order = Order(recipe, root, out or Path("runs/lessons"), concurrency, estimate, command)
    with stoppable("stopped; the same command goes on where it ended"), notices():
        made = synthesise(order, Progress())
    if not estimate:
        print_yield(made)


def limited(recipe: Recipe, limit: int | None) -> Recipe:
    """The recipe with no source above a number of trajectories."""
    if limit is None:
        return recipe
    parts = (replace(part, count=min(part.count or limit, limit)) for part in recipe.source)
    return replace(recipe, source=tuple(parts))


def print_yield(made: Made) -> None:
    """The yield table and what to do next."""
    rows = [row for tally in made.tallies for row in tally.rows()]
    click.echo("")
    click.echo(table(["source", "kind", "made", "refused"], rows))
    for tally in made.tallies:
        count = sum(tally.made.values())
        if tally.asked and count < tally.asked:
            click.echo(f"warning   {tally.source}: {count} of {tally.asked}; its seeds are used up", err=True)
        for gate, reasons in sorted(tally.examples.items()):
            click.echo(f"refused   {tally.source}, {gate}: {safe(reasons[0])}", err=True)
    click.echo(f"\n{made.records} trajectories in {made.seconds:.1f} s")
    folder = shlex.quote(str(made.folder))
    click.echo(f"next      prh show {folder}\n          less {folder}/README.md")
