"""The command ``prh report``."""

from __future__ import annotations

import gc
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from ..harness.settings import read_config
from ..harness.store import write_atomic

if TYPE_CHECKING:
    from .album import Images

DEFAULT = "report.html"


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="File to write. [default: report.html, of one run in its folder]",
)
@click.option(
    "--images",
    type=click.Choice(["thumb", "full", "none"]),
    default="thumb",
    show_default=True,
    help="Pictures as thumbnails, as they are, or not at all.",
)
@click.option("--profile", help="How answers are read, alike in all runs. [default: as each run was]")
@click.option(
    "--allow", multiple=True, metavar="FIELD", help="A field that may differ, such as protocol; may be repeated."
)
@click.option("--margin", type=click.FloatRange(0, 1), help="How far a primary metric may fall. [default: 0.02]")
@click.option(
    "--config", type=click.Path(path_type=Path), help="File with [gate]. [default: prh.toml where there is one]"
)
def report_command(
    runs: tuple[str, ...],
    out: Path | None,
    images: str,
    profile: str | None,
    allow: tuple[str, ...],
    margin: float | None,
    config: Path | None,
) -> None:
    """Write one HTML file about runs: the verdict, where and by how much, and every sample with its crops.

    The first RUN is the baseline. A RUN is a run folder, a folder of runs, the seeds of one training joined by commas,
    or the folder of a training, whose curves are drawn. The file loads nothing and opens from the disk.

    \b
    prh report runs/base runs/tuned -o report.html
    prh report runs/base runs/tuned runs/sft-s0 runs/sft-s1
    """
    from .limits import read_limits
    from .report import Options, report

    gc.disable()  # what is read is kept to the end: looking for garbage among it takes a tenth of the time
    limits = read_limits(read_config(config), margin)
    options = Options(cast("Images", images), profile, (*limits.allow, *allow), limits)
    page = report(runs, options).encode()
    only = Path(runs[0])
    target = out or (only / DEFAULT if len(runs) == 1 and only.is_dir() else Path(DEFAULT))
    write_atomic(target, page)
    click.echo(f"wrote {target} ({len(page) / 1e6:.1f} MB); open it in a browser: {shlex.quote(str(target.resolve()))}")
