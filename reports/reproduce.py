"""The command that runs one sample of a run again, as a shell takes it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import cast

from ..harness.evaluate import DEFAULT_PROFILE
from ..harness.types import Json
from .runs import Run

_OWN = (
    "--model", "--task", "--out", "--limit", "--sample-id", "--repeats", "--json", "--concurrency", "--track",
    "--executor",
)  # fmt: skip
_FLAGS = ("--json", "--trust-remote-code")


def command_of(run: Run) -> str:
    """``prh eval`` with the run's model, task and settings, without the sample and the folder."""
    manifest = run.manifest
    words = [str(word) for word in cast("list[Json]", manifest["command"])]
    own = _settings(words[2:]) if words[1:2] == ["eval"] else None
    kept = [*(own or ()), *_resolved(run, told=own is not None)]
    split = run.identity.get("split")
    if split not in (None, run.task.splits[0]) and not any(word.startswith("split=") for word in kept):
        kept += ["--set", _set("split", split)]
    if "--profile" not in kept and manifest["profile"] != DEFAULT_PROFILE:
        kept += ["--profile", str(manifest["profile"])]
    if "--seed" not in kept:
        kept += ["--seed", str(run.identity.get("seed", 0))]
    return " ".join(
        quote(word)
        for word in ["prh", "eval", "--model", str(manifest["model"]), "--task", str(manifest["task"]), *kept]
    )


def quote(text: str) -> str:
    """A word as a shell reads it; one with characters that cannot be seen in the form of bash and zsh."""
    if text and text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(map(_escaped, text)) + "'"


def _escaped(character: str) -> str:
    code = ord(character)
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _settings(words: list[str]) -> list[str]:
    """The options of a command that say how samples are run, without those that say which, where, whose and by whom."""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        name, given, value = word.partition("=")
        own = [word] if given or name in _FLAGS else [word, *[next(rest, "")]]
        by_whom = name == "--set" and (value or own[-1]).startswith(("executor=", "executor."))
        if name.startswith("--") and name not in _OWN and not by_whom:
            kept += own
    return kept


def _resolved(run: Run, *, told: bool) -> list[str]:
    """The settings that the run was given by another layer than those which the command finds again by itself.

    Args:
        told: whether what the command line gave is among the words that are kept.
    """
    origins = cast("Mapping[str, str]", run.manifest.get("origins") or {})
    values, task = dict(_flat(run.identity)), dict(_flat(run.task.settings))
    found: list[str] = []
    for name, layer in origins.items():
        value = values.get(name)
        again = {
            "command line": told,
            "prh.json": True,
            "task": task.get(name) == value,
            "protocol": name not in task,
        }
        if value is not None and not again.get(layer, False):
            found += ["--protocol", str(value)] if name == "protocol" else ["--set", _set(name, value)]
    return found


def _flat(table: Mapping[str, Json], prefix: str = "") -> Iterator[tuple[str, Json]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _set(name: str, value: Json) -> str:
    return f"{name}={json.dumps(value, ensure_ascii=False)}"
