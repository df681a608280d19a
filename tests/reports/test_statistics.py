"""The statistics against reference implementations: statsmodels', scipy's, a brute-force one, and published figures."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prh.harness.intervals import Z, wilson
from prh.reports.statistics import (
    agreement,
    average,
    cluster_bootstrap,
    design_effect,
    detectable,
    holm,
    least_to_pass,
    mcnemar,
    non_inferiority,
    paired_difference,
    pass_chance,
    power,
    repeats,
    resampled,
    samples_needed,
    samples_to_pass,
    tango,
)
from scipy import optimize
from scipy import stats as scipy_stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

counts = st.integers(0, 40)


def brute_force(gained: int, lost: int, n: int, delta: float) -> float:
    """Tango's statistic, the likelihood under a difference of ``delta`` maximised by a search."""

    def unlikely(share: float) -> float:
        terms = ((gained, share + delta), (lost, share), (n - gained - lost, 1 - 2 * share - delta))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in terms if count)

    low, high = max(0.0, -delta), (1 - delta) / 2
    share = optimize.minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (gained - lost - n * delta) / math.sqrt(n * (2 * share + delta - delta * delta))


@given(counts, counts, counts)
def test_tangos_interval_ends_where_the_brute_force_statistic_is_critical(gained: int, lost: int, same: int) -> None:
    n = gained + lost + same
    if not n:
        return
    low, high = (float(end) for end in tango(gained, lost, n))
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    for end, sign in ((low, 1), (high, -1)):
        if abs(end) < 0.999:
            assert brute_force(gained, lost, n, end) == pytest.approx(sign * Z, abs=2e-3)


def test_tangos_interval_of_twenty_one_pairs_stays_what_it_was() -> None:
    low, high = tango(1, 7, 21)
    assert (round(float(low), 3), round(float(high), 3)) == (-0.517, -0.026)


@given(st.integers(0, 60), st.integers(1, 60))
def test_with_nothing_gained_and_all_lost_or_kept_tango_is_wilsons(lost: int, n: int) -> None:
    lost = min(lost, n)
    low, _ = tango(0, lost, n)
    assert -float(low) == pytest.approx(wilson(lost, n)[1], abs=1e-6)


@given(counts, counts)
def test_mcnemar_is_statsmodels_exact_one(gained: int, lost: int) -> None:
    reference = reference_mcnemar([[5, lost], [gained, 5]], exact=True).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(reference)


@settings(max_examples=15)  # statsmodels' takes a tenth of a second a call
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_statsmodels(values: list[float]) -> None:
    assert holm(values) == pytest.approx(list(multipletests(values, method="holm")[1]))


def test_holm_counts_what_was_not_tested_for_nothing() -> None:
    assert holm([0.01, None, 0.04]) == [0.02, None, 0.04]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=80), st.integers(2, 9))
def test_the_design_effect_is_from_statsmodels_cluster_robust_variance(
    pairs: list[tuple[bool, bool]], groups: int
) -> None:
    each = np.array([float(after) - float(before) for before, after in pairs])
    clusters = np.arange(len(each)) % groups
    if len(set(clusters)) < 2 or len(set(clusters)) == len(each) or each.std() < 1e-9:
        return
    fit = OLS(each, np.ones(len(each))).fit(cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": True})
    plain = each.var() / len(each)
    found = design_effect(each, clusters.tolist())
    assert found == pytest.approx(max(1.0, float(fit.cov_params()[0][0]) / plain), rel=1e-6)


def test_right_and_wrong_answers_get_mcnemars_p_and_tangos_interval() -> None:
    before, after = np.array([1, 1, 1, 0, 0, 1, 0, 1.0]), np.array([1, 0, 0, 1, 0, 0, 0, 0.0])
    found = paired_difference(before, after, range(8))
    assert (found.low, found.high) == pytest.approx([float(end) for end in tango(1, 4, 8)], abs=1e-9)
    assert found.p == pytest.approx(mcnemar(1, 4))
    assert (found.value, found.n, found.clusters, found.test) == (-3 / 8, 8, 8, "exact McNemar")


def test_copies_of_questions_on_one_image_tell_nothing_new() -> None:
    rng = np.random.default_rng(3)
    before, after = (rng.random((2, 60)) < 0.6).astype(float)
    once = paired_difference(before, after, range(60))
    thrice = paired_difference(np.tile(before, 3), np.tile(after, 3), list(range(60)) * 3)
    assert once.low is not None
    assert once.high is not None
    assert thrice.low == pytest.approx(once.low, abs=0.01)
    assert thrice.high == pytest.approx(once.high, abs=0.01)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(0, 6)), min_size=1, max_size=40),
    st.booleans(),
)
def test_a_difference_lies_in_its_interval_and_turning_it_round_turns_it_round(
    rows: list[tuple[float, float, int]], whole: bool
) -> None:
    before, after = (np.array([row[side] for row in rows]).round(0 if whole else 3) for side in (0, 1))
    clusters = [row[2] for row in rows]
    found, other = paired_difference(before, after, clusters), paired_difference(after, before, clusters)
    assert None not in (found.value, found.low, found.high, other.low, other.high)
    assert -1 <= found.low <= found.value + 1e-9  # type: ignore[operator]
    assert found.value - 1e-9 <= found.high <= 1  # type: ignore[operator]
    assert (found.low, found.high) == pytest.approx((-other.high, -other.low), abs=1e-9)  # type: ignore[operator]
    assert found.p == pytest.approx(other.p)


def test_seeds_add_their_variance_by_squares_of_the_distances() -> None:
    rng = np.random.default_rng(4)
    before, after = (rng.random((200, 3)) < (0.5, 0.6, 0.7)).astype(float), (rng.random((200, 2)) < 0.8).astype(float)
    found = paired_difference(before, after, range(200))
    alone = paired_difference(before.mean(1), after.mean(1), range(200))
    added = sum(
        (scipy_stats.t.ppf(0.975, side.shape[1] - 1) ** 2) * side.mean(0).var(ddof=1) / side.shape[1]
        for side in (before, after)
    )
    value, low, high = (float(end) for end in (alone.value, alone.low, alone.high))  # type: ignore[arg-type]
    assert found.value == pytest.approx(value)
    assert found.low == pytest.approx(max(-1.0, value - math.sqrt((value - low) ** 2 + added)))
    assert found.high == pytest.approx(min(1.0, value + math.sqrt((high - value) ** 2 + added)))
    assert found.test == "score with seeds"
    assert found.p is not None
    assert alone.p is not None
    assert found.p > alone.p


def test_equal_scores_of_few_samples_are_no_certainty() -> None:
    same = np.ones(3)
    found = paired_difference(same, same, range(3))
    assert found.high is not None
    assert found.high > 0.5
    fractions = paired_difference(same / 2, same / 2, range(3))
    assert fractions.high is not None
    assert fractions.high > 0.5


def test_nothing_is_compared_to_nothing() -> None:
    found = paired_difference(np.array([]), np.array([]), [])
    assert (found.value, found.low, found.p, found.n) == (None, None, None, 0)


def test_the_bootstrap_is_scipys_over_clusters() -> None:
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, 40, 160)
    columns = np.column_stack([rng.binomial(1, 0.3, 160), rng.integers(1, 4, 160)]).astype(float)
    totals = np.array([columns[clusters == label].sum(0) for label in range(40)])

    def ratio(drawn: np.ndarray, axis: int) -> np.ndarray:
        sums = totals[drawn].sum(axis=-2)
        return sums[..., 0] / sums[..., 1]

    data = (np.arange(40),)
    reference = scipy_stats.bootstrap(
        data, ratio, method="percentile", n_resamples=20_000, vectorized=True, batch=500, rng=1
    ).confidence_interval
    found = cluster_bootstrap(columns, clusters.tolist(), lambda sums: sums[..., :1] / sums[..., 1:], resamples=20_000)
    assert found[0] is not None
    wide = scipy_stats.t.ppf(0.975, 39) / Z * math.sqrt(40 / 39)
    middle = totals[:, 0].sum() / totals[:, 1].sum()
    assert found[0][0] == pytest.approx(middle - wide * (middle - reference.low), abs=0.004)
    assert found[0][1] == pytest.approx(middle + wide * (reference.high - middle), abs=0.004)


def test_an_averages_interval_is_students_for_many_independent_values() -> None:
    values = np.random.default_rng(3).gamma(2.0, 50.0, 400)
    own = average(values.tolist(), range(400))
    low, high = scipy_stats.t.interval(0.95, 399, values.mean(), values.std(ddof=1) / 20)
    assert own.value == pytest.approx(values.mean())
    assert (own.low, own.high) == pytest.approx((low, high), rel=0.02)
    shared = average(np.repeat(values, 4).tolist(), np.repeat(np.arange(400), 4).tolist())
    assert (shared.low, shared.high, shared.n) == pytest.approx((own.low, own.high, 1600))


def test_an_average_of_one_cluster_has_no_interval_and_of_nothing_no_value() -> None:
    one = average([3.0, 5.0], ["a", "a"])
    assert (one.value, one.low, one.high, one.n) == (4.0, None, None, 2)
    assert average([], []).value is None


def test_the_bootstrap_says_none_where_a_ratio_mostly_has_no_denominator() -> None:
    columns = np.zeros((20, 2))
    columns[0] = 1, 1
    with np.errstate(invalid="ignore", divide="ignore"):
        assert cluster_bootstrap(columns, range(20), lambda sums: sums[..., :1] / sums[..., 1:]) == [None]
    assert cluster_bootstrap(np.ones((3, 1)), ["one"] * 3, lambda sums: sums) == [None]


def test_a_p_from_resampling_says_what_the_interval_says() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0.0, 1.0, 400)
    for groups in (8, 30, 2000):
        low, high, _ = resampled(values, groups)
        assert low is not None
        assert high is not None
        for end in (low, high):
            inside, outside = (resampled(values - end * by, groups)[2] for by in (0.9, 1.1))
            assert inside is not None
            assert outside is not None
            assert inside > 0.05 > outside
    assert resampled(values, 1) == (None, None, None)
    assert resampled(np.where(np.arange(400) < 40, np.nan, values), 30) == (None, None, None)


def test_the_table_of_who_is_right() -> None:
    found = agreement(np.array([1, 1, 0, 0, 1.0]), np.array([1, 0, 1, 0, 0.0]))
    assert (found.both, found.baseline_only, found.candidate_only, found.neither) == (1, 2, 1, 1)
    assert found.p == mcnemar(1, 2)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.019, 0.5, "pass"),
        (-0.019, -0.001, "pass"),
        (-0.02, 0.01, "inconclusive"),
        (-0.5, 0.0, "inconclusive"),
        (-0.5, -0.001, "regression"),
    ],
)
def test_the_order_of_the_verdicts(low: float, high: float, verdict: str) -> None:
    assert non_inferiority(low, high, 0.02) == verdict


def test_avg_at_k_takes_its_variance_apart() -> None:
    rng = np.random.default_rng(7)
    expected = rng.choice([0.2, 0.9], 4000)
    values = (rng.random((4000, 8)) < expected[:, None]).astype(float)
    found = repeats(values.tolist(), range(4000))
    assert found.k == 8
    assert found.mean.value == pytest.approx(values.mean())
    assert found.within == pytest.approx(values.var(axis=1, ddof=1).mean())
    assert found.within == pytest.approx(np.mean(expected * (1 - expected)), abs=0.005)
    assert found.between == pytest.approx(np.var(expected), abs=0.01)


def test_avg_at_one_has_no_variance_within() -> None:
    found = repeats([[1.0], [0.0], [1.0]], range(3))
    assert (found.k, found.within, found.between) == (1, None, None)


@given(st.integers(20, 5000), st.just(0.0) | st.floats(0.02, 0.6), st.floats(0.5, 0.95))
@example(40, 0.0, 0.8)
def test_the_detectable_difference_is_what_power_finds(n: int, flips: float, chance: float) -> None:
    effect = detectable(n, flips, chance)
    if effect is None:
        assert power(n, 1.0, flips) < chance
        return
    assert power(n, effect, flips) == pytest.approx(chance, abs=1e-6)
    assert abs(samples_needed(effect, flips, chance) - n) <= 1 + n * 1e-4


@pytest.mark.parametrize(("n", "effect", "flips"), [(191, 0.07, 0.12), (2000, 0.02, 0.1), (300, -0.05, 0.06)])
def test_power_is_what_the_interval_finds_in_simulation(n: int, effect: float, flips: float) -> None:
    rng = np.random.default_rng(11)
    gained, lost = (flips + effect) / 2, (flips - effect) / 2
    drawn = rng.multinomial(n, [gained, lost, 1 - flips], 20_000).astype(float)
    low, high = tango(drawn[:, 0], drawn[:, 1], np.full(len(drawn), float(n)))
    assert power(n, effect, flips) == pytest.approx(((low > 0) | (high < 0)).mean(), abs=0.05)


def test_a_gate_that_could_not_pass_an_identical_candidate_says_so() -> None:
    least = least_to_pass(0.02)
    assert float(tango(0, 0, least)[0]) > -0.02 >= float(tango(0, 0, least - 1)[0])
    assert pass_chance(least - 1, 0.01, 0.02) == 0
    assert samples_to_pass(0.02, 0.0001) == least


@pytest.mark.parametrize(("n", "flips"), [(500, 0.06), (2000, 0.1)])
def test_the_chance_to_pass_is_what_the_gate_does_in_simulation(n: int, flips: float) -> None:
    rng = np.random.default_rng(12)
    drawn = rng.multinomial(n, [flips / 2, flips / 2, 1 - flips], 20_000).astype(float)
    low, _ = tango(drawn[:, 0], drawn[:, 1], np.full(len(drawn), float(n)))
    assert pass_chance(n, flips, 0.02) == pytest.approx((low > -0.02).mean(), abs=0.05)
