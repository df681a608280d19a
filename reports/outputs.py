"""Where the commands that judge runs write: one thing on standard output, and nothing over what a run is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..harness.errors import UsageError
from ..harness.journal import JOURNAL
from ..harness.store import MANIFEST, METRICS
from .curves import LOG
from .curves import MANIFEST as TRAINING

STANDARD = "-"
KEPT = {MANIFEST: MANIFEST, JOURNAL: MANIFEST, METRICS: MANIFEST, TRAINING: TRAINING, LOG: TRAINING}


def check_outputs(places: Sequence[str | None], *, as_json: bool = False) -> None:
    """Refuse what would be lost or could not be read, before anything is computed.

    Args:
        places: files as the command line names them, ``-`` for standard output; None for what is not asked for.
        as_json: whether JSON goes to standard output.

    Raises:
        UsageError: several things for standard output, or a file that a run or a training is made of.
    """
    if places.count(STANDARD) + as_json > 1:
        raise UsageError("only one of --json and the options that are given - can go to standard output; name a file")
    for path in (Path(place) for place in places if place):
        owner = KEPT.get(path.name)
        if owner and (path.parent / owner).exists():
            raise UsageError(f"{path} is what a run is made of and is not written over; give another name")
