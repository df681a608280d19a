"""From records to answers, scores and metrics. Needs no model and no dataset: a record holds its gold answers."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import TypeVar, cast

from .errors import OPERATION_ERRORS, DataError, UsageError
from .intervals import mean
from .record import Record, evidence_of, final_text, sample_of, unreadable
from .task import Profile, Row, Task
from .types import END_STATES, ERROR_STATES, Box, Json, Metric, Sample

T = TypeVar("T")
METRICS_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Episode:
    """What a run's metrics read of a record, some hundred bytes of it.

    Attributes:
        errors: of each attempted operation, None where it succeeded.
        costs: by the names of ``_COSTS``, in their order.
        overlap: see ``crop_iou``.
        guess: share of the shown options that are accepted, None where none are shown.
        price: in dollars, where it is known.
    """

    cluster: str
    category: str
    slices: tuple[str, ...]
    end: str
    errors: tuple[str | None, ...]
    costs: tuple[float, ...]
    overlap: float | None
    guess: float | None
    price: float | None


def episode_of(record: Record) -> Episode:
    """What the metrics read of a record. Raises StoreError."""
    try:
        return _episode(record)
    except (KeyError, TypeError, AttributeError) as error:
        raise unreadable(record, error) from None


def _episode(record: Record) -> Episode:
    choices, gold = cast("list[str]", record["choices"]), cast("list[str]", record["gold"])
    return Episode(
        str(record["cluster"] or record["id"]),
        sys.intern(str(record["category"])),
        _once(tuple(cast("list[str]", record["slices"]))),
        sys.intern(str(record["end"])),
        _once(tuple(cast("str | None", operation["error"]) for operation in _operations(record))),
        tuple(read(record) for read in _COSTS.values()),
        _overlap(record),
        len(gold) / len(choices) if choices else None,
        cast("dict[str, float]", record["usage"]).get("cost"),
    )


class Judge:
    """Judges records one by one, keeping of each what scores and metrics need.

    Raises:
        UsageError: the profile cannot read this task's answers.
    """

    def __init__(self, task: Task, profile: Profile, answer_tag: str) -> None:
        check_reads(profile, task)
        self.task, self.profile, self.answer_tag = task, profile, answer_tag

    def __call__(self, record: Record) -> tuple[Episode, Row | None]:
        """What the metrics read of it, and its row where it is no error. Raises DataError, StoreError."""
        return episode_of(record), row_of(record, self.task, self.profile, self.answer_tag)


def score_records(records: Iterable[Record], task: Task, profile: Profile, answer_tag: str) -> list[Row]:
    """Judge every episode that is no error, of which nothing but its end is read. No answer scores 0.

    Raises:
        UsageError: the profile cannot read this task's answers.
        DataError: the task or the profile fails on a record.
        StoreError: a record cannot be read.
    """
    check_reads(profile, task)
    rows = (row_of(record, task, profile, answer_tag) for record in records)
    return [row for row in rows if row is not None]


def row_of(record: Record, task: Task, profile: Profile, answer_tag: str) -> Row | None:
    """A record's row, None where the episode ended in an error. Raises DataError, StoreError."""
    if record["end"] in ERROR_STATES:
        return None
    sample = sample_of(record)
    text = final_text(record)
    answer, rule = profile.extract(task, sample, text, answer_tag) if text is not None else (None, "")
    return Row(
        sample.id,
        cast(int, record["repeat"]),
        sys.intern(sample.category),
        _once(sample.slices),
        sample.cluster or sample.id,
        _once(sample.gold),
        answer,
        rule,
        _scores(tuple(_judged(profile, task, sample, answer).items())),
    )


@lru_cache(maxsize=4096)
def _once(values: tuple[T, ...]) -> tuple[T, ...]:
    """The same values, one tuple in memory for all that are equal."""
    return values


@lru_cache(maxsize=4096)
def _scores(items: tuple[tuple[str, float], ...]) -> Mapping[str, float]:
    return dict(items)


def _judged(profile: Profile, task: Task, sample: Sample, answer: str | None) -> dict[str, float]:
    try:
        scores = {name: float(value) for name, value in profile.judge(task, sample, answer).items()}
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise DataError(f"{task.name} cannot score sample {sample.id[:80]!r}: {error}") from error
    if not all(map(math.isfinite, scores.values())):
        raise DataError(f"{task.name} scores sample {sample.id[:80]!r} with a value that is no number: {scores}")
    return scores


def check_reads(profile: Profile, task: Task) -> None:
    """Refuse a profile that has no rules for a task. Raises UsageError."""
    if not profile.reads(task):
        message = f"profile {profile.name} has no rules for {task.name} ({task.answer_kind} answers)"
        raise UsageError(f"{message}; choose another --profile (`prh list profiles`)")


def summarise(episodes: Sequence[Episode], rows: Sequence[Row], task: Task, profile: Profile) -> dict[str, Json]:
    """The metrics of a run: overall, by category and by slice, every rate with its count and 95 % interval."""
    kept = [episode for episode in episodes if episode.end not in ERROR_STATES]
    ends = Counter(episode.end for episode in episodes)
    categories = sorted({row.category for row in rows if row.category})
    slices = sorted({name for row in rows for name in row.slices})

    def part(category: str | None = None, piece: str | None = None) -> Json:
        def chosen(one: Row | Episode) -> bool:
            return (category is None or one.category == category) and (piece is None or piece in one.slices)

        judged, own = list(filter(chosen, rows)), list(filter(chosen, kept))
        return _json({**profile.aggregate(task, judged), **episode_metrics(own)})

    return {
        "schema": METRICS_SCHEMA,
        "task": task.name,
        "profile": profile.name,
        "profile_version": profile.version,
        "primary": task.primary,
        "n": len(kept),
        "errors": {state: ends[state] for state in ERROR_STATES},
        "ends": {state: ends[state] for state in END_STATES if state in ends},
        "operation_errors": cast(Json, taxonomy(kept)),
        "chance": {name or "all": _chance(kept, task, name) for name in ("", *categories)},
        "metrics": part(),
        "categories": {name: part(category=name) for name in categories},
        "slices": {name: part(piece=name) for name in slices},
    }


def process_metrics(records: Iterable[Record]) -> dict[str, Metric]:
    """``episode_metrics`` of records. Raises StoreError."""
    return episode_metrics([episode_of(record) for record in records])


def episode_metrics(episodes: Sequence[Episode]) -> dict[str, Metric]:
    """RaPR, op-error rate and the means of what an episode costs, over episodes that are no errors.

    RaPR is the share of episodes with at least one attempted operation (Pixel Reasoner, section 4);
    the op-error rate is failed over attempted operations, null where none was attempted. ``crop_iou`` is the median,
    over episodes that cropped an image whose evidence is annotated, of the best overlap of a crop with evidence.
    """
    clusters = [episode.cluster for episode in episodes]
    failed = [[error is not None for error in episode.errors] for episode in episodes]
    each = [(float(error), cluster) for errors, cluster in zip(failed, clusters, strict=True) for error in errors]
    metrics = {
        "rapr": mean([float(bool(errors)) for errors in failed], clusters),
        "rapr_successful": mean([float(not all(errors)) if errors else 0.0 for errors in failed], clusters),
        "op_error_rate": mean([value for value, _ in each], [cluster for _, cluster in each]),
        "episodes_with_op_error": mean([float(any(errors)) for errors in failed], clusters),
    }
    count = len(episodes)
    for place, name in enumerate(_COSTS):
        total = sum(episode.costs[place] for episode in episodes)
        metrics[name] = Metric(total / count if count else None, None, None, count)
    overlaps = [episode.overlap for episode in episodes if episode.overlap is not None]
    if overlaps:
        metrics["crop_iou"] = Metric(median(overlaps), None, None, len(overlaps))
    if any(episode.price is not None for episode in episodes):
        total = sum(episode.price or 0.0 for episode in episodes)
        metrics["cost"] = Metric(total / count, None, None, count)
    return metrics


def _overlap(record: Record) -> float | None:
    """The best intersection over union of a crop with evidence on the image that it was cut from in the end."""
    if not record["operations"]:
        return None
    evidence = [(item.media, item.box) for item in evidence_of(record) if item.box]
    if not evidence:
        return None
    media = cast("list[Mapping[str, Json]]", record["media"])
    roots = {item.get("index"): item.get("root") for item in media}
    found = []
    for operation in _operations(record):
        if operation["error"] is None and operation.get("root_box"):
            cut = Box(*cast("list[float]", operation["root_box"]))
            root = roots.get(operation["media"])
            found += [cut.iou(box) for index, box in evidence if index == root]
    return max(found, default=None)


def taxonomy(episodes: Iterable[Episode]) -> dict[str, int]:
    """How many operations failed, by kind; kinds that did not occur are left out."""
    kinds = Counter(error for episode in episodes for error in episode.errors)
    return {kind: kinds[kind] for kind in OPERATION_ERRORS if kind in kinds}


def _chance(episodes: Iterable[Episode], task: Task, category: str) -> float | None:
    """Expected score of guessing over the episodes of a category: declared, else accepted over shown options."""
    levels = []
    for episode in episodes:
        if category and episode.category != category:
            continue
        declared = task.chance.of(episode.category)
        guess = declared if declared is not None else episode.guess
        if guess is None:
            return None
        levels.append(guess)
    return sum(levels) / len(levels) if levels else None


def score_row(row: Row) -> dict[str, Json]:
    """A judged episode as a line of ``scores/P.jsonl``."""
    return {
        "id": row.id,
        "repeat": row.repeat,
        "category": row.category,
        "answer": row.answer,
        "rule": row.rule,
        "gold": list(row.gold),
        "scores": dict(row.scores),
    }


def read_metric(value: Mapping[str, Json]) -> Metric:
    """A metric of ``metrics.json``."""
    number = cast("Mapping[str, float | None]", value)
    return Metric(number["value"], number["low"], number["high"], int(number["n"] or 0))


def _operations(record: Mapping[str, Json]) -> list[dict[str, Json]]:
    return cast("list[dict[str, Json]]", record["operations"])


def _usage(name: str) -> Callable[[Record], float]:
    return lambda record: cast("dict[str, float]", record["usage"])[name]


_COSTS: dict[str, Callable[[Record], float]] = {
    "operations": lambda record: len(_operations(record)),
    "turns": _usage("turns"),
    "images": _usage("images"),
    "prompt_tokens": _usage("prompt_tokens"),
    "new_tokens": _usage("new_tokens"),
    "seconds": lambda record: cast("dict[str, float]", record["seconds"]).get("total", 0.0),
}


def _json(metrics: Mapping[str, Metric]) -> Json:
    return {name: {"value": m.value, "low": m.low, "high": m.high, "n": m.n} for name, m in metrics.items()}
