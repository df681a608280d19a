"""Type-I error and coverage by simulation, at the sizes of a smoke test, of V* Bench and of InfographicVQA.

``PRH_SIMULATE=N`` runs N times as many; the figures of ``docs/statistics.md`` are with 10.
"""

import functools
import math
import os
from collections.abc import Callable

import numpy as np
import pytest
from prh.harness.types import Json
from prh.reports.compare import AGGREGATE_RESAMPLES, _sides_and_gaps
from prh.reports.statistics import (
    cluster_bootstrap,
    holm,
    mcnemar,
    non_inferiority,
    paired_difference,
    resampled,
    tango,
)

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


@pytest.mark.parametrize(("n", "seeds"), [(30, 2), (30, 3), (191, 2), (191, 3), (191, 5), (2000, 2), (2000, 3)])
def test_seeds_of_one_training_are_no_difference(
    n: int, seeds: int, record_property: Callable[[str, Json], None]
) -> None:
    """Two groups of trainings that differ by their seeds alone; questions alone would see a difference too often."""
    runs = (400 if n == 191 else 150) * TIMES
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
    assert blind > missed or n == 30


@functools.cache
def exact(gained: int, lost: int) -> float:
    return mcnemar(gained, lost)


def exact_p(each: np.ndarray) -> np.ndarray:
    """Exact McNemar's p of differences, runs x samples."""
    counts = zip((each > 0).sum(1).tolist(), (each < 0).sum(1).tolist(), strict=True)
    return np.array([exact(*flipped) for flipped in counts])


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("flips", [0.04, 0.1, 0.3])
def test_the_exact_test_of_equal_checkpoints(
    n: int, flips: float, record_property: Callable[[str, Json], None]
) -> None:
    runs = 10_000 * TIMES
    drawn = np.random.default_rng(n).multinomial(n, [flips / 2, flips / 2, 1 - flips], runs)
    alarms = np.array([exact(gained, lost) < 0.05 for gained, lost, _ in drawn.tolist()]).mean()
    record_property("p below 0.05", float(alarms))
    assert alarms <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / runs), "an exact test has nothing but chance to excuse it"
    assert alarms > 0.005 or n * flips < 20


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("better", [0, 3])
def test_one_family_of_comparisons_with_one_baseline(
    n: int, better: int, record_property: Callable[[str, Json], None]
) -> None:
    """Holm's: how often any of the equal candidates is called different, whatever the others are."""
    runs, rng = 1000 * TIMES, np.random.default_rng(n)
    some = each = 0
    for _ in range(runs):
        chance = rng.beta(2, 1, n)
        chances = np.where(np.arange(6)[:, None] < better, np.minimum(chance + 0.2, 1), chance)
        found = exact_p((rng.random((6, n)) < chances) * 1.0 - (rng.random(n) < chance))
        adjusted = holm(found.tolist())
        some += any(p is not None and p < 0.05 for p in adjusted[better:])
        each += bool((found[better:] < 0.05).any())
    record_property("any p below 0.05", some / runs)
    assert some / runs <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / runs)
    assert each > some, "without the adjustment there must be more"


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("size", [1, 4])
def test_sums_of_equal_runs(n: int, size: int, record_property: Callable[[str, Json], None]) -> None:
    """The op-error rate and a cost with a long tail, by the bootstrap; all runs are drawn with the same clusters."""
    runs, rng, kinds = 300 * TIMES, np.random.default_rng(n), ("op-error rate", "tokens")
    groups = n // size

    def side() -> np.ndarray:
        hard = rng.beta(2, 8, (groups, 1, runs)).repeat(size, 1).reshape(groups * size, runs)
        attempted = rng.integers(0, 4, hard.shape)
        tokens = rng.lognormal(5, 0.7, (groups, 1, runs)).repeat(size, 1).reshape(hard.shape)
        return np.stack([rng.binomial(attempted, hard), attempted, tokens, np.ones(hard.shape)], -1).astype(float)

    def gaps(sums: np.ndarray) -> np.ndarray:
        found = _sides_and_gaps(sums.reshape(*sums.shape[:-1], runs, 8))[..., -len(kinds) :]
        return found.reshape(*found.shape[:-2], -1)

    columns = np.concatenate([side(), side()], -1).reshape(groups * size, -1)
    found = cluster_bootstrap(columns, (np.arange(groups * size) // size).tolist(), gaps)
    for place, kind in enumerate(kinds):
        missed = sum(end is not None and not end[0] <= 0 <= end[1] for end in found[place :: len(kinds)]) / runs
        record_property(f"coverage of {kind}", 1 - missed)
        assert None not in found
        assert at_most(missed, 0.05, runs)
        assert missed


@pytest.mark.parametrize("n", [8, *SIZES])
def test_aggregates_of_equal_runs(n: int, record_property: Callable[[str, Json], None]) -> None:
    """A rate over the replies that are not empty, whose denominator is its own; all runs are drawn alike."""
    runs, rng = 500 * TIMES, np.random.default_rng(n)
    chance = rng.beta(5, 2, (n, runs))
    said, right = rng.random((2, n, runs)) < 0.9, rng.random((2, n, runs)) < chance
    drawn = rng.multinomial(n, np.full(n, 1 / n), AGGREGATE_RESAMPLES).astype(float)
    with np.errstate(invalid="ignore"):
        before, after = ((drawn @ (own & good)) / (drawn @ own) for own, good in zip(said, right, strict=True))
    found = [resampled(values, n) for values in (after - before).T]
    missed = sum(low is not None and high is not None and not low <= 0 <= high for low, high, _ in found) / runs
    tests = sum(p is not None and p < 0.05 for *_, p in found) / runs
    record_property("coverage", 1 - missed)
    record_property("p below 0.05", tests)
    assert at_most(missed, 0.05, runs)
    assert at_most(tests, 0.05, runs)
    assert missed
