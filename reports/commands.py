"""The commands that judge runs: ``compare``, ``gate`` and ``power``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from ..harness import registry
from ..harness.errors import UsageError
from ..harness.settings import read_config
from ..harness.store import write_atomic
from ..harness.terminal import safe, table
from ..harness.types import Json

if TYPE_CHECKING:
    from .compare import Comparison
    from .gate import Verdict
    from .power import Plan, Question

INCOMPARABLE = 4
RUNS = click.argument("runs", nargs=-1, required=True, metavar="RUN...")
PROFILE = "How answers are read, alike on both sides. [default: as each run was]"
ALLOW = "A field that may differ because it is what is compared, such as protocol; may be repeated."


@click.command("compare")
@RUNS
@click.option("--profile", help=f"{PROFILE} `all` compares under every profile.")
@click.option("--allow", multiple=True, metavar="FIELD", help=ALLOW)
@click.option("--markdown", metavar="FILE", help="Write Markdown, for a pull request; - for standard output.")
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON on standard output.")
def compare_command(
    runs: tuple[str, ...], profile: str | None, allow: tuple[str, ...], markdown: str | None, as_json: bool
) -> None:
    """Compare runs, sample by sample; the first is the baseline.

    A RUN is a run folder, a folder of runs, or the seeds of one training joined by commas. Ends with 4 where
    something stands in the way of comparing, which is named first.

    \b
    prh compare runs/base runs/tuned
    prh compare base-s0,base-s1,base-s2 tuned-s0,tuned-s1,tuned-s2
    prh compare runs/direct runs/tools --allow protocol --allow prompt --allow operations --allow limits
    """
    from .outputs import check_outputs

    check_outputs([markdown], as_json=as_json)
    if profile == "all":
        _compare_profiles(runs, allow, markdown, as_json)
        return
    from .compare import compare
    from .documents import comparison_json
    from .markdown import comparison_markdown

    comparison = compare(runs, profile, allow)
    if as_json:
        _say_json(comparison_json(comparison))
    elif markdown != "-":
        print_comparison(comparison)
    if markdown:
        _write(markdown, comparison_markdown(comparison).encode())
    if not comparison.comparable:
        sys.exit(INCOMPARABLE)


def _compare_profiles(runs: Sequence[str], allow: Sequence[str], markdown: str | None, as_json: bool) -> None:
    from .compare import compare_profiles
    from .documents import sensitivity_json
    from .markdown import sensitivity_markdown
    from .present import sensitivity_first, sensitivity_table

    found = compare_profiles(runs, registry.names("profiles"), allow)
    if as_json:
        _say_json(sensitivity_json(found))
    elif markdown != "-":
        for line in sensitivity_first(found):
            click.echo(safe(line))
        click.echo(table(*sensitivity_table(found)))
    if markdown:
        _write(markdown, sensitivity_markdown(found).encode())
    if not all(comparison.comparable for comparison in found.values()):
        sys.exit(INCOMPARABLE)


def print_comparison(comparison: Comparison) -> None:
    """What stands in the way, then the tables, for a terminal."""
    from .present import blocks

    for number, block in enumerate(blocks(comparison)):
        click.echo(("\n" if number else "") + safe(block.title))
        for line in block.first:
            click.echo(safe(line))
        for header, rows in block.tables:
            click.echo("")
            click.echo(table(header, rows))
        for line in block.last:
            click.echo(safe(line))
    for line in comparison.missing:
        click.echo(f"note  {safe(line)}")


@click.command("gate")
@click.argument("candidate")
@click.option("--baseline", required=True, metavar="RUN", help="What it is judged against.")
@click.option("--margin", type=click.FloatRange(0, 1), help="How far a primary metric may fall. [default: 0.02]")
@click.option("--strict", is_flag=True, help="Fail with 5 where the verdict is inconclusive.")
@click.option("--profile", help=PROFILE)
@click.option("--allow", multiple=True, metavar="FIELD", help=ALLOW)
@click.option(
    "--config", type=click.Path(path_type=Path), help="File with [gate]. [default: prh.toml where there is one]"
)
@click.option("--junit", metavar="FILE", help="Write JUnit XML; - for standard output.")
@click.option("--markdown", metavar="FILE", help="Write a summary in Markdown; - for standard output.")
@click.option("--json", "as_json", is_flag=True, help="Verdict and checks as JSON on standard output.")
def gate_command(
    candidate: str,
    baseline: str,
    margin: float | None,
    strict: bool,
    profile: str | None,
    allow: tuple[str, ...],
    config: Path | None,
    junit: str | None,
    markdown: str | None,
    as_json: bool,
) -> None:
    """Judge a candidate against a baseline: pass, regression, inconclusive or incomparable.

    It passes where the paired 95 % interval of the difference lies above minus the margin. Limits on any metric stand
    under [gate] in prh.toml. Ends with 0 pass or inconclusive, 1 regression, 3 too many errors, 4 incomparable,
    5 inconclusive under --strict.

    \b
    prh gate runs/candidate --baseline runs/baseline --junit gate.xml --markdown summary.md
    """
    from .compare import check_allowed, compare_entrants
    from .gate import judge
    from .limits import read_limits
    from .outputs import check_outputs
    from .runs import sides

    check_outputs([junit, markdown], as_json=as_json)
    limits = read_limits(read_config(config), margin)
    limits = replace(limits, strict=strict or limits.strict)
    allowed = [*limits.allow, *allow]
    check_allowed(allowed)
    comparison = compare_entrants(sides(baseline, candidate), profile, allowed)
    verdict = judge(comparison, limits)
    _tell(verdict, comparison, as_json, junit, markdown)
    sys.exit(verdict.exit_code)


def _tell(verdict: Verdict, comparison: Comparison, as_json: bool, junit: str | None, markdown: str | None) -> None:
    from .documents import verdict_json
    from .junit import junit as junit_xml
    from .markdown import verdict_markdown

    if as_json:
        _say_json(verdict_json(verdict))
    elif "-" not in (junit, markdown):
        print_verdict(verdict)
    if junit:
        _write(junit, junit_xml(verdict))
    if markdown:
        _write(markdown, verdict_markdown(verdict, comparison).encode())


def print_verdict(verdict: Verdict) -> None:
    """The verdict and every check, for a terminal."""
    click.echo(f"{verdict.verdict}: {safe(verdict.sentence)}")
    rows = [[f"{task.task}  {check.name}", check.state] for task in verdict.tasks for check in task.checks]
    texts = [check.text for task in verdict.tasks for check in task.checks]
    lines = table(["check", "result"], rows).splitlines()
    click.echo("\n".join([*lines[:2], *(f"{line}  {safe(text)}" for line, text in zip(lines[2:], texts, strict=True))]))
    for note in verdict.notes:
        click.echo(f"note  {safe(note)}")


@click.command("power")
@click.argument("runs", nargs=-1, metavar="[RUN [RUN]]")
@click.option("--samples", type=click.IntRange(1), help="Number of samples, where there is no run yet.")
@click.option(
    "--discordance",
    type=click.FloatRange(0, 1, min_open=True),
    multiple=True,
    help="Share of samples that flip; may be repeated. [default: 0.05 0.1 0.2 0.3]",
)
@click.option(
    "--effect",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.05,
    show_default=True,
    help="A true difference to find.",
)
@click.option(
    "--margin", type=click.FloatRange(0, 1, min_open=True), default=0.02, show_default=True, help="Of a gate."
)
@click.option(
    "--chance", type=click.FloatRange(0.05, 0.999), default=0.8, show_default=True, help="With which it is to be found."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON on standard output.")
def power_command(
    runs: tuple[str, ...],
    samples: int | None,
    discordance: tuple[float, ...],
    effect: float,
    margin: float,
    chance: float,
    as_json: bool,
) -> None:
    """How small a difference a benchmark can show, and how many samples a gate needs.

    From two runs, with what they measured; from one, or a number of samples, with assumed shares of samples that flip.

    \b
    prh power runs/base runs/tuned
    prh power --samples 191
    """
    from .power import Question

    asked = Question(effect, margin, chance)
    plans = _plans(runs, samples, discordance, asked)
    if as_json:
        _say_json([cast(Json, asdict(plan)) for plan in plans])
    else:
        _print_plans(plans, asked)


def _plans(runs: Sequence[str], samples: int | None, shares: Sequence[float], asked: Question) -> list[Plan]:
    from .compare import compare
    from .power import assumed, plan, single

    if len(runs) > 2:
        raise UsageError(f"power takes at most two runs, not {len(runs)}; name a baseline and a candidate")
    if bool(runs) == bool(samples):
        raise UsageError("give one run, two runs, or --samples N")
    if samples:
        return assumed(f"{samples} samples", samples, shares, 1.0, asked)
    if len(runs) == 1:
        return [found for label, n, design in single(runs[0]) for found in assumed(label, n, shares, design, asked)]
    if shares:
        raise UsageError("--discordance is measured where two runs are given; leave it out")
    plans = []
    for task in compare(runs).tasks:
        for result in task.results:
            own = result.primary.difference
            label = f"{task.task} · {result.label}"
            plans.append(plan(label, own.n, own.spread, own.design, asked, measured=True))
    return plans


def _print_plans(plans: Sequence[Plan], asked: Question) -> None:
    header = ["", "samples", "flip %", "design", "detectable", f"chance of {100 * asked.effect:g} pt", "samples for it",
              "chance to pass", "samples for it"]  # fmt: skip
    rows = [
        [
            plan.label,
            f"{plan.n:,}",
            f"{100 * plan.discordance:.1f}",
            f"{plan.design:.2f}",
            "-" if plan.detectable is None else f"{100 * plan.detectable:.1f} pt",
            f"{100 * plan.found:.0f} %",
            f"{plan.needed:,}",
            f"{100 * plan.passes:.0f} %",
            f"{plan.to_pass:,}",
        ]
        for plan in plans
    ]
    click.echo(table(header, rows))
    click.echo(
        f"two-sided at 5 %, with a chance of {100 * asked.chance:g} %; to pass: a gate with a margin of "
        f"{100 * asked.margin:g} pt and a candidate that is truly equal; design: what shared images cost"
    )


def _say_json(value: Json) -> None:
    click.echo(json.dumps(value, ensure_ascii=True, allow_nan=False))


def _write(place: str, data: bytes) -> None:
    if place == "-":
        click.echo(data.decode(), nl=False)
    else:
        write_atomic(Path(place), data)
