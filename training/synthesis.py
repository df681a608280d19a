"""Trajectories from seeds: examined, given a kind, written, performed, passed through the gates and kept.

A source is worked on in rounds. In a round as many seeds are taken as trajectories are still wanted, up to a number;
each gets the kind that is furthest behind its share, of those that it has room for; all are then made at once, and
what the gates refuse is made good in the next round. Who gets which kind depends on the order of the seeds and on
what was refused in earlier rounds alone, so that the result is the same whatever runs at once, and after a kill too.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import Protocol, TypeVar, cast

from ..harness.engine import smart_resize
from ..harness.errors import DataError
from ..harness.journal import encode_line
from ..harness.media import load_image
from ..harness.record import Record, key_of
from ..harness.settings import Setting
from ..harness.store import RunStore
from ..harness.task import Profile, Row, Task
from ..harness.types import Json, Sample, Size, Span
from .gates import Refused, check_evidence, check_performed, check_script
from .geometry import Grid
from .inputs import keep_inputs
from .known import Known, marks
from .recipe import SourcePart, SynthPart
from .seeds import Seed
from .teachers.asking import Cost
from .teachers.base import Case, Teacher, voice_of
from .templates import Kind, Plan, Scene, default_mix, draw, write
from .trajectories import perform, to_lesson_record
from .yields import Refusals, Tally

T = TypeVar("T")
R = TypeVar("R")
# Most seeds that are looked at before their trajectories are made.
ROUND = 1024


class Watcher(Protocol):
    """What a caller is told as the synthesis goes on."""

    def begun(self, source: str, wanted: int) -> None:
        """A source is being worked on; ``wanted`` is 0 where there is no number."""

    def finished(self, source: str, record: Record | None, refusal: Refused | None) -> None:
        """A trajectory was kept, or refused."""


@dataclass(frozen=True, slots=True)
class Shop:
    """What every trajectory of a run is made with.

    Attributes:
        factor: see ``recipe.SynthPart``.
        versions: of packages, for provenance.
    """

    setting: Setting
    synth: SynthPart
    factor: int
    known: Known
    profile: Profile
    versions: Mapping[str, Json]
    concurrency: int

    def fit(self, size: Size, budget: Span) -> Size:
        """The size that the model that is to learn sees an image at."""
        return smart_resize(size, budget, self.factor)


@dataclass(frozen=True, slots=True)
class Job:
    """A seed that has been given a kind.

    Attributes:
        done: whether its trajectory is kept from before.
    """

    seed: Seed
    repeat: int
    scene: Scene | None
    plan: Plan
    done: bool = False


@dataclass(slots=True)
class Bench:
    """Where one source is worked on.

    Attributes:
        uses: how often each seed was taken, over all sources.
        given: how many trajectories of each kind there are or will be, by modality.
    """

    part: SourcePart
    teacher: Teacher
    shop: Shop
    store: RunStore
    watcher: Watcher
    refusals: Refusals
    uses: Counter[str]
    tally: Tally
    given: dict[bool, Counter[str]] = field(default_factory=lambda: {True: Counter(), False: Counter()})


async def run_source(bench: Bench, seeds: Iterable[Seed]) -> Tally:
    """Make the trajectories of one source. Raises StoreError, ModelError, UsageError, DataError of the source."""
    part, tally = bench.part, bench.tally
    offered = _offered(seeds, part.each)
    bench.watcher.begun(part.title, part.count)
    while not part.count or sum(tally.made.values()) < part.count:
        wanted = min(part.count - sum(tally.made.values()), ROUND) if part.count else ROUND
        batch = await asyncio.to_thread(lambda wanted=wanted: list(itertools.islice(offered, wanted)))  # type: ignore[misc]
        if not batch:
            break
        await _round(bench, batch)
    return tally


async def estimate(bench: Bench, seeds: Iterable[Seed], looked_at: int = 4) -> Cost:
    """What one trajectory of a source costs its teacher, the mean of the first few that can be made."""
    found: list[Cost] = []
    offered = iter(seeds)
    for seed in await asyncio.to_thread(lambda: list(itertools.islice(offered, looked_at))):
        try:
            scene = await asyncio.to_thread(_looked_at, bench.shop, seed)
        except (Refused, DataError):
            continue
        if job := _assigned(bench, seed, 0, scene):
            found.append(await bench.teacher.cost(Case(scene, job.plan, voice_of(seed, scene.places()), 0)))
    return reduce(Cost.plus, found, Cost()).times(1 / len(found)) if found else Cost()


def _offered(seeds: Iterable[Seed], each: int) -> Iterator[Seed]:
    """The seeds, all of them ``each`` times."""
    kept: list[Seed] = []
    for seed in seeds:
        if each > 1:
            kept.append(seed)
        yield seed
    for _ in range(each - 1):
        yield from kept


async def _round(bench: Bench, batch: Sequence[Seed]) -> None:
    bench.tally.offered += len(batch)
    numbered: list[tuple[Seed, int]] = []
    for seed in batch:
        own = f"{seed.source}/"
        name = seed.sample.id if seed.sample.id.startswith(own) else f"{own}{seed.sample.id}"
        named = replace(seed, sample=replace(seed.sample, id=name))
        numbered.append((named, bench.uses[named.sample.id]))
        bench.uses[named.sample.id] += 1
    scenes = await each_of(numbered, bench.shop.concurrency, partial(_examined, bench))
    jobs = [
        job
        for (seed, repeat), scene in zip(numbered, scenes, strict=True)
        if (job := _assigned(bench, seed, repeat, scene))
    ]
    results = await each_of(jobs, bench.shop.concurrency, partial(_made, bench))
    for job, refusal in zip(jobs, results, strict=True):
        if refusal is None:
            bench.tally.made[job.plan.kind] += 1
        else:
            bench.given[_is_video(job)][job.plan.kind] -= 1
            bench.tally.refuse(refusal.gate, job.plan.kind, job.seed.sample.id, refusal.reason)


def _is_video(job: Job) -> bool:
    media = job.seed.sample.media
    return bool(media) and media[0].kind == "video"


async def each_of(items: Sequence[T], most: int, work: Callable[[T], Awaitable[R]]) -> list[R]:
    """The results of work on each item, in order, at most so many at once; the first error ends all."""
    results: list[R | None] = [None] * len(items)
    waiting = iter(enumerate(items))

    async def worker() -> None:
        for number, item in waiting:
            results[number] = await work(item)

    workers = [asyncio.create_task(worker()) for _ in range(min(most, len(items)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for one in workers:
            one.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return cast("list[R]", results)


async def _examined(bench: Bench, numbered: tuple[Seed, int]) -> Scene | Refused | Record:
    """A seed's media looked at; what is kept of it from before, or why it is refused."""
    seed, repeat = numbered
    kept = bench.store.records.get((seed.sample.id, repeat))
    if kept is not None:
        return kept
    try:
        return await asyncio.to_thread(_looked_at, bench.shop, seed)
    except Refused as refusal:
        return refusal
    except DataError as error:
        return Refused("unreadable", str(error))


def _looked_at(shop: Shop, seed: Seed) -> Scene:
    protocol, originals, sizes = shop.setting.protocol, [], []
    for medium in seed.sample.media:
        if found := shop.known.holds(marks(medium)):
            raise Refused("evaluated", f"{medium.name} is in {found}")
        size = load_image(medium).size if medium.kind == "image" else Size(0, 0)
        originals.append(size)
        resized = protocol.working == "resized" and medium.kind == "image"
        sizes.append(shop.fit(size, shop.setting.budget.input) if resized else size)
    check_evidence(seed.sample, originals)
    return Scene(seed, protocol, Grid.of(shop.synth.grid), sizes, originals, shop.synth.frames)


def _assigned(bench: Bench, seed: Seed, repeat: int, scene: Scene | Refused | Record) -> Job | None:
    """The kind that is furthest behind its share, of those that the seed has room for."""
    if isinstance(scene, dict):
        provenance = cast("Mapping[str, Json]", scene["provenance"])
        plan = Plan(cast(Kind, provenance["template"]))
        job = Job(seed, repeat, None, plan, done=True)
        bench.given[_is_video(job)][plan.kind] += 1
        return job
    if isinstance(scene, Scene):
        weights = scene.possible(bench.part.weights() or default_mix(scene))
        given = bench.given[_is_video(Job(seed, repeat, scene, Plan("text-only")))]
        total, sum_of = sum(given[kind] for kind in weights) + 1, sum(weights.values())
        behind = sorted(weights, key=lambda kind: (given[kind] - weights[kind] / sum_of * total, kind))
        for kind in behind:
            rng = random.Random(f"{bench.shop.synth.seed}\0{seed.sample.id}\0{repeat}\0{kind}")  # noqa: S311
            drawn = draw(kind, scene, rng)
            if drawn:
                given[kind] += 1
                return Job(seed, repeat, scene, drawn)
        scene = Refused("unfit", f"no room for any of {', '.join(behind) or 'the kinds of its mix'}")
    bench.tally.refuse(scene.gate, "", seed.sample.id, scene.reason)
    bench.watcher.finished(bench.part.title, None, scene)
    return None


async def _made(bench: Bench, job: Job) -> Refused | None:
    """Make one trajectory and keep it; what it was refused for, or None."""
    key = (job.seed.sample.id, job.repeat)
    record: Record | None = bench.store.records.get(key) if job.done else None
    refusal: Refused | None = None if job.done else bench.refusals.known.get((*key, job.plan.kind))
    if not job.done and job.scene is not None and refusal is None:
        try:
            record = await _kept(bench, job, job.scene)
        except Refused as refused:
            refusal = refused
            bench.refusals.add(*key, job.plan.kind, refusal)
    bench.watcher.finished(bench.part.title, record, refusal)
    return refusal


async def _kept(bench: Bench, job: Job, scene: Scene) -> Record:
    """One trajectory written, performed, passed through the gates and appended. Raises Refused."""
    shop = bench.shop
    try:
        case = await _asked(bench, Case(scene, job.plan, voice_of(job.seed, scene.places()), job.repeat))
        analyses = await bench.teacher.write(case)
    except DataError as error:
        raise Refused("teacher", str(error)) from None
    voice, sample = case.voice.about(analyses.target), case.sample
    script = write(job.plan, analyses, voice, sample, shop.setting.protocol)
    check_script(script, job.plan, sample, [text for name, text in voice.values.items() if name != "value"])
    check_answer(shop.profile, sample, script[-1].text, shop.setting.protocol.answer_tag)
    try:
        trajectory = await perform(sample, script, shop.setting, shop.fit, job.repeat)
    except DataError as error:
        raise Refused("performed", str(error)) from None
    check_performed(trajectory, job.plan, scene)
    files = await asyncio.to_thread(bench.store.keep_media, trajectory.conversation)
    inputs = await asyncio.to_thread(keep_inputs, bench.store.folder, sample.media)
    record = to_lesson_record(trajectory, files, inputs, provenance(bench, job))
    bench.store.append_line(encode_line(record))
    return record


async def _asked(bench: Bench, case: Case) -> Case:
    """The case with a question: its own, or one that the teacher proposes."""
    if case.sample.question:
        return case
    seed = replace(case.seed, sample=await bench.teacher.propose(case))
    return replace(case, scene=replace(case.scene, seed=seed), voice=voice_of(seed, case.scene.places()))


def check_answer(profile: Profile, sample: Sample, text: str, tag: str) -> None:
    """Refuse a last turn whose answer is not read as an accepted one. Raises Refused."""
    if not sample.gold:
        raise Refused("answer", "the seed has no accepted answer")
    answer, _ = profile.extract(cast(Task, None), sample, text, tag)
    if answer is None or answer.casefold() not in {gold.casefold() for gold in sample.gold}:
        raise Refused("answer", f"the last turn is read as {answer!r}, not as {sample.gold[0]!r}")


def provenance(bench: Bench, job: Job) -> dict[str, Json]:
    """Who made a trajectory of what."""
    seed = job.seed
    return {
        "source": seed.source,
        "label": bench.part.title,
        "licence": seed.licence,
        "origin": dict(seed.origin),
        "teacher": dict(bench.teacher.describe()),
        "proposed": not seed.sample.question,
        "template": job.plan.kind,
        "steps": job.plan.json(),
        "seed": bench.shop.synth.seed,
        "grid": bench.shop.synth.grid,
        "versions": dict(bench.shop.versions),
    }


def judged(records: Iterable[Record]) -> list[Row]:
    """The records as judged rows: every one ends in an accepted answer, or it would not be here."""
    rows = []
    for record in records:
        sample, repeat = key_of(record)
        gold = tuple(str(answer) for answer in cast("list[Json]", record["gold"]))
        slices = tuple(str(name) for name in cast("list[Json]", record["slices"]))
        cluster = str(record["cluster"] or record["id"])
        scores = {"accuracy": 1.0}
        rows.append(Row(sample, repeat, str(record["category"]), slices, cluster, gold, gold[0], "boxed", scores))
    return rows
