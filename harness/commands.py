"""The commands that run and read evaluations: ``eval``, ``resume``, ``score``, ``show`` and ``list``."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import click

from . import registry
from .cards import update_card
from .engine import EngineFactory
from .errors import StoreError, UsageError
from .evaluate import Result, answer_tag, find_engine, load_profile, load_task, plan, run, score, sensitivity
from .ranks import Executor, run_in_group
from .record import Record
from .request import Request
from .screen import JsonScreen, Screen, print_metrics, print_sensitivity, print_summary
from .settings import read_config, read_sets
from .sharing import Group, executor_options, find_group
from .store import read_manifest, read_records, runs_below
from .task import Exports, Profile, Selection
from .terminal import safe, table
from .trackers import check_tracker, track
from .types import Json

TOO_MANY_ERRORS = 3


@click.command("eval")
@click.option(
    "--model",
    required=True,
    help="tiny, a folder, a hub id, http://HOST:PORT/v1#NAME, oracle, replay:RUN ...; several by comma.",
)
@click.option("--task", required=True, help="Task, or several by comma; see `prh list tasks`.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Run folder; an existing run goes on. [default: runs/TASK-MODEL]"
)
@click.option("--engine", help="Engine, where the model alone does not say.")
@click.option("--protocol", help="How the model is spoken to. [default: the checkpoint's, else pixel-reasoner]")
@click.option("--profile", help="How answers are read. [default: strict]")
@click.option("--data", type=click.Path(path_type=Path), help="Local folder or file of the dataset. [default: the hub]")
@click.option("--revision", help="Revision of the dataset on the hub.")
@click.option("--limit", type=click.IntRange(1), help="Only the first N samples.")
@click.option("--sample-id", "ids", multiple=True, help="Only this sample; may be repeated.")
@click.option("--repeats", type=click.IntRange(1), default=1, show_default=True, help="Episodes a sample (avg@k).")
@click.option("--seed", type=int, default=0, show_default=True, help="Of sampling.")
@click.option("--temperature", type=click.FloatRange(0), help="0 is greedy. [default: the checkpoint's, else 0]")
@click.option("--concurrency", type=click.IntRange(1), default=24, show_default=True, help="Episodes at once.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16, float16.")
@click.option("--config", type=click.Path(path_type=Path), help="Settings file. [default: prh.toml where there is one]")
@click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Any setting of prh.toml, such as limits.turns=3."
)
@click.option("--trust-remote-code", is_flag=True, help="Let a checkpoint run code of its own.")
@click.option("--executor", help="Who runs the episodes: `ray`. [default: this process, or its launcher's ranks]")
@click.option("--track", help="Hand the figures to wandb, trackio or tensorboard.")
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines on standard output.")
def eval_command(**options: object) -> None:
    """Evaluate checkpoints on benchmarks.

    \b
    prh eval --model tiny --task vstar-mini
    prh eval --model Qwen/Qwen2.5-VL-7B-Instruct --task vstar --out runs/qwen-vstar
    """
    args = options
    models, tasks = _names(str(args["model"]), "--model"), _names(str(args["task"]), "--task")
    several = len(models) * len(tasks) > 1
    command = ["prh", *sys.argv[1:]]
    out = cast("Path | None", args["out"])
    for task in tasks:
        load_task(task)
    for model in models:
        find_engine(model, cast("str | None", args["engine"]))
    if len({_slug(model) for model in models}) < len(models):
        raise UsageError("two of the models have the same last name and would share a folder; run them apart")
    as_json = bool(args["as_json"])
    tracker = cast("str | None", args["track"])
    if tracker:
        check_tracker(tracker)
    results = []
    group = find_group()
    for model in models:
        for task in tasks:
            name = f"{_folder(task)}-{_slug(model)}" if len(models) > 1 or out is None else _folder(task)
            folder = (out / name if several else out) if out is not None else Path("runs") / name
            results.append(_evaluate(_request(args, model, task, folder, command), as_json, group))
    if group and group.rank:
        return
    if tracker:
        for result in results:
            track(tracker, result)
    if several and not as_json:
        click.echo("")
        print_summary([result.metrics for result in results])
    if any(result.failed for result in results):
        sys.exit(TOO_MANY_ERRORS)


def _request(args: Mapping[str, object], model: str, task: str, out: Path, command: Sequence[str]) -> Request:
    overrides = read_sets(cast("Sequence[str]", args["sets"]))
    for key in ("protocol", "profile"):
        if args[key] is not None:
            overrides[key] = cast(str, args[key])
    if args["executor"] is not None:
        overrides["executor"] = {**executor_options(overrides.get("executor")), "name": cast(str, args["executor"])}
    if args["temperature"] is not None:
        sampling = overrides.setdefault("sampling", {})
        if not isinstance(sampling, dict):
            raise UsageError(f"--set sampling={sampling} must be a table, such as sampling.top_p=0.9")
        sampling["temperature"] = cast(float, args["temperature"])
    return Request(
        model=model,
        task=task,
        out=out,
        engine=cast("str | None", args["engine"]),
        data=cast("Path | None", args["data"]),
        revision=cast("str | None", args["revision"]),
        selection=Selection(cast("int | None", args["limit"]), cast("tuple[str, ...]", args["ids"])),
        repeats=cast(int, args["repeats"]),
        seed=cast(int, args["seed"]),
        concurrency=cast(int, args["concurrency"]),
        device=str(args["device"]),
        dtype=str(args["dtype"]),
        trust_remote_code=bool(args["trust_remote_code"]),
        overrides=overrides,
        config=read_config(cast("Path | None", args["config"])),
        command=command,
    )


def _evaluate(request: Request, as_json: bool, group: Group | None) -> Result:
    screen: Screen = JsonScreen() if as_json else Screen()
    executor = executor_options(request.option("executor"))
    if executor:
        chosen = cast(Executor, registry.make("executors", str(executor.get("name", "ray"))))
        result = chosen.run(request, executor, screen)
    elif group:
        result = run_in_group(plan(request), group, screen)
    else:
        result = run(plan(request), screen)
    if not group or not group.rank:
        screen.ended(request, result)
    if result.signal:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + result.signal)  # a model's thread may still be inside a long step
    if result.failed:
        message = f"prh: {result.error_share:.1%} of the episodes ended in an error, more than max_error_share allows"
        click.echo(f"{message}; `prh resume {shlex.quote(str(result.folder))}` tries them again", err=True)
    return result


@click.command("resume")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--trust-remote-code", is_flag=True, help="Let its checkpoint run code again; never taken from the run.")
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines on standard output.")
def resume_command(folder: Path, trust_remote_code: bool, as_json: bool) -> None:
    """Go on with an interrupted run, with the command that began it."""
    for path in [path.resolve() for path in runs_below(folder)]:
        manifest = read_manifest(path)
        words = [str(word) for word in cast("list[Json]", manifest["command"])]
        if words[1:2] != ["eval"]:
            raise UsageError(f"{path} was not begun by `prh eval`; begin it again by what began it")
        if Path(str(manifest["directory"])).is_dir():
            os.chdir(str(manifest["directory"]))  # its --data, --config and prh.toml are meant from there
        context = eval_command.make_context("eval", words[2:], resilient_parsing=False)
        args = {**context.params, "trust_remote_code": trust_remote_code}
        request = _request(args, str(manifest["model"]), str(manifest["task"]), path, words)
        if _evaluate(request, as_json or bool(args["as_json"]), find_group()).failed:
            sys.exit(TOO_MANY_ERRORS)


@click.command("score")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--profile", help="How answers are read; `all` compares the profiles. [default: the run's own]")
@click.option("--submission", type=click.Path(path_type=Path), help="Write the answers as the benchmark takes them.")
@click.option("--model-card", "card", type=click.Path(path_type=Path), help="Write the figures into its metadata.")
@click.option("--json", "as_json", is_flag=True, help="Metrics as JSON on standard output.")
def score_command(folder: Path, profile: str | None, submission: Path | None, card: Path | None, as_json: bool) -> None:
    """Read the answers of a run again, without a model."""
    for path in runs_below(folder):
        manifest = read_manifest(path)
        identity = cast("Mapping[str, Json]", manifest["identity"])
        tag = answer_tag(str(identity["protocol"]))
        task = load_task(str(manifest["task"]))
        if profile == "all":
            found = sensitivity(path, task, tag)
            click.echo(json.dumps(found)) if as_json else print_sensitivity(str(path), task.primary, found)
            continue
        chosen = load_profile(profile or str(manifest["profile"]))
        metrics = score(path, task, chosen, tag, derived=chosen.name == manifest["profile"])
        if submission:
            _hand_in(path, submission, chosen, tag)
        if card:
            click.echo(f"wrote {update_card(card, path)} figures of {path} into {card}", err=True)
        if as_json:
            click.echo(json.dumps(metrics, ensure_ascii=True))
        else:
            print_metrics(metrics)


def _hand_in(run: Path, file: Path, profile: Profile, tag: str) -> None:
    task = load_task(str(read_manifest(run)["task"]))
    if not isinstance(task, Exports):
        raise UsageError(f"{task.name} has no submission format; leave --submission out")
    click.echo(f"wrote {file}: {task.export(read_records(run), file, profile, tag)}", err=True)


@click.command("show")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("sample", required=False)
@click.option("--repeat", type=click.IntRange(0), default=0, show_default=True, help="Which repeat of the sample.")
def show_command(folder: Path, sample: str | None, repeat: int) -> None:
    """Show one trajectory; without SAMPLE, list what the run holds. Images are named as files."""
    for path in runs_below(folder):
        records = read_records(path)
        if sample is None:
            rows = [
                [str(r["id"]), str(r["repeat"]), str(r["category"]), str(r["end"]), str(_count(r))] for r in records
            ]
            click.echo(f"{path}: {len(records)} episodes")
            click.echo(table(["sample", "repeat", "category", "end", "operations"], rows))
            continue
        found = [record for record in records if record["id"] == sample and record["repeat"] == repeat]
        if not found:
            raise StoreError(f"{path} holds no sample {sample!r} with repeat {repeat}; `prh show {path}` lists them")
        show_record(path, found[0])


def _count(record: Record) -> int:
    return len(cast("list[Json]", record["operations"]))


def show_record(folder: Path, record: Record) -> None:
    """Print one trajectory, turn by turn."""
    media = {item["index"]: item for item in cast("list[dict[str, Json]]", record["media"])}
    operations = cast("list[dict[str, Json]]", record["operations"])
    _say(f"{record['id']} · {record['category']} · gold {', '.join(cast('list[str]', record['gold']))}")
    turn = 0
    for segment in cast("list[dict[str, Json]]", record["segments"]):
        turn += segment["role"] == "assistant"
        title = _line(f"turn {turn}" if segment["role"] == "assistant" else str(segment["role"]))
        click.secho(f"\n── {title} " + "─" * max(0, 60 - len(title)), dim=True)
        for part in cast("list[dict[str, Json]]", segment["parts"]):
            if "text" in part:
                click.echo(safe(str(part["text"])).strip("\n"))
            else:
                _say(_shown(folder, media[part["media"]]))
        if segment["role"] == "assistant":
            for operation in operations:
                if operation["turn"] == turn:
                    _say(_operation(operation))
    click.echo("")
    _say(f"end {record['end']}" + (f": {record['error']}" if record["error"] else ""))


def _line(text: str) -> str:
    """One line that a terminal shows and does not obey, whatever a record holds."""
    return safe(text).replace("\n", "\\n")


def _say(text: str) -> None:
    click.echo(_line(text))


def _shown(folder: Path, item: Mapping[str, Json]) -> str:
    size = "x".join(str(side) for side in cast("list[int]", item["seen"]))
    files = ", ".join(str(folder / str(name)) for name in cast("list[str]", item["files"]))
    place = f" from image {item['parent']}, box {item['root_box']}" if item["parent"] else ""
    return f"[{item['kind']} {item['index']}, seen at {size}{place}: {files}]"


def _operation(operation: Mapping[str, Json]) -> str:
    if operation["error"]:
        return f"  ✗ {operation['name']}: {operation['error']}: {operation['message']}"
    what = operation["frames"] or operation["box"]
    return f"  ✓ {operation['name']} on image {operation['media']}: {what}"


@click.command("list")
@click.argument(
    "kind",
    type=click.Choice(
        ["tasks", "engines", "protocols", "operations", "profiles", "models", "sources", "rewards", "baselines"]
    ),
)
@click.option("--json", "as_json", is_flag=True, help="As JSON on standard output.")
def list_command(kind: str, as_json: bool) -> None:
    """List what is registered, with one line on each; a plugin that does not import is named."""
    good, bad = registry.load_all("engines" if kind == "models" else kind)
    if kind == "models":
        found: dict[str, str] = {}
        for name in good:
            factory = cast(EngineFactory, registry.make("engines", name))
            found.update({name: factory.summary} if factory.accepts(name) else {})
            found.update(cast("Mapping[str, str]", getattr(factory, "models", {})))
    elif kind == "baselines":
        _list_baselines(good.values(), as_json)
        return
    else:
        found = {name: summary(thing) for name, thing in good.items()}
    if as_json:
        broken = [{"name": plugin.name, "package": plugin.package, "reason": plugin.reason} for plugin in bad]
        click.echo(json.dumps({kind: found, "broken": broken}))
        return
    width = max([len(name) for name in found], default=0)
    for name, text in found.items():
        click.echo(f"{name.ljust(width)}  {safe(text)}")
    for plugin in bad:
        click.echo(f"broken    {safe(plugin.reason)}", err=True)


def _list_baselines(plugins: Iterable[object], as_json: bool) -> None:
    """Published figures, each with its source: what a run is held against, and is no run."""
    rows = [row for plugin in plugins for row in cast("Callable[[], list[dict[str, Json]]]", plugin)()]
    if as_json:
        click.echo(json.dumps({"baselines": rows}))
        return
    for task in dict.fromkeys(str(row["task"]) for row in rows):
        click.echo(task)
        for row in (row for row in rows if row["task"] == task):
            click.echo(safe(f"  {row['value']:>5}  {row['system']}: {row['measured']} ({row['source']})"))


def summary(thing: object) -> str:
    """One line on a plugin: its ``summary``, else the first line of its docstring."""
    text = getattr(thing, "summary", None) or thing.__doc__ or ""
    return str(text).strip().partition("\n")[0]


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError(f"{option} is empty; give a name, or several by comma")
    return names


def _folder(task: str) -> str:
    """A task's name as part of a folder's, such as ``lmms-vstar_bench`` for ``lmms:vstar_bench@FOLDER``."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in task.partition("@")[0])


def _slug(model: str) -> str:
    """A model's name as part of a folder's: what comes last in it, without what a path may not hold."""
    if model.startswith("replay:"):
        name = f"replay-{Path(model[7:]).name}"
    elif model.startswith(("http://", "https://")):
        address, _, served = model.partition("#")
        name = served.rpartition("/")[2] or address.split("/")[2]
    else:
        name = model.rstrip("/").rpartition("/")[2]
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name) or "model"
