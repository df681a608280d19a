"""What a batch gives is what each conversation gives alone, from scratch, at every token."""

import dataclasses
import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prh.harness.engine import TurnSpec
from prh.models.encode import TokenView
from prh.tests.models import support
from prh.tests.models.support import conversation, endless, full_logits, noise, prompt_ids, reply, say, turns

TEXTS = st.sampled_from(
    ["What is red?", "\nHere is the cropped image (Image Size: 28x28):", "é ✓ 日本", " [0.2, 0.4, 0.5]", "<tool_call>"]
)


@st.composite
def talks(draw):
    """Some conversations: messages of text and images, one before each turn, and how each turn is drawn."""
    found = []
    for _ in range(draw(st.integers(1, 6))):
        left = 4
        messages = []
        for turn in range(draw(st.integers(1, 3))):
            shapes = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=not turn, max_size=left))
            left -= len(shapes)
            tokens = draw(st.integers(1, 7))
            greedy = draw(st.booleans())
            messages.append((shapes, draw(TEXTS), tokens, greedy))
        found.append(messages)
    return found


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(plan=talks())
def test_every_token_of_any_mix_is_that_of_a_forward_from_scratch(family, monkeypatch, plan):
    folder, engine = family
    cell = engine.processor.factor
    kept = [conversation(f"c{number}#0") for number in range(len(plan))]
    banned = endless(engine)
    with support.recorded_logits(monkeypatch) as seen:
        for step in range(3):
            asked = []
            for number, messages in enumerate(plan):
                if step >= len(messages):
                    continue
                if not step:
                    say(kept[number], "system", "Be brief.")
                shapes, text, tokens, greedy = messages[step]
                images = [noise((w * cell, h * cell), 100 * number + w + 7 * h) for w, h in shapes]
                say(kept[number], "user", *images, text)
                spec = TurnSpec(tokens, 0.0 if greedy else 1.3, seed=10 * number + step, banned_ids=banned)
                asked.append((kept[number], spec))
            for (talk, spec), turn in zip(asked, turns(engine, asked), strict=True):
                _compare(folder, engine, talk, spec, turn, seen[spec.seed])
                reply(talk, turn)


def _compare(folder, engine, talk, spec, turn, logits):
    prompt = prompt_ids(folder, talk, engine.processor.factor)
    assert list(engine.encode(talk).ids) == prompt
    assert turn.usage.prompt_tokens == len(prompt)
    assert len(turn.ids) == len(logits) == spec.max_new_tokens
    whole = full_logits(folder, talk, prompt + list(turn.ids))[len(prompt) - 1 : -1]
    assert (torch.stack(logits) - whole).abs().max() < 1e-4
    allowed = whole.clone()
    allowed[:, list(spec.banned_ids)] = float("-inf")
    best = allowed.topk(2)
    if not spec.temperature:
        for token, (first, second), ids in zip(turn.ids, best.values.tolist(), best.indices.tolist(), strict=True):
            assert token == ids[0] or first - second < 1e-4
    law = (allowed / spec.temperature if spec.temperature else whole).log_softmax(-1)
    given_back = law.gather(-1, torch.tensor(turn.ids)[:, None])[:, 0]
    assert (given_back - torch.tensor(turn.logprobs)).abs().max() < 1e-4


def _several(engine, seed=0):
    cell = engine.processor.factor
    rng = random.Random(seed)
    found = []
    for number in range(7):
        talk = conversation(f"c{number}#0")
        say(talk, "system", "s" * rng.randrange(9))
        for _ in range(rng.randrange(1, 4)):
            say(talk, "user", noise((rng.randrange(1, 5) * cell, rng.randrange(1, 5) * cell), rng.randrange(97)))
        say(talk, "user", "What?" * rng.randrange(1, 5))
        spec = TurnSpec(12, (number % 3) * 0.7, 1.0 - 0.1 * (number % 2), seed=number, banned_ids=endless(engine))
        found.append((talk, spec))
    return found


def test_ids_do_not_depend_on_who_else_is_in_the_batch_or_in_what_order(family, opened):
    folder, engine = family
    asked = _several(engine)
    alone = [turns(engine, [one])[0].ids for one in asked]
    assert len({*alone}) > 3, "the conversations must differ for the comparison to mean anything"
    for order in (list(range(7)), list(reversed(range(7))), [3, 0, 6, 1, 5, 2, 4]):
        for batch in (3, 4, 7):
            together = turns(opened(folder, batch), [asked[number] for number in order])
            assert [turn.ids for turn in together] == [alone[number] for number in order]


def test_a_neighbour_that_changes_changes_nothing(family, monkeypatch):
    _, engine = family
    first, second = _several(engine)[:2]
    with support.recorded_logits(monkeypatch) as seen:
        turns(engine, [first, second])
        before = torch.stack(seen.pop(first[1].seed))
        other = conversation("x#0")
        say(other, "user", noise((4 * engine.processor.factor,) * 2, 3), "something else, and longer than before" * 9)
        turns(engine, [first, (other, second[1])])
        after = torch.stack(seen[first[1].seed])
    assert before.shape == after.shape
    assert (before - after).abs().max() < 1e-4


def test_what_a_slot_held_before_is_never_seen(family, monkeypatch):
    _, engine = family
    asked = _several(engine)[:3]
    with support.recorded_logits(monkeypatch) as seen:
        turns(engine, asked)
        before = {seed: torch.stack(rows) for seed, rows in seen.items()}
        seen.clear()
        support.forget(engine)
        with torch.inference_mode():
            support.batch(engine).slots.buffer.fill_(1e4)
        turns(engine, asked)
    assert len({len(engine.encode(talk).ids) for talk, _ in asked}) > 1
    for seed, rows in before.items():
        assert (rows - torch.stack(seen[seed])).abs().max() < 1e-5


@pytest.mark.parametrize("law", [{"temperature": 0.0}, {"temperature": 1.0, "top_p": 1e-3}])
def test_steps_at_a_near_tie_are_counted(qwen25, opened, monkeypatch, law):
    engine = opened(qwen25)
    talk, spec = _several(engine)[0]
    real, before = support.core(engine).forward, engine.near_ties

    def tied(stream, slots):
        logits = real(stream, slots)
        logits[:, 5] = logits.max() + 1
        logits[:, 6] = logits.max() + 5e-5
        return logits

    monkeypatch.setattr(support.core(engine), "forward", tied)
    turns(engine, [(talk, dataclasses.replace(spec, **law))])
    assert engine.near_ties - before == spec.max_new_tokens
    assert engine.describe()["near_ties"] == engine.near_ties


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_sampled_ids_stand_in_the_next_prompt_as_they_were_sampled(family, data):
    folder, engine = family
    plain = sorted(set(range(len(engine.processor.tokenizer))) - engine.vision_ids - support.ends(engine))
    talk = conversation()
    say(talk, "system", "s")
    said, before = [], ()
    for number in range(data.draw(st.integers(1, 3))):
        images = [noise((engine.processor.factor,) * 2, number)] if data.draw(st.booleans()) else []
        say(talk, "user", *images, "q")
        view = engine.encode(talk)
        assert view.ids[: len(before)] == before
        ids = tuple(data.draw(st.lists(st.sampled_from(plain), min_size=1, max_size=9)))
        ids += data.draw(st.sampled_from([(), *((end,) for end in sorted(support.ends(engine)))]))
        text = engine.processor.decode([token for token in ids if token not in support.ends(engine)])
        trained = data.draw(st.booleans())
        say(talk, "assistant", text)
        talk.segments[-1] = dataclasses.replace(talk.segments[-1], ids=ids, trained=trained)
        said.append((ids, trained))
        before = view.ids + ids
    for view in (engine.encode(talk), _after(engine, talk)):
        assert [view.ids[start:end] for start, end in view.turns] == [ids for ids, _ in said]
        spans = [span for span, (_, trained) in zip(view.turns, said, strict=True) if trained]
        covered = [place for start, end in spans for place in range(start, end)]
        assert [place for place, trained in enumerate(view.trained) if trained] == covered
        assert len(view.trained) == len(view.ids) == view.positions.shape[1]
        assert view.exact
    assert list(view.ids) == prompt_ids(folder, talk, engine.processor.factor)


def _after(engine, talk):
    say(talk, "user", "and?")
    return engine.encode(talk)


def test_a_split_that_the_tokenizer_would_never_make_is_kept(family):
    _, engine = family
    tokenizer = engine.processor.tokenizer
    canonical = tokenizer("[0.2, 0.5]", add_special_tokens=False)["input_ids"]
    split = [token for character in "[0.2, 0.5]" for token in tokenizer(character)["input_ids"]]
    assert len(split) > len(canonical)
    assert engine.processor.decode(split) == engine.processor.decode(canonical)
    talk = conversation()
    say(talk, "user", "q")
    say(talk, "assistant", "[0.2, 0.5]")
    talk.segments[-1] = dataclasses.replace(talk.segments[-1], ids=tuple(split))
    view = _after(engine, talk)
    start, end = view.turns[0]
    assert list(view.ids[start:end]) == split


def test_each_image_has_one_run_of_its_own_length_and_three_rows_of_places(family):
    _, engine = family
    cell = engine.processor.factor
    shapes = [(1, 1), (3, 2), (2, 4)]
    talk = conversation()
    say(talk, "user", *(noise((w * cell, h * cell), w) for w, h in shapes), "q")
    say(talk, "assistant", "a")
    say(talk, "user", [noise((2 * cell, cell), 5), noise((2 * cell, cell), 6)], "two frames of a video")
    view = engine.encode(talk)
    shapes += [(2, 1), (2, 1)]
    assert isinstance(view, TokenView)
    assert [end - start for start, end in view.spans] == [w * h for w, h in shapes]
    assert view.grids == tuple((1, 2 * h, 2 * w) for w, h in shapes)
    image = engine.module.config.image_token_id
    inside = {place for start, end in view.spans for place in range(start, end)}
    assert {place for place, token in enumerate(view.ids) if token == image} == inside
    for (start, end), (w, h) in zip(view.spans, shapes, strict=True):
        time, high, wide = view.positions[:, start:end].tolist()
        assert len(set(time)) == 1
        assert [value - high[0] for value in high] == [row for row in range(h) for _ in range(w)]
        assert [value - wide[0] for value in wide] == [column for _ in range(h) for column in range(w)]
        assert view.positions[0, end] == max(*high, *wide) + 1
    assert view.inputs["pixel_values"].shape[0] == sum(4 * w * h for w, h in shapes)


def test_an_image_at_another_size_than_it_is_seen_at_is_refused(family):
    _, engine = family
    talk = conversation()
    say(talk, "user", noise((engine.processor.factor + 1, engine.processor.factor), 1), "q")
    with pytest.raises(Exception, match="not a multiple of"):
        engine.encode(talk)
