"""Type-I error and coverage by simulation, at the sizes of a smoke test, of V* Bench and of InfographicVQA.

``PRH_SIMULATE=N`` runs N times as many; the figures of ``docs/statistics.md`` are with 10.
"""

import math
import os
from collections.abc import Callable

import numpy as np
import pytest
from prh.harness.types import Json
from prh.reports.statistics import non_inferiority, paired_difference, tango

TIMES = int(os.environ.get("PRH_SIMULATE", "1"))
SIZES = (30, 191, 2000)
MARGIN = 0.02
Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray, list[int]]]


def at_most(rate: float, name: float, runs: int) -> bool:
    """Whether a simulated rate is its name or less, but for chance (4 standard errors) and a point of approximation."""
    return rate <= name + 0.01 + 4 * math.sqrt(name * (1 - name) / runs)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("gained", "lost"), [(0.02, 0.02), (0.05, 0.05), (0.15, 0.15), (0.05, 0.07), (0.0, 0.02)])
def test_right_and_wrong_answers(
    n: int, gained: float, lost: float, record_property: Callable[[str, Json], None]
) -> None:
    runs = 10_000 * TIMES
    drawn = np.random.default_rng(n).multinomial(n, [gained, lost, 1 - gained - lost], runs).astype(float)
    low, high = tango(drawn[:, 0], drawn[:, 1], np.full(runs, float(n)))
    true = gained - lost
    missed = float(((low > true) | (high < true)).mean())
    record_property("coverage", 1 - missed)
    assert at_most(missed, 0.05, runs)
    if true == 0:
        alarms = float(((low <= -MARGIN) & (high < 0)).mean())
        record_property("false regressions", alarms)
        assert at_most(alarms, 0.025, runs)
    if math.isclose(true, -MARGIN):
        passes = float((low > -MARGIN).mean())
        record_property("false passes", passes)
        assert at_most(passes, 0.025, runs)


def binary(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Four questions an image, as hard as their image, about which one checkpoint may be the better."""
    groups = max(1, n // 4)
    chance = np.clip(rng.beta(5, 2, groups) + rng.normal(0, 0.1, (2, groups)), 0, 1).repeat(4, axis=1)
    before, after = (rng.random(chance.shape) < chance).astype(float)
    return before, after, (np.arange(groups * 4) // 4).tolist()


def averaged(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """avg@4: four episodes a sample."""
    chance = np.clip(rng.beta(2, 1, n) + rng.normal(0, 0.1, (2, n)), 0, 1)
    before, after = rng.binomial(4, chance) / 4
    return before, after, list(range(n))


def similar(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """ANLS: 0, or from a half to 1."""
    before, after = np.where(rng.random((2, n)) < 0.75, rng.uniform(0.5, 1, (2, n)), 0.0)
    same = rng.random(n) < 0.7
    return before, np.where(same, before, after), list(range(n))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("draw", [binary, averaged, similar])
def test_equal_checkpoints(draw: Draw, n: int, record_property: Callable[[str, Json], None]) -> None:
    runs = 500 * TIMES
    rng = np.random.default_rng(n)
    missed = alarms = tests = 0
    for _ in range(runs):
        found = paired_difference(*draw(rng, n))
        assert found.low is not None
        assert found.high is not None
        assert found.p is not None
        missed += not found.low <= 0 <= found.high
        alarms += non_inferiority(found.low, found.high, MARGIN) == "regression"
        tests += found.p < 0.05
    record_property("coverage", 1 - missed / runs)
    record_property("false regressions", alarms / runs)
    record_property("p below 0.05", tests / runs)
    assert at_most(missed / runs, 0.05, runs)
    assert at_most(alarms / runs, 0.025, runs)
    assert at_most(tests / runs, 0.05, runs)
    assert missed or n == 30, "an interval that never misses is far too wide"


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_seeds_of_one_training_are_no_difference(seeds: int, record_property: Callable[[str, Json], None]) -> None:
    """Two groups of trainings that differ by their seeds alone; questions alone would see a difference too often."""
    runs, n = 400 * TIMES, 191
    rng = np.random.default_rng(seeds)
    missed = blind = 0
    for _ in range(runs):
        luck = rng.normal(0, 0.06, (2, 1, seeds))
        chance = np.clip(rng.beta(5, 2, n)[None, :, None] + luck, 0, 1)
        before, after = (rng.random(chance.shape) < chance).astype(float)
        found = paired_difference(before, after, range(n))
        assert found.low is not None
        assert found.high is not None
        missed += not found.low <= 0 <= found.high
        alone = paired_difference(before.mean(1), after.mean(1), range(n))
        assert alone.low is not None
        assert alone.high is not None
        blind += not alone.low <= 0 <= alone.high
    record_property("coverage", 1 - missed / runs)
    assert at_most(missed / runs, 0.05, runs)
    assert blind > missed
