"""What the sessions of one run counted, added up: a run that is gone on with has been more than its last session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard

from .types import Json

# What an engine was started with. Its numbers are no counts.
FACTS = ("settings", "card", "versions")
# Shares and speeds: those of the newest session.
RATES = ("occupancy", "cache_share", "tokens_per_busy_second")


def add_up(before: Mapping[str, Json], start: Mapping[str, Json], end: Mapping[str, Json]) -> dict[str, Json]:
    """What a manifest says of an engine after another session.

    A number that grew in the session was counted, and is added to what was counted before; all else is a fact, and the
    newest is kept.

    Args:
        before: what the manifest says so far.
        start, end: what the engine said of itself when the session began, and at its end.
    """
    return {name: _sum(name, before.get(name), start.get(name), value) for name, value in end.items()}


def _sum(name: str, before: Json, start: Json, end: Json) -> Json:
    if isinstance(end, dict) and name not in FACTS:
        old, first = (value if isinstance(value, dict) else {} for value in (before, start))
        # A count under a name that is not used until something is counted, such as the retries of one status.
        first = {**dict.fromkeys(end, 0), **first}
        return {**{key: value for key, value in old.items() if _counted(value)}, **add_up(old, first, end)}
    if name in RATES or not (_counted(before) and _counted(start) and _counted(end)):
        return before if end is None else end
    if end == start:
        return end or before
    total = before + end - start
    return total if isinstance(total, int) else round(total, 9)  # without the dust of adding floats


def add_seconds(before: Json, spent: Mapping[str, float]) -> dict[str, Json]:
    """Seconds by what they were spent on, with those of earlier sessions."""
    old = before if isinstance(before, dict) else {}
    earlier = {name: value for name, value in old.items() if _counted(value)}
    return {name: round(earlier.get(name, 0.0) + spent.get(name, 0.0), 3) for name in {**earlier, **spent}}


def _counted(value: Json) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
