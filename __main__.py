"""The command ``prh``: one click group, each command loaded from its room when it is called."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from pathlib import Path
from typing import NoReturn, cast

import click

from .harness.errors import PrhError

COMMANDS = {
    "eval": ("harness.commands:eval_command", "Evaluate checkpoints on benchmarks."),
    "resume": ("harness.commands:resume_command", "Go on with an interrupted run."),
    "score": ("harness.commands:score_command", "Read the answers of a run again, without a model."),
    "compare": ("reports.commands:compare_command", "Compare runs, sample by sample."),
    "gate": ("reports.commands:gate_command", "Judge a candidate against a baseline."),
    "power": ("reports.commands:power_command", "How small a difference a benchmark can show."),
    "show": ("harness.commands:show_command", "Show one trajectory in the terminal."),
    "list": ("harness.commands:list_command", "List tasks, engines, protocols, models, baselines ..."),
    "report": ("reports.report_command:report_command", "Write one HTML file about runs."),
    "data": ("tasks.commands:data_group", "Fetch, check or make datasets."),
    "train": ("training.train_commands:train_group", "Train checkpoints."),
    "synth": ("training.synth_commands:synth_command", "Make trajectories to learn from."),
    "doctor": ("models.doctor:doctor_command", "Check what this machine can run."),
}
EXIT_CODES = """
Exit codes: 0 done or pass, 1 regression, 2 wrong use or something missing, 3 too many engine or data errors,
4 incomparable, 5 inconclusive under --strict, 130/143 stopped by a signal.
"""


class Group(click.Group):
    """Commands imported when they are called; a wrong name is answered with the closest right ones."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        loaded = importlib.import_module(f".{module}", __package__)
        return cast(click.Command, getattr(loaded, name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, n=2, cutoff=0.5)
            hint = f"did you mean {' or '.join(close)}?" if close else f"use one of {', '.join(COMMANDS)}"
            ctx.fail(f"no command {args[0]!r}: {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(package_name="prh")
def prh() -> None:
    """Evaluate and train models that reason in pixels.

    \b
    prh eval --model tiny --task vstar-mini
    prh list tasks
    """


def main() -> NoReturn:
    """Run the command; a user's mistake ends in one line and exit code 2, never in a traceback."""
    if sys.stdout is None:  # closed by whoever started us
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - open for the life of the process
    try:
        prh.main(standalone_mode=False)
        code = 0
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = 2
    except click.Abort:
        code = 130
    except PrhError as error:
        click.echo(f"prh: {error}", err=True)
        code = error.exit_code
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
        where = f": {error.filename}" if error.filename else ""
        click.echo(f"prh: {error.strerror or error}{str(where)[:200]}", err=True)
        code = 2
    sys.exit(code)


if __name__ == "__main__":
    main()
