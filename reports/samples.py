"""The samples of a page: an index that filters work on, and every episode in compressed chunks decoded on demand."""

from __future__ import annotations

import base64
import itertools
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ..harness import registry
from ..harness.digests import json_digest
from ..harness.errors import OPERATION_ERRORS, OperationErrorKind, StoreError
from ..harness.journal import decode_line
from ..harness.record import Record
from ..harness.store import journals, read_run
from ..harness.types import END_STATES, EndState, Json
from .album import CROP_SHARE, Album, Images
from .episodes import Reader, Table, visible
from .field import Field, Stand, TaskField
from .kept import Cell, Kept, Spent, interest
from .reproduce import command_of, quote
from .runs import Outcome, Run

CHUNK = 24
PICTURED = 600
PROBES = 6
# Of a turn as an episode has it: what ``Spent`` adds up.
SPENT = ("tokens", "seconds", "operating")
RIGHT_MARK, WRONG_MARK, ERROR_MARK = "\u25cf", "\u25cb", "\u25b3"


@dataclass(frozen=True)
class Packed:
    """The data of a page.

    Attributes:
        index, chunks: compressed, in base 64.
        operations: (failed, cluster) of every call, by task, entrant and operation.
        spent: what turns took, by task, entrant and number of the turn, from 1.
        kept: what was read of each sample, by task and id.
        rows: of the table that is shown without JavaScript, by task and sample.
        pictured: how many of how many samples have pictures.
    """

    index: str
    chunks: Sequence[str]
    operations: Mapping[tuple[int, int, str], Sequence[tuple[bool, str]]]
    spent: Mapping[tuple[int, int, int], Spent]
    kept: Mapping[int, Mapping[str, Kept]]
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
        self.spent: dict[tuple[int, int, int], Spent] = {}
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
        pictured = (shown, len(whole))
        return Packed(deflated(as_json(index)), chunks, self.operations, self.spent, self.kept, rows, pictured)

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
            name = str(row["id"])
            if name not in kept:
                kept[name] = Kept(cast(Table, row["shared"]), str(row["text"]))
            own = kept[name]
            own.episodes.setdefault(stand.number, []).append(str(row["episode"]))
            outcome = run.outcomes.get((str(row["id"]), cast(int, row["repeat"])))
            self._count(task, stand, row, own.cells.setdefault(stand.number, Cell()), outcome)

    def _made(self, task: TaskField, reader: Reader, record: Record, place: int, key: str, run: Run) -> Record:
        """What is kept of a record: the episode as JSON text, what the runs share, and what the index counts."""
        name, repeat = str(record["id"]), cast(int, record["repeat"])
        pictures = name in self.pictured[task.number]
        known = self.kept[task.number].get(name)
        shared = known.shared if known else reader.sample(record, pictures=pictures)
        episode = reader.episode(record, _score(run.outcomes.get((name, repeat))), pictures=pictures)
        prompt = shared.setdefault("prompt", episode["prompt"])
        if episode["prompt"] == prompt:
            del episode["prompt"]
        calls = cast("list[Table]", record["operations"])
        return {
            "id": name,
            "repeat": repeat,
            "ends": 1 << END_STATES.index(cast(EndState, record["end"])),
            "faults": sum(
                {1 << OPERATION_ERRORS.index(cast(OperationErrorKind, c["error"])) for c in calls if c["error"]}
            ),
            "calls": [[visible(str(call["name"]) or "unreadable", 60), call["error"]] for call in calls],
            "turns": [[turn[part] for part in SPENT] for turn in cast("list[Table]", episode["turns"])],
            "boxes": episode["boxes"],
            "sure": episode["sure"],
            "episode": as_json(episode | {"run": place, "key": f"{key}{repeat}"}),
            "shared": shared,
            "text": None if known else as_json(shared),
        }

    def _count(self, task: TaskField, stand: Stand, row: Table, cell: Cell, outcome: Outcome | None) -> None:
        calls = cast("list[tuple[str, str | None]]", row["calls"])
        cell.ends |= cast(int, row["ends"])
        cell.faults |= cast(int, row["faults"])
        cell.operations = max(cell.operations, len(calls))
        turns = cast("list[tuple[int | None, float | None, float | None]]", row["turns"])
        cell.turns = max(cell.turns, len(turns))
        cell.boxes = cell.boxes or cast("list[Json]", row["boxes"])
        if outcome is None:
            return
        for name, kind in calls:
            own = self.operations.setdefault((task.number, stand.number, name), [])
            own.append((kind is not None, outcome.row.cluster))
        for number, turn in enumerate(turns, 1):
            self.spent.setdefault((task.number, stand.number, number), Spent()).add(*turn)
        cell.answer = cell.answer or visible(outcome.row.answer or "", 80)
        cell.answers.append(outcome.row.answer)
        if row["sure"] is not None:
            cell.likely.append(cast(float, row["sure"]))

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


as_json = json.JSONEncoder(allow_nan=False).encode


def deflated(text: str) -> str:
    """Text as raw deflate in base 64, as a browser's ``deflate-raw`` reads it."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return base64.b64encode(packer.compress(text.encode()) + packer.flush()).decode("ascii")


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
    order = sorted(names, key=lambda name: (*interest(own[name], candidate), name))
    places = {name: place for place, name in enumerate(order)}
    return [places[name] for name in names]


def _sample_json(kept: Kept, entrants: int) -> str:
    episodes = ",".join(f"[{','.join(kept.episodes.get(number, []))}]" for number in range(entrants))
    return f'{kept.text[:-1]},"episodes":[{episodes}]}}'


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
    return f"{RIGHT_MARK if cell.right else WRONG_MARK} {cell.answer or 'no answer'}"
