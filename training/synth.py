"""One synthesis: open sources and teachers, make what is missing, write what is derived."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import cast

from ..harness import registry
from ..harness.digests import json_digest
from ..harness.errors import StoreError, UsageError
from ..harness.evaluate import load_profile
from ..harness.manifest import check_same, environment
from ..harness.record import SCHEMA, Record
from ..harness.scoring import score_row
from ..harness.settings import Setting
from ..harness.store import (
    MANIFEST,
    RunStore,
    is_new,
    is_run,
    read_manifest,
    read_records,
    write_atomic,
    write_json,
    write_lines,
)
from ..harness.types import Json
from . import templates, wording
from .card import card
from .export import export
from .gates import Refused, check_split
from .known import Known, know, summary
from .recipe import Recipe, SourcePart, factor_of, setting_of
from .schema import schema
from .seeds import Seed, Source, SourceOptions
from .synthesis import Bench, Shop, Watcher, estimate, judged, run_source
from .teachers.annotation import Annotation
from .teachers.asking import Cost
from .teachers.base import Teacher
from .teachers.endpoint import Endpoint
from .teachers.rejection import Rejection
from .yields import Refusals, Tally

PROFILE = "strict"
YIELD = "yield.json"
REFUSED = "refused.jsonl"
# Of what is drawn and written; a change makes other trajectories of the same recipe.
VERSION = 1


class Screen(Watcher):
    """A watcher that is told of the whole run too; override what is of interest."""

    def comparing(self, task: str, done: int, total: int) -> None:
        """Evaluation media are being looked at."""

    def reading(self, source: str, done: int, total: int) -> None:
        """A source's data are being read or drawn."""

    def opened(self, order: Order, known: Known, kept: int) -> None:
        """All is ready; ``kept`` trajectories are there from before."""

    def costs(self, source: str, teacher: str, count: int, one: Cost) -> None:
        """What a source will ask of a model: of one trajectory, and how many are wanted, 0 for all there are."""

    def begun(self, source: str, wanted: int) -> None:
        """See ``Watcher``."""

    def finished(self, source: str, record: Record | None, refusal: Refused | None) -> None:
        """See ``Watcher``."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made, where.

    Attributes:
        root: where relative paths of the recipe begin.
        estimate: whether only to say what would be done and asked.
        command: words of the command line, for the manifest.
    """

    recipe: Recipe
    root: Path
    out: Path
    concurrency: int = 8
    estimate: bool = False
    command: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """How a synthesis ended."""

    folder: Path
    records: int
    tallies: Sequence[Tally]
    known: Known
    seconds: float


def synthesise(order: Order, screen: Screen | None = None) -> Made:
    """Make what is missing of an order and write what is derived. Raises PrhError."""
    screen = screen or Screen()
    start = time.perf_counter()
    folder, recipe = order.out, order.recipe
    if not is_run(folder) and not is_new(folder):
        raise UsageError(f"{folder} exists and is no run folder; choose another --out")
    for part in recipe.source:
        check_split(part.split, part.title)
        registry.load("sources", part.name)
    _check_titles(recipe.source)
    setting = setting_of(recipe)
    teachers = {part.teacher: teacher(part.teacher, recipe) for part in recipe.source}
    seeds = {part.title: _seeds(part, order, screen) for part in recipe.source}
    return asyncio.run(_synthesise(_Work(order, setting, teachers, seeds, screen), start))


@dataclass(frozen=True, slots=True)
class _Work:
    """An order, opened."""

    order: Order
    setting: Setting
    teachers: Mapping[str, Teacher]
    seeds: Mapping[str, Iterable[Seed]]
    screen: Screen


async def _synthesise(work: _Work, start: float) -> Made:
    order, screen = work.order, work.screen
    recipe, folder = order.recipe, order.out
    try:
        known = await know(_against(order), screen.comparing)
        factor = factor_of(recipe)
        shop = Shop(work.setting, recipe.synth, factor, known, load_profile(PROFILE), _versions(), order.concurrency)
        if order.estimate:
            screen.opened(order, known, 0)
            await _estimate(work, shop)
            return Made(folder, 0, [], known, time.perf_counter() - start)
        identity = _identity(recipe, work.setting, factor, known)
        with RunStore(folder) as store:
            if is_run(folder):
                check_same(cast("Mapping[str, Json]", read_manifest(folder)["identity"]), identity, folder)
            else:
                write_json(folder / MANIFEST, _manifest(order, work.setting, identity))
            _check_kept(folder, store.records.values())
            screen.opened(order, known, len(store.records))
            await _estimate(work, shop)
            tallies = await _all(work, shop, store)
            records = read_records(folder)
            _derive(folder, order, records, tallies, known)
    finally:
        for one in work.teachers.values():
            await one.close()
    return Made(folder, len(records), tallies, known, time.perf_counter() - start)


def _check_kept(folder: Path, records: Iterable[Record]) -> None:
    """Refuse a folder whose records a synthesis cannot have written. Raises StoreError."""
    for record in records:
        provenance = record.get("provenance")
        made = isinstance(provenance, dict) and provenance.get("template") in templates.KINDS
        for key in ("gold", "slices", "media", "segments", "inputs"):
            made = made and isinstance(record.get(key), list)
        if not made:
            message = f"record {record['id']!r} was not written by `prh synth`, or was edited"
            raise StoreError(f"{folder}: {message}; choose another --out")


async def _estimate(work: _Work, shop: Shop) -> None:
    """Say what the models behind the teachers will be asked, before they are."""
    for part in work.order.recipe.source:
        if part.teacher == "annotation":
            continue
        tally, nowhere = Tally(part.title, part.count), RunStore(work.order.out)
        bench = Bench(part, work.teachers[part.teacher], shop, nowhere, Screen(), Refusals(None), Counter(), tally)
        cost = await estimate(bench, _seeds(part, work.order, Screen()))
        work.screen.costs(part.title, part.teacher, part.count, cost)


def _check_titles(parts: Sequence[SourcePart]) -> None:
    titles = Counter(part.title for part in parts)
    for title, count in titles.items():
        if count > 1:
            raise UsageError(f"{count} sources are called {title!r}; give each a `label` of its own")


def _against(order: Order) -> list[str]:
    """The evaluation sets, local copies relative to the recipe."""
    found = []
    for entry in order.recipe.synth.against:
        name, equals, folder = entry.partition("=")
        found.append(f"{name}={order.root / folder}" if equals else name)
    return found


async def _all(work: _Work, shop: Shop, store: RunStore) -> list[Tally]:
    uses: Counter[str] = Counter()
    refusals = Refusals(work.order.out / REFUSED)
    tallies = []
    for part in work.order.recipe.source:
        tally = Tally(part.title, part.count)
        bench = Bench(part, work.teachers[part.teacher], shop, store, work.screen, refusals, uses, tally)
        tallies.append(await run_source(bench, work.seeds[part.title]))
    return tallies


def teacher(name: str, recipe: Recipe) -> Teacher:
    """A teacher by name; no model is opened yet. Raises UsageError, ModelError or Prerequisite."""
    if name == "endpoint":
        return Endpoint(recipe.teacher.endpoint, load_profile(PROFILE), recipe.synth.seed)
    if name == "rejection":
        return Rejection(recipe.teacher.rejection, recipe.synth.seed)
    return Annotation(recipe.synth.overview)


def _seeds(part: SourcePart, order: Order, screen: Screen) -> Iterable[Seed]:
    source = cast(Source, registry.make("sources", part.name))
    data = order.root / Path(part.data).expanduser() if part.data else None
    options = SourceOptions(
        data, part.split, order.recipe.synth.seed, part.settings, partial(screen.reading, part.title)
    )
    return registry.guarded(f"source {part.name}", lambda: source.seeds(options))


def _versions() -> dict[str, Json]:
    return {"prh": version("prh"), "templates": VERSION, "wording": wording_digest()[:12]}


def wording_digest() -> str:
    """Digest of every sentence."""
    return json_digest([[form.name, cast(Json, form.words.sentences())] for form in (*wording.FORMS, wording.GENERIC)])


def _identity(recipe: Recipe, setting: Setting, factor: int, known: Known) -> dict[str, Json]:
    return {
        "task": "synth",
        "recipe": recipe.digest(),
        "versions": _versions(),
        "kinds": list(templates.KINDS),
        "factor": factor,
        "known": dict(summary(known)),
        **setting.identity(),
    }


def _manifest(order: Order, setting: Setting, identity: Mapping[str, Json]) -> dict[str, Json]:
    return {
        "schema": SCHEMA,
        "task": "synth",
        "model": ", ".join(sorted({part.teacher for part in order.recipe.source})),
        "profile": PROFILE,
        "command": list(order.command),
        "directory": str(Path.cwd()),
        "identity": dict(identity),
        "origins": cast(Json, dict(setting.origins)),
        "recipe": order.recipe.json(),
        "concurrency": order.concurrency,
        "environment": environment(),
        "started": time.time(),
        "finished": None,
    }


def _derive(folder: Path, order: Order, records: Sequence[Record], tallies: Sequence[Tally], known: Known) -> None:
    """Write scores, yield, card, schema and export, and note in the manifest that it is done."""
    write_lines(folder / "scores" / f"{PROFILE}.jsonl", map(score_row, judged(records)))
    write_json(folder / YIELD, [tally.json() for tally in tallies])
    write_json(folder / "schema.json", schema())
    write_json(folder / "known.json", known.json())
    write_atomic(folder / "README.md", card(order.recipe, records, tallies, known).encode())
    export(folder, folder / "export")
    manifest = read_manifest(folder)
    write_json(folder / MANIFEST, {**manifest, "finished": time.time(), "made": len(records)})
