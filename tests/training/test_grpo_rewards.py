"""What a rollout is worth, against tables worked out by hand."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prh.harness import registry
from prh.harness.errors import UsageError
from prh.training.rewards import (
    CallCost,
    ConditionalTool,
    Correct,
    CuriosityPaper,
    CuriosityReleased,
    Format,
    Guards,
    Rollout,
    compose,
    rate,
)

# Of eight rollouts so many use an operation: the paper's bonus, and the release's for an image and a video.
# 0.5 * (0.3 - n/8); (0.3 - n/8) / 2 * 0.25 / (n/8); the same / 1.5.
CURIOSITY = {
    0: (0.0, 0.0, 0.0),
    1: (0.0875, 0.175, 0.2333333),
    2: (0.025, 0.025, 0.0333333),
    3: (0.0, 0.0, 0.0),
    4: (0.0, 0.0, 0.0),
    5: (0.0, 0.0, 0.0),
    6: (0.0, 0.0, 0.0),
    7: (0.0, 0.0, 0.0),
    8: (0.0, 0.0, 0.0),
}


def group(using, *, calls=1, video=False):
    return [Rollout(calls=calls * (place < using), used=calls * (place < using), video=video) for place in range(8)]


@pytest.mark.parametrize("using", CURIOSITY)
def test_curiosity_at_every_rate(using):
    paper, image, video = CURIOSITY[using]
    idle = [0.0] * (8 - using)
    assert CuriosityPaper()(group(using)) == pytest.approx([paper] * using + idle)
    assert CuriosityReleased()(group(using)) == pytest.approx([image] * using + idle, abs=1e-6)
    assert CuriosityReleased()(group(using, video=True)) == pytest.approx([video] * using + idle, abs=1e-6)


@pytest.mark.parametrize(("calls", "paper", "released"), [(1, 0.0875, 0.175), (2, 0.0375, 0.125), (4, -0.0625, 0.025)])
def test_operations_beyond_the_first_cost(calls, paper, released):
    """0.0875 and 0.175 less 0.05 for each beyond the first."""
    assert CuriosityPaper()(group(1, calls=calls))[0] == pytest.approx(paper)
    assert CuriosityReleased()(group(1, calls=calls))[0] == pytest.approx(released)


def test_a_call_that_does_not_count_has_its_price_and_no_bonus():
    made = [Rollout(calls=3, used=0), Rollout(calls=1, used=1), *[Rollout()] * 6]
    assert CuriosityPaper()(made)[:2] == pytest.approx([-0.1, 0.0875])
    assert CuriosityReleased()(made)[:2] == pytest.approx([-0.1, 0.175])


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=12))
def test_curiosity_pays_only_those_who_look_and_only_below_the_target(shape):
    made = [Rollout(calls=calls, used=calls * counts) for calls, counts in shape]
    for term in (CuriosityPaper(), CuriosityReleased()):
        paid = term(made)
        assert all(map(math.isfinite, paid))
        for one, value in zip(made, paid, strict=True):
            price = 0.05 * max(one.calls - 1, 0)
            if not one.used or rate(made) >= 0.3:
                assert value == pytest.approx(-price)
            else:
                assert value > -price


@pytest.mark.parametrize(
    ("one", "plain", "released"),
    [
        (Rollout(correct=1.0), 1.0, 1.0),
        (Rollout(correct=0.6), 0.6, 0.6),
        (Rollout(correct=0.0), 0.0, 0.0),
        (Rollout(readable=False, end="turn_limit"), 0.0, -1.0),
        (Rollout(correct=1.0, calls=1, unresolved=True), 1.0, 0.0),
        (Rollout(correct=0.0, readable=False, unresolved=True), 0.0, -1.0),
    ],
)
def test_correctness(one, plain, released):
    assert Correct()([one]) == [plain]
    assert Correct(unreadable=-1.0, unresolved=True)([one]) == [released]


def test_deepeyes_pays_a_look_that_led_to_a_right_answer():
    """0.8 correct + 0.2 format (0 or -1) + 1.2 where an operation was used and the answer is right."""
    whole = compose(
        {"correct": {"weight": 0.8}, "format": {"weight": 0.2}, "conditional-tool": {"weight": 1.2}},
    )
    made = [
        Rollout(correct=1.0, calls=1, used=1),
        Rollout(correct=1.0),
        Rollout(correct=0.0, calls=1, used=1),
        Rollout(correct=1.0, calls=1, used=1, unread=1),
        Rollout(readable=False, calls=2, used=2),
    ]
    values, parts = whole(made)
    assert values == pytest.approx([2.0, 0.8, 0.0, 1.8, -0.2])
    assert parts["conditional-tool"] == pytest.approx([1.2, 0, 0, 1.2, 0])


def test_other_terms():
    made = [Rollout(), Rollout(calls=1), Rollout(calls=3, unread=1), Rollout(readable=False)]
    assert CallCost(0.1)(made) == pytest.approx([0, -0.1, -0.3, 0])
    assert CallCost(0.1, free=1)(made) == pytest.approx([0, 0, -0.2, 0])
    assert Format()(made) == [0, 0, -1, -1]
    assert Format(right=1.0, wrong=0.0)(made) == [1, 1, 0, 0]
    assert ConditionalTool()([Rollout(correct=0.5, used=1)]) == [0.0]


def operation(box=(0, 0, 50, 50), error=None, media=1, frames=()):
    root = list(box) if box and error is None else None
    return {"name": "crop_image", "media": media, "root_box": root, "frames": list(frames), "error": error}


def record(*operations):
    media = [
        {"index": 1, "kind": "image", "root_box": [0, 0, 100, 100], "frames": []},
        {"index": 2, "kind": "crop", "root_box": [0, 0, 50, 50], "frames": []},
        {"index": 3, "kind": "video", "root_box": [0, 0, 100, 100], "frames": ["f"] * 8},
    ]
    return {"operations": list(operations), "media": media}


@pytest.mark.parametrize(
    ("guards", "operations", "counted"),
    [
        (Guards(), [operation(), operation(error="bad_index"), operation()], 3),
        (Guards(succeed=True), [operation(), operation(error="bad_index", media=0), operation(error="parse")], 1),
        (Guards(whole=0.9), [operation((0, 0, 100, 95)), operation((0, 0, 100, 80))], 1),
        (Guards(whole=0.9), [operation((0, 0, 49, 49), media=2), operation((0, 0, 20, 20), media=2)], 1),
        (Guards(whole=0.9), [operation(None, media=3, frames=range(1, 9)), operation(None, media=3, frames=[1, 2])], 1),
        (Guards(repeat=True), [operation(), operation(), operation((0, 0, 20, 20))], 2),
        (Guards(repeat=True), [operation(error="empty_box"), operation(error="empty_box")], 2),
        (Guards(succeed=True, whole=0.9, repeat=True), [operation((0, 0, 100, 100)), operation(), operation()], 1),
    ],
)
def test_guards(guards, operations, counted):
    assert guards.count(record(*operations)) == counted


def test_a_weight_of_nothing_switches_a_term_off():
    tables = {"correct": {}, "curiosity-paper": {"weight": 0}}
    made = group(1)
    values, parts = compose(tables)(made)
    assert values == [0.0] * 8
    assert parts["curiosity-paper"] == [0.0] * 8


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({}, "no \\[reward.NAME\\]"),
        ({"corect": {}}, "did you mean correct"),
        ({"curiosity-paper": {"alfa": 1.0}}, "reward.curiosity-paper.alfa"),
        ({"curiosity-paper": {"alpha": "much"}}, "must be a number"),
        ({"correct": 1.0}, "must be a table"),
        ({"correct": {"weight": "much"}}, "weight"),
        ({"curiosity-released": {"image": 0.0}}, "must be above 0"),
    ],
)
def test_what_is_no_reward_is_refused(tables, message):
    with pytest.raises(UsageError, match=message):
        compose(tables)


@dataclass
class Odd:
    """A stranger's term."""

    what: str = "few"

    def __call__(self, made):
        return {"few": [1.0], "nan": [math.nan] * len(made), "raise": made}[self.what]


@pytest.mark.parametrize("what", ["few", "nan", "raise"])
def test_a_strangers_term_that_fails_is_named(monkeypatch, what):
    real = registry.load
    monkeypatch.setattr(registry, "load", lambda kind, name: Odd if name == "odd" else real(kind, name))
    with pytest.raises(UsageError, match="reward odd"):
        compose({"odd": {"what": what}})(group(2))


def test_rewards_are_listed():
    import click.testing
    from prh.harness.commands import list_command

    done = click.testing.CliRunner().invoke(list_command, ["rewards"])
    assert done.exit_code == 0
    assert {"correct", "curiosity-paper", "curiosity-released"} <= {
        line.split()[0] for line in done.output.splitlines()
    }
