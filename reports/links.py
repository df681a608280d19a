"""Addresses that ask the explorer of a page for some of its samples."""

from __future__ import annotations

from urllib.parse import quote

from .episodes import visible
from .field import TaskField


def link(task: TaskField, candidate: int = 1, **wanted: str) -> str:
    """Samples of a task by outcome, end or kind of error; ``candidate`` says against whom, where there are several."""
    own = {"task": task.name, "vs": str(candidate) if candidate > 1 else "", **wanted}
    return "#" + "&".join(f"{name}={quote(value, safe='')}" for name, value in own.items() if value)


def part_link(task: TaskField, candidate: int, part: str) -> str:
    """Samples of a category or slice, such as ``category:counting``; of the whole task where it is empty."""
    kind, _, value = part.partition(":")
    return link(task, candidate, **({kind: visible(value, 120)} if value else {}))
