"""The command ``prh report``."""

from __future__ import annotations

import gc
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from ..harness.errors import UsageError
from ..harness.settings import read_config
from ..harness.store import write_atomic

if TYPE_CHECKING:
    from .album import Images
    from .report import Form

DEFAULTS = ("report.html", "report.json", "report.md")


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="File to write: .html, .json or .md (Markdown); may be repeated. [default: report.html, .json and .md, of one "
    "run in its folder]",
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
    out: tuple[Path, ...],
    images: str,
    profile: str | None,
    allow: tuple[str, ...],
    margin: float | None,
    config: Path | None,
) -> None:
    """Write one HTML file about runs: the verdict, where and by how much, and every sample with its crops.

    The same data as JSON for machines, and the short of it as Markdown for a pull request, by the file's suffix.

    The first RUN is the baseline. A RUN is a run folder, a folder of runs, the seeds of one training joined by commas,
    or the folder of a training, whose curves are drawn. The file loads nothing and opens from the disk.

    \b
    prh report runs/base runs/tuned -o report.html -o report.json -o report.md
    prh report runs/base runs/tuned runs/sft-s0 runs/sft-s1
    """
    from .limits import read_limits
    from .outputs import check_outputs
    from .report import Options, documents

    targets = out or _defaults(runs)
    forms = [_form(target) for target in targets]
    check_outputs([str(target) for target in targets])
    gc.disable()  # what is read is kept to the end: looking for garbage among it takes a tenth of the time
    limits = read_limits(read_config(config), margin)
    options = Options(cast("Images", images), profile, (*limits.allow, *allow), limits)
    made = documents(runs, options, forms)
    for target, form in zip(targets, forms, strict=True):
        data = made[form].encode()
        write_atomic(target, data)
        where = f"; open it in a browser: {shlex.quote(str(target.resolve()))}" if form == "html" else ""
        click.echo(f"wrote {target} ({len(data) / 1e6:.1f} MB){where}")


def _defaults(runs: Sequence[str]) -> tuple[Path, ...]:
    only = Path(runs[0])
    folder = only if len(runs) == 1 and only.is_dir() else Path()
    return tuple(folder / name for name in DEFAULTS)


def _form(target: Path) -> Form:
    """What a file is to hold, by its suffix. Raises UsageError."""
    known: dict[str, Form] = {".html": "html", ".htm": "html", ".json": "json", ".md": "md", ".markdown": "md"}
    if target.suffix.lower() not in known:
        raise UsageError(f"{target}: the suffix says what to write; use .html, .json or .md")
    return known[target.suffix.lower()]
