"""Nothing that is kept is ever wrong: any mix gives what each conversation gives from scratch, and costs no more."""

import asyncio
import contextlib
import dataclasses
import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prh.harness.engine import EngineOptions, TurnSpec
from prh.harness.errors import ModelError, UsageError
from prh.models import continuous
from prh.models.gallery import medium_key
from prh.models.transformers_engine import TransformersFactory
from prh.tests.models.support import (
    batch,
    conversation,
    core,
    endless,
    forget,
    full_logits,
    noise,
    prompt_ids,
    recorded_logits,
    redraw,
    reply,
    run,
    say,
    since,
    turns,
    work,
)

MARGIN = 1e-4
TEXTS = st.sampled_from(["What?", "\nHere is the cropped image (Image Size: 28x28):", "é ✓ 日本", "</tool_call>", "4"])
LAWS = st.sampled_from(((0.0, 1.0), (0.0, 1.0), (1.2, 1.0), (0.8, 0.9)))
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 3))


@dataclasses.dataclass(frozen=True)
class Step:
    """One turn: what is shown before it, how it is drawn, when it comes, and what goes wrong with it.

    A cancelled one is given up halfway and ends its conversation; a spoiled one cannot be prepared at first.
    """

    shapes: list
    text: str
    tokens: int
    law: tuple[float, float]
    delay: int
    cancelled: bool
    spoiled: bool


@st.composite
def plans(draw):
    """Conversations of 1-5 turns and at most 4 images; some begin alike."""
    found = []
    for _ in range(draw(st.integers(1, 6))):
        left, steps = 4, []
        for turn in range(draw(st.integers(1, 5))):
            shapes = draw(st.lists(SHAPES, min_size=int(not turn), max_size=min(left, 2)))
            left -= len(shapes)
            cancelled = turn > 0 and draw(st.integers(0, 9)) == 0
            tokens, law, spoiled = draw(st.integers(1, 8)), draw(LAWS), draw(st.integers(0, 9)) == 0
            steps.append(Step(shapes, draw(TEXTS), tokens, law, draw(st.integers(0, 6)), cancelled, spoiled))
        found.append(steps)
    return found


class Upset:
    """Makes rows leave in the middle of a turn, what is kept disappear and forwards fail, at random steps.

    Attributes:
        failed: forwards that were made to fail.
        alone: those of them that ran one row, whose turn cannot be saved.
    """

    def __init__(self, engine, monkeypatch, seed, share, faults=0.0):
        self.rng, self.share, self.faults, self.engine = random.Random(seed), share, faults, engine
        self.failed = self.alone = 0
        own = batch(engine)
        real, forward = own.make_room, own.model.forward

        def make_room():
            left = []
            if own.rows and self.rng.random() < self.share:
                left = [own._pause(row) for row in reversed(own.rows) if self.rng.random() < 0.5]
            if self.rng.random() < self.share:
                own.prefixes.cap, kept = int(own.prefixes.held * self.rng.random() ** 2), own.prefixes.cap
                own.prefixes._shrink()
                own.prefixes.cap = kept
            if self.rng.random() < self.share:
                own.gallery.clear()
            return [*left, *real()]

        def fail_at_times(stream, slots):
            fails, late = self.rng.random() < self.faults, self.rng.random() < 0.5
            logits = forward(stream, slots) if late or not fails else None
            if fails:
                self.failed += 1
                self.alone += len(stream.tokens) + len(stream.pieces) == 1
                raise RuntimeError(self.rng.choice(("out of memory", "no such kernel")))
            return logits

        monkeypatch.setattr(own, "make_room", make_room)
        monkeypatch.setattr(own.model, "forward", fail_at_times)


@contextlib.contextmanager
def unprepared(engine, monkeypatch):
    """Conversations added to this set fail to be prepared, half of them once they have been read as far as they go."""
    spoiled, real = set(), engine._path.view

    def view(talk):
        if talk.key not in spoiled:
            return real(talk)
        if talk.turns % 2:
            real(talk)
        raise ModelError("spoiled")

    with monkeypatch.context() as patch:
        patch.setattr(engine._path, "view", view)
        yield spoiled


async def converse(engine, number, steps, kept, seeds, spoiled, lost):
    """One conversation, turn by turn, beside the others; a turn that fails is asked for again, with another seed."""
    cell = engine.processor.factor
    talk = conversation(f"c{number}#0")
    say(talk, "system", "Be brief.")
    for step in steps:
        for _ in range(step.delay):
            await asyncio.sleep(0.0005)
        images = [noise((w * cell, h * cell), 10 * w + h + 100 * which) for w, h, which in step.shapes]
        say(talk, "user", *images, step.text)
        spec = TurnSpec(step.tokens, *step.law, seed=next(seeds), banned_ids=endless(engine))
        if step.spoiled:
            spoiled.add(talk.key)
            with pytest.raises(ModelError, match="spoiled"):
                await engine.turn(talk, spec)
            spoiled.remove(talk.key)
        if step.cancelled:
            task = asyncio.create_task(engine.turn(talk, spec))
            await asyncio.sleep(0.002)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            break
        before = conversation(talk.key)
        before.segments, before.items, before.shown = list(talk.segments), list(talk.items), list(talk.shown)
        made = None
        while made is None:
            try:
                made = await engine.turn(talk, spec)
            except ModelError as error:
                lost.append(str(error))
                spec = dataclasses.replace(spec, seed=next(seeds))
        kept.append((before, spec, made))
        reply(talk, made)
    await engine.release(talk)


def play(engine, plan, spoiled=(), lost=()):
    """The turns that were made, each with its conversation as it was before it; ``lost`` gets why others failed."""
    kept, seeds = [], iter(range(1, 1 << 20))

    async def all_of_them():
        async with asyncio.timeout(120):
            talks = (converse(engine, n, steps, kept, seeds, spoiled, lost) for n, steps in enumerate(plan))
            await asyncio.gather(*talks)
            # A turn given up at the very end is still at work, and would be recorded with the next play's.
            while engine._path.scheduler._waiting or batch(engine).rows:
                await asyncio.sleep(0.0005)

    run(all_of_them())
    return kept


def compare(folder, engine, kept, seen):
    """Every token against one forward over everything, none of it kept.

    Returns how many there were, how many came out otherwise, and how many were within the margin and within half of it:
    those the engine must have counted, whose logits are not quite these.
    """
    steps = others = near = nearer = 0
    for talk, spec, made in kept:
        prompt = prompt_ids(folder, talk, engine.processor.factor)
        assert made.usage.prompt_tokens == len(prompt)
        assert len(made.ids) == len(seen[spec.seed]) == spec.max_new_tokens
        whole = full_logits(folder, talk, prompt + list(made.ids))[len(prompt) - 1 : -1]
        assert (torch.stack(seen[spec.seed]) - whole).abs().max() < 1e-4
        for token, (drawn, close) in zip(made.ids, redraw(whole, spec, MARGIN), strict=True):
            steps, others, near = steps + 1, others + (token != drawn), near + close
            assert token == drawn or close
        nearer += sum(close for _, close in redraw(whole, spec, MARGIN / 2))
    return steps, others, near, nearer


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    plan=plans(),
    seed=st.integers(0, 999),
    share=st.sampled_from((0.0, 0.0, 0.1, 0.4)),
    faults=st.sampled_from((0.0, 0.0, 0.1)),
)
def test_any_mix_gives_what_each_conversation_gives_from_scratch(family, monkeypatch, plan, seed, share, faults):
    folder, engine = family
    before, restarted, ties, lost = work(engine), engine._path.trails.restarted, engine.near_ties, []
    limit = batch(engine).limit
    with recorded_logits(monkeypatch) as seen, unprepared(engine, monkeypatch) as spoiled, monkeypatch.context() as p:
        upset = Upset(engine, p, seed, share, faults)
        kept = play(engine, plan, spoiled, lost)
    batch(engine).limit = limit
    steps, others, near, nearer = compare(folder, engine, kept, seen)
    assert others <= 1 + steps // 50
    assert near <= 5 + steps // 3, "the margin must not excuse everything"
    assert nearer <= engine.near_ties - ties
    assert len(lost) <= upset.alone
    assert all("out of memory" in why or "no such kernel" in why for why in lost)
    counted = since(engine, before)
    assert engine._path.trails.restarted == restarted
    upsetting = share or upset.failed or _gave_up(plan)
    assert counted["prompt_tokens"] == counted["cached_tokens"] + counted["prefilled_tokens"] or upsetting
    if not share and not upset.failed:
        assert counted["refilled_tokens"] == counted["paused"] == 0


def _gave_up(plan):
    return any(step.cancelled for steps in plan for step in steps)


def test_turns_that_must_leave_in_their_middle_go_on_as_if_they_had_not(family, monkeypatch):
    _, engine = family
    cell = engine.processor.factor
    talks = [conversation(f"p{number}") for number in range(6)]
    for number, talk in enumerate(talks):
        say(talk, "system", "s")
        say(talk, "user", noise(((number % 3 + 1) * cell, cell), number), "What?" * number)
    asked = [(t, TurnSpec(12, n % 2 * 0.9, seed=n, banned_ids=endless(engine))) for n, t in enumerate(talks)]
    alone = [turns(engine, [one])[0] for one in asked]
    before = work(engine)
    for seed in range(4):
        with monkeypatch.context() as patch:
            Upset(engine, patch, seed, 0.5)
            got = turns(engine, asked)
        assert [turn.ids for turn in got] == [turn.ids for turn in alone]
        for one, other in zip(got, alone, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    counted = since(engine, before)
    assert counted["paused"] > 10
    assert counted["images_encoded_again"] > 0
    assert engine._path.prefixes.evicted > 0


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(plan=plans())
def test_what_is_read_and_seen_is_no_more_than_what_is_new(family, plan):
    _, engine = family
    plan = [[dataclasses.replace(step, cancelled=False, spoiled=False) for step in steps] for steps in plan]
    forget(engine)
    before, known = work(engine), set(engine._path.gallery._known)
    kept = play(engine, plan)
    counted = since(engine, before)
    images = {medium_key(image) for talk, _, _ in kept for image in talk.images()}
    assert counted["images_encoded"] == len(images)
    assert counted["images_encoded_again"] == len({int(key[:15], 16) for key in images} & known)
    new = 0
    length = {}
    for talk, _, made in kept:
        # What was said last is known but for its last token, which has not been read yet.
        past = length.get(talk.key, 0)
        new += made.usage.prompt_tokens - past
        assert made.usage.cached_tokens >= past
        length[talk.key] = made.usage.prompt_tokens + len(made.ids) - 1
    assert counted["prefilled_tokens"] <= new
    assert counted["prompt_tokens"] == sum(made.usage.prompt_tokens for _, _, made in kept)
    assert counted["cached_tokens"] == sum(made.usage.cached_tokens for _, _, made in kept)
    assert counted["prompt_tokens"] - counted["cached_tokens"] == counted["prefilled_tokens"]
    assert counted["refilled_tokens"] == 0


def test_one_conversation_reads_exactly_what_is_new(family):
    _, engine = family
    forget(engine)
    before, cell = work(engine), engine.processor.factor
    talk, past = conversation("alone"), 0
    say(talk, "system", "s")
    for turn in range(4):
        say(talk, "user", noise((cell, 2 * cell), 50 + turn), "What?")
        made = turns(engine, [(talk, TurnSpec(5, banned_ids=endless(engine)))])[0]
        assert made.usage.cached_tokens == past
        past = made.usage.prompt_tokens + 4
        reply(talk, made)
    counted = since(engine, before)
    assert counted["images_encoded"] == 4
    assert counted["prefilled_tokens"] == past - 4 - 3 * 4
    assert counted["refilled_tokens"] == 0


@pytest.mark.parametrize("temperature", [0.0, 1.1])
def test_samples_of_one_prompt_share_its_reading_and_its_image(family, opened, temperature):
    folder, _ = family
    engine = opened(folder, 8)
    cell = engine.processor.factor
    forget(engine)
    before = work(engine)
    talks = [conversation(f"n{number}") for number in range(8)]
    for talk in talks:
        say(talk, "user", noise((3 * cell, 3 * cell), 31), "What is it?")
    specs = [TurnSpec(4, temperature, seed=n, banned_ids=endless(engine)) for n in range(8)]
    got = turns(engine, zip(talks, specs, strict=True))
    counted = since(engine, before)
    assert counted["images_encoded"] == 1
    assert counted["prefilled_tokens"] == got[0].usage.prompt_tokens + 7
    assert (len({turn.ids for turn in got}) == 1) is (temperature == 0)
    other = conversation("other")
    say(other, "user", noise((3 * cell, 3 * cell), 31), "Another question about it?")
    asked = turns(engine, [(other, specs[0])])[0]
    assert asked.usage.cached_tokens > 9
    assert since(engine, before)["images_encoded"] == 1


def test_a_sample_is_the_same_for_any_neighbours_and_any_batch(family, opened):
    folder, _ = family
    rng = random.Random(5)
    cell = opened(folder).processor.factor
    plan = []
    for number in range(9):
        shapes = [(rng.randrange(1, 4) * cell, rng.randrange(1, 4) * cell) for _ in range(rng.randrange(1, 4))]
        plan.append((number, shapes, rng.randrange(4, 14), 0.7 + 0.2 * (number % 4)))

    def asked(engine, chosen):
        for number, shapes, tokens, temperature in chosen:
            talk = conversation(f"s{number}")
            say(talk, "user", *[noise(shape, number) for shape in shapes], "Say." * number)
            yield talk, TurnSpec(tokens, temperature, 0.95, seed=number, banned_ids=endless(engine))

    alone = [turns(opened(folder, 1), asked(opened(folder, 1), [one]))[0].ids for one in plan]
    for size in (2, 4, 9):
        engine = opened(folder, size)
        for order in (plan, plan[::-1], plan[4:] + plan[:4]):
            forget(engine)
            got = turns(engine, asked(engine, order))
            assert [turn.ids for turn in got] == [alone[number] for number, *_ in order]


def test_turns_join_and_leave_while_others_run(qwen25, opened, monkeypatch):
    engine = opened(qwen25)
    rows, real = [], core(engine).forward

    def forward(stream, slots):
        rows.append((len(stream.tokens), len(stream.pieces)))
        return real(stream, slots)

    monkeypatch.setattr(core(engine), "forward", forward)
    long, *short = [conversation(f"j{number}") for number in range(5)]
    for number, talk in enumerate((long, *short)):
        say(talk, "user", noise((56, 28), number), "What?" * number)

    async def main():
        task = asyncio.create_task(engine.turn(long, TurnSpec(400, banned_ids=endless(engine))))
        while len(rows) < 3:
            await asyncio.sleep(0.001)
        done = [await engine.turn(talk, TurnSpec(5, banned_ids=endless(engine))) for talk in short]
        assert not task.done(), "the others must have come and gone while it ran"
        return [await task, *done]

    got = run(main())
    assert [len(turn.ids) for turn in got] == [400, 5, 5, 5, 5]
    assert len(rows) < 410
    assert (1, 1) in rows
    assert max(single + fresh for single, fresh in rows) == 2


def test_a_cap_on_what_is_kept_is_kept_to(qwen25, monkeypatch):
    engine = TransformersFactory().open(str(qwen25), EngineOptions(batch=3, extra={"cache_gib": "0.002"}))
    own = batch(engine)
    talks = [conversation(f"k{number}") for number in range(8)]
    for talk in talks:
        say(talk, "system", "s")
    for step in range(3):
        for number, talk in enumerate(talks):
            say(talk, "user", noise((84, 84), 10 * step + number), "What?" * 5)
        with recorded_logits(monkeypatch) as seen:
            asked = [(t, TurnSpec(6, seed=n, banned_ids=endless(engine))) for n, t in enumerate(talks)]
            got = turns(engine, asked)
        for number, (talk, turn) in enumerate(zip(talks, got, strict=True)):
            prompt = prompt_ids(qwen25, talk, 28)
            whole = full_logits(qwen25, talk, prompt + list(turn.ids))[len(prompt) - 1 : -1]
            assert (torch.stack(seen[number]) - whole).abs().max() < 1e-4
            reply(talk, turn)
        assert own.prefixes.held <= own.prefixes.cap
        assert own.prefixes.held == sum(node.nbytes for node in own.prefixes._used.values())
        assert own.gallery._bytes <= own.gallery.cap
    assert own.prefixes.evicted
    assert work(engine)["refilled_tokens"] > 0
    run(engine.close())


def test_a_released_conversation_leaves_only_its_opening(qwen25, opened):
    engine = opened(qwen25)
    forget(engine)
    talk = conversation("gone")
    lengths = []
    for turn in range(3):
        say(talk, "user", noise((28, 28), turn), "What?")
        lengths.append(len(engine.encode(talk).ids))
        reply(talk, turns(engine, [(talk, TurnSpec(4, banned_ids=endless(engine)))])[0])
    per = batch(engine).slots.token_bytes
    assert batch(engine).prefixes.held == per * (lengths[-1] + 3)
    run(engine.release(talk))
    other = conversation("next")
    say(other, "user", "x")
    turns(engine, [(other, TurnSpec(1, banned_ids=endless(engine)))])
    kept = engine._path.trails.prompt(other)
    held = batch(engine).prefixes.held // per
    assert lengths[0] <= held <= lengths[0] + len(kept.ids)
    assert not engine._path.trails._trails.get(id(talk))


def test_what_was_kept_is_forgotten_when_the_weights_change(qwen25, monkeypatch):
    engine = TransformersFactory().open(str(qwen25), EngineOptions(batch=2))
    talk = conversation()
    say(talk, "system", "s")
    say(talk, "user", noise((56, 56), 1), "What?")
    spec = TurnSpec(3, seed=1, banned_ids=endless(engine))
    turns(engine, [(talk, spec)])
    with torch.no_grad():
        engine.module.model.visual.merger.mlp[0].weight.mul_(1.5)
        engine.module.model.language_model.layers[1].mlp.up_proj.weight.mul_(1.5)
    with recorded_logits(monkeypatch) as seen:
        made = turns(engine, [(talk, spec)])[0]
    prompt = prompt_ids(qwen25, talk, 28)
    whole = full_logits(qwen25, talk, prompt + list(made.ids), engine.module)[len(prompt) - 1 : -1]
    assert (torch.stack(seen[1]) - whole).abs().max() < 1e-4
    assert made.usage.cached_tokens == 0
    run(engine.close())


def test_a_history_that_was_changed_is_read_again_and_counted(family):
    _, engine = family
    talk = conversation()
    say(talk, "user", noise((engine.processor.factor,) * 2, 3), "What?")
    spec = TurnSpec(5, banned_ids=endless(engine))
    reply(talk, turns(engine, [(talk, spec)])[0])
    say(talk, "user", "And?")
    turns(engine, [(talk, spec)])
    before = work(engine)["restarted"]
    changed = dataclasses.replace(talk.segments[1], ids=(*talk.segments[1].ids[:2], 65, 66))
    talk.segments[1] = changed
    view = engine.encode(talk)
    made = turns(engine, [(talk, spec)])[0]
    assert made.usage.prompt_tokens == len(view.ids)
    assert work(engine)["restarted"] == before + 1
    fresh = conversation("fresh")
    fresh.segments, fresh.items, fresh.shown = list(talk.segments), list(talk.items), list(talk.shown)
    forget(engine)
    assert turns(engine, [(fresh, spec)])[0].ids == made.ids


def test_a_step_that_fails_beyond_repair_fails_its_turns_and_no_later_one(qwen25, opened, monkeypatch):
    engine = opened(qwen25)
    talk = conversation()
    say(talk, "user", "x")
    with monkeypatch.context() as patch:
        patch.setattr(continuous, "draw", lambda *_: 1 / 0)
        with pytest.raises(ModelError, match="the model failed on this conversation: ZeroDivisionError"):
            turns(engine, [(talk, TurnSpec(3))])
    assert turns(engine, [(talk, TurnSpec(3, banned_ids=endless(engine)))])[0].finish == "length"


def test_bfloat16_runs_on_the_fast_path_and_stays_near_float32(qwen25, opened):
    engine = TransformersFactory().open(str(qwen25), EngineOptions(batch=2, dtype="bfloat16"))
    talk = conversation()
    say(talk, "user", noise((84, 56), 1), "What?")
    specs = [TurnSpec(1, seed=1, banned_ids=endless(engine))] * 2
    low, high = turns(engine, [(talk, specs[0])])[0], turns(opened(qwen25), [(talk, specs[1])])[0]
    assert abs(low.logprobs[0] - high.logprobs[0]) < 0.2
    assert work(engine)["prompt_tokens"] == low.usage.prompt_tokens
    run(engine.close())


@pytest.mark.parametrize("value", ["0", "-1", "much", "nan", "inf"])
def test_a_cap_that_is_no_size_is_refused(qwen25, value):
    with pytest.raises(UsageError, match=r"engine.cache_gib must be a number of GiB above 0, not"):
        TransformersFactory().open(str(qwen25), EngineOptions(extra={"cache_gib": value}))
