"""Who is compared: run folders as a command names them, read from their records and judged under one profile."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, cast

from ..harness.errors import StoreError, UsageError
from ..harness.evaluate import answer_tag, load_profile, load_task
from ..harness.record import Record
from ..harness.scoring import check_reads, row_of
from ..harness.store import read_manifest, read_run, runs_below
from ..harness.task import Profile, Row, Task
from ..harness.types import ERROR_STATES, Json

COSTS = ("operations", "turns", "images", "prompt_tokens", "new_tokens", "seconds", "cost")
RATES = ("rapr", "rapr_successful", "episodes_with_op_error")
Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Entrant:
    """One column of a comparison: a checkpoint, or the seeds of one training, and where its runs are.

    Attributes:
        runs: run folders by task; several where they are joined by a comma.
    """

    label: str
    runs: Mapping[str, tuple[Path, ...]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One judged episode.

    Attributes:
        row: what the profile made of its reply.
        attempted: operations that were called.
        failed: kind of error of each that failed.
        costs: by the names of ``COSTS``.
    """

    row: Row
    end: str
    attempted: int
    failed: tuple[str, ...]
    costs: Mapping[str, float]

    def value(self, metric: str) -> float | None:
        """A score, a rate or a cost of this episode; None where it has no such value."""
        if metric in RATES:
            counted = {
                "rapr": self.attempted > 0,
                "rapr_successful": self.attempted > len(self.failed),
                "episodes_with_op_error": bool(self.failed),
            }
            return float(counted[metric])
        return self.costs[metric] if metric in self.costs else self.row.scores.get(metric)


@dataclass(frozen=True)
class Run:
    """A run as comparisons read it, judged under one profile.

    Attributes:
        episodes: that it holds, errors included.
        errors: episodes by error state.
        outcomes: judged episodes by sample and repeat.
        asked: what identifies each sample: question, options, accepted answers, kind.
        damaged: a line for each damaged record.
    """

    folder: Path
    manifest: Mapping[str, Json]
    task: Task
    profile: Profile
    episodes: int
    errors: Mapping[str, int]
    outcomes: Mapping[Key, Outcome]
    asked: Mapping[str, tuple[object, ...]]
    damaged: Sequence[str]

    @property
    def identity(self) -> Mapping[str, Json]:
        """What must be alike for a comparison, beside the model."""
        return cast("Mapping[str, Json]", self.manifest["identity"])

    @property
    def model(self) -> str:
        """The checkpoint's digest."""
        return str(self.identity.get("model"))

    @property
    def error_share(self) -> float:
        """Episodes that ended in an error, of all."""
        return sum(self.errors.values()) / self.episodes if self.episodes else 0.0

    @property
    def expected(self) -> int:
        """Episodes that a whole run would hold."""
        found = self.manifest.get("expected")
        return found if isinstance(found, int) else self.episodes

    @cached_property
    def by_sample(self) -> Mapping[str, tuple[Outcome, ...]]:
        """Judged episodes of each sample, by repeat."""
        found: dict[str, list[Outcome]] = {}
        for (name, _), outcome in self.outcomes.items():
            found.setdefault(name, []).append(outcome)
        return {name: tuple(own) for name, own in found.items()}


@dataclass(slots=True)
class _Found:
    """An entrant on its way: the word it is from, its checkpoint (empty for joined runs), its runs by task."""

    word: str
    model: str
    runs: dict[str, list[Path]]


def entrants(words: Sequence[str]) -> list[Entrant]:
    """Who is compared, the baseline first: each word a run folder, a folder of runs, or seeds joined by commas.

    A folder that holds several checkpoints gives one entrant each; words that hold the same checkpoint on other tasks
    are one entrant.

    Raises:
        StoreError: a word is no run.
        UsageError: a folder holds several runs of one checkpoint and task.
    """
    found: list[_Found] = []
    for own in (one for word in words for one in _read(word)):
        same = next(
            (e for e in found if own.model and e.model == own.model and not e.runs.keys() & own.runs.keys()), None
        )
        if same:
            same.runs.update(own.runs)
        else:
            found.append(own)
    return _labelled(found)


def sides(baseline: str, candidate: str) -> list[Entrant]:
    """Two entrants, one a word. Raises UsageError where a word holds several checkpoints, and as ``entrants``."""
    found = []
    for word in (baseline, candidate):
        own = _read(word)
        if len(own) > 1:
            raise UsageError(f"{word} holds runs of {len(own)} checkpoints; name the run folder of one")
        found += own
    return _labelled(found)


def _read(word: str) -> list[_Found]:
    """The entrants of one word."""
    parts = [word] if Path(word).is_dir() else [part for part in word.split(",") if part]
    if twice := next((part for part in parts if sum(Path(part) == Path(other) for other in parts) > 1), ""):
        raise UsageError(f"{word} names {twice} twice; join other seeds or repeats of it, or name it alone")
    if len(parts) > 1:
        return [_Found(word, "", _by_task(run for part in parts for run in runs_below(Path(part))))]
    found = []
    for model, runs in _by_model(runs_below(Path(word))).items():
        own = _by_task(runs)
        _refuse_twice(word, own)
        found.append(_Found(word, model, own))
    return found


def _by_model(runs: Iterable[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for run in runs:
        manifest = read_manifest(run)
        identity = cast("Mapping[str, Json]", manifest["identity"])
        found.setdefault(f"{manifest['model']} {identity.get('model')}", []).append(run)
    return found


def _by_task(runs: Iterable[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for run in runs:
        found.setdefault(str(read_manifest(run)["task"]), []).append(run)
    return found


def _refuse_twice(word: str, runs: Mapping[str, Sequence[Path]]) -> None:
    for task, own in runs.items():
        if len(own) > 1:
            joined = ",".join(map(str, own[:3]))
            raise UsageError(
                f"{word} holds {len(own)} runs of one checkpoint on {task}: name the run folder, "
                f"or join them by commas where they are repeats: {joined}"
            )


def _labelled(found: Sequence[_Found]) -> list[Entrant]:
    runs = [{task: tuple(own) for task, own in one.runs.items()} for one in found]
    return [Entrant(label, own) for label, own in zip(_labels(found), runs, strict=True)]


def _labels(found: Sequence[_Found]) -> list[str]:
    """The shortest way to call the entrants apart: by model, by folder, as they were given, else by number too."""
    models = [str(read_manifest(next(iter(one.runs.values()))[0])["model"]) for one in found]
    short = [model.rstrip("/").rpartition("/")[2] or model for model in models]
    folders = [", ".join(Path(part).name for part in one.word.split(",")) for one in found]
    for labels in (short, models, folders, [one.word for one in found]):
        if len(set(labels)) == len(labels):
            return labels
    return [f"{number} {label}" for number, label in enumerate(short, 1)]


class _Judged(NamedTuple):
    """What is kept of a record; no outcome where the episode ended in an error."""

    key: Key
    asked: tuple[object, ...]
    end: str
    outcome: Outcome | None


def load(folder: Path, profile: str | None = None) -> Run:
    """A run, read from its records and judged under a profile, by default its own. Raises PrhError."""
    manifest = read_manifest(folder)
    task, judge = load_task(str(manifest["task"])), load_profile(profile or str(manifest["profile"]))
    check_reads(judge, task)
    tag = answer_tag(str(cast("Mapping[str, Json]", manifest["identity"]).get("protocol")))

    def judged(record: Record) -> _Judged:
        key = (str(record["id"]), cast(int, record["repeat"]))
        asked = tuple(_frozen(record.get(name)) for name in ("question", "choices", "gold", "answer_kind"))
        row = row_of(record, task, judge, tag)
        return _Judged(key, asked, str(record["end"]), _outcome(record, row, folder) if row else None)

    records, damaged = read_run(folder, judged)
    outcomes = {record.key: record.outcome for record in records if record.outcome}
    asked = {record.key[0]: record.asked for record in records}
    errors: dict[str, int] = dict.fromkeys(ERROR_STATES, 0)
    for record in records:
        if record.outcome is None:
            errors[record.end] += 1
    if any("cost" in outcome.costs for outcome in outcomes.values()):  # a record leaves out a cost of nothing
        outcomes = {key: replace(own, costs={"cost": 0.0, **own.costs}) for key, own in outcomes.items()}
    return Run(folder, manifest, task, judge, len(records), errors, outcomes, asked, damaged)


def _frozen(value: Json) -> object:
    return tuple(value) if isinstance(value, list) else value


def _outcome(record: Record, row: Row, folder: Path) -> Outcome:
    try:
        operations = cast("list[Mapping[str, Json]]", record["operations"])
        usage = cast("Mapping[str, float]", record["usage"])
        seconds = float(cast("Mapping[str, float]", record["seconds"]).get("total", 0.0))
        costs = {name: float(usage[name]) for name in COSTS if name in usage}
        failed = tuple(str(operation["error"]) for operation in operations if operation["error"] is not None)
        costs = {"operations": float(len(operations)), **costs, "seconds": seconds}
        return Outcome(row, str(record["end"]), len(operations), failed, costs)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{folder}, record {row.id[:80]!r} cannot be read: {error!r}; was it edited?") from None


def resume(run: Run) -> str:
    """The command that runs what a run lacks."""
    return f"`prh resume {shlex.quote(str(run.folder))}`"


def load_all(entrant: Entrant, task: str, profile: str | None = None) -> tuple[Run, ...]:
    """An entrant's runs of a task. Raises PrhError."""
    return tuple(load(folder, profile) for folder in entrant.runs[task])
