"""Two entrants side by side: the samples that both have judged, and everything in which they are not alike.

A blocking mismatch makes a difference no evidence; another one is worth knowing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import cast

import numpy as np

from ..harness.manifest import differing
from ..harness.task import Profile, Row, Task
from ..harness.types import Json
from .runs import Run, resume
from .statistics import Floats

EXPECTED = ("model", "numerics", "seed")
SHOWN = ("numerics.video", "numerics.mode", "numerics.omit")  # what one engine was told to show or to leave out
SETTINGS = ("split", "dataset", "protocol", "prompt", "operations", "padding", "limits", "budget", "sampling")
ALLOWED = (*SETTINGS, "numerics", "episodes")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Something in which two runs are not alike.

    Attributes:
        field: such as ``dataset``, ``limits.turns`` or ``episodes``.
        text: one line that says what it is and, where something can be done, what.
        blocking: whether a difference in score may be owed to it.
    """

    field: str
    baseline: Json
    candidate: Json
    text: str
    blocking: bool


@dataclass(frozen=True)
class Pairing:
    """Two entrants on one task.

    Attributes:
        baseline, candidate: their runs, one for each training seed, all judged under one profile.
        ids: samples that every run has judged, and judged as the same question.
        baseline_only, candidate_only: samples that the other side lacks.
    """

    task: Task
    profile: Profile
    baseline: tuple[Run, ...]
    candidate: tuple[Run, ...]
    ids: tuple[str, ...]
    baseline_only: tuple[str, ...]
    candidate_only: tuple[str, ...]
    mismatches: tuple[Mismatch, ...] = field(default=())
    _known: dict[str, tuple[Floats, Floats]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def comparable(self) -> bool:
        """Whether nothing stands in the way of a verdict."""
        return not any(mismatch.blocking for mismatch in self.mismatches)

    @property
    def advice(self) -> str:
        """What to do about settings that stand in the way; empty where none does."""
        fields = dict.fromkeys(m.field.partition(".")[0] for m in self.mismatches if m.blocking)
        allow = " ".join(f"--allow {name}" for name in fields if name in (*SETTINGS, "numerics"))
        return f"Evaluate both alike, or say `{allow}` where this is what is compared" if allow else ""

    @cached_property
    def first(self) -> Mapping[str, Row]:
        """A row of each paired sample: its category, slices, cluster and accepted answers."""
        rows = self.baseline[0].by_sample
        return {name: rows[name][0].row for name in self.ids}

    def clusters(self, ids: Sequence[str]) -> list[str]:
        """The image that each sample shares with others."""
        return [self.first[name].cluster for name in ids]

    def values(self, metric: str, ids: Sequence[str]) -> tuple[Floats, Floats] | None:
        """Baseline and candidate, samples x seeds, repeats averaged; None where an episode has no such value."""
        if metric not in self._known:
            self._known[metric] = (_matrix(self.baseline, metric, self.ids), _matrix(self.candidate, metric, self.ids))
        before, after = self._known[metric]
        if ids is not self.ids:
            places = [self._places[name] for name in ids]
            before, after = before[places], after[places]
        return None if np.isnan(before).any() or np.isnan(after).any() else (before, after)

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {name: place for place, name in enumerate(self.ids)}

    def parts(self) -> dict[str, list[str]]:
        """Paired samples by category and by slice, as ``category:NAME`` and ``slice:NAME``."""
        found: dict[str, list[str]] = {}
        for name in self.ids:
            row = self.first[name]
            if row.category:
                found.setdefault(f"category:{row.category}", []).append(name)
            for piece in row.slices:
                found.setdefault(f"slice:{piece}", []).append(name)
        return dict(sorted(found.items()))


def _matrix(runs: Sequence[Run], metric: str, ids: Sequence[str]) -> Floats:
    """Samples x checkpoints, NaN where an episode has no value; runs of one checkpoint are repeats of each other."""
    models: dict[str, list[Run]] = {}
    for run in runs:
        models.setdefault(run.model, []).append(run)
    columns = []
    for same in models.values():
        column = []
        for name in ids:
            own = [outcome.value(metric) for run in same for outcome in run.by_sample[name]]
            column.append(math.nan if None in own else sum(cast("list[float]", own)) / len(own))
        columns.append(column)
    return np.array(columns, float).T.reshape(len(ids), len(models))


def pair(baseline: Sequence[Run], candidate: Sequence[Run], allow: Sequence[str] = ()) -> Pairing:
    """Two entrants' runs of one task, sample by sample, and in what they are not alike.

    Args:
        allow: fields, of ``ALLOWED``, that may differ because they are what is compared, such as ``protocol``.
    """
    runs = [*baseline, *candidate]
    alike = _alike(runs)
    sides = [_judged(side) for side in (baseline, candidate)]
    shared = sorted(sides[0] & sides[1])
    ids = tuple(name for name in shared if name in alike)
    only = [tuple(sorted(own - other)) for own, other in (sides, sides[::-1])]
    found = [
        *_settings(runs),
        *wholeness(runs),
        *_samples(len(shared), len(ids), only),
    ]
    kept = tuple(_permitted(mismatch, allow) for mismatch in found)
    return Pairing(
        baseline[0].task, baseline[0].profile, tuple(baseline), tuple(candidate), ids, only[0], only[1], kept
    )


def _judged(side: Sequence[Run]) -> set[str]:
    """Samples that every run of a side has judged."""
    return set.intersection(*({name for name, _ in run.outcomes} for run in side))


def _alike(runs: Sequence[Run]) -> set[str]:
    """Samples that are the same question wherever they are asked."""
    first = runs[0].asked
    return {name for name, asked in first.items() if all(run.asked.get(name, asked) == asked for run in runs)}


def _settings(runs: Sequence[Run]) -> Iterable[Mismatch]:
    """Fields of the identity in which a run differs from the first, and another own profile."""
    seen = set()
    for run in runs[1:]:
        for name, before, after in differing(runs[0].identity, run.identity):
            top = name.partition(".")[0]
            if top == "model" or name in seen or (top == "seed" and _greedy(run) and _greedy(runs[0])):
                continue
            seen.add(name)
            text = f"{name}: {_short(before)}, {_short(after)}"
            yield Mismatch(name, before, after, text, blocking=_blocks(name, runs[0], run))
        if run.profile.name != runs[0].profile.name and "profile" not in seen:
            seen.add("profile")
            own, other = runs[0].profile.name, run.profile.name
            advice = f"`--profile {own}` reads both alike"
            yield Mismatch("profile", own, other, f"profile: {own}, {other}; {advice}", blocking=True)


def _blocks(name: str, first: Run, run: Run) -> bool:
    """Whether a field of the identity must be alike; an engine's own options only where both are of that engine."""
    if name in SHOWN:
        return _numerics(first).get("name") == _numerics(run).get("name")
    return name.partition(".")[0] not in EXPECTED


def _numerics(run: Run) -> Mapping[str, Json]:
    found = run.identity.get("numerics")
    return found if isinstance(found, dict) else {}


def _greedy(run: Run) -> bool:
    sampling = run.identity.get("sampling")
    return isinstance(sampling, dict) and sampling.get("temperature") == 0


def wholeness(runs: Sequence[Run]) -> Iterable[Mismatch]:
    """Runs that are not whole, have damaged lines, or hold episodes that ended in errors."""
    for run in runs:
        if run.episodes < run.expected:
            what = f"{run.folder} holds {run.episodes} of {run.expected}"
            text = f"episodes: {what}; {resume(run)} runs the rest"
            yield Mismatch("episodes", run.expected, run.episodes, text, blocking=True)
        if run.damaged:
            text = f"damaged: {run.folder}: {run.damaged[0]}" + (" (and more)" if len(run.damaged) > 1 else "")
            yield Mismatch("damaged", 0, len(run.damaged), text, blocking=False)
        if errors := sum(run.errors.values()):
            text = f"errors: {run.folder}: {errors} of {run.episodes} episodes ended in an error and are left out"
            yield Mismatch("errors", 0, errors, text, blocking=False)


def _samples(shared: int, alike: int, only: Sequence[Sequence[str]]) -> Iterable[Mismatch]:
    """Samples that are another question, or on one side alone."""
    if alike < shared:
        text = f"samples: {shared - alike} of {shared} with the same id are other questions or have other answers"
        yield Mismatch("samples", shared, alike, f"{text}; evaluate both on the same data", blocking=True)
    if not alike:
        text = "samples: the two have judged none in common; evaluate both on the same samples"
        yield Mismatch("samples", len(only[0]), len(only[1]), text, blocking=True)
    elif only[0] or only[1]:
        text = f"samples: {alike} in both; {len(only[0])} in the baseline alone, {len(only[1])} in the candidate alone"
        yield Mismatch("samples", len(only[0]), len(only[1]), text, blocking=False)


def _permitted(mismatch: Mismatch, allow: Sequence[str]) -> Mismatch:
    if not mismatch.blocking or mismatch.field.partition(".")[0] not in allow:
        return mismatch
    return replace(mismatch, blocking=False, text=f"{mismatch.text} (allowed)")


def _short(value: Json) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
