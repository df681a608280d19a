"""What became of what was asked for: by source and kind, made or refused by which gate."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from ..harness.errors import StoreError
from ..harness.types import Json
from .gates import Refused

EXAMPLES = 3


@dataclass(slots=True)
class Refusals:
    """What was refused, beside the journal, so that a synthesis that goes on asks no teacher for it again.

    Attributes:
        path: where they are kept; None for nowhere.
        known: refusals by sample, repeat and kind.
    """

    path: Path | None
    known: dict[tuple[str, int, str], Refused] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            lines = self.path.read_bytes().splitlines(keepends=True) if self.path else []
        except OSError:
            lines = []
        for line in lines:
            try:
                sample, repeat, kind, gate, reason = json.loads(line)
                self.known[str(sample), int(repeat), str(kind)] = Refused(gate, str(reason))
            except (ValueError, TypeError):
                continue  # a line that was cut off while it was written: its seed is tried again
        if lines and not lines[-1].endswith(b"\n"):
            self._write(b"\n")

    def add(self, sample: str, repeat: int, kind: str, refusal: Refused) -> None:
        """Append a refusal. Raises StoreError."""
        self._write(json.dumps([sample, repeat, kind, refusal.gate, refusal.reason]).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        if self.path is None:
            return
        try:
            with self.path.open("ab", buffering=0) as file:
                file.write(data)
        except OSError as error:
            raise StoreError(f"cannot append to {self.path}: {error.strerror or error}; run again to go on") from None


@dataclass(slots=True)
class Tally:
    """One source's yield.

    Attributes:
        asked: trajectories wanted, 0 for as many as there are seeds.
        offered: seeds that were looked at, a seed each time it was.
        made: trajectories by kind.
        refused: by gate and kind; the kind is empty where a seed was refused before it had one.
        examples: some reasons by gate.
    """

    source: str
    asked: int
    offered: int = 0
    made: Counter[str] = field(default_factory=Counter)
    refused: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def refuse(self, gate: str, kind: str, sample: str, reason: str) -> None:
        """Count a refusal."""
        self.refused[gate][kind] += 1
        if len(self.examples[gate]) < EXAMPLES:
            self.examples[gate].append(f"{sample}: {reason}")

    def kinds(self) -> list[str]:
        """Every kind that was tried."""
        tried = set(self.made).union(*self.refused.values())
        return sorted(kind for kind in tried if kind)

    def json(self) -> Json:
        """As ``yield.json`` has it."""
        refused = {gate: dict(sorted(counts.items())) for gate, counts in sorted(self.refused.items())}
        return {
            "source": self.source,
            "asked": self.asked or None,
            "offered": self.offered,
            "made": sum(self.made.values()),
            "kinds": {kind: {"made": self.made[kind], "refused": self._of(kind)} for kind in self.kinds()},
            "refused": cast(Json, refused),
            "examples": cast(Json, {gate: self.examples[gate] for gate in sorted(self.examples)}),
        }

    def _of(self, kind: str) -> Json:
        return {gate: counts[kind] for gate, counts in sorted(self.refused.items()) if counts[kind]}

    def rows(self) -> Iterator[list[str]]:
        """The rows of the yield table: source, kind, made, refused."""
        for kind in self.kinds():
            refused = ", ".join(f"{count} {gate}" for gate, count in cast("dict[str, int]", self._of(kind)).items())
            yield [self.source, kind, str(self.made[kind]), refused or "-"]
        early = ", ".join(f"{counts['']} {gate}" for gate, counts in sorted(self.refused.items()) if counts[""])
        if early:
            yield [self.source, "(no kind yet)", "0", early]
