"""The engine against the two plain ways of running turns, and against its own forwards: ``make bench-engine``.

The same episodes through the same loop, on one thread, with the same weights, kernels and most rows at once:

* ours: turns join and leave the running batch, over a cache of what was read and seen before;
* rounds: as the published release does it: all conversations of a batch ask, ``generate`` reads everything and runs
  until the slowest is done, and again, until the last of the batch has answered;
* serial: one ``generate`` a turn, one conversation after another;
* limit: the forwards that ours cannot do without, in full batches, with nothing around them: images, new tokens of
  prompts, and one step after another; by the library's own model, and by this engine's way of running it.

Images are decoded and resized beforehand, for all four. The checkpoint is ``tiny``: what it says, what it calls and
when it ends are its own. With ``--planned 1`` it is ``tiny-init``, whose weights are random: what is called and how
long a turn is follow a plan then.
"""

import asyncio
import random
from dataclasses import replace

import numpy as np
import torch
from measure import alternate, arguments, median, report
from prh.harness.engine import EngineOptions, Turn, TurnSpec, Usage
from prh.harness.episode import run_episode
from prh.harness.evaluate import load_task
from prh.harness.pictures import PICTURES
from prh.harness.settings import resolve
from prh.harness.task import DataOptions
from prh.harness.types import Call
from prh.models.flat import Piece, Stream
from prh.models.transformers_engine import TransformersFactory
from transformers import DynamicCache, GenerationConfig

BATCH = 16
TASKS = ("vstar-mini", "infographicsvqa-mini", "tallyqa-complex-mini")


class Free:
    """An engine that notes every reply's ids."""

    def __init__(self, inner, opened):
        self.inner, self.opened, self.said = inner, opened, {}
        self.caps, self.fingerprint, self.fit = opened.caps, "", opened.fit
        self.banned = tuple(opened.vision_ids)

    async def turn(self, talk, spec):
        turn = await self.inner.turn(talk, replace(spec, banned_ids=self.banned))
        self.said[talk.key, talk.turns] = turn.ids
        return turn

    async def release(self, talk):
        await self.inner.release(talk)


class Planned(Free):
    """An engine whose turns are as long, and call what, a plan says."""

    def __init__(self, inner, opened):
        super().__init__(inner, opened)
        self.banned = tuple(opened.vision_ids | set(opened._encoder.ends))

    def plan(self, key):
        rng = random.Random(key)
        turns = rng.choice((1, 2, 2, 3))
        boxes = [(rng.uniform(0, 0.5), rng.uniform(0, 0.5)) for _ in range(turns)]
        return [(rng.randrange(8, 57), box) for box in boxes]

    async def turn(self, talk, spec):
        plan, number = self.plan(talk.key), talk.turns
        length, (x, y) = plan[number]
        turn = await self.inner.turn(talk, TurnSpec(length, banned_ids=self.banned))
        self.said[talk.key, number] = turn.ids
        last = number + 1 == len(plan)
        call = Call("crop_image", {"bbox_2d": [x, y, x + 0.4, y + 0.4], "target_image": 1})
        return replace(turn, text="So.", finish="stop", native_calls=() if last else (call,))


def generate(engine, talks, specs):
    """The next turn of some conversations by the library's own ``generate``, everything read from the beginning."""
    from prh.models.decode import join_inputs

    views = [engine.encode(talk) for talk in talks]
    longest = max(len(view.ids) for view in views)
    ids = torch.full((len(views), longest), engine.pad)
    mask, positions = torch.zeros_like(ids), torch.zeros(3, len(views), longest, dtype=torch.long)
    for row, view in enumerate(views):
        start = longest - len(view.ids)
        ids[row, start:], mask[row, start:] = torch.tensor(view.ids), 1
        positions[:, row, start:] = view.positions
    kinds = (ids == engine.module.config.image_token_id).int()
    how = GenerationConfig(
        max_new_tokens=max(spec.max_new_tokens for spec in specs),
        do_sample=False,
        suppress_tokens=list(specs[0].banned_ids),
        eos_token_id=list(engine._encoder.ends),
        pad_token_id=engine.pad,
    )
    given = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": kinds, **join_inputs(views)}
    given = {name: value.to(engine.module.device) for name, value in given.items()}
    with torch.inference_mode():
        made = engine.module.generate(generation_config=how, **given)
    replies = [row[longest:][: spec.max_new_tokens] for row, spec in zip(made.tolist(), specs, strict=True)]
    return [turn_of(engine, view, reply) for view, reply in zip(views, replies, strict=True)]


def turn_of(engine, view, ids):
    """What was said up to the first token that ends a turn."""
    end = next((place for place, number in enumerate(ids) if number in engine._encoder.ends), None)
    said, finish = (ids, "length") if end is None else (ids[: end + 1], "stop")
    text = engine.processor.decode(said if end is None else said[:-1])
    return Turn(text, tuple(said), None, finish, usage=Usage(len(view.ids), len(said)))


class Rounds:
    """Waits until every conversation of its batch that has not ended asks, then runs all of them."""

    def __init__(self, engine):
        self.engine, self.asking, self.live = engine, [], 0

    async def turn(self, talk, spec):
        made = asyncio.get_running_loop().create_future()
        self.asking.append((talk, spec, made))
        self.go()
        return await made

    async def release(self, talk):
        self.live -= 1
        self.go()

    def go(self):
        if self.asking and len(self.asking) == self.live:
            talks, specs, futures = zip(*self.asking, strict=True)
            self.asking = []
            for future, turn in zip(futures, generate(self.engine, talks, specs), strict=True):
                future.set_result(turn)


def in_rounds(engine, samples, setting, speaker, batch=BATCH):
    rounds = Rounds(engine)
    noted = speaker(rounds, engine)

    async def run():
        for start in range(0, len(samples), batch):
            some = samples[start : start + batch]
            rounds.live = len(some)
            await asyncio.gather(*(run_episode(sample, noted, setting) for sample in some))

    asyncio.run(run())
    return noted.said


def serial(engine, samples, setting, speaker):
    return {key: ids for sample in samples for key, ids in in_rounds(engine, [sample], setting, speaker).items()}


def ours(engine, samples, setting, speaker, concurrency):
    """Turns admitted as they come; the caches are empty at the beginning."""
    noted = speaker(engine, engine)
    engine._path.scheduler.batch.relieve()
    traces = []

    async def run():
        gate = asyncio.Semaphore(concurrency)

        async def one(sample):
            async with gate:
                traces.append(await run_episode(sample, noted, setting))

        await asyncio.gather(*map(one, samples))

    asyncio.run(run())
    assert not any(trace.error for trace in traces), {trace.end: trace.error for trace in traces}
    return noted.said, traces


def turns_of(engine, traces):
    """Every turn as its prompt, how many of its tokens the turn before has left behind, and how long the reply is."""
    turns, images = [], {}
    for trace in traces:
        talk, before = trace.conversation, 0
        segments, talk.segments = talk.segments, []
        for segment in segments:
            if segment.role == "assistant":
                prompt = engine._path.trails.prompt(talk)
                turns.append((prompt, before, len(segment.ids)))
                before = len(prompt.ids) + len(segment.ids) - 1
                images.update(prompt.media)
            talk.segments = [*talk.segments, segment]
    turns.sort(key=lambda turn: turn[2])
    return turns, [engine._path.gallery.processor.tensors("", [medium]) for medium in images.values()]


def steps_of(turns):
    """Turns of about one length stand together; their mean decides, so that full batches are what is measured."""
    return round(sum(length for _, _, length in turns) / len(turns)) - 1


def limit(engine, turns, pixels):
    core, gallery = engine._path.scheduler.batch.model, engine._path.gallery

    def run():
        with torch.inference_mode():
            for start in range(0, len(pixels), BATCH):
                features = gallery.encode(pixels[start : start + BATCH], video=False)
            slots = core.slots()
            slots.make_room(BATCH, max(len(prompt.ids) + length for prompt, _, length in turns))
            for start in range(0, len(turns), BATCH):
                replay(core, slots, turns[start : start + BATCH], features[0])

    return run


def library_limit(engine, turns, pixels):
    module = engine.module
    config = module.config.get_text_config()
    shape = config.num_key_value_heads, config.hidden_size // config.num_attention_heads

    def replayed(some):
        past = max(before for _, before, _ in some)
        longest = max(len(prompt.ids) - before for prompt, before, _ in some)
        cache = DynamicCache(config=config)
        if past:
            for layer in range(config.num_hidden_layers):
                cache.update(*[torch.zeros(len(some), shape[0], past, shape[1])] * 2, layer)
        mask = torch.zeros(len(some), past + longest, dtype=torch.long)
        places = torch.zeros(3, len(some), longest, dtype=torch.long)
        for row, (prompt, before, _) in enumerate(some):
            new = len(prompt.ids) - before
            mask[row, :before], mask[row, -new:] = 1, 1
            places[:, row, -new:] = torch.from_numpy(prompt.positions[:, before:].copy())
        ids = torch.full((len(some), longest), 65)
        given = {"past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
        module(input_ids=ids, attention_mask=mask, position_ids=places, **given)
        for _ in range(steps_of(some)):
            mask = torch.cat([mask, mask.new_ones(len(some), 1)], 1)
            made = module(input_ids=ids[:, :1], attention_mask=mask, position_ids=places[:, :, -1:], **given)
            made.logits[:, -1].argmax(-1).tolist()

    def run():
        with torch.inference_mode():
            for start in range(0, len(pixels), BATCH):
                some = pixels[start : start + BATCH]
                names = ("pixel_values", "image_grid_thw")
                module.model.get_image_features(*(torch.cat([one[name] for one in some]) for name in names))
            for start in range(0, len(turns), BATCH):
                replayed(turns[start : start + BATCH])

    return run


def replay(core, slots, turns, features):
    pieces = []
    for slot, (prompt, before, _) in enumerate(turns):
        shots = [shot for shot in prompt.shots if shot.start >= before]
        visual = np.concatenate([np.arange(shot.start, shot.end) for shot in shots] or [np.zeros(0, np.int64)]) - before
        visual = visual.astype(np.int64)
        rows = features.cut(0, 1)
        some = replace(rows, rows=rows.rows.expand(len(visual), -1)) if len(visual) else None
        pieces.append(Piece(slot, before, prompt.ids[before:], prompt.positions[:, before:], visual, some))
    core.forward(Stream(pieces=pieces), slots)
    lengths = [len(prompt.ids) for prompt, _, _ in turns]
    for step in range(steps_of(turns)):
        columns = [length + step for length in lengths]
        core.forward(Stream(0, [65] * len(turns), columns, columns), slots).argmax(-1).tolist()


def samples_of(count):
    """So many samples of the synthetic miniatures, in turn."""
    sets = [list(load_task(name).load(DataOptions(None, "test", None, 0, offline=True)).samples) for name in TASKS]
    chosen = [sets[n % len(sets)][n // len(sets) % len(sets[n % len(sets)])] for n in range(count)]
    return [replace(sample, id=f"e{number:04}") for number, sample in enumerate(chosen)]


def main():
    args = arguments(__doc__.splitlines()[0], episodes=256, runs=5, concurrency=32, planned=0)
    torch.set_num_threads(1)
    PICTURES.cap = 1 << 31
    model, speaker = ("tiny-init", Planned) if args.planned else ("tiny", Free)
    engine = TransformersFactory().open(model, EngineOptions(batch=BATCH))
    assert engine.describe()["path"] == "fast", engine.describe()
    setting = resolve([("prh.json", TransformersFactory().defaults(model))], 0)
    given = engine, samples_of(args.episodes), setting, speaker
    said, traces = ours(*given, args.concurrency)
    work = engine.describe()["work"]
    turns, pixels = turns_of(engine, traces)
    ways = {
        "ours": lambda: ours(*given, args.concurrency),
        "rounds": lambda: in_rounds(*given),
        "serial": lambda: serial(*given),
        "limit, the library's forwards": library_limit(engine, turns, pixels),
        "limit, our forwards": limit(engine, turns, pixels),
    }
    compared = {name: ways[name]() for name in ("rounds", "serial")}
    same = {name: sum(ids == said.get(key) for key, ids in found.items()) for name, found in compared.items()}
    found = {name: median(values) for name, values in alternate(ways, args.runs).items()}
    tokens = sum(map(len, said.values()))
    rows = [
        [name, seconds, args.episodes / seconds, tokens / seconds, seconds / found["ours"]]
        for name, seconds in found.items()
    ]
    columns = ["way", "CPU s", "episodes/s", "new tokens/s", "times ours"]
    title = f"{args.episodes} episodes, {len(said)} turns, {tokens} new tokens; turns with identical greedy ids: {same}"
    report(title, columns, rows, {"identical": same, "work": work}, args.json)
    print("\nwhere ours went:", work)


if __name__ == "__main__":
    main()
