"""How a turn ends, and that what befalls one conversation stays with it."""

import asyncio
import dataclasses
import threading
import time

import pytest
import torch
from prh.harness.engine import EngineOptions, TurnSpec
from prh.harness.errors import ModelError
from prh.harness.types import Size, Span
from prh.models.transformers_engine import TransformersFactory
from prh.tests.models.support import (
    batch,
    conversation,
    core,
    endless,
    ends,
    forget,
    noise,
    only,
    reply,
    run,
    say,
    turns,
)


def ask(text="What?", key="s#0", image=None):
    talk = conversation(key)
    say(talk, "user", *([image] if image else []), text)
    return talk


def crowd(engine, count=5):
    cell = engine.processor.factor
    return [
        (
            ask("What is red?" * number, f"c{number}#0", noise(((number + 1) * cell, cell), number)),
            TurnSpec(6, 0.9 * (number % 2), seed=number, banned_ids=endless(engine)),
        )
        for number in range(count)
    ]


def test_a_stray_vision_token_makes_its_own_turn_malformed_and_no_other(family):
    _, engine = family
    asked = crowd(engine)
    expected = turns(engine, asked)
    for stray in sorted(engine.vision_ids):
        spec = dataclasses.replace(asked[2][1], banned_ids=only(engine, stray))
        got = turns(engine, [*asked[:2], (asked[2][0], spec), *asked[3:]])
        assert (got[2].finish, got[2].ids) == ("malformed", (stray,))
        assert [turn.ids for turn in got[:2] + got[3:]] == [turn.ids for turn in expected[:2] + expected[3:]]


def test_banned_ids_are_never_drawn_and_change_the_distribution(family):
    _, engine = family
    allowed = (65, 66, 67)
    for temperature in (0.0, 1.5):
        spec = TurnSpec(20, temperature, seed=5, banned_ids=only(engine, *allowed))
        turn = turns(engine, [(ask(), spec)])[0]
        assert set(turn.ids) <= set(allowed)
        assert turn.finish == "length"
        assert len(turn.ids) == 20
        assert max(turn.logprobs) < 0
    assert min(turn.logprobs) > -6, "sampled log-probabilities are under the distribution left by the bans"


def test_a_sampled_turn_is_decided_by_its_seed(family):
    _, engine = family
    specs = [TurnSpec(12, 1.0, 0.95, seed, banned_ids=endless(engine)) for seed in (1, 2, 3, 1)]
    talk = ask()
    together = [turn.ids for turn in turns(engine, [(talk, spec) for spec in specs])]
    assert together[0] == together[3]
    assert len(set(together)) == 3
    assert [turns(engine, [(talk, spec)])[0].ids for spec in specs] == together


def test_a_turn_ends_at_any_of_the_models_end_tokens_and_its_text_leaves_it_out(family):
    _, engine = family
    assert len(ends(engine)) == 2
    for end in ends(engine):
        turn = turns(engine, [(ask(), TurnSpec(9, banned_ids=only(engine, end)))])[0]
        assert (turn.finish, turn.ids, turn.text) == ("stop", (end,), "")
        assert len(turn.logprobs) == 1


@pytest.mark.parametrize("stop", [("ba",), ("zz", "bab"), (" red",), ("e",)])
def test_a_stop_string_ends_the_turn_when_it_is_first_complete(family, stop):
    _, engine = family
    tokenizer = engine.processor.tokenizer
    allowed = tokenizer("ab red", add_special_tokens=False)["input_ids"]
    assert len(allowed) == 3
    seen = 0
    for seed in range(12):
        spec = TurnSpec(40, 5.0, seed=seed, stop=stop, banned_ids=only(engine, *allowed))
        turn = turns(engine, [(ask(), spec)])[0]
        stopped = [text for text in stop if text in turn.text]
        before = engine.processor.decode(turn.ids[:-1])
        assert not any(text in before for text in stop)
        assert turn.finish == ("stop" if stopped else "length")
        assert turn.text == engine.processor.decode(turn.ids)
        seen += bool(stopped)
    assert seen


def test_special_tokens_stay_in_the_text_and_so_do_tool_tags(family):
    _, engine = family
    vocabulary = engine.processor.tokenizer.get_vocab()
    allowed = (vocabulary["<|im_start|>"], vocabulary["<tool_call>"], vocabulary["</tool_call>"])
    turn = turns(engine, [(ask(), TurnSpec(24, 9.0, seed=1, banned_ids=only(engine, *allowed)))])[0]
    assert turn.text == "".join(engine.processor.tokenizer.convert_ids_to_tokens(list(turn.ids)))
    assert len(set(turn.ids)) == 3


def test_undecodable_output_is_malformed_unless_it_was_only_cut_off(family):
    _, engine = family
    lead = engine.processor.tokenizer("é")["input_ids"][0]
    end = min(ends(engine))
    cut = turns(engine, [(ask(), TurnSpec(1, banned_ids=only(engine, lead)))])[0]
    assert (cut.finish, cut.text) == ("length", "\ufffd")
    found = set()
    for seed in range(20):
        turn = turns(engine, [(ask(), TurnSpec(50, 9.0, seed=seed, banned_ids=only(engine, lead, end)))])[0]
        found.add((turn.finish, "\ufffd" in turn.text))
    assert found <= {("malformed", True), ("stop", False)}
    assert ("malformed", True) in found


def test_an_id_that_the_tokenizer_lacks_is_malformed(qwen25, opened, monkeypatch):
    engine = opened(qwen25)
    words = engine._path.scheduler.words
    monkeypatch.setattr(engine._path.scheduler, "words", dataclasses.replace(words, size=words.size - 1))
    turn = turns(engine, [(ask(), TurnSpec(5, banned_ids=only(engine, words.size - 1)))])[0]
    assert (turn.finish, turn.text) == ("malformed", "")


def test_the_context_clips_a_turn_and_then_refuses_it(qwen25, opened, monkeypatch):
    engine = opened(qwen25)
    talk = ask()
    length = len(engine.encode(talk).ids)
    spec = TurnSpec(50, banned_ids=only(engine, 65))
    monkeypatch.setattr(engine, "context", length + 3)
    turn = turns(engine, [(talk, spec)])[0]
    assert (turn.finish, len(turn.ids)) == ("length", 3)
    monkeypatch.setattr(engine, "context", length)
    with pytest.raises(ModelError, match=f"has {length} tokens and the model's context holds {length}: lower"):
        turns(engine, [(talk, spec)])


def test_the_context_is_the_configs(qwen25, opened):
    assert opened(qwen25).context == 4096


def test_out_of_memory_halves_the_batch_and_gives_every_turn(family, monkeypatch):
    _, engine = family
    asked = crowd(engine)
    expected = [turns(engine, [one])[0] for one in asked]
    real, tried, splits = core(engine).forward, [], engine._path.scheduler.splits

    def scarce(stream, slots):
        tried.append(len(stream.tokens) + len(stream.pieces))
        if tried[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return real(stream, slots)

    monkeypatch.setattr(core(engine), "forward", scarce)
    got = turns(engine, asked)
    assert [(turn.ids, turn.finish) for turn in got] == [(turn.ids, turn.finish) for turn in expected]
    assert max(tried) > 1
    assert engine._path.scheduler.splits > splits
    assert engine.describe()["batch_splits"] == engine._path.scheduler.splits
    assert batch(engine).limit < 4
    monkeypatch.undo()
    turns(engine, [(asked[0][0], TurnSpec(64 * 5, banned_ids=endless(engine)))])
    assert batch(engine).limit == 4, "once memory suffices, rows come back one after another"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory.\nTried"),
            "out of memory on a single conversation; lower the pixel",
        ),
        (ValueError("bad\nrow"), "the model failed on this conversation: ValueError: bad row"),
    ],
)
def test_a_conversation_that_fails_alone_is_the_only_one_that_fails(qwen25, opened, monkeypatch, error, message):
    engine = opened(qwen25)
    asked = crowd(engine)
    expected = turns(engine, asked)
    forget(engine)
    real = core(engine).forward
    victims = len(engine.encode(asked[3][0]).ids)

    def faulty(stream, slots):
        if any(piece.start + len(piece.ids) == victims for piece in stream.pieces):
            raise error
        return real(stream, slots)

    monkeypatch.setattr(core(engine), "forward", faulty)

    async def gather():
        return await asyncio.gather(*(engine.turn(*one) for one in asked), return_exceptions=True)

    got = run(gather())
    assert isinstance(got[3], ModelError)
    assert str(got[3]).startswith(message)
    assert "\n" not in str(got[3])
    assert [turn.ids for turn in got[:3] + got[4:]] == [turn.ids for turn in expected[:3] + expected[4:]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_non_finite_logits_cost_their_own_conversation_alone(qwen25, opened, monkeypatch, bad, at, temperature):
    engine = opened(qwen25)
    asked = [(talk, dataclasses.replace(spec, temperature=temperature)) for talk, spec in crowd(engine, 4)]
    expected = turns(engine, asked)
    batch(engine).limit = 4
    steps, real = [], core(engine).forward

    def spoil(stream, slots):
        logits = real(stream, slots)
        if steps or len(logits) > 1:  # the turns may come one by one
            steps.append(len(logits))
        if len(steps) == at + 1:
            logits = logits.clone()
            logits[-1, 7:9] = bad
        return logits

    monkeypatch.setattr(core(engine), "forward", spoil)

    async def gather():
        return await asyncio.gather(*(engine.turn(*one) for one in asked), return_exceptions=True)

    got = run(gather())
    failed = [number for number, turn in enumerate(got) if isinstance(turn, ModelError)]
    assert len(failed) == 1
    assert str(got[failed[0]]).startswith("the model produced non-finite logits on this conversation in float32: try")
    assert max(steps) > 1
    kept = [number for number in range(4) if number not in failed]
    assert [got[number].ids for number in kept] == [expected[number].ids for number in kept]


def test_a_weight_that_is_no_number_never_reaches_a_record(qwen25):
    engine = TransformersFactory().open("tiny", EngineOptions())
    with torch.no_grad():
        next(iter(engine.module.parameters())).fill_(float("nan"))
    with pytest.raises(ModelError, match="non-finite logits"):
        turns(engine, [(ask(image=noise((56, 56), 1)), TurnSpec(4, 1.0))])
    run(engine.close())


def test_a_cancelled_turn_leaves_its_batch_at_the_next_step(qwen25, opened, monkeypatch):
    engine = opened(qwen25)
    (first, _), (second, _) = crowd(engine, 2)
    endlessly = TurnSpec(4000, banned_ids=endless(engine))
    real, rows, started = core(engine).forward, [], threading.Event()

    def slow(stream, slots):
        rows.append(len(stream.tokens) + len(stream.pieces))
        if rows[-1] == 2:
            started.set()
        time.sleep(0.002)
        return real(stream, slots)

    monkeypatch.setattr(core(engine), "forward", slow)

    async def main():
        short = asyncio.create_task(engine.turn(first, dataclasses.replace(endlessly, max_new_tokens=60)))
        long = asyncio.create_task(engine.turn(second, endlessly))
        await asyncio.to_thread(started.wait)
        long.cancel()
        with pytest.raises(asyncio.CancelledError):
            await long
        return await short

    turn = run(main())
    assert len(turn.ids) == 60
    assert rows[0] == 2
    assert rows[-1] == 1
    assert len(rows) < 70


def test_closing_ends_running_and_waiting_turns_quickly_and_refuses_new_ones(qwen25, monkeypatch):
    engine = TransformersFactory().open("tiny", EngineOptions(batch=2))
    asked = [(talk, TurnSpec(4000, banned_ids=endless(engine))) for talk, _ in crowd(engine)]
    started, real = threading.Event(), core(engine).forward

    def step(stream, slots):
        started.set()
        return real(stream, slots)

    monkeypatch.setattr(core(engine), "forward", step)

    async def main():
        tasks = [asyncio.create_task(engine.turn(*one)) for one in asked]
        await asyncio.to_thread(started.wait)
        start = time.perf_counter()
        await engine.close()
        seconds = time.perf_counter() - start
        return seconds, await asyncio.gather(*tasks, return_exceptions=True)

    seconds, got = run(main())
    assert seconds < 2
    assert all(isinstance(error, ModelError) and "closed" in str(error) for error in got)
    assert all(weight.is_meta for weight in engine.module.parameters())
    assert engine.describe()["name"] == "transformers"
    with pytest.raises(ModelError, match="the engine is closed"):
        turns(engine, asked[:1])
    run(engine.close())


def test_turns_of_a_whole_conversation_report_their_usage_and_time(family):
    _, engine = family
    talk = ask(image=noise((engine.processor.factor,) * 2, 1))
    prompts = []
    for _ in range(2):
        turn = turns(engine, [(talk, TurnSpec(4, banned_ids=endless(engine)))])[0]
        prompts.append(turn.usage.prompt_tokens)
        assert turn.usage.new_tokens == len(turn.ids) == len(turn.logprobs) == 4
        assert 0 < turn.seconds < 60
        reply(talk, turn)
        say(talk, "user", "and?")
    assert prompts[1] > prompts[0] + 4
    run(engine.release(talk))


def test_what_cannot_be_encoded_is_a_one_line_error_of_that_turn(qwen25, opened):
    engine = opened(qwen25)
    bad = ask(image=noise((31, 28), 1))
    with pytest.raises(ModelError, match="31x28 is not a multiple of 28"):
        turns(engine, [(bad, TurnSpec(4))])
    assert turns(engine, [(ask(), TurnSpec(4, banned_ids=only(engine, 65)))])[0].finish == "length"


def test_fit_is_the_families_own_rule(family):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    _, engine = family
    cell = engine.processor.factor
    for width, height, low, high in ((640, 480, 784, 19600), (50, 900, 50176, 802816), (1999, 31, 3136, 100352)):
        expected = smart_resize(height, width, cell, low, high)
        assert engine.fit(Size(width, height), Span(low, high)) == expected[::-1]


def test_the_engine_describes_itself(family):
    folder, engine = family
    notes = engine.describe()
    assert notes["name"] == "transformers"
    assert (notes["dtype"], notes["device"], notes["factor"]) == ("float32", "cpu", engine.processor.factor)
    assert {"torch", "transformers", "tokenizers"} <= set(notes["versions"])
    assert str(folder) not in str(notes)
    assert engine.caps.token_ids
    assert engine.caps.logprobs
    assert engine.caps.seeds
