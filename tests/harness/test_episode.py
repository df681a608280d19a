"""The loop: explicit end states, operations counted once, and a conversation that forgets nothing."""

import asyncio
import itertools
import json
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prh.harness.engine import Turn, Usage
from prh.harness.episode import run_episode, turn_seed
from prh.harness.errors import OPERATION_ERRORS, ModelError
from prh.harness.ledger import Conversation, MediaRef, Segment, Text
from prh.harness.media import Media
from prh.harness.record import final_text, to_record
from prh.harness.scripted import ScriptedEngine
from prh.harness.store import decode_line, encode_line
from prh.harness.types import ERROR_STATES
from prh.tests.harness.support import call, crop, episode, image, observation, sample, setting, video

GOOD = crop(0.2, 0.2, 0.7, 0.7)
ANSWER = "It is red. \\boxed{A}"


def test_an_answer_ends_it() -> None:
    trajectory = episode([GOOD, ANSWER])
    assert trajectory.end == "answered"
    assert trajectory.final_text == ANSWER
    assert [segment.role for segment in trajectory.conversation.segments] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    (operation,) = trajectory.operations
    assert (operation.turn, operation.error, operation.produced) == (1, None, (2,))


def test_an_endless_caller_meets_the_turn_limit_and_gives_no_answer() -> None:
    trajectory = episode([GOOD])
    assert trajectory.end == "turn_limit"
    assert trajectory.conversation.turns == 5
    assert trajectory.final_text is None
    assert [operation.error for operation in trajectory.operations] == [None] * 4 + ["limit"]


def test_too_many_images_end_it_without_showing_half(tmp_path: Path) -> None:
    one = sample(video(tmp_path / "clip"))
    turns = [call("select_frames", target_frames=list(range(1, 9)))]
    trajectory = episode(turns, one)
    assert trajectory.end == "image_limit"
    assert len(trajectory.conversation.items) == 9
    assert [operation.error for operation in trajectory.operations] == [None, "limit"]


@pytest.mark.parametrize(
    ("turn", "end"),
    [
        (Turn("half an ans", finish="length"), "truncated"),
        (Turn("<|image_pad|>", finish="malformed"), "malformed"),
        (Turn(GOOD, usage=Usage(12000, 200)), "token_limit"),
    ],
)
def test_a_limit_never_passes_for_an_answer(turn: Turn, end: str) -> None:
    trajectory = episode(ScriptedEngine(lambda _: turn))  # type: ignore[arg-type]
    assert trajectory.end == end
    assert trajectory.final_text is None
    assert final_text(to_record(trajectory, {})) is None


def test_an_engine_that_fails_costs_its_episode_only() -> None:
    def fail(conversation: Conversation) -> str:
        raise ModelError("the server is gone")

    def crash(conversation: Conversation) -> str:
        raise RuntimeError("two\nlines")

    assert (episode(ScriptedEngine(fail)).end, episode(ScriptedEngine(fail)).error) == (  # type: ignore[arg-type]
        "engine_error",
        "the server is gone",
    )
    crashed = episode(ScriptedEngine(crash))  # type: ignore[arg-type]
    assert (crashed.end, crashed.error) == ("engine_error", "RuntimeError: two lines")


def test_a_broken_image_is_a_data_error_and_never_reaches_the_model() -> None:
    def never(conversation: Conversation) -> str:
        raise AssertionError("the model was asked")

    trajectory = episode(ScriptedEngine(never), sample(Media("image", "bad.png", b"")))  # type: ignore[arg-type]
    assert trajectory.end == "data_error"
    assert "bad.png" in trajectory.error


def test_each_turn_sees_every_earlier_call_and_image_in_order() -> None:
    seen: list[list[str]] = []

    def look(conversation: Conversation) -> str:
        parts = [part for segment in conversation.segments for part in segment.parts]
        seen.append([f"image {part.index}" if isinstance(part, MediaRef) else part.text[:30] for part in parts])
        assert sum(1 for _ in conversation.images()) == len(conversation.items)
        return crop(0.1, 0.1, 0.9, 0.9, target=conversation.turns + 1) if conversation.turns < 3 else ANSWER

    trajectory = episode(ScriptedEngine(look))  # type: ignore[arg-type]
    assert trajectory.end == "answered"
    for before, after in itertools.pairwise(seen):
        assert after[: len(before)] == before
    assert [word for word in seen[-1] if word.startswith("image")] == [f"image {n}" for n in (1, 2, 3, 4)]
    assert [item.parent for item in trajectory.conversation.items] == [0, 1, 2, 3]


def test_nested_crops_are_placed_in_the_root_image() -> None:
    chosen = setting(padding=0.0)
    trajectory = episode([crop(0.5, 0.5, 1, 1), crop(0, 0, 0.5, 0.5, target=2), ANSWER], None, chosen)
    assert trajectory.conversation.items[2].root_box == (200, 150, 300, 225)
    assert trajectory.operations[1].root_box == (200, 150, 300, 225)
    assert trajectory.conversation.pixels(3).working[0].size == (100, 75)


def test_each_turn_says_what_it_took_and_each_observation_what_its_operations_took() -> None:
    said = [Turn(crop(0.2, 0.2, 0.7, 0.7), usage=Usage(90, 31), seconds=1.25), Turn(ANSWER, seconds=0.5)]
    record = to_record(episode(ScriptedEngine(lambda talk: said[talk.turns])), {})
    segments = cast("list[dict[str, float]]", record["segments"])
    taken = [(segment.get("new_tokens"), segment.get("seconds")) for segment in segments]
    assert taken[:3] == [(None, None), (None, None), (31, 1.25)]
    assert taken[4] == (None, 0.5)  # not counted by the engine
    assert 0 < segments[3]["seconds"] <= cast("dict[str, float]", record["seconds"])["operations"]


def test_surplus_calls_are_attempts_of_kind_limit_one_each() -> None:
    trajectory = episode([GOOD * 50, ANSWER])
    errors = [operation.error for operation in trajectory.operations]
    assert errors == [None] + ["limit"] * 49
    assert "49 more calls" in observation(trajectory)


def test_a_torn_call_is_told_to_the_model_and_it_goes_on() -> None:
    trajectory = episode(['<tool_call>\n{"name"', ANSWER])
    assert trajectory.end == "answered"
    assert [operation.error for operation in trajectory.operations] == ["parse"]
    assert observation(trajectory).startswith("\nExecution error:\n")


def test_without_tools_a_call_is_just_text() -> None:
    trajectory = episode([GOOD], None, setting("direct"))
    assert (trajectory.end, trajectory.operations) == ("answered", [])


def test_a_commit_is_atomic() -> None:
    conversation = episode([ANSWER]).conversation
    before = (len(conversation.segments), len(conversation.items))
    with pytest.raises(ValueError, match="media item 7"):
        conversation.commit(Segment("user", (Text("look"), MediaRef(7))))
    assert (len(conversation.segments), len(conversation.items)) == before


def test_a_turns_seed_depends_on_where_it_stands_alone() -> None:
    seeds = {turn_seed(s, i, r, t) for s in (0, 1) for i in ("a", "b") for r in (0, 1) for t in (1, 2)}
    assert len(seeds) == 16
    assert all(0 <= seed < 2**56 for seed in seeds)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([0, 1, -1, 2, 0.5, 1.0, 10**9, 1e308, "0.5", "__import__('os').system('x')"])
)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=5) | st.dictionaries(st.text(max_size=4), v, max_size=3), max_leaves=8
)
boxes = st.lists(scalars, min_size=0, max_size=6) | values
arguments = values | st.fixed_dictionaries(
    {}, optional={"bbox_2d": boxes, "target_image": values, "target_frames": boxes, "extra": values}
)
known_names = st.sampled_from(["crop_image", "crop_image_normalized", "select_frames", "rm -rf", ""])
tool_names = known_names | st.text(max_size=6)
bodies = (
    st.builds(lambda n, a: json.dumps({"name": n, "arguments": a}), tool_names, arguments)
    | st.text(max_size=40)
    | st.sampled_from(["{", "[]", "null", '"crop_image"', '{"name": 3}', "print(1)", '{"name": "crop_image"}'])
)
replies = st.lists(bodies, min_size=1, max_size=4).map(
    lambda parts: "".join(f"<tool_call>\n{part}\n</tool_call>" for part in parts)
)


@settings(max_examples=1200)
@given(replies, st.sampled_from(["pixel-reasoner", "pixel-reasoner-released"]))
def test_hostile_arguments_are_typed_errors_told_to_the_model_and_counted_once(reply: str, name: str) -> None:
    """Each example is one to four calls; with the video test below well over 2,000 hostile calls."""
    check_hostile(reply, name, image(64, 48))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Media:
    return video(tmp_path_factory.mktemp("clip"), 16, 64, 48)


@settings(max_examples=1000)
@given(reply=replies, name=st.sampled_from(["pixel-reasoner", "pixel-reasoner-released"]))
def test_hostile_arguments_about_a_video(clip: Media, reply: str, name: str) -> None:
    check_hostile(reply, name, clip)


def check_hostile(reply: str, name: str, medium: Media) -> None:
    budget = {"input": [784, 784 * 16], "crop": [784, 784 * 4], "final": None}
    chosen = setting(name, budget=budget)
    engine = ScriptedEngine(lambda c: reply if c.turns == 0 else ANSWER)
    trajectory = asyncio.run(run_episode(sample(medium), engine, chosen))
    assert trajectory.end not in ERROR_STATES, trajectory.error
    found = chosen.protocol.parse(reply)
    assert len(trajectory.operations) == len(found)
    for operation in trajectory.operations:
        assert operation.error is None or operation.error in OPERATION_ERRORS
        assert operation.error is None or (operation.message and not operation.produced)
    if found and trajectory.end == "answered":
        assert trajectory.conversation.segments[3].text
        assert trajectory.final_text == ANSWER
    if all(operation.error for operation in trajectory.operations):
        assert len(trajectory.conversation.items) == 1
    record = to_record(trajectory, {})
    assert decode_line(encode_line(record)) is not None


def test_the_release_reads_a_turn_that_was_cut_off() -> None:
    cut = ScriptedEngine(lambda _: Turn(ANSWER, finish="length"))
    assert episode(cut, None, setting("pixel-reasoner-released")).final_text == ANSWER  # type: ignore[arg-type]
    assert episode(cut).end == "truncated"  # type: ignore[arg-type]
