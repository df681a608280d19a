"""Rounds: what is sampled, recorded, judged in complete groups, planned and dealt out, whatever sampled it."""

import asyncio
import json
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prh.harness.engine import TurnSpec
from prh.harness.episode import run_episode
from prh.harness.errors import DataError, ModelError, StoreError, UsageError
from prh.harness.record import canonical, key_of, to_record
from prh.harness.store import decode_line, encode_line, read_manifest
from prh.harness.types import END_STATES
from prh.tests.models import support
from prh.tests.training import acting
from prh.tests.training.acting import (
    FAR,
    LOOK,
    RIGHT_ANSWER,
    TASK,
    WRONG_ANSWER,
    Actor,
    config,
    questions,
    spoken,
    stage,
)
from prh.training.compose import Library
from prh.training.grpo_config import RolloutPart
from prh.training.performed import perform_again
from prh.training.questions import Stream
from prh.training.replay import Entry, Store
from prh.training.rewards import compose
from prh.training.rollouts import Rollouts, Round, Sampler
from prh.training.rounds import OVER_LIMIT, Jury, deal, plan, tell, trim


@pytest.fixture(scope="module")
def engine(opened, qwen25):
    return opened(qwen25)


@pytest.fixture(scope="module")
def played(engine, tmp_path_factory):
    return stage(tmp_path_factory.mktemp("round"), engine)


def test_a_round_is_an_ordinary_run_that_is_stamped(played, tmp_path):
    import click.testing
    from prh.harness.commands import score_command, show_command

    folder = played.rollouts.folder(0, TASK)
    assert {(one["round"], one["version"]) for one in played.records} == {(0, 0)}
    played.rollouts.finish(played.wanted)
    assert read_manifest(folder)["finished"]
    shown = click.testing.CliRunner().invoke(show_command, [str(folder), "s0", "--repeat", "3"])
    assert shown.exit_code == 0
    assert "crop_image on image 1" in shown.output
    scored = click.testing.CliRunner().invoke(score_command, [str(folder), "--json"])
    metrics = json.loads(scored.output)["metrics"]
    told = tell(played.judged()).values
    assert told["accuracy"] == pytest.approx(metrics["accuracy"]["value"])
    assert told["rapr"] == metrics["rapr"]["value"] == told["rapr.needs_operation"]
    assert told["op_error_rate"] == metrics["op_error_rate"]["value"]


def test_the_papers_reward_of_a_round(played):
    """Six of eight look, so that nothing is paid for it; two look twice and pay 0.05; five are right."""
    judged = [one for one in played.judged() if one.group == (TASK, "s0")]
    expected = [1.0, 1.0, 0.0, 0.95, 1.0, 0.0, -0.05, 1.0]
    assert [one.reward for one in judged] == pytest.approx(expected)
    assert [one.advantage for one in judged] == pytest.approx([value - np.mean(expected) for value in expected])
    assert [one.rollout.calls for one in judged] == [1, 0, 0, 2, 1, 1, 2, 1]


def looking(using):
    """So many of eight look and are right; the others do not and are wrong."""
    return lambda _, repeat, turn: ((LOOK, RIGHT_ANSWER) if repeat < using else (WRONG_ANSWER,))[turn]


@pytest.mark.parametrize("using", [0, 1, 2, 5, 8])
def test_a_group_that_two_processes_sampled_is_one_group(engine, tmp_path, using):
    """Each has a stretch of the rollouts, which cuts through a group; rewards are those of the whole."""
    asked, chosen = questions((0, 2, 3)), config(rollout={"queries": 3})
    one = stage(tmp_path / "one", engine, looking(using), chosen, asked)
    actor = Actor(engine, looking(using))
    for rank in (1, 0):
        part = Rollouts(chosen, asked, tmp_path / "two", rank, 2)
        part.begin(one.wanted, actor, ["prh"])
        part.sample(one.wanted, actor)
    two = acting.Stage(chosen, asked, Rollouts(chosen, asked, tmp_path / "two"), one.wanted, engine)
    shards = sorted((tmp_path / "two").rglob("rank-*/records.jsonl"))
    split = [sum(b'"id":"s2"' in line for line in path.read_bytes().splitlines()) for path in shards]
    assert split == [4, 4]
    assert [canonical(a) for a in one.records] == [canonical(b) for b in two.records]
    assert [(a.reward, a.advantage) for a in one.judged()] == [(b.reward, b.advantage) for b in two.judged()]
    bonus = {1: 0.0875, 2: 0.025}.get(using, 0.0)
    assert one.judged()[0].reward == pytest.approx(1.0 + bonus if using else 0.0)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_order_of_arrival_changes_nothing(played, seed):
    records = played.records
    jury = Jury(played.config, compose(played.config.reward))
    mixed = [records[place] for place in np.random.default_rng(seed).permutation(len(records))]
    whole = jury.judge(played.questions[TASK], mixed)
    assert [(key_of(a.record), a.reward, a.advantage) for a in whole] == [
        (key_of(b.record), b.reward, b.advantage) for b in played.judged()
    ]


# -- end states ------------------------------------------------------------------------------------------------

LONG = "I think, and I think again, and I never come to an end. " * 10
# What brings an episode to each end: what is said, and limits.
ENDINGS = {
    "answered": ((RIGHT_ANSWER,), {}),
    "turn_limit": ((LOOK, FAR), {"turns": 2}),
    "image_limit": ((LOOK, FAR), {"images": 2}),
    "token_limit": ((LOOK, FAR), {"tokens": 10}),
    "truncated": ((LONG,), {}),
    "malformed": ((None,), {}),
    "engine_error": ((ModelError("gone"),), {}),
}


@pytest.mark.parametrize("end", ENDINGS)
@pytest.mark.parametrize("policy", ["mask", "zero", "keep"])
def test_what_becomes_of_every_end(engine, tmp_path, end, policy):
    """End state -> reward, whether it is learned, and how it is counted. One in four ends so, the others answer."""
    (parts, changed), stray = ENDINGS[end], [5, next(iter(engine.processor.image_ids)), 6]

    def script(_, repeat, turn):
        return (RIGHT_ANSWER, WRONG_ANSWER)[repeat % 2] if repeat else parts[turn] or stray

    limits = {"turns": 5, "images": 16, "calls": 1, "new_tokens": 200, "tokens": 4000, **changed}
    chosen = config(
        rollout={"queries": 1, "group": 4, "over_limit": policy},
        train={"batch": 4},
        reward={"correct": {"unreadable": -1.0}},
    )
    made = stage(tmp_path, engine, script, chosen, questions((0,), limits=limits))
    first, *others = made.judged()
    assert first.record["end"] == end
    assert all(one.record["end"] == "answered" for one in others)
    over = end in OVER_LIMIT
    masked = "over_limit" if over and policy == "mask" else ""
    left = {"engine_error": "error", "malformed": "stray"}.get(end, masked)
    assert first.left == left
    nothing = left == "error" or (over and policy == "zero")
    assert first.reward == (0.0 if nothing else 1.0 if end == "answered" else -1.0)
    told = tell(made.judged()).values
    counted = (told["errors"], told["over_limit"], told["left_out"])
    assert counted == (left == "error", over, left not in ("", "error"))
    assert (("s0", 0) in {(one.id, one.repeat) for one in made.rows()}) is (not left)
    mean = np.mean([one.reward for one in made.judged() if not one.left])
    assert others[0].advantage == pytest.approx(others[0].reward - mean)


def test_a_stray_vision_token_costs_one_row_and_no_other(engine, tmp_path):
    pad = next(iter(engine.processor.image_ids))
    parts = acting.PARTS

    def stray(name, repeat, turn):
        return [5, pad, 7, pad] if (name, repeat) == ("s0", 3) else parts[repeat][turn]

    clean, dirty = (stage(tmp_path / name, engine, script) for name, script in (("a", None), ("b", stray)))
    kept = [one for one in clean.rows() if (one.id, one.repeat) != ("s0", 3)]
    assert [(one.id, one.repeat) for one in dirty.rows()] == [(one.id, one.repeat) for one in kept]
    other = [row for row in kept if row.id == "s2"]
    assert [row for row in dirty.rows() if row.id == "s2"] == other
    one, two = (made.composer().parts(other, 0)[0] for made in (clean, dirty))
    pairs = zip(chain.from_iterable(one), chain.from_iterable(two), strict=True)
    for (_, a), (_, b) in pairs:
        assert np.array_equal(a.ids, b.ids)
        assert all(np.array_equal(a.notes[name], b.notes[name]) for name in a.notes)


def test_vision_tokens_are_banned_as_rollouts_are_drawn(engine):
    actor = Actor(engine)
    asked = questions((3,))
    asyncio.run(run_episode(asked[TASK].samples["s3"], Sampler(actor), asked[TASK].setting))
    assert set(actor.specs[0].banned_ids) == set(engine.vision_ids)
    talk = support.conversation()
    support.say(talk, "user", "Go on.")
    spec = TurnSpec(40, 2.0, seed=3, banned_ids=Sampler(engine).banned)
    said = support.turns(engine, [(talk, replace(spec, seed=seed)) for seed in range(6)])
    assert not engine.vision_ids & {number for turn in said for number in turn.ids}


def test_engines_without_ids_are_refused():
    from prh.harness.scripted import ScriptedEngine

    with pytest.raises(UsageError, match="token ids"):
        Sampler(ScriptedEngine(lambda _: ""))


def test_ratios_need_all_probabilities():
    with pytest.raises(UsageError, match="top_p must be 1"):
        RolloutPart(top_p=0.95)
    with pytest.raises(UsageError, match="must differ"):
        RolloutPart(temperature=0.0)


# -- again from the record -------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(data=st.data())
def test_ids_are_learned_as_they_were_sampled(engine, tmp_path_factory, data):
    """Any ids, in any spelling of any text: what the learner gets is what was sampled, never encoded again."""
    special = engine.vision_ids | support.ends(engine)
    ordinary = [number for number in range(20, 500) if number not in special]
    said = data.draw(st.lists(st.sampled_from(ordinary), min_size=1, max_size=12))
    letters = [number for text in LOOK for number in engine.processor.encode(text, opening=False)]
    end = engine._encoder.ends[0]

    def script(_, repeat, turn):
        if repeat == 0:
            return [*said, end]
        return [*letters, end] if turn == 0 else RIGHT_ANSWER

    chosen = config(rollout={"queries": 1, "group": 2}, train={"batch": 2}, advantage={"uniform": 0.0})
    asked = questions((0,), limits={"new_tokens": 400})
    made = stage(tmp_path_factory.mktemp("ids"), engine, script, chosen, asked)
    for record in made.records:
        talk = made.rollouts.again(TASK, [record], engine)[0]
        view = engine.encode(talk)
        trained = [number for number, kept in zip(view.ids, view.trained, strict=True) if kept]
        assert trained == spoken(record)
    call = made.records[1]
    assert call["operations"][0]["error"] is None
    assert len(spoken(call)) > len(engine.processor.encode(LOOK, opening=False))


def test_what_is_trained_is_what_was_said_to_the_end_token(played, engine):
    """A golden row: two turns, each to its end-of-turn token and not the newline after it."""
    row = next(one for one in played.rows() if (one.id, one.repeat) == ("s0", 0))
    ((entry, example),) = played.composer().parts([row], 0)[0][0]
    assert entry == row
    trained = engine.processor.decode(example.ids[example.weights > 0].tolist())
    assert trained == f"{LOOK}<|im_end|>{RIGHT_ANSWER}<|im_end|>"
    places = np.flatnonzero(example.weights)
    after = [int(place) + 1 for place in places if place + 1 < len(example.ids) and not example.weights[place + 1]]
    assert {engine.processor.decode([int(example.ids[place])]) for place in after} == {"\n"}
    record = next(one for one in played.records if key_of(one) == ("s0", 0))
    assert example.notes["sampled"][places].tolist() == pytest.approx(spoken(record, "logprobs"))


def test_a_rollout_plays_again_to_what_it_was(played, engine):
    for record in played.records:
        own = played.questions[TASK]
        talk = asyncio.run(perform_again(record, own, engine))
        assert [item.digest for item in talk.items] == [item["digest"] for item in record["media"]]
        assert [segment.text for segment in talk.segments] == [
            "".join(part.get("text", "") for part in segment["parts"]) for segment in record["segments"]
        ]


def test_a_changed_question_is_told_in_a_line(played, engine):
    record = played.records[0]
    lost = replace(played.questions[TASK], samples={})
    with pytest.raises(DataError, match="no longer has"):
        asyncio.run(perform_again(record, lost, engine))
    other = {"s0": replace(questions((4,))[TASK].samples["s4"], id="s0")}
    with pytest.raises(DataError, match="cannot be performed again"):
        asyncio.run(perform_again(record, replace(played.questions[TASK], samples=other), engine))


@settings(max_examples=30)
@given(
    turns=st.integers(1, 4),
    images=st.integers(1, 4),
    new_tokens=st.integers(1, 60),
    tokens=st.integers(1, 700),
    repeat=st.integers(0, 7),
)
def test_any_limit_leaves_a_whole_ledger_and_no_answer(engine, turns, images, new_tokens, tokens, repeat):
    limits = {"turns": turns, "images": images, "calls": 1, "new_tokens": new_tokens, "tokens": tokens}
    own = questions((0,), limits=limits)[TASK]

    async def run():
        made = await run_episode(own.samples["s0"], Sampler(Actor(engine)), own.setting, repeat)
        record = json.loads(json.dumps(to_record(made, {})))
        return made, record, await perform_again(record, own, engine)

    made, record, again = asyncio.run(run())
    assert made.end in END_STATES
    last = made.conversation.segments[-1]
    assert (made.end == "answered") is (made.final_text is not None)
    if made.end == "answered":
        assert last.finish == "stop"
        assert not last.calls
    else:
        assert made.end in OVER_LIMIT
    shown = [part.index for segment in made.conversation.segments for part in segment.parts if hasattr(part, "index")]
    assert shown == [item.index for item in made.conversation.items]
    view = engine.encode(again)
    assert len(view.spans) == len(made.conversation.items) <= images
    assert [n for n, kept in zip(view.ids, view.trained, strict=True) if kept] == spoken(record)


# -- sampled by the model itself -------------------------------------------------------------------------------


def test_rollouts_of_a_model_say_what_it_was_thinking(engine, tmp_path):
    """One placeholder an image in what the engine is asked; its length, and log-probabilities, are the ledger's."""
    chosen, asked = (
        config(rollout={"queries": 1, "group": 3}, train={"batch": 3}),
        questions((2,), limits={"new_tokens": 12}),
    )
    wanted = Round(0, 0, [(TASK, "s2")])
    rollouts = Rollouts(chosen, asked, tmp_path)
    sampler = Sampler(engine)
    rollouts.begin(wanted, sampler, ["prh"])
    assert rollouts.sample(wanted, sampler) == 3
    for record in rollouts.read(0, TASK):
        talk = rollouts.again(TASK, [record], engine)[0]
        view = engine.encode(talk)
        runs = [end - start for start, end in view.spans]
        assert runs == [image.width * image.height // 28**2 for image in talk.images()]
        assert record["usage"]["prompt_tokens"] == view.turns[0][0]
        logits = support.full_logits(engine._checkpoint.folder, talk, view.ids, engine.module).double()
        banned = list(sampler.banned)
        logits[:, banned] = float("-inf")
        law = logits.log_softmax(-1)
        start, end = view.turns[0]
        again = [float(law[place - 1, view.ids[place]]) for place in range(start, end)]
        assert spoken(record, "logprobs") == pytest.approx(again, abs=1e-5)


def test_sampling_again_does_only_what_is_missing(engine, tmp_path):
    made = stage(tmp_path, engine)
    before = made.records
    assert made.rollouts.sample(made.wanted, Actor(engine)) == 0
    journal = made.rollouts.folder(0, TASK) / "records.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:11]) + lines[11][:40])
    assert made.rollouts.sample(made.wanted, Actor(engine)) == 5
    assert [canonical(one) for one in made.records] == [canonical(one) for one in before]
    broken = encode_line({**before[0], "end": "engine_error"})
    journal.write_bytes(b"".join([broken, *(line for line in lines if key_of(decode_line(line)) != ("s0", 0))]))
    assert made.rollouts.sample(made.wanted, Actor(engine)) == 1
    assert [canonical(one) for one in made.records] == [canonical(one) for one in before]
    journal.write_bytes(journal.read_bytes() + broken)
    assert made.rollouts.sample(made.wanted, Actor(engine)) == 0


def test_another_round_in_the_folder_is_refused(engine, tmp_path):
    made = stage(tmp_path, engine)
    with pytest.raises(UsageError, match="another model"):
        made.rollouts.begin(Round(0, 5, made.wanted.queries), Actor(engine), ["prh"])


# -- what is learned of them -----------------------------------------------------------------------------------


def test_uniform_groups_are_counted_and_replayed_over(engine, tmp_path):
    """One group is right throughout; the other's rollouts fill its place."""
    script = lambda name, repeat, turn: RIGHT_ANSWER if name == "s0" else acting.PARTS[repeat][turn]  # noqa: E731
    made = stage(tmp_path, engine, script, config(replay={"fill": 1.0}))
    told = tell(made.judged())
    assert (told.values["groups"], told.values["groups_filtered"], told.live) == (2, 1, 1)
    assert {one.id for one in made.rows()} == {"s2"}
    (rows,) = made.updates()
    assert len(rows) == 16
    assert {one.id for one in rows} == {"s2"}
    without = stage(tmp_path / "plain", engine, script)
    assert [len(rows) for rows in without.updates()] == [8]


def test_nothing_to_learn_is_an_empty_plan(engine, tmp_path):
    made = stage(tmp_path, engine, lambda *_: RIGHT_ANSWER, config(replay={"fill": 1.0}, train={"batch": 8}))
    assert made.updates() == [[], []]
    older = [Entry(0, TASK, "s0", 1, 0.5, 0)]
    store = Store(replace(made.config.replay, age=3), older)
    wanted = replace(made.wanted, number=2)
    rows = plan(made.judged(), wanted, store, made.config)
    assert [len(each) for each in rows] == [8, 8]
    assert {one for each in rows for one in each} == set(older)


def test_a_plan_depends_on_nothing_but_the_round(played):
    assert played.updates() == played.updates()
    many = replace(played.config, train=replace(played.config.train, batch=4))
    parts = plan(played.judged(), played.wanted, Store(many.replay), many)
    assert len(parts) == 4
    assert sorted(one for part in parts for one in part) == played.rows()
    other = plan(played.judged(), replace(played.wanted, number=1), Store(many.replay), many)
    assert [len(part) for part in other] == [len(part) for part in parts]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 500)), max_size=40), st.integers(1, 5))
def test_rows_are_dealt_out_whole(rows, world):
    made = [Entry(0, TASK, f"q{group}", place, 0.1, 0) for place, (group, _) in enumerate(rows)]
    sizes = [size for _, size in rows]
    dealt = deal(made, sizes, world)
    assert sorted(place for part in dealt for place in part) == list(range(len(rows)))
    owners = {}
    for rank, part in enumerate(dealt):
        for place in part:
            assert owners.setdefault(made[place].id, rank) == rank
    loads = [sum(sizes[place] for place in part) for part in dealt]
    biggest = max((sum(size for group, size in rows if group == wanted) for wanted, _ in rows), default=0)
    assert max(loads) - min(loads) <= max(biggest, 0)


def test_dynamic_sampling_keeps_the_first_groups_that_teach(played):
    queries = [(TASK, "s2"), (TASK, "s0")]
    kept = {one.group for one in trim(played.judged(), queries, 1) if one.advantage is not None}
    assert kept == {(TASK, "s2")}
    whole = [one.advantage for one in trim(played.judged(), queries, 5)]
    assert whole == [one.advantage for one in played.judged()]


def test_questions_come_once_an_epoch():
    one = questions((0,))[TASK]
    asked = {name: replace(one, samples=dict.fromkeys("abcd"[:count])) for name, count in (("x", 3), ("y", 4))}
    stream = Stream(asked, 3)
    first, place = stream.take(0, 7)
    second, end = stream.take(place, 7)
    assert sorted(first) == sorted(second) == sorted(stream.queries)
    assert (first != second, end) == (True, 14)
    assert stream.take(3, 4) == (first[3:], 7)
    assert stream.take(5, 4)[0][:2] == first[5:]
    assert len(set(stream.take(5, 7)[0])) == 7


def test_a_lost_rollout_is_told_in_a_line(played):
    library = Library(played.rollouts, 0)
    with pytest.raises(DataError, match="no longer has"):
        library.record(Entry(0, TASK, "s0", 99, 0.1, 0))
    with pytest.raises(StoreError, match="no rollouts"):
        library.record(Entry(7, TASK, "s0", 0, 0.1, 0))


def test_masks_and_limits_are_configured_by_name():
    for wrong in ({"over_limit": "drop"}, {"group": 1}, {"queries": 0}, {"max_error_share": 2.0}, {"waves": 0}):
        with pytest.raises(UsageError, match="rollout"):
            RolloutPart(**wrong)
