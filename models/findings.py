"""What a check finds."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One line of a report; ``state`` is ok, absent or broken."""

    state: str
    what: str
    detail: str
