"""The options of one engine alone, as ``EngineOptions.extra`` gives them: text, by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from math import inf
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


def read_plain(engine: str, name: str, text: str, default: object, *, zero: bool = False, most: float = inf) -> float:
    """A value of the kind of its default: a bool, a whole number, or a number, which it also is where there is none.

    Args:
        zero: whether a number may be 0; none may be below.
        most: the highest number.

    Raises:
        UsageError: the text is no such value.
    """
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise refused(engine, name, "true or false", text)
        return text.lower() == "true"
    found, whole = number(text), isinstance(default, int)
    if found is None or not 0 <= found <= most or (whole and found != int(found)) or not (found or zero):
        kind = f"a whole number from {int(not zero)}" if whole else f"a number {'from' if zero else 'above'} 0"
        raise refused(engine, name, kind if most == inf else f"{kind} and at most {most:g}", text)
    return int(found) if whole else found


def refused(engine: str, name: str, wanted: str, text: str) -> UsageError:
    """What is said of an option's value that is none."""
    return UsageError(f"option {name!r} of the engine {engine} must be {wanted}, not {text!r}")


def number(text: str) -> float | None:
    """A finite number, or nothing."""
    try:
        return finite(float(text))
    except ValueError:
        return None
