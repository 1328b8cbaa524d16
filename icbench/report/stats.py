"""Statistics for few seeds: intervals of means, differences, ratios of times, and their tests.

Pure functions over 1-d arrays, one value a seed. A *stratum* is a pair (treated, control) of the values of a cell and
of its baseline cell, which may differ in number; functions that take several strata average over these, each with the
same weight, and compare within strata alone. Where too few values are given to say how far chance goes, the bounds of
an interval, and p, are NaN. How often the intervals cover the truth is measured in docs/statistics.md.
"""

import math
from collections.abc import Hashable, Sequence
from functools import cache, lru_cache, reduce
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtr, stdtrit

Floats = NDArray[np.float64]
Strata = Sequence[tuple[ArrayLike, ArrayLike]]

_DRAWS = 9_999
# Of a longer distribution the transform's rounding, some 1e-16, does not matter.
_SHORT = 2_000
_TRIM = 0.25
# Values that differ by less, relative to the largest, are equal: 0.9 - 0.8 is not 0.8 - 0.7 in floating point.
_ROUNDING = 1e-12
_PLAINLY_VARIES = 1e-6


class Estimate(NamedTuple):
    """A value and its confidence interval; the bounds are NaN where none can be given."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Of an interval that is symmetric about the value."""
        return (self.high - self.low) / 2


class Tested(NamedTuple):
    """An estimate, and the two-sided p of the hypothesis that there is no difference."""

    value: float
    low: float
    high: float
    p: float

    @property
    def estimate(self) -> Estimate:
        return Estimate(*self[:3])


def mean(values: ArrayLike, confidence: float = 0.95) -> Estimate:
    """The mean of (n,) values with its t-interval, n - 1 degrees of freedom.

    No interval for n = 1; one of no width where all values are equal.
    """
    x = np.asarray(values, dtype=float)
    assert x.ndim == 1
    value = float(x.mean())
    if len(x) < 2:
        return Estimate(value, math.nan, math.nan)
    return _around(value, _variance(x, _magnitude(x)) / len(x), len(x) - 1, confidence).estimate


def weighted_mean(values: ArrayLike, weights: ArrayLike, confidence: float = 0.95) -> Estimate:
    """The mean of (n,) values of such weights, all above 0, with a t-interval; that of `mean` if all count the same.

    Its variance, with h the weights' shares, is the sum of h^2 (x - mean)^2 / (1 - h): from what the values scatter by,
    whatever their weights are (HC2 of MacKinnon and White 1985). One degree of freedom less than the weights' effective
    number, 1 / sum h^2 (Kish 1965): with n - 1 they would be too short where few weigh most. No interval for n = 1.
    """
    x, w = np.asarray(values, dtype=float), np.asarray(weights, dtype=float)
    shares = w / w.sum()
    value = float(shares @ x)
    if len(x) < 2:
        return Estimate(value, math.nan, math.nan)
    variance = float((shares**2 * (x - value) ** 2 / (1 - shares)).sum())
    return _around(value, variance, 1 / float(shares @ shares) - 1, confidence).estimate


def difference(strata: Strata, confidence: float = 0.95) -> Tested:
    """mean(treated) - mean(control), averaged over the strata, by Student's t with variances of each side's own.

    Of one stratum it is Welch's interval and test (Welch 1947, Biometrika 34); of several the variances of the means
    add up, with Satterthwaite's degrees of freedom. No interval where a side has one value, or where none varies at
    all.
    """
    means, parts = [], []
    for x, y in _arrays(strata):
        means.append(float(x.mean() - y.mean()))
        parts += [(_variance(z, _magnitude(z)) / len(z), len(z) - 1) for z in (x, y)]
    return _satterthwaite(means, parts, confidence)


def paired_difference(strata: Strata, confidence: float = 0.95) -> Tested:
    """As `difference`, where treated[i] and control[i] share their seed: by the t-interval of their differences.

    It is the narrower one only where seeds that do well on one side do so on the other: see `seed_correlation`.
    """
    pairs = _pairs(strata)
    parts = [(_variance(x - y, _magnitude(x, y)) / len(x), len(x) - 1) for x, y in pairs]
    return _satterthwaite([float((x - y).mean()) for x, y in pairs], parts, confidence)


def _satterthwaite(means: list[float], parts: list[tuple[float, int]], confidence: float) -> Tested:
    """The mean of independent means, whose summed variance has these parts, each with its degrees of freedom."""
    variance = sum(part for part, _ in parts)
    value = float(np.mean(means))
    if not variance > 0:
        return Tested(value, math.nan, math.nan, math.nan)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts if part > 0)
    return _around(value, variance / len(means) ** 2, freedom, confidence)


def _around(value: float, variance: float, freedom: float, confidence: float) -> Tested:
    error = math.sqrt(variance)
    reach = error * float(stdtrit(freedom, (1 + confidence) / 2))
    p = 2 * float(stdtr(freedom, -abs(value) / error)) if error else math.nan
    return Tested(value, value - reach, value + reach, p)


def seed_correlation(strata: Strata) -> tuple[float, float]:
    """The correlation of treated[i] with control[i] within strata, and the one-sided p that there is none.

    Each stratum's own means are taken out; the degrees of freedom are those of what is left. (NaN, NaN) where too
    little is left.
    """
    centred = [
        tuple(z - z.mean() if _variance(z, _magnitude(z)) > 0 else 0 * z for z in pair) for pair in _pairs(strata)
    ]
    xs, ys = (np.concatenate(side) for side in zip(*centred, strict=True))
    freedom = sum(len(x) - 1 for x, _ in centred) - 1
    norm = math.sqrt(float(xs @ xs) * float(ys @ ys))
    if freedom < 1 or norm == 0:
        return math.nan, math.nan
    r = max(-1.0, min(1.0, float(xs @ ys) / norm))
    if abs(r) == 1:
        return r, float(r < 0)
    return r, float(stdtr(freedom, -r * math.sqrt(freedom / (1 - r * r))))


def rank_correlation(
    x: ArrayLike, y: ArrayLike, groups: Sequence[Hashable] | None = None, confidence: float = 0.95
) -> Estimate:
    """Spearman's rho of (n,) values with (n,) others, ties at their mean rank.

    With `groups`, a label for each value, ranks are those within a group, less their mean there (compare Taylor 1987,
    Biometrics 43): what differs between groups plays no part. A group of one tells nothing and is left out.
    The interval is Fisher's, with the variance (1 + rho^2 / 2) / (n - 2 - groups) (Bonett and Wright 2000,
    Psychometrika 65; each further group costs a degree of freedom, as a variable held fixed does). Of a rho of 1 it
    would have no width: it counts as half a step below 1, of the steps that rho may have, the sum over groups of
    (n^3 - n) / 6, and its upper bound is 1; -1 likewise. NaN where one side is constant; no interval for n < 3 +
    groups.
    """
    ranked = _ranked(x, y, groups)
    n = sum(len(a) for a, _ in ranked)
    norm = math.sqrt(math.prod(sum(float(pair[side] @ pair[side]) for pair in ranked) for side in (0, 1)))
    if norm == 0:
        return Estimate(math.nan, math.nan, math.nan)
    rho = sum(float(a @ b) for a, b in ranked) / norm
    if abs(rho) > 1 - _ROUNDING:
        rho = math.copysign(1.0, rho)
    freedom = n - 2 - len(ranked)
    if freedom < 1:
        return Estimate(rho, math.nan, math.nan)
    most = 1 - 6 / sum(len(a) ** 3 - len(a) for a, _ in ranked)
    inner = max(-most, min(most, rho))
    reach = float(ndtri((1 + confidence) / 2)) * math.sqrt((1 + inner**2 / 2) / freedom)
    low, high = (math.tanh(math.atanh(inner) + sign * reach) for sign in (-1, 1))
    return Estimate(rho, -1.0 if rho == -1 else low, 1.0 if rho == 1 else high)


def rank_correlation_p(x: ArrayLike, y: ArrayLike, groups: Sequence[Hashable] | None = None) -> float:
    """Two-sided p of Spearman's rho among the ways to deal y out to x, within each of the `groups` if there are any.

    Exact where there are at most 9,999 ways (one group: n up to 7), else by so many random ones as in `permutation_p`.
    NaN where one side is constant.
    """
    ranked = _ranked(x, y, groups)
    if not all(any(pair[side].any() for pair in ranked) for side in (0, 1)):
        return math.nan
    as_extreme = abs(sum(float(a @ b) for a, b in ranked)) * (1 - _ROUNDING)
    if math.prod(math.factorial(len(a)) for a, _ in ranked) <= _DRAWS:
        dealt = np.zeros(1)
        for a, b in ranked:
            dealt = np.add.outer(dealt, np.array(list(permutations(b))) @ a).ravel()
        return float((np.abs(dealt) >= as_extreme).mean())
    random, dealt = np.random.default_rng(0), np.zeros(_DRAWS)
    for a, b in ranked:
        dealt += random.permuted(np.tile(b, (_DRAWS, 1)), axis=1) @ a
    return (1 + int((np.abs(dealt) >= as_extreme).sum())) / (1 + _DRAWS)


def _ranked(x: ArrayLike, y: ArrayLike, groups: Sequence[Hashable] | None) -> list[tuple[Floats, Floats]]:
    """Both sides' centred ranks in each group of two or more."""
    sides = [np.asarray(side, dtype=float) for side in (x, y)]
    labels = [None] * len(sides[0]) if groups is None else list(groups)
    assert len(sides[0]) == len(sides[1]) == len(labels)
    places: dict[Hashable, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    first, second = sides
    return [(_centred_ranks(first[at]), _centred_ranks(second[at])) for at in places.values() if len(at) > 1]


def _centred_ranks(values: ArrayLike) -> Floats:
    x = np.asarray(values, dtype=float)
    assert x.ndim == 1
    less = (x[:, None] > x).sum(axis=1)
    equal = (x[:, None] == x).sum(axis=1)
    return np.asarray(less + (equal - len(x)) / 2, dtype=float)


def permutation_p(strata: Strata, seed: int = 0) -> float:
    """Two-sided p of the mean difference of means, among those with the values of each stratum dealt out anew.

    Ways that differ by rounding alone are as extreme. Exact where there are at most 9,999 ways to deal; else by so many
    random ones, (1 + as extreme) / (1 + 9,999), so that the same values give the same p. Phipson and Smyth 2010. 1
    where all values are equal.
    """
    arrays = _arrays(strata)
    sums = [np.concatenate([x, y]) for x, y in arrays]
    observed = abs(sum(float(x.mean() - y.mean()) for x, y in arrays))
    as_extreme = observed - _ROUNDING * sum(map(_magnitude, sums))
    if math.prod(math.comb(len(x) + len(y), len(x)) for x, y in arrays) <= _DRAWS:
        dealt = np.zeros(1)
        for (x, y), pooled in zip(arrays, sums, strict=True):
            dealt = np.add.outer(dealt, _all_differences(pooled, len(x), len(y))).ravel()
        return float((np.abs(dealt) >= as_extreme).mean())
    dealt = np.zeros(_DRAWS)
    for index, ((x, y), pooled) in enumerate(zip(arrays, sums, strict=True)):
        first = _deals(len(x), len(y), index, seed) @ pooled
        dealt += first / len(x) - (pooled.sum() - first) / len(y)
    return (1 + int((np.abs(dealt) >= as_extreme).sum())) / (1 + _DRAWS)


# Treatments have strata of the same sizes, and to draw takes far longer than to deal.
@lru_cache(maxsize=64)
def _deals(n: int, m: int, index: int, seed: int) -> Floats:
    """(draws, n + m): 1 for each value that goes to the first n, another draw for each index."""
    random = np.random.default_rng([seed, index])
    order = random.random((_DRAWS, n + m)).argsort(axis=1)[:, :n]
    deals = np.zeros((_DRAWS, n + m))
    np.put_along_axis(deals, order, 1, axis=1)
    return deals


def _all_differences(pooled: Floats, n: int, m: int) -> Floats:
    """The differences of means of all ways to deal n + m values out."""
    first = np.array([pooled[list(chosen)].sum() for chosen in combinations(range(n + m), n)])
    return np.asarray(first / n - (pooled.sum() - first) / m)


def holm(p_values: ArrayLike) -> Floats:
    """(tests,): p-values adjusted for their number (Holm 1979); NaN, a test that could not be made, is not counted."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def interquartile_mean(strata: Strata, confidence: float = 0.95, draws: int = 400, seed: int = 0) -> Estimate:
    """The mean of the middle half of all treated values, less that of all controls.

    Each value is taken from the middle between its stratum's two means; the mean of one side alone would turn the skew
    of a distribution that both sides share into a difference. Agarwal et al. 2021 (rliable), section 4.3. The interval:
    Student's t times the bootstrap's standard error, where each stratum's sides are drawn anew with deviations widened
    by sqrt(n / (n - 1)); their own percentile interval covers 74 % of the time with three seeds. No interval where a
    side has one value, or where none varies at all.
    """
    arrays = _arrays(strata)
    value = float(_middle_halves(arrays))
    freedom = sum(len(x) + len(y) - 2 for x, y in arrays)
    if any(min(len(x), len(y)) < 2 for x, y in arrays):
        return Estimate(value, math.nan, math.nan)
    random = np.random.default_rng(seed)
    drawn = _middle_halves([(_drawn(x, draws, random), _drawn(y, draws, random)) for x, y in arrays])
    error = float(np.std(drawn, ddof=1))
    if error <= _ROUNDING * _magnitude(*(z for pair in arrays for z in pair)):
        return Estimate(value, math.nan, math.nan)
    return _around(value, error**2, freedom, confidence).estimate


def _middle_halves(arrays: list[tuple[Floats, Floats]]) -> Floats:
    """(...): the interquartile mean of the treated less that of the controls, for strata of (..., n) and (..., m)."""
    from scipy.stats import trim_mean  # not with the module: it takes as long as all else that a sweep's table needs

    middles = [(x.mean(axis=-1, keepdims=True) + y.mean(axis=-1, keepdims=True)) / 2 for x, y in arrays]
    treated, control = (
        np.concatenate([pair[side] - middle for pair, middle in zip(arrays, middles, strict=True)], axis=-1)
        for side in (0, 1)
    )
    return np.asarray(trim_mean(treated, _TRIM, axis=-1) - trim_mean(control, _TRIM, axis=-1), dtype=float)


def _drawn(values: Floats, draws: int, random: np.random.Generator) -> Floats:
    n = len(values)
    drawn = values[random.integers(n, size=(draws, n))]
    return np.asarray(values.mean() + (drawn - values.mean()) * math.sqrt(n / (n - 1)))


def probability_of_improvement(strata: Strata, confidence: float = 0.95) -> Estimate:
    """The chance that a treated run beats a control of its stratum: U / (n m), ties counting half.

    The interval is the score interval of Newcombe 2006 (Statistics in Medicine 25, method 5), which holds also where
    all treated beat all controls; of several strata the variances add up at their common value.
    """
    arrays = _arrays(strata)
    wins = [float(((x[:, None] > y).mean() + (x[:, None] >= y).mean()) / 2) for x, y in arrays]
    value = float(np.mean(wins))
    sizes = [(len(x), len(y)) for x, y in arrays]
    z = float(ndtri((1 + confidence) / 2))
    return Estimate(value, _least_chance(value, sizes, z), 1 - _least_chance(1 - value, sizes, z))


def _least_chance(value: float, sizes: list[tuple[int, int]], z: float) -> float:
    """The smallest theta of which `value` lies within z standard errors."""
    from scipy.optimize import brentq

    def variance_over_theta_and_rest(theta: float) -> float:
        """The variance of the mean U / (n m), over theta (1 - theta)."""
        more = (1 - theta) / (2 - theta) + theta / (1 + theta)
        return sum((1 + ((n + m) / 2 - 1) * more) / (n * m) for n, m in sizes) / len(sizes) ** 2

    def excess(theta: float) -> float:
        variance = theta * (1 - theta) * variance_over_theta_and_rest(theta)
        return (value - theta) ** 2 - z * z * variance

    def excess_over_rest(theta: float) -> float:
        """For the value 1: without the factor 1 - theta, whose zero is no bound."""
        return 1 - theta - z * z * theta * variance_over_theta_and_rest(theta)

    if value == 0:
        return 0.0
    return float(brentq(excess_over_rest if value == 1 else excess, 0, value))


def time_ratio(strata: Strata, confidence: float = 0.95) -> Estimate:
    """By what factor treated runs need another time than controls, where infinity means never.

    The median of all ratios treated / control within strata, and the factors that a rank test (Mann and Whitney's,
    summed over strata) does not refuse: Hodges and Lehmann 1963, for ratios. Of two runs that both never get there,
    neither counts as the faster; the test is exact given how many never do, and cautious where times are equal. From 0
    to infinity where there are too few runs for an interval, as with three against three. NaN where the median lies
    between 0 and infinity, as where no run gets there.
    """
    ratios: list[Floats] = []
    sizes = []
    for x, y in _arrays(strata):
        assert (x > 0).all()
        assert (y > 0).all()
        both = np.isinf(x[:, None]) & np.isinf(y)
        with np.errstate(invalid="ignore"):
            each = x[:, None] / y
        # Every ratio twice, so that what never ends on both sides can be one that is lower and one that is higher.
        ratios += [np.where(both, 0, each).ravel(), np.where(both, np.inf, each).ravel()]
        sizes.append((len(x), len(y), int(np.isinf(x).sum() + np.isinf(y).sum())))
    ordered = np.sort(np.concatenate(ratios))
    few, many = _refused(tuple(sorted(sizes)), confidence)
    low, high = ordered[many - 1] if many else 0.0, ordered[-few] if few else math.inf
    return Estimate(_middle(ordered), float(low), float(high))


def _middle(ordered: Floats) -> float:
    """The median by geometric mean, infinite if the upper of the two middle values is, NaN if the lower is 0 then."""
    low, high = float(ordered[(len(ordered) - 1) // 2]), float(ordered[len(ordered) // 2])
    if math.isinf(high):
        return math.nan if low == 0 else high
    return high if low == high else math.sqrt(low * high)


@cache
def _refused(sizes: tuple[tuple[int, int, int], ...], confidence: float) -> tuple[int, int]:
    """How many values of these strata's summed 2 U, from its least and its largest, have half the level at most."""
    chances = _convolved([_doubled_rank_sums(*each) for each in sizes])
    half = (1 - confidence) / 2 * (1 + 1e-9)  # a chance that is just half the level is refused, in spite of rounding
    few, many = (np.searchsorted(np.cumsum(tail), half, side="right") for tail in (chances, chances[::-1]))
    return int(few), int(many)


def _convolved(parts: list[Floats]) -> Floats:
    """The distribution of a sum of independent counts; of long ones by Fourier's transform, which is quicker."""
    length = sum(map(len, parts)) - len(parts) + 1
    if length < _SHORT:
        return reduce(np.convolve, parts)
    size = 1 << (length - 1).bit_length()
    spectrum = np.prod([np.fft.rfft(part, size) for part in parts], axis=0)
    return np.asarray(np.fft.irfft(spectrum, size)[:length]).clip(0)


@cache
def _doubled_rank_sums(n: int, m: int, never: int) -> Floats:
    """(2 n m + 1,): the distribution of 2 U where so many of the n + m are tied as the largest, the others not."""
    chances = np.zeros(2 * n * m + 1)
    for first in range(max(0, never - m), min(n, never) + 1):
        second = never - first
        chance = math.comb(n, first) * math.comb(m, second) / math.comb(n + m, never)
        lowest = 2 * first * (m - second) + first * second
        others = _rank_sums(n - first, m - second)
        chances[lowest : lowest + 2 * len(others) : 2] += chance * others
    return chances


@cache
def _rank_sums(n: int, m: int) -> Floats:
    """(n m + 1,): the distribution of Mann and Whitney's U without ties."""
    counts = {(0, j): np.ones(1) for j in range(m + 1)} | {(i, 0): np.ones(1) for i in range(n + 1)}
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            # The largest of all is among the n and beats all m others, or is among the m.
            total = np.zeros(i * j + 1)
            total[j:] += counts[i - 1, j] * (i / (i + j))
            total[: i * (j - 1) + 1] += counts[i, j - 1] * (j / (i + j))
            counts[i, j] = total
    return np.asarray(counts[n, m])


def spread_ratio(strata: Strata) -> tuple[float, float]:
    """The standard deviation between treated seeds over that between controls, and Brown and Forsythe's two-sided p.

    Variances are averaged over strata. Of one stratum p is that of Levene's test about medians (Brown and Forsythe
    1974); of several, of their averaged contrast of absolute deviations. No p where a side has less than three values:
    two lie as far from their median, whatever they are.
    """
    arrays = _arrays(strata)
    if any(min(len(x), len(y)) < 2 for x, y in arrays):
        return math.nan, math.nan
    treated, control = (
        math.sqrt(np.mean([_variance(pair[i], _magnitude(pair[i])) for pair in arrays])) for i in (0, 1)
    )
    ratio = treated / control if control else math.nan if treated == 0 else math.inf
    deviations = [tuple(np.abs(z - np.median(z)) for z in side) for side in arrays]
    freedom = sum(len(x) + len(y) - 2 for x, y in arrays)
    within = sum(float(((z - z.mean()) ** 2).sum()) for side in deviations for z in side) / freedom
    error = math.sqrt(within * sum(1 / len(x) + 1 / len(y) for x, y in arrays))
    fewest = min(len(z) for pair in arrays for z in pair)
    if fewest < 3 or error <= _ROUNDING * _magnitude(*(z for pair in arrays for z in pair)):
        return ratio, math.nan
    contrast = sum(float(x.mean() - y.mean()) for x, y in deviations)
    return ratio, 2 * float(stdtr(freedom, -abs(contrast) / error))


def image_intervals(differences: ArrayLike, confidence: float = 0.95, draws: int = 1_000, seed: int = 0) -> Floats:
    """(contrasts, 2): bounds of each mean difference if only the test images were others: their percentile bootstrap.

    differences: (contrasts, images), of each image the fraction of treated runs that get it right less that of
    controls. The seeds are held fixed: this is the part of the uncertainty that no further seed takes away.
    """
    d = np.asarray(differences, dtype=np.float32)
    images = d.shape[1]
    means = _drawn_counts(images, draws, seed) @ d.T / images
    tail = (1 - confidence) / 2
    return np.asarray(np.quantile(means, [tail, 1 - tail], axis=0).T, dtype=float)


@lru_cache(maxsize=1)
def _drawn_counts(images: int, draws: int, seed: int) -> NDArray[np.float32]:
    """(draws, images): how often each image is drawn, of as many as there are."""
    random = np.random.default_rng(seed)
    counts = np.empty((draws, images), dtype=np.float32)
    for row in counts:
        row[:] = np.bincount(random.integers(images, size=images), minlength=images)
    return counts


def _arrays(strata: Strata) -> list[tuple[Floats, Floats]]:
    arrays = [(np.asarray(x, dtype=float), np.asarray(y, dtype=float)) for x, y in strata]
    assert arrays
    assert all(x.ndim == y.ndim == 1 and len(x) and len(y) for x, y in arrays)
    return arrays


def _pairs(strata: Strata) -> list[tuple[Floats, Floats]]:
    arrays = _arrays(strata)
    assert all(len(x) == len(y) for x, y in arrays)
    return arrays


def _variance(values: Floats, magnitude: float) -> float:
    """With n - 1; NaN for one value; 0 where they differ by rounding alone, computed from numbers up to `magnitude`."""
    if len(values) < 2:
        return math.nan
    variance = float(values.var(ddof=1))
    if variance > (_PLAINLY_VARIES * magnitude) ** 2:  # no need to look at the values themselves
        return variance
    return variance if np.ptp(values) > _ROUNDING * magnitude else 0.0


def _magnitude(*arrays: Floats) -> float:
    return max(float(np.abs(array).max()) for array in arrays)
