"""Intervals against reference implementations, and their coverage by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prh.harness.intervals import mean, t_quantile, wilson
from scipy.stats import binomtest, sem, t


@given(st.integers(1, 500), st.data())
def test_wilson_is_scipys(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    reference = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_nothing_gives_nulls_and_one_gives_an_interval() -> None:
    assert mean([], []) == (mean([], []))
    assert mean([], []).value is None
    assert mean([], []).n == 0
    one = mean([1.0], ["a"])
    assert (one.value, one.high) == (1.0, 1.0)
    assert one.low == pytest.approx(0.2065, abs=1e-3)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.data())
def test_an_interval_holds_its_value_and_stays_between_nought_and_one(values: list[float], data: st.DataObject) -> None:
    clusters = data.draw(st.lists(st.integers(0, 5), min_size=len(values), max_size=len(values)))
    for chosen in (values, [float(v > 0.5) for v in values]):
        metric = mean(chosen, clusters)
        assert metric.value is not None
        assert metric.low is not None
        assert metric.high is not None
        assert 0 <= metric.low <= metric.value + 1e-9
        assert metric.value - 1e-9 <= metric.high <= 1


def test_copies_of_a_question_do_not_narrow_the_interval() -> None:
    values = [1.0] * 30 + [0.0] * 20
    clusters = list(range(50))
    once = mean(values, clusters)
    thrice = mean(values * 3, clusters * 3)
    assert thrice.low == pytest.approx(once.low, abs=0.01)
    assert thrice.high == pytest.approx(once.high, abs=0.01)


@given(st.lists(st.floats(0.1, 0.9), min_size=2, max_size=60, unique=True))
def test_the_interval_of_fractions_is_scipys_t_interval(values: list[float]) -> None:
    metric = mean(values, range(len(values)))
    reference = t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=sem(values))
    assert metric.low == pytest.approx(max(0, reference[0]), rel=3e-3, abs=3e-3)
    assert metric.high == pytest.approx(min(1, reference[1]), rel=3e-3, abs=3e-3)


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 29, 190, 1999])
def test_the_quantile_is_students(freedom: int) -> None:
    assert t_quantile(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=2e-3)


def covered(values: list[float], clusters: list[int], true: float) -> bool:
    metric = mean(values, clusters)
    assert metric.low is not None
    assert metric.high is not None
    return metric.low <= true <= metric.high


def near_its_name(hits: int, runs: int) -> bool:
    """Whether a coverage is 95 %, but for chance (4 standard errors), a point below and what is cautious above."""
    chance = 4 * math.sqrt(0.95 * 0.05 / runs)
    return 0.94 - chance <= hits / runs <= 0.985 + chance


@pytest.mark.parametrize(("n", "size"), [(30, 1), (191, 1), (2000, 1), (30, 3), (190, 5), (2000, 4)])
def test_coverage_of_a_rate_is_near_its_name(n: int, size: int) -> None:
    runs = 1000 if n < 2000 else 400
    rng = np.random.default_rng(n + size)
    clusters = [place // size for place in range(n)]
    hits = 0
    for _ in range(runs):
        each = rng.beta(6, 2, n // size).repeat(size) if size > 1 else np.full(n, 0.75)
        hits += covered((rng.random(n) < each).astype(float).tolist(), clusters, 0.75)
    assert near_its_name(hits, runs)


@pytest.mark.parametrize(("n", "size"), [(30, 1), (191, 1), (2000, 1), (30, 3), (190, 5), (2000, 4)])
def test_coverage_of_fractions_is_near_its_name(n: int, size: int) -> None:
    """ANLS: 0, or from a half to 1; answers on one image are alike."""
    runs = 1000 if n < 2000 else 400
    rng = np.random.default_rng(n + size)
    clusters = [place // size for place in range(n)]
    hits = 0
    for _ in range(runs):
        right = rng.beta(6, 2, n // size).repeat(size) if size > 1 else 0.75
        each = np.where(rng.random(n) < right, rng.uniform(0.5, 1, n), 0.0)
        hits += covered(each.tolist(), clusters, 0.75 * 0.75)
    assert near_its_name(hits, runs)
