"""What a source is asked for, checked: where its data are, and the settings of it alone."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ...harness.errors import UsageError
from ...harness.types import Json, finite
from ..seeds import SourceOptions

FAULTY: Mapping[str, Json] = {"faulty": "refuse"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A source's data and settings; every reader returns what it promises or raises UsageError naming the setting.

    Attributes:
        root: the local file or folder.
    """

    source: str
    root: Path
    settings: Mapping[str, Json]

    def text(self, key: str) -> str:
        """Text."""
        value = self.settings[key]
        return value if isinstance(value, str) else self._refuse(key, "text")

    def one_of(self, key: str, known: Sequence[str]) -> str:
        """One of the known texts."""
        value = self.settings[key]
        return value if isinstance(value, str) and value in known else self._refuse(key, f"one of {', '.join(known)}")

    def number(self, key: str, low: float, high: float) -> float:
        """A number within ``low`` to ``high``."""
        number = finite(self.settings[key])
        if number is None or not low <= number <= high:
            self._refuse(key, f"a number from {low:g} to {high:g}")
        return number

    def whole(self, key: str, low: int, high: int) -> int:
        """A whole number within ``low`` to ``high``."""
        value = self.settings[key]
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return value if isinstance(value, int) and fits else self._refuse(key, f"a whole number from {low} to {high}")

    def span(self, key: str, low: float, high: float) -> tuple[float, float]:
        """Two numbers within ``low`` to ``high``, the smaller first."""
        value = self.settings[key]
        ends = [finite(item) for item in value] if isinstance(value, list) else []
        known = [end for end in ends if end is not None]
        if not len(ends) == len(known) == 2 or not low <= known[0] <= known[1] <= high:
            self._refuse(key, f"two numbers within {low:g} and {high:g}, the smaller first")
        return known[0], known[1]

    @property
    def faulty(self) -> str:
        """What to do with a row that is at fault: ``refuse`` or ``skip``."""
        return self.one_of("faulty", ("refuse", "skip"))

    def _refuse(self, key: str, expected: str) -> NoReturn:
        raise UsageError(f"source {self.source}: setting `{key}` must be {expected}, not {self.settings[key]!r}")


def asked(source: str, options: SourceOptions, known: Mapping[str, Json]) -> Asked:
    """The data and settings of a source.

    Args:
        known: the defaults of its settings, beside ``faulty``, which every source has.

    Raises:
        UsageError: no data, none where they are said to be, or a setting that the source does not have.
    """
    if options.data is None:
        raise UsageError(f"source {source} reads local data; say where they are with `data`")
    root = options.data.expanduser()
    if not root.exists():
        raise UsageError(f"source {source}: no file or folder {options.data}; fetch the data and give their place")
    defaults = {**FAULTY, **known}
    for name in options.settings:
        if name not in defaults:
            close = difflib.get_close_matches(name, defaults, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(defaults)}"
            raise UsageError(f"source {source} has no setting {name!r}; {hint}")
    return Asked(source, root, {**defaults, **options.settings})
