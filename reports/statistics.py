"""Paired differences, their 95 % intervals and tests, and how small a difference a benchmark can show.

Everything is robust to questions that share an image: a cluster is drawn, swapped and counted as a whole. Student's t
is scipy's special function, loaded where it is needed: it takes a fifth of a second, ``scipy.stats`` half a second and
statsmodels loads pandas, so they are the tests' references.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..harness.intervals import Z, mean, t_quantile
from ..harness.types import Metric

Floats: TypeAlias = NDArray[np.float64]
Outcome = Literal["pass", "regression", "inconclusive"]
Test = Literal["exact McNemar", "score", "score with seeds", "bootstrap"]
RESAMPLES = 2000
RIGHT = 0.5  # what a score must be at least to count as right
CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class Difference:
    """Candidate minus baseline over the samples that both have, with its 95 % interval.

    Attributes:
        value, low, high: None where there is nothing to compare.
        p: two-sided, of no difference; None where no test is made.
        n: paired samples.
        clusters: images or videos among them.
        test: where ``p`` is from.
        design: variance of the difference over that of as many samples with an image of their own.
        spread: mean squared difference of a sample; of right and wrong answers the share that flipped.
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int
    clusters: int
    test: Test
    design: float = 1.0
    spread: float = 0.0


NOTHING = Difference(None, None, None, None, 0, 0, "score")


@dataclass(frozen=True, slots=True)
class Agreement:
    """Samples by who has them right; ``p`` is exact McNemar's, which takes each sample as independent."""

    both: int
    baseline_only: int
    candidate_only: int
    neither: int
    p: float


@dataclass(frozen=True, slots=True)
class Repeats:
    """A score over several episodes a sample (avg@k).

    Attributes:
        k: episodes of a sample, the mean where they differ.
        mean: avg@k with its interval over samples.
        within: variance of one sample's episodes, averaged over samples; None where none has two.
        between: variance of the samples' expected scores; None where ``within`` is.
    """

    k: float
    mean: Metric
    within: float | None
    between: float | None


def codes_of(clusters: Sequence[Hashable]) -> tuple[NDArray[np.intp], int]:
    """Numbers 0 .. G - 1 for cluster labels in order of first appearance, and G."""
    known: dict[Hashable, int] = {}
    codes = np.fromiter((known.setdefault(label, len(known)) for label in clusters), np.intp, len(clusters))
    return codes, len(known)


def paired_difference(baseline: Floats, candidate: Floats, clusters: Sequence[Hashable]) -> Difference:
    """The difference of two means of scores in [0, 1] over the same samples.

    Tango's score interval (Tango 1998), on effective counts where samples share a cluster (as in
    ``harness.intervals``). Scores between 0 and 1 are counted in units of their usual difference, so that the variance
    of the count is theirs; with one made-up difference of 1 among them, so that small differences of few samples do
    not pass for certainty. Of one run of right and wrong answers a side, it is Tango's own, and the test is exact
    McNemar's where no cluster is shared. Variance between training seeds is added as squares of the distances (MOVER,
    Zou and Donner 2008), with Student's t on the number of seeds.

    Args:
        baseline, candidate: samples x training seeds, or just samples; repeats are averaged beforehand.
        clusters: a label for each sample.
    """
    n = len(clusters)
    if not n:
        return NOTHING
    before, after = (np.asarray(side, float).reshape(n, -1) for side in (baseline, candidate))
    each = after.mean(1) - before.mean(1)
    codes, groups = codes_of(clusters)
    binary = all(np.isin(side, (0, 1)).all() and side.shape[1] == 1 for side in (before, after))
    design, spread, value = _design(each, codes, groups), float(np.mean(each**2)), float(each.mean())
    independent = binary and groups == n
    share = 1.0 if independent else _effective(n, groups, design) / n
    unit = (spread * n + 1) / (float(np.abs(each).sum()) + 1)
    gained, lost = (float(np.maximum(side, 0).sum()) / unit * share for side in (each, -each))
    low, high = (float(end) * unit for end in tango(gained, lost, n * share))
    p = mcnemar(round(gained), round(lost)) if independent else _score_p(gained, lost)
    test: Test = "exact McNemar" if independent else "score"
    seeds = [_seed_variance(side) for side in (before, after) if side.shape[1] > 1]
    if seeds:
        test = "score with seeds"
        low, high, p = _with_seeds(value, low, high, seeds)
    return Difference(value, low, high, p, n, groups, test, design, spread)


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p of McNemar's test: the samples that flipped, against a fair coin."""
    flipped, ways, tail = gained + lost, 1, 1  # whole numbers: every way to have no more than so many of the rarer flip
    for rarer in range(min(gained, lost)):
        ways = ways * (flipped - rarer) // (rarer + 1)
        tail += ways
    return min(1.0, float(2 * tail / (1 << flipped)))


def tango(gained: float | Floats, lost: float | Floats, n: float | Floats) -> tuple[Floats, Floats]:
    """Tango's score interval of (gained - lost) / n; counts may be effective numbers, and arrays of one shape."""
    up, down, size = np.broadcast_arrays(*(np.asarray(x, float) for x in (gained, lost, n)))
    centre = (up - down) / size
    return _root(up, down, size, centre, -1.0), _root(up, down, size, centre, 1.0)


def _root(up: Floats, down: Floats, n: Floats, centre: Floats, edge: float) -> Floats:
    """Where, between the estimate and an edge, the score statistic is Z: by bisection, since it is monotone."""
    inside, outside = centre.copy(), np.full_like(centre, edge)
    for _ in range(50):
        middle = (inside + outside) / 2
        within = np.abs(_score(up, down, n, middle)) <= Z
        inside, outside = np.where(within, middle, inside), np.where(within, outside, middle)
    return inside


def _score(up: Floats, down: Floats, n: Floats, delta: Floats) -> Floats:
    """Tango's statistic for a difference of ``delta``, the lost share at its constrained maximum likelihood."""
    b = (2 * n - up + down) * delta - up - down
    share = (np.sqrt(np.maximum(b * b + 8 * n * down * delta * (1 - delta), 0)) - b) / (4 * n)
    variance = n * (2 * share + delta * (1 - delta))
    gap = up - down - n * delta
    return gap / np.sqrt(np.maximum(variance, 1e-300))


def design_effect(values: Floats, clusters: Sequence[Hashable]) -> float:
    """Variance of a mean whose samples share clusters over that of independent samples, at least 1."""
    return _design(np.asarray(values, float), *codes_of(clusters))


def _design(each: Floats, codes: NDArray[np.intp], groups: int) -> float:
    n = len(each)
    if groups == n:
        return 1.0
    residuals = each - each.mean()
    plain = float(np.mean(residuals**2)) / n
    if groups < 2 or plain <= 0:
        return n / groups
    totals = np.bincount(codes, residuals, groups)
    return max(1.0, groups / (groups - 1) * float(totals @ totals) / n**2 / plain)


def _effective(n: int, groups: int, design: float) -> float:
    """How many independent samples are worth as much; few clusters count for less still."""
    narrow = (Z / t_quantile(groups - 1)) ** 2 if groups > 1 else 0.0
    return max(n / design * narrow, 1.0)


def _score_p(gained: float, lost: float) -> float:
    """Two-sided p of McNemar's score test on effective counts."""
    flipped = gained + lost
    return math.erfc(abs(gained - lost) / math.sqrt(2 * flipped)) if flipped else 1.0


def _with_seeds(
    value: float, low: float, high: float, seeds: Sequence[tuple[float, int]]
) -> tuple[float, float, float]:
    """Low, high and p. ``seeds``: variance of a side's mean between its seeds, and its degrees of freedom."""
    from scipy.special import stdtr, stdtrit

    added = sum(float(stdtrit(freedom, 0.975)) ** 2 * variance for variance, freedom in seeds)
    below, above = (math.sqrt((end - value) ** 2 + added) for end in (low, high))
    parts = [(((high - low) / 2 / Z) ** 2, math.inf), *seeds]
    error = math.sqrt(sum(variance for variance, _ in parts))
    p = float(2 * stdtr(_freedom(parts), -abs(value) / error))
    return max(-1.0, value - below), min(1.0, value + above), p


def _freedom(parts: Sequence[tuple[float, float]]) -> float:
    """Welch and Satterthwaite's degrees of freedom of a sum of variances."""
    whole = sum(variance for variance, _ in parts)
    known = sum(variance * variance / freedom for variance, freedom in parts)
    return whole * whole / known if known else math.inf


def _seed_variance(side: Floats) -> tuple[float, int]:
    seeds = side.shape[1]
    return float(side.mean(0).var(ddof=1)) / seeds, seeds - 1


def cluster_bootstrap(
    columns: Floats,
    clusters: Sequence[Hashable],
    statistic: Callable[[Floats], Floats],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[tuple[float, float] | None]:
    """95 % intervals of functions of sums over samples, drawing whole clusters: numerators, denominators, costs.

    Percentile intervals, widened for few clusters (the expanded percentile of Hesterberg 2015). One draw of clusters
    serves every statistic, which is what makes many of them cheap.

    Args:
        columns: samples x k, what is summed.
        statistic: from sums ``... x k`` to values ``... x m``; NaN where it is not defined.

    Returns:
        m intervals; None where fewer than two clusters are there or one resample in twenty has no value.
    """
    codes, groups = codes_of(clusters)
    totals = np.stack([np.bincount(codes, column, groups) for column in np.asarray(columns, float).T], 1)
    if groups < 2:
        return [None] * np.asarray(statistic(totals.sum(0))).shape[-1]
    rng, values = np.random.default_rng(seed), []
    step = max(1, CHUNK // groups)
    for start in range(0, resamples, step):
        drawn = rng.integers(0, groups, (min(step, resamples - start), groups))
        shifted = drawn + np.arange(len(drawn))[:, None] * groups
        counts = np.bincount(shifted.ravel(), minlength=drawn.size).reshape(drawn.shape)
        values.append(statistic(counts.astype(float) @ totals))
    return [_percentiles(column, groups) for column in np.concatenate(values).T]


def average(values: Sequence[float], clusters: Sequence[Hashable]) -> Metric:
    """A mean without bounds, such as of what a sample costs, with its interval by drawing whole clusters."""
    n = len(values)
    if not n:
        return Metric(None, None, None, 0)
    columns = np.column_stack([np.asarray(values, float), np.ones(n)])
    [interval] = cluster_bootstrap(columns, clusters, lambda sums: sums[..., :1] / sums[..., 1:])
    low, high = interval or (None, None)
    return Metric(sum(values) / n, low, high, n)


def _percentiles(values: Floats, groups: int) -> tuple[float, float] | None:
    known = values[np.isfinite(values)]
    if len(known) < 0.95 * len(values):
        return None
    tail = 0.5 * math.erfc(t_quantile(groups - 1) * math.sqrt(groups / (groups - 1)) / math.sqrt(2))
    low, high = np.quantile(known, (tail, 1 - tail))
    return float(low), float(high)


def resampled(values: Floats, groups: int) -> tuple[float | None, float | None, float | None]:
    """Low, high and two-sided p of a difference, from its values over resampled clusters; NaN where it has none.

    The interval is that of ``cluster_bootstrap``, None where that is; p is the level at which it would end at 0, and no
    less than so many draws can tell.
    """
    from scipy.special import stdtr

    interval = _percentiles(values, groups) if groups > 1 else None
    if interval is None:
        return None, None, None
    known = values[np.isfinite(values)]
    share = max(min(float((known <= 0).mean()), float((known >= 0).mean())), 1 / len(known))
    level = _quantile(min(share, 0.5)) * math.sqrt((groups - 1) / groups)
    return *interval, float(2 * stdtr(groups - 1, level))


def agreement(baseline: Floats, candidate: Floats) -> Agreement:
    """The 2 x 2 table of samples by who has them right; a score of at least ``RIGHT`` counts as right."""
    before, after = np.asarray(baseline) >= RIGHT, np.asarray(candidate) >= RIGHT
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return Agreement(int((before & after).sum()), lost, gained, int((~before & ~after).sum()), mcnemar(gained, lost))


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p values (Holm 1979) in the order given; None stays None and counts for nothing."""
    known = sorted((p, place) for place, p in enumerate(values) if p is not None)
    adjusted: list[float | None] = [None] * len(values)
    reached = 0.0
    for rank, (p, place) in enumerate(known):
        reached = max(reached, min(1.0, (len(known) - rank) * p))
        adjusted[place] = reached
    return adjusted


def non_inferiority(low: float, high: float, margin: float) -> Outcome:
    """``pass`` where the interval's lower end is above minus the margin, else what its upper end says."""
    if low > -margin:
        return "pass"
    return "regression" if high < 0 else "inconclusive"


def repeats(values: Sequence[Sequence[float]], clusters: Sequence[Hashable]) -> Repeats:
    """avg@k of scores in [0, 1], a sequence for each sample, and what of its variance more repeats would take away."""
    kept = [(np.asarray(own, float), cluster) for own, cluster in zip(values, clusters, strict=True) if len(own)]
    averages = [float(own.mean()) for own, _ in kept]
    whole = mean(averages, [cluster for _, cluster in kept])
    k = sum(len(own) for own, _ in kept) / len(kept) if kept else 0.0
    several = [(float(own.var(ddof=1)), len(own)) for own, _ in kept if len(own) > 1]
    if not several or len(kept) < 2:
        return Repeats(k, whole, None, None)
    within = sum(variance for variance, _ in several) / len(several)
    noise = within * sum(1 / len(own) for own, _ in kept) / len(kept)
    return Repeats(k, whole, within, max(0.0, float(np.var(averages, ddof=1)) - noise))


def power(n: float, effect: float, discordance: float, alpha: float = 0.05) -> float:
    """Chance that a paired test of ``n`` samples finds a true difference (Connor 1987).

    By the normal approximation: within 5 points of what Tango's interval and the exact test really find.

    Args:
        n: samples; with shared images, samples over the design effect.
        discordance: share of samples that flip, at least ``effect``.
    """
    flips = max(discordance, abs(effect))
    if not flips or not effect:
        return alpha
    spread = math.sqrt(max(flips - effect * effect, 1e-12))
    return _below((abs(effect) * math.sqrt(n) - _quantile(1 - alpha / 2) * math.sqrt(flips)) / spread)


def samples_needed(effect: float, discordance: float, chance: float = 0.8, alpha: float = 0.05) -> int:
    """Samples for which ``power`` is ``chance``; ``effect`` is not 0."""
    flips = max(discordance, abs(effect))
    spread = math.sqrt(max(flips - effect * effect, 0.0))
    return math.ceil(((_quantile(1 - alpha / 2) * math.sqrt(flips) + _quantile(chance) * spread) / effect) ** 2)


def detectable(n: float, discordance: float, chance: float = 0.8, alpha: float = 0.05) -> float | None:
    """The smallest true difference that ``power`` finds with ``chance``; None where not even 1 is (``n`` too small)."""
    critical, reached = _quantile(1 - alpha / 2), _quantile(chance)
    whole = n + reached**2
    if n <= 0 or whole < critical**2:
        return None
    root = (math.sqrt(n) * critical + reached * math.sqrt(whole - critical**2)) / whole
    effect = root * math.sqrt(discordance)  # where more samples flip than differ
    if effect >= discordance:
        effect = root**2  # where all that flip differ
    return effect if effect <= 1 else None


def pass_chance(n: float, discordance: float, margin: float, effect: float = 0.0) -> float:
    """Chance that the gate passes a candidate whose true difference is ``effect``."""
    if n < least_to_pass(margin):
        return 0.0
    flips = max(discordance, abs(effect))
    error = math.sqrt(max(flips - effect * effect, 1e-12) / n)
    return _below((margin + effect) / error - Z)


def samples_to_pass(margin: float, discordance: float, chance: float = 0.8) -> int:
    """Samples for which the gate passes an equal candidate with ``chance``."""
    return max(least_to_pass(margin), math.ceil((Z + _quantile(chance)) ** 2 * discordance / margin**2))


def least_to_pass(margin: float) -> int:
    """Samples below which not even a candidate that answers all alike passes: where Tango's interval is that wide."""
    return math.floor(Z * Z * (1 - margin) / margin) + 1


def _below(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))


def _quantile(share: float) -> float:
    return NormalDist().inv_cdf(share)
