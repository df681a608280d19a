"""The options of one engine alone, as ``EngineOptions.extra`` gives them: text, by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from typing import Any, TypeVar, cast

from ..harness.errors import UsageError
from ..harness.types import finite

T = TypeVar("T")
Reader = Callable[[str, str, Any], object]


def read_options(kind: type[T], engine: str, extra: Mapping[str, str], value: Reader) -> T:
    """A dataclass of options from text.

    Args:
        kind: a dataclass whose fields all have defaults.
        value: makes one value of an option's name, its text and its default.

    Raises:
        UsageError: for an unknown name, or what ``value`` raises.
    """
    known = {own.name: own.default for own in fields(cast(Any, kind))}
    known_names(engine, extra, known)
    return kind(**{name: value(name, text, known[name]) for name, text in extra.items()})


def known_names(engine: str, extra: Mapping[str, str], known: Collection[str]) -> None:
    """Raise UsageError where an engine has no option of a name that is given."""
    for name in extra:
        if name not in known:
            raise UsageError(f"the engine {engine} has no option {name!r}; it has {', '.join(known)}")


def number(text: str) -> float | None:
    """A finite number, or nothing."""
    try:
        return finite(float(text))
    except ValueError:
        return None
