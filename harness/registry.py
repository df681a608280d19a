"""Plugins by entry-point group: ours are registered the same way as a stranger's."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from .errors import PrhError, UsageError

R = TypeVar("R")
GROUPS = {
    "tasks": "prh.tasks",
    "engines": "prh.engines",
    "protocols": "prh.protocols",
    "operations": "prh.operations",
    "profiles": "prh.profiles",
    "rewards": "prh.rewards",
    "sources": "prh.sources",
    "baselines": "prh.baselines",
    "executors": "prh.executors",
}


@dataclass(frozen=True, slots=True)
class Broken:
    """A plugin that does not import, and why, in one line."""

    name: str
    package: str
    reason: str


@cache
def _found(kind: str) -> dict[str, tuple[EntryPoint, ...]]:
    grouped: dict[str, dict[str, EntryPoint]] = {}
    for point in entry_points(group=GROUPS[kind]):
        grouped.setdefault(point.name, {})[point.value] = point
    return {name: tuple(points.values()) for name, points in sorted(grouped.items())}


def names(kind: str) -> tuple[str, ...]:
    """The registered names of a kind, sorted."""
    return tuple(_found(kind))


def load(kind: str, name: str) -> object:
    """The registered object.

    Raises:
        UsageError: unknown name (with the closest known ones), one name from two packages, or an
            import that fails.
    """
    points = _found(kind).get(name)
    if not points:
        raise UsageError(unknown(kind, name, names(kind)))
    if len(points) > 1:
        packages = " and ".join(sorted(_package(point) for point in points))
        raise UsageError(f"{kind[:-1]} {name!r} is registered by {packages}; uninstall one of them")
    try:
        return points[0].load()
    except (Exception, SystemExit) as error:  # a stranger's module may fail in any way
        raise UsageError(
            f"{kind[:-1]} {name!r} of package {_package(points[0])} does not import: {_line(error)}"
        ) from error


def make(kind: str, name: str) -> object:
    """The registered object; a registered class is made without arguments. Raises UsageError.

    Of a name such as ``lmms:vstar_bench`` what comes after the colon is given to the class.
    """
    base, colon, rest = name.partition(":")
    given = (rest,) if colon and name not in names(kind) and base in names(kind) else ()
    thing = load(kind, base if given else name)
    if not isinstance(thing, type):
        return thing
    try:
        return thing(*given)
    except PrhError:
        raise
    except (Exception, SystemExit) as error:  # a stranger's constructor may fail in any way
        raise UsageError(f"{kind[:-1]} {name!r} cannot be made: {_line(error)}") from error


def guarded(owner: str, call: Callable[[], R]) -> R:
    """What ``call`` gives; whatever a plugin raises that is no PrhError becomes one line that names its owner."""
    try:
        return call()
    except PrhError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{owner} failed: {_line(error)}") from error


def load_all(kind: str) -> tuple[dict[str, object], list[Broken]]:
    """Every plugin of a kind that loads, and those that do not."""
    good: dict[str, object] = {}
    bad: list[Broken] = []
    for name in names(kind):
        try:
            good[name] = load(kind, name)
        except UsageError as error:
            packages = ", ".join(sorted(_package(point) for point in _found(kind)[name]))
            bad.append(Broken(name, packages, str(error)))
    return good, bad


def unknown(kind: str, name: str, known: tuple[str, ...]) -> str:
    """The message for a name that is not known, with the closest known ones."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"`prh list {kind}` shows what there is"
    return f"unknown {kind[:-1]} {name!r}: {hint}"


def _package(point: EntryPoint) -> str:
    try:
        return point.dist.name if point.dist else point.value
    except (KeyError, TypeError):  # a distribution without metadata
        return point.value


def _line(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]
