"""Advantages and Selective Sample Replay: golden values, the law of the draws, what stays and what goes."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prh.harness.errors import StoreError, UsageError
from prh.training.advantages import AdvantagePart
from prh.training.replay import Entry, ReplayPart, Store
from scipy.stats import chisquare

REWARDS = [1.0, 0.0, 0.0, 1.0, 1.0875, 0.0, 0.0, 0.9]


def test_the_papers_advantage_is_the_distance_to_the_mean():
    mean = 3.9875 / 8
    assert AdvantagePart().of(REWARDS) == pytest.approx([reward - mean for reward in REWARDS])


def test_standardised_by_the_deviation_of_a_sample():
    """n - 1, and 1e-4 added, as TRL has it; numpy counts the deviation."""
    deviation = np.std(REWARDS, ddof=1) + 1e-4
    expected = (np.array(REWARDS) - np.mean(REWARDS)) / deviation
    assert AdvantagePart("std").of(REWARDS) == pytest.approx(expected)
    assert AdvantagePart("std").of([1.0, 0.0]) == pytest.approx([0.5 / (math.sqrt(0.5) + 1e-4), -0.7070068])


@pytest.mark.parametrize("scale", ["none", "std"])
def test_alike_groups_teach_nothing(scale):
    part = AdvantagePart(scale)
    assert part.of([0.3] * 8) is None
    assert part.of([0.3, 0.3001] * 4) is None
    assert part.of([1.0]) is None
    assert part.of([]) is None
    assert AdvantagePart(scale, uniform=0.0).of([0.0] * 8) is None
    near = AdvantagePart(scale, uniform=0.0).of([0.5, 0.5001, 0.5, 0.5])
    assert max(map(abs, near)) <= 1.5


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=16), st.sampled_from(["none", "std"]))
def test_advantages_sum_to_nothing_and_keep_the_order(rewards, scale):
    found = AdvantagePart(scale).of(rewards)
    if found is None:
        assert max(rewards) - min(rewards) < 0.02
        return
    assert sum(found) == pytest.approx(0, abs=1e-6)
    order = np.argsort(rewards, kind="stable")
    assert all(found[a] <= found[b] for a, b in pairwise(order))


def made(advantages, number=0):
    return [Entry(number, "task", f"q{place}", place % 4, value, 0) for place, value in enumerate(advantages)]


def test_draws_follow_the_advantages():
    advantages = [0.1, -0.5, 0.9, 0.02, -0.2, 1.4]
    for alpha in (0.5, 1.0, 2.0, 0.0):
        store = Store(ReplayPart(1.0, alpha), made(advantages))
        drawn = store.draw(100_000, np.random.default_rng(5))
        counts = [sum(one.id == f"q{place}" for one in drawn) for place in range(len(advantages))]
        law = np.abs(advantages) ** alpha
        assert chisquare(counts, 100_000 * law / law.sum()).pvalue > 0.001
        wrong = np.abs(advantages) ** (alpha + 0.2)
        assert chisquare(counts, 100_000 * wrong / wrong.sum()).pvalue < 1e-6


def test_what_was_kept_draws_the_same():
    store = Store(ReplayPart(1.0, age=3), made([0.1, 0.4, -0.3]))
    other = Store(ReplayPart(1.0, age=3))
    other.load(json.loads(json.dumps(store.json())))
    assert other.entries == store.entries
    draws = [one.draw(50, np.random.default_rng(1)) for one in (store, other)]
    assert draws[0] == draws[1]
    assert store.draw(50, np.random.default_rng(2)) != draws[0]


def test_too_old_or_empty_gives_nothing():
    store = Store(ReplayPart(1.0, age=1))
    assert store.draw(5, np.random.default_rng(0)) == []
    store.add(0, made([0.5]))
    store.add(1, made([0.7], 1))
    assert {one.round for one in store.draw(50, np.random.default_rng(0))} == {0, 1}
    store.add(2, [])
    assert {one.round for one in store.draw(50, np.random.default_rng(0))} == {1}
    store.add(3, [])
    assert store.draw(50, np.random.default_rng(0)) == []
    paper = Store(ReplayPart(1.0, age=0))
    paper.add(0, made([0.5]))
    paper.add(1, made([0.7], 1))
    assert {one.round for one in paper.entries} == {1}


def test_rows_that_taught_nothing_are_never_drawn():
    store = Store(ReplayPart(1.0), made([0.0, 0.0, 0.2]))
    assert {one.id for one in store.draw(200, np.random.default_rng(0))} == {"q2"}
    assert Store(ReplayPart(1.0), made([0.0, 0.0])).draw(3, np.random.default_rng(0)) == []


def test_fresh_rollouts_come_first():
    fresh = made([0.5, -0.5, 0.2])
    store = Store(ReplayPart(1.0), list(fresh))
    chosen = store.select(fresh, 8, np.random.default_rng(0))
    assert sorted(chosen[:3]) == sorted(fresh)
    assert len(chosen) == 8
    assert len(store.select(fresh, 2, np.random.default_rng(0))) == 2
    assert Store(ReplayPart(0.0)).select(fresh, 8, np.random.default_rng(0)) == fresh
    assert Store(ReplayPart(1.0)).select([], 8, np.random.default_rng(0)) == []


def test_a_damaged_store_is_told_in_a_line():
    for value in ([[1, 2]], [["a", "b", "c", "d", "e", "f"]], 3, None):
        with pytest.raises(StoreError, match="replay store"):
            Store(ReplayPart()).load(value)


def test_settings_are_checked():
    for part in ({"fill": 1.5}, {"alpha": -1.0}, {"age": -1}):
        with pytest.raises(UsageError, match="replay"):
            ReplayPart(**part)
    with pytest.raises(UsageError, match="advantage"):
        AdvantagePart("mean")
