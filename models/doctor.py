"""The command ``prh doctor``: what this machine, or a server, can run, one line each."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

import click

from ..harness import registry
from ..harness.digests import cache_dir
from ..harness.errors import UsageError
from ..harness.manifest import cpu_model, memory_gib
from ..harness.settings import read_sets, refuse_secrets
from ..harness.terminal import safe
from .findings import Finding
from .probe import probe_server
from .processor import one_line, torchvision_state

# What engines and executors need beside the above; not imported, since vLLM and Ray take long.
ELSEWHERE = {
    "openai": "pip install 'prh[api]'; models behind a server need it",
    "vllm": "pip install 'prh[vllm]', in an environment of its own; --engine vllm needs it",
    "ray": "pip install 'prh[ray]'; --executor ray needs it",
}


def findings() -> Iterator[Finding]:
    """Everything that is looked at."""
    cores, memory = os.cpu_count(), memory_gib()
    yield Finding("ok", "machine", f"{cpu_model()}, {cores} cores, {memory} GiB")
    yield Finding("ok", "python", sys.version.split()[0])
    state = torchvision_state()  # before any other import: a broken one is hidden from them
    for package, use in (("torch", "hf"), ("transformers", "hf"), ("peft", "hf"), ("av", "video"), ("decord", "video")):
        yield _package(package, use)
    for package, advice in ELSEWHERE.items():
        yield _installed(package, advice)
    yield _torch()
    mark = "broken" if state.startswith("broken") else "absent" if state == "absent" else "ok"
    advice = "; treated as absent, `pip uninstall torchvision` or install the build that fits torch"
    yield Finding(mark, "torchvision", state + advice if mark == "broken" else f"{state} (only native video needs it)")
    yield _cache()
    for kind in registry.GROUPS:
        good, bad = registry.load_all(kind)
        yield Finding("ok", kind, ", ".join(good) or "none")
        for plugin in bad:
            yield Finding("broken", kind, plugin.reason)


def _installed(package: str, advice: str) -> Finding:
    try:
        return Finding("ok", package, version(package))
    except PackageNotFoundError:
        return Finding("absent", package, advice)


def _package(package: str, extra: str) -> Finding:
    try:
        number = version(package)
    except PackageNotFoundError:
        return Finding("absent", package, f"pip install 'prh[{extra}]'")
    try:
        importlib.import_module(package)
    except Exception as error:
        return Finding("broken", package, f"{number} is installed but does not import: {one_line(error)}")
    return Finding("ok", package, number)


def _torch() -> Finding:
    try:
        import torch
    except Exception:
        return Finding("absent", "device", "no torch, so only baselines and servers can be evaluated")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return Finding("ok", "device", ", ".join(names))
    return Finding("ok", "device", f"cpu, {torch.get_num_threads()} threads")


def _cache() -> Finding:
    folder = cache_dir()
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        reason = f"{folder} cannot be written ({error.strerror}); set PRH_CACHE to another folder"
        return Finding("broken", "cache", reason)
    return Finding("ok", "cache", str(folder))


@click.command("doctor")
@click.argument("server", required=False)
@click.option("--cell", type=click.IntRange(2), default=28, show_default=True, help="Pixels a side of a visual token.")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the engine, such as engine.omit=temperature.",
)
def doctor_command(server: str | None, cell: int, sets: Sequence[str]) -> None:
    """Check what this machine can run, or what SERVER, such as http://HOST:PORT/v1#NAME, does with images.

    Exit code 2 where something is installed but broken, or the server does not see images.
    """
    extra = _extra(sets)
    if extra and not server:
        raise UsageError("--set says how a server is asked; name one, such as http://HOST:PORT/v1#NAME")
    broken = False
    for finding in probe_server(server, cell, extra) if server else findings():
        broken = broken or finding.state == "broken"
        click.echo(f"{finding.state:7} {finding.what:13} {safe(finding.detail)}")
    sys.exit(2 if broken else 0)


def _extra(sets: Sequence[str]) -> dict[str, str]:
    """The options of the table ``engine``. Raises UsageError."""
    values = read_sets(sets)
    refuse_secrets(values, "--set")
    table = values.pop("engine", {})
    if values or not isinstance(table, dict):
        raise UsageError("--set takes options of the engine here, such as engine.omit=temperature,top_p,seed")
    if "factor" in table:
        raise UsageError("--set engine.factor: give it as --cell here")
    return {name: str(value) for name, value in table.items()}
