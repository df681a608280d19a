"""The samples of a page: an index that filters work on, and every episode in compressed chunks decoded on demand."""

from __future__ import annotations

import base64
import itertools
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from ..harness import registry
from ..harness.digests import json_digest
from ..harness.errors import OPERATION_ERRORS, OperationErrorKind, StoreError
from ..harness.journal import decode_line
from ..harness.record import Record
from ..harness.store import journals, read_run
from ..harness.types import END_STATES, Box, EndState, Json
from .album import CROP_SHARE, Album, Images
from .episodes import Reader, Table, visible
from .field import Field, Stand, TaskField
from .reproduce import command_of, quote
from .runs import Outcome, Run

CHUNK = 24
PICTURED = 600
PROBES = 6
RIGHT = 0.5
RIGHT_MARK, WRONG_MARK, ERROR_MARK = "\u25cf", "\u25cb", "\u25b3"


@dataclass(slots=True)
class Cell:
    """What the index says of one entrant's episodes of a sample."""

    score: float | None = None
    ends: int = 0
    operations: int = 0
    turns: int = 0
    faults: int = 0
    answer: str = ""
    boxes: list[Json] = field(default_factory=list)

    def row(self) -> Json:
        score = None if self.score is None else round(self.score, 4)
        return [score, self.ends, self.operations, self.turns, self.faults, self.answer]


@dataclass(slots=True)
class Kept:
    """What was read of one sample, by entrant: cells, and episodes as JSON texts in order of run and repeat."""

    shared: Table
    cells: dict[int, Cell] = field(default_factory=dict)
    episodes: dict[int, list[str]] = field(default_factory=dict)

    @property
    def category(self) -> str:
        return str(self.shared["category"])

    @property
    def slices(self) -> list[str]:
        return cast("list[str]", self.shared["slices"])


@dataclass(frozen=True)
class Packed:
    """The data of a page.

    Attributes:
        index, chunks: compressed, in base 64.
        operations: (failed, cluster) of every call, by task, entrant and operation.
        rows: of the table that is shown without JavaScript, by task and sample.
        pictured: how many of how many samples have pictures.
    """

    index: str
    chunks: Sequence[str]
    operations: Mapping[tuple[int, int, str], Sequence[tuple[bool, str]]]
    rows: Sequence[Table]
    pictured: tuple[int, int]


class Gatherer:
    """Reads every record of a field once, and packs what a page shows of it."""

    def __init__(self, whole: Field, images: Images) -> None:
        self.field = whole
        self.pictured = {task.number: _pictured(task, images, len(whole.tasks)) for task in whole.tasks}
        pictures = sum(_pictures(task, self.pictured[task.number]) for task in whole.tasks)
        self.album = Album.sized(images, pictures, [probe for task in whole.tasks for probe in _probes(task)])
        self.systems: list[str] = []
        self.operations: dict[tuple[int, int, str], list[tuple[bool, str]]] = {}
        self.kept: dict[int, dict[str, Kept]] = {}

    def gather(self) -> Packed:
        """The data of the page. Raises StoreError."""
        for task in self.field.tasks:
            self.kept[task.number] = {}
            for stand in task.stands.values():
                for place, run in enumerate(stand.runs):
                    self._read(task, stand, place, run)
        tasks: list[Table] = []
        whole: list[str] = []
        rows: list[Table] = []
        for task in self.field.tasks:
            own = self.kept[task.number]
            tasks.append(self._task(task, own, len(whole)))
            whole += [_sample_json(own[name], len(self.field.labels)) for name in sorted(own)]
            rows += [_static(task, name, own[name], len(self.field.labels)) for name in sorted(own)]
        index: Table = {
            "entrants": [{"label": label} for label in self.field.labels],
            "ends": list(END_STATES),
            "faults": list(OPERATION_ERRORS),
            "chunk": CHUNK,
            "systems": cast(Json, self.systems),
            "tasks": cast(Json, tasks),
        }
        chunks = [deflated(f"[{','.join(whole[at : at + CHUNK])}]") for at in range(0, len(whole), CHUNK)]
        shown = sum(len(names) for names in self.pictured.values())
        return Packed(deflated(json.dumps(index)), chunks, self.operations, rows, (shown, len(whole)))

    def _read(self, task: TaskField, stand: Stand, place: int, run: Run) -> None:
        reader = Reader(run.folder, self.album, _coordinates(run), self.systems)
        key = f"{run.folder.name} " if len(stand.runs) > 1 else "repeat "
        kept = self.kept[task.number]

        def made(record: Record) -> Record:
            try:
                return self._made(task, reader, record, place, key, run)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                name = str(record["id"])[:80]
                raise StoreError(f"{run.folder}, record {name!r} cannot be shown: {error!r}; was it edited?") from None

        for row in read_run(run.folder, made)[0]:
            own = kept.setdefault(str(row["id"]), Kept(cast(Table, row["shared"])))
            own.episodes.setdefault(stand.number, []).append(str(row["episode"]))
            outcome = run.outcomes.get((str(row["id"]), cast(int, row["repeat"])))
            self._count(task, stand, row, own.cells.setdefault(stand.number, Cell()), outcome)

    def _made(self, task: TaskField, reader: Reader, record: Record, place: int, key: str, run: Run) -> Record:
        """What is kept of a record: the episode as JSON text, what the runs share, and what the index counts."""
        name, repeat = str(record["id"]), cast(int, record["repeat"])
        pictures = name in self.pictured[task.number]
        episode = reader.episode(record, _score(run.outcomes.get((name, repeat))), pictures=pictures)
        calls = cast("list[Table]", record["operations"])
        return {
            "id": name,
            "repeat": repeat,
            "ends": 1 << END_STATES.index(cast(EndState, record["end"])),
            "faults": sum(
                {1 << OPERATION_ERRORS.index(cast(OperationErrorKind, c["error"])) for c in calls if c["error"]}
            ),
            "calls": [[visible(str(call["name"]) or "unreadable", 60), call["error"]] for call in calls],
            "turns": len(cast("list[Json]", episode["turns"])),
            "boxes": episode["boxes"],
            "episode": json.dumps(episode | {"run": place, "key": f"{key}{repeat}"}, allow_nan=False),
            "shared": None if name in self.kept[task.number] else _finite(reader.sample(record, pictures=pictures)),
        }

    def _count(self, task: TaskField, stand: Stand, row: Table, cell: Cell, outcome: Outcome | None) -> None:
        calls = cast("list[tuple[str, str | None]]", row["calls"])
        cell.ends |= cast(int, row["ends"])
        cell.faults |= cast(int, row["faults"])
        cell.operations = max(cell.operations, len(calls))
        cell.turns = max(cell.turns, cast(int, row["turns"]))
        cell.boxes = cell.boxes or cast("list[Json]", row["boxes"])
        for name, kind in calls:
            if outcome is not None:
                own = self.operations.setdefault((task.number, stand.number, name), [])
                own.append((kind is not None, outcome.row.cluster))
        if outcome is not None and not cell.answer:
            cell.answer = visible(outcome.row.answer or "", 80)

    def _task(self, task: TaskField, own: Mapping[str, Kept], first: int) -> Table:
        for name, kept in own.items():
            for number, cell in kept.cells.items():
                cell.score = _mean_score(task, number, name)
        names = sorted(own)
        categories = sorted({kept.category for kept in own.values() if kept.category})
        slices = sorted({piece for kept in own.values() for piece in kept.slices})
        ranks = [_ranks(names, own, number) for number in range(len(self.field.labels))]
        return {
            "name": task.name,
            "primary": task.primary,
            "first": first,
            "categories": cast(Json, categories),
            "slices": cast(Json, slices),
            "commands": self._each(task, command_of),
            "manifests": self._each(task, _manifest),
            "samples": [
                self._row(name, own[name], categories, slices, [rank[at] for rank in ranks])
                for at, name in enumerate(names)
            ],
        }

    def _each(self, task: TaskField, what: Callable[[Run], str]) -> Json:
        """A text for every run of every entrant."""
        stands = [task.stands.get(number) for number in range(len(self.field.labels))]
        return [[what(run) for run in stand.runs] if stand else [] for stand in stands]

    def _row(
        self, name: str, kept: Kept, categories: Sequence[str], slices: Sequence[str], ranks: Sequence[int]
    ) -> Json:
        shared = kept.shared
        cells = [kept.cells[n].row() if n in kept.cells else None for n in range(len(self.field.labels))]
        category = categories.index(kept.category) if kept.category else -1
        gold = " ".join(cast("list[str]", shared["gold"]))[:120]
        quoted = quote(name)
        return [
            visible(name, 300),
            category,
            [slices.index(piece) for piece in kept.slices],
            str(shared["question"])[:180],
            gold,
            cells,
            list(ranks),
            "" if quoted == name else quoted,
        ]


def deflated(text: str) -> str:
    """Text as raw deflate in base 64, as a browser's ``deflate-raw`` reads it."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return base64.b64encode(packer.compress(text.encode()) + packer.flush()).decode("ascii")


def _finite(value: Table) -> Table:
    """The same table. Raises ValueError where it holds a number that JSON has no name for."""
    json.dumps(value, allow_nan=False)
    return value


def _coordinates(run: Run) -> str:
    return str(getattr(registry.load("protocols", str(run.identity.get("protocol"))), "coordinates", ""))


def _manifest(run: Run) -> str:
    return json_digest(dict(run.identity))[:12]


def _score(outcome: Outcome | None) -> Table | None:
    if outcome is None:
        return None
    row = outcome.row
    return {"answer": row.answer, "rule": row.rule, "scores": cast(Json, dict(row.scores))}


def _mean_score(task: TaskField, number: int, name: str) -> float | None:
    stand = task.stands[number]
    own = [o.value(task.primary) for run in stand.runs for o in run.by_sample.get(name, ())]
    known = [value for value in own if value is not None]
    return sum(known) / len(known) if known else None


def _names(task: TaskField) -> list[str]:
    return sorted({name for stand in task.stands.values() for run in stand.runs for name in run.asked})


def _pictured(task: TaskField, images: Images, tasks: int) -> set[str]:
    """The samples whose pictures are embedded: of many, those in which candidates differ most from the baseline."""
    names = _names(task)
    most = {"none": 0, "thumb": PICTURED // max(tasks, 1), "full": len(names)}[images]
    if len(names) <= most:
        return set(names)

    def interest(name: str) -> tuple[float, float, str]:
        scores = [_mean_score(task, number, name) for number in task.stands]
        known = [0.0 if score is None else score for score in scores]
        worst = max((known[0] - score for score in known[1:]), default=1 - known[0])
        spread = max(known) - min(known)
        return (-worst, -spread, name)

    return set(sorted(names, key=interest)[:most])


def _pictures(task: TaskField, names: set[str]) -> float:
    """How many source images some samples amount to, a crop counting by its area."""
    crops = sum(
        max(0.0, outcome.costs.get("images", 1.0) - 1)
        for stand in task.stands.values()
        for (name, _), outcome in stand.runs[0].outcomes.items()
        if name in names
    )
    return len(names) + CROP_SHARE**2 * crops


def _probes(task: TaskField) -> list[tuple[Path, str]]:
    """Files of the first few source images of a task."""
    run = next(iter(task.stands.values())).runs[0].folder
    with journals(run)[-1].open("rb") as lines:
        first = [decode_line(line) for line in itertools.islice(lines, PROBES)]
    media = [item for record in first if record for item in cast("list[Table]", record.get("media") or [])]
    files = [cast("list[Json]", item.get("files") or []) for item in media if not item.get("parent")]
    return [(run, str(names[0])) for names in files if len(names) == 1]


def _ranks(names: Sequence[str], own: Mapping[str, Kept], candidate: int) -> list[int]:
    """Places of the samples, in order of ``names``, when the most instructive come first."""
    order = sorted(names, key=lambda name: (*_interest(own[name], candidate), name))
    places = {name: place for place, name in enumerate(order)}
    return [places[name] for name in names]


def _interest(kept: Kept, candidate: int) -> tuple[float, float, float]:
    """Lost, won, errors, disagreement, in this order; within each, far apart in score, then in where they looked."""
    before, after = kept.cells.get(0), kept.cells.get(candidate)
    if before is None or after is None:
        return (9, 0, 0)
    if candidate == 0:
        return (1 if before.score is None else 0 if before.score < RIGHT else 2, 0, -before.operations)
    apart = -_apart(before.boxes, after.boxes)
    if before.score is None or after.score is None:
        return (2, 0, apart)
    group = {(True, False): 0, (False, True): 1, (False, False): 4, (True, True): 5}
    rank = group[before.score >= RIGHT, after.score >= RIGHT]
    if rank == 4 and before.answer != after.answer:
        rank = 3
    return (rank, -abs(before.score - after.score), apart)


def _apart(before: Sequence[Json], after: Sequence[Json]) -> float:
    """How differently two episodes looked: 1 less the best overlap of their boxes; 1 where only one looked."""
    if not before or not after:
        return float(bool(before) != bool(after))
    sides = [[Box(*cast("list[float]", cast(Table, box)["asked"])) for box in boxes] for boxes in (before, after)]
    return 1 - max(one.iou(other) for one in sides[0] for other in sides[1])


def _sample_json(kept: Kept, entrants: int) -> str:
    episodes = ",".join(f"[{','.join(kept.episodes.get(number, []))}]" for number in range(entrants))
    return f'{json.dumps(kept.shared)[:-1]},"episodes":[{episodes}]}}'


def _static(task: TaskField, name: str, kept: Kept, entrants: int) -> Table:
    """A row of the table for a page without JavaScript."""
    return {
        "task": task.name,
        "id": visible(name, 300),
        "category": kept.category,
        "gold": " \u00b7 ".join(cast("list[str]", kept.shared["gold"]))[:120],
        "cells": [_said(kept.cells.get(number)) for number in range(entrants)],
    }


def _said(cell: Cell | None) -> str:
    if cell is None:
        return "\u2013"
    if cell.score is None:
        return f"{ERROR_MARK} error"
    return f"{RIGHT_MARK if cell.score >= RIGHT else WRONG_MARK} {cell.answer or 'no answer'}"
