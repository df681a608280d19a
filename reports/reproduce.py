"""The command that runs one sample of a run again, as a shell takes it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import cast

from ..harness.types import Json
from .runs import Run

_OWN = ("--model", "--task", "--out", "--limit", "--sample-id", "--repeats", "--json", "--concurrency")
_FLAGS = ("--json", "--trust-remote-code")


def command_of(run: Run) -> str:
    """``prh eval`` with the run's model, task and settings, without the sample and the folder."""
    manifest = run.manifest
    words = [str(word) for word in cast("list[Json]", manifest["command"])]
    kept = _settings(words[2:]) if words[1:2] == ["eval"] else _resolved(manifest)
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
    """The options of a command that say how samples are run, without those that say which, where and whose."""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        name, given, _ = word.partition("=")
        own = [word] if given or name in _FLAGS else [word, *[next(rest, "")]]
        if name.startswith("--") and name not in _OWN:
            kept += own
    return kept


def _resolved(manifest: Mapping[str, Json]) -> list[str]:
    """Settings of a run that another command began, such as a training's evaluation."""
    identity = cast("Mapping[str, Json]", manifest["identity"])
    return ["--protocol", str(identity.get("protocol")), "--profile", str(manifest["profile"])]
