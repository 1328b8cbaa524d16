"""Statistics against SciPy, brute force, closed forms and published examples."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import simulation
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from icbench.report import stats

some = settings(max_examples=25, deadline=None)
NAN = math.nan
INF = math.inf
Sample = list[float]

VALUES = st.floats(0, 1).map(lambda x: round(x, 6))
SAMPLES = st.lists(VALUES, min_size=2, max_size=12).filter(lambda x: len(set(x)) > 1)
# Of few distinct values, so that ties are the rule.
TIED = st.lists(st.integers(0, 6).map(lambda n: n / 8), min_size=1, max_size=5)


def strata_of(samples: st.SearchStrategy[Sample], most: int = 3) -> st.SearchStrategy[list[tuple[Sample, Sample]]]:
    return st.lists(st.tuples(samples, samples), min_size=1, max_size=most)


PAIRED = st.lists(
    st.integers(2, 6).flatmap(lambda n: st.tuples(*[st.lists(VALUES, min_size=n, max_size=n)] * 2)),
    min_size=1,
    max_size=3,
)


def swapped(strata: list[tuple[Sample, Sample]]) -> list[tuple[Sample, Sample]]:
    return [(y, x) for x, y in strata]


def moved(
    strata: list[tuple[Sample, Sample]], factor: float = 1.0, shift: float = 0.0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """All values times `factor`; treated ones also moved by `shift`."""
    return [(factor * np.array(x) + shift, factor * np.array(y)) for x, y in strata]


# --- Means and their differences


@some
@given(SAMPLES, st.sampled_from([0.9, 0.95, 0.99]))
def test_the_mean_s_interval_is_scipy_s(values: Sample, confidence: float) -> None:
    ours = stats.mean(values, confidence)
    assert ours.value == pytest.approx(np.mean(values))
    assert ours[1:] == pytest.approx(scipy_stats.ttest_1samp(values, 0).confidence_interval(confidence))
    assert ours.half_width == pytest.approx(ours.high - ours.value)


@some
@given(SAMPLES, SAMPLES, st.sampled_from([0.9, 0.95, 0.99]))
def test_welch_s_interval_is_scipy_s(treated: Sample, control: Sample, confidence: float) -> None:
    ours = stats.difference([(treated, control)], confidence)
    test = scipy_stats.ttest_ind(treated, control, equal_var=False)
    assert ours[1:3] == pytest.approx(test.confidence_interval(confidence))
    assert ours.p == pytest.approx(test.pvalue)
    assert ours.estimate == ours[:3]


@some
@given(PAIRED.map(lambda strata: strata[:1]).filter(lambda strata: np.ptp(np.subtract(*strata[0])) > 1e-5))
def test_one_stratum_s_paired_interval_is_scipy_s(strata: list[tuple[Sample, Sample]]) -> None:
    ours = stats.paired_difference(strata)
    test = scipy_stats.ttest_rel(*strata[0])
    assert ours[1:3] == pytest.approx(test.confidence_interval(0.95))
    assert ours.p == pytest.approx(test.pvalue)


@some
@given(strata_of(SAMPLES))
def test_several_strata_s_difference_is_satterthwaite_s(strata: list[tuple[Sample, Sample]]) -> None:
    """Against the textbook's sums over all means, each of weight 1 / number of strata."""
    value, variance, denominator = 0.0, 0.0, 0.0
    for treated, control in strata:
        for sign, side in ((1, treated), (-1, control)):
            value += sign * np.mean(side) / len(strata)
            part = np.std(side, ddof=1) ** 2 / len(side) / len(strata) ** 2
            variance += part
            denominator += part**2 / (len(side) - 1)
    reach = scipy_stats.t.ppf(0.975, variance**2 / denominator) * math.sqrt(variance)
    assert stats.difference(strata)[:3] == pytest.approx((value, value - reach, value + reach))


@some
@given(strata_of(SAMPLES), st.floats(0.01, 100), st.floats(-10, 10), st.randoms())
def test_a_difference_knows_no_order_origin_or_unit(strata, factor, shift, random) -> None:
    before = stats.difference(strata)
    assert stats.difference(moved(strata, factor, shift))[:3] == pytest.approx(
        tuple(factor * v + shift for v in before[:3]), rel=1e-6, abs=1e-6 * factor
    )
    mixed = [(random.sample(x, len(x)), random.sample(y, len(y))) for x, y in random.sample(strata, len(strata))]
    assert stats.difference(mixed) == pytest.approx(before)
    value, low, high, p = stats.difference(swapped(strata))
    assert (-value, -high, -low, p) == pytest.approx(before)


@some
@given(strata_of(SAMPLES))
def test_p_is_below_the_level_where_the_interval_leaves_0_out(strata: list[tuple[Sample, Sample]]) -> None:
    ours = stats.difference(strata)
    assume(abs(ours.p - 0.05) > 1e-9)
    assert (ours.p < 0.05) == (not ours.low <= 0 <= ours.high)


def test_too_few_values_have_no_interval() -> None:
    assert stats.mean([0.5])[0] == 0.5
    assert math.isnan(stats.mean([0.5]).half_width)
    assert stats.mean([0.5, 0.5]).half_width == 0
    for strata in (
        [([0.5], [0.4, 0.3])],
        [([0.5, 0.3], [0.4])],
        [([0.5], [0.4])],
        [([0.5, 0.5], [0.4, 0.4])],
        [([0.5, 0.3], [0.4, 0.3]), ([0.5], [0.4, 0.3])],  # one stratum's doubt is all's
    ):
        value, *others = stats.difference(strata)
        assert value == pytest.approx(np.mean([np.mean(x) - np.mean(y) for x, y in strata]))
        assert np.isnan(others).all()


def test_one_side_that_does_not_vary_leaves_the_other_s_interval() -> None:
    ours = stats.difference([([0.5, 0.7, 0.6], [0.4, 0.4, 0.4])])
    assert ours[1:3] == pytest.approx(tuple(bound - 0.4 for bound in stats.mean([0.5, 0.7, 0.6])[1:]))


def test_what_differs_by_rounding_alone_does_not_vary() -> None:
    assert np.mean([0.1] * 3) != 0.1
    assert stats.mean([0.1] * 3).half_width == 0
    assert np.isnan(stats.difference([([0.1] * 3, [0.7] * 3)])[1:]).all()
    treated, control = [0.9, 0.8, 0.4], [0.8, 0.7, 0.3]
    assert len({x - y for x, y in zip(treated, control, strict=True)}) > 1
    assert np.isnan(stats.paired_difference([(treated, control)])[1:]).all()
    assert np.isnan(stats.seed_correlation([([0.1] * 3, [0.1, 0.2, 0.3])])).all()
    assert np.isnan(stats.interquartile_mean([([0.1] * 3, [0.7] * 3)])[1:]).all()
    assert np.isnan(stats.spread_ratio([([0.1] * 3, [0.7] * 3)])).all()


@some
@given(SAMPLES)
def test_tiny_values_vary_all_the_same(values: Sample) -> None:
    tiny = [value * 1e-30 for value in values]
    assert stats.mean(tiny) == pytest.approx(tuple(1e-30 * v for v in stats.mean(values)), rel=1e-9)


# --- Pairs of seeds


@some
@given(PAIRED)
def test_several_strata_s_paired_difference_is_that_of_their_differences(strata: list[tuple[Sample, Sample]]) -> None:
    """Independent cells of differences to nothing: Satterthwaite's sum again, with controls that do not vary."""
    differences = [(np.subtract(x, y), np.zeros(len(x))) for x, y in strata]
    assert stats.paired_difference(strata) == pytest.approx(stats.difference(differences), nan_ok=True, rel=1e-6)


def test_pairs_need_as_many_on_both_sides() -> None:
    for unequal in ([([1, 2, 3], [1])], [([1, 2, 3], [1, 2]), ([1, 2], [1, 2, 3])]):
        for function in (stats.paired_difference, stats.seed_correlation):
            with pytest.raises(AssertionError):
                function(unequal)


@some
@given(PAIRED)
def test_seed_correlation_is_scipy_s_within_strata(strata: list[tuple[Sample, Sample]]) -> None:
    assume(all(len(set(side)) > 1 for stratum in strata for side in stratum))
    xs, ys = (np.concatenate([np.subtract(s[i], np.mean(s[i])) for s in strata]) for i in (0, 1))
    freedom = len(xs) - len(strata) - 1
    r, p = stats.seed_correlation(strata)
    if freedom < 1:
        assert math.isnan(r)
        assert math.isnan(p)
        return
    expected = scipy_stats.pearsonr(xs, ys).statistic
    assert r == pytest.approx(expected, abs=1e-9)
    assume(abs(r) < 0.999999)
    assert p == pytest.approx(scipy_stats.t.sf(expected * math.sqrt(freedom / (1 - expected**2)), freedom), abs=1e-6)
    if len(strata) == 1:
        assert p == pytest.approx(scipy_stats.pearsonr(*strata[0], alternative="greater").pvalue, abs=1e-6)


def test_seed_correlation_at_its_ends() -> None:
    up = [1.0, 2.0, 3.0]
    assert stats.seed_correlation([(up, up)]) == (1, 0)
    assert stats.seed_correlation([(up, up[::-1])]) == (-1, 1)
    r, p = stats.seed_correlation([([0.1, 0.2, 0.3], [0.11, 0.21, 0.31])])
    assert (r, p) == pytest.approx((1, 0), abs=1e-7)
    assert stats.seed_correlation([([0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0])]) == (0, 0.5)
    for too_little in ([([1], [2])], [([1, 2], [1, 2])], [([1, 1, 1], up)], [([1], [2])] * 5):
        assert np.isnan(stats.seed_correlation(too_little)).all()


def test_strata_s_own_levels_are_no_seed_correlation() -> None:
    """Cells that are good on both sides alike say nothing of seeds."""
    random = np.random.default_rng(0)
    strata = [(level + random.normal(size=5), level + random.normal(size=5)) for level in range(0, 400, 50)]
    r, p = stats.seed_correlation(strata)
    assert abs(r) < 0.6
    assert p > 0.01


# --- Permutations


def naive_permutation_p(strata: list[tuple[Sample, Sample]]) -> float:
    """In exact fractions, over every way to deal out every stratum."""

    def gap(treated: list[Fraction], control: list[Fraction]) -> Fraction:
        return sum(treated) / len(treated) - sum(control) / len(control)

    exact = [tuple([Fraction(v) for v in side] for side in stratum) for stratum in strata]
    dealt = []
    for x, y in exact:
        pooled, gaps = x + y, []
        for chosen in itertools.combinations(range(len(pooled)), len(x)):
            others = [pooled[i] for i in range(len(pooled)) if i not in chosen]
            gaps.append(gap([pooled[i] for i in chosen], others))
        dealt.append(gaps)
    observed = abs(sum(gap(x, y) for x, y in exact))
    totals = [abs(sum(way)) for way in itertools.product(*dealt)]
    return sum(total >= observed for total in totals) / len(totals)


@some
@given(strata_of(TIED.filter(lambda x: len(x) < 4), most=2))
def test_permutation_p_counts_every_way_to_deal(strata: list[tuple[Sample, Sample]]) -> None:
    assert stats.permutation_p(strata) == pytest.approx(naive_permutation_p(strata))


INTEGERS = st.integers(2, 5).flatmap(lambda n: st.tuples(*[st.lists(st.integers(-50, 50), min_size=n, max_size=n)] * 2))


@some
@given(INTEGERS)
def test_one_stratum_s_permutation_p_is_scipy_s(sides: tuple[list[int], list[int]]) -> None:
    """With equal numbers, where SciPy's doubled tail is that of |difference|; of sums, which are exact."""
    test = scipy_stats.permutation_test(
        sides, lambda x, y: np.sum(x) - np.sum(y), n_resamples=np.inf, alternative="two-sided"
    )
    assert stats.permutation_p([sides]) == pytest.approx(test.pvalue)


def test_the_smallest_p_of_few_seeds() -> None:
    def apart(n: int, m: int) -> tuple[Sample, Sample]:
        return [10.0 + i for i in range(n)], [float(i) for i in range(m)]

    assert stats.permutation_p([apart(1, 1)]) == 1
    assert stats.permutation_p([apart(2, 2)]) == pytest.approx(2 / 6)
    assert stats.permutation_p([apart(3, 3)]) == pytest.approx(2 / 20)
    assert stats.permutation_p([apart(3, 3)] * 2) == pytest.approx(2 / 400)
    assert stats.permutation_p([apart(1, 3)]) == pytest.approx(1 / 4)
    assert stats.permutation_p([([0.5] * 3, [0.5] * 3)]) == 1
    assert stats.permutation_p([([0.5] * 9, [0.5] * 9)]) == 1


def test_a_drawn_permutation_p_is_near_the_exact_one_and_always_the_same() -> None:
    random = np.random.default_rng(1)
    treated, control = random.normal(0.8, size=8), random.normal(size=8)  # 12,870 ways
    exact = naive_count(treated, control)
    drawn = stats.permutation_p([(treated, control)])
    assert 0.01 < exact < 0.5
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 9999))
    assert stats.permutation_p([(treated, control)]) == drawn
    assert stats.permutation_p([(treated, control)], seed=1) != drawn
    far = [(treated + 100, control)] * 8
    assert stats.permutation_p(far) == 1 / 10_000


def naive_count(treated: np.ndarray, control: np.ndarray) -> float:
    pooled = np.concatenate([treated, control])
    chosen = np.array(list(itertools.combinations(range(len(pooled)), len(treated))))
    first = pooled[chosen].sum(axis=1)
    gaps = np.abs(first / len(treated) - (pooled.sum() - first) / len(control))
    return float((gaps >= abs(treated.mean() - control.mean()) - 1e-12).mean())


def test_a_permutation_p_knows_no_unit() -> None:
    strata = [([1.0, 2.0, 3.0], [4.0, 5.0, 6.5])]
    for factor in (1e-30, 1e-13, 1, 1e13, 1e30):
        assert stats.permutation_p(moved(strata, factor)) == pytest.approx(0.1)


def test_ways_that_differ_by_rounding_are_as_extreme() -> None:
    treated, control = [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]  # means that are equal, though not in floating point
    assert stats.permutation_p([(treated, control)]) == 1


# --- Holm


def naive_holm(p_values: Sample) -> Sample:
    """By the procedure itself: the least level at which a hypothesis is refused, step by step (Holm 1979)."""
    adjusted, running = dict.fromkeys(range(len(p_values)), NAN), 0.0
    tests = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    for step, (p, i) in enumerate(tests):
        running = max(running, p * (len(tests) - step))
        adjusted[i] = min(running, 1.0)
    return list(adjusted.values())


P_VALUES = st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 1.0, NAN])), max_size=8)


@some
@given(P_VALUES)
def test_holm(p_values: Sample) -> None:
    ours = stats.holm(p_values)
    assert ours == pytest.approx(naive_holm(p_values), nan_ok=True)
    known = ~np.isnan(p_values)
    assert (np.isnan(ours) == ~known).all()
    assert (ours[known] >= np.array(p_values)[known]).all()
    assert (ours[known] <= np.minimum(1, np.array(p_values)[known] * known.sum() + 1e-15)).all()  # Bonferroni's


def test_holm_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # R's p.adjust
    assert stats.holm([0.02, NAN, 0.04]) == pytest.approx([0.04, NAN, 0.04], nan_ok=True)
    assert stats.holm([0.5, 0.5, 0.5]).tolist() == [1, 1, 1]
    assert stats.holm([]).tolist() == []
    assert np.isnan(stats.holm([NAN, NAN])).all()


# --- The interquartile mean


@some
@given(strata_of(SAMPLES))
def test_the_interquartile_mean_is_that_of_the_middle_half(strata: list[tuple[Sample, Sample]]) -> None:
    sides: list[list[float]] = [[], []]
    for stratum in strata:
        middle = sum(sum(side) / len(side) for side in stratum) / 2
        for values, side in zip(sides, stratum, strict=True):
            values += [value - middle for value in side]
    means = []
    for values in sides:
        cut = len(values) // 4
        kept = sorted(values)[cut : len(values) - cut]
        means.append(sum(kept) / len(kept))
    assert stats.interquartile_mean(strata, draws=2).value == pytest.approx(means[0] - means[1], abs=1e-12)


@some
@given(strata_of(SAMPLES), st.floats(0.01, 100), st.floats(-10, 10))
def test_the_interquartile_mean_knows_no_origin_or_unit(strata, factor, shift) -> None:
    before = stats.interquartile_mean(strata, draws=50)
    assert stats.interquartile_mean(moved(strata, factor, shift), draws=50) == pytest.approx(
        tuple(factor * v + shift for v in before), rel=1e-6, abs=1e-6 * factor
    )
    assert stats.interquartile_mean(strata, draws=50) == before  # the same values, the same interval


def test_an_outlier_moves_the_mean_and_not_the_interquartile_mean() -> None:
    fine = [0.90, 0.91, 0.92, 0.93]
    diverged = [0.10, 0.91, 0.92, 0.93]
    controls = [0.90, 0.90, 0.90, 0.91]
    assert stats.interquartile_mean([(diverged, controls)]).value == pytest.approx(
        stats.interquartile_mean([(fine, controls)]).value
    )


def test_a_skew_that_both_sides_share_is_no_difference() -> None:
    """Treated and controls of the same distribution: the mean of 400 values is 0, within four standard errors."""
    random = np.random.default_rng(0)
    values = [stats.interquartile_mean([*-random.exponential(size=(4, 2, 6))], draws=2).value for _ in range(400)]
    assert np.mean(values) == pytest.approx(0, abs=4 * np.std(values) / math.sqrt(400))


def test_the_interquartile_mean_of_effects_without_noise_is_that_of_the_effects() -> None:
    effects = [0.0, 0.01, 0.02, 0.06]
    strata = [([0.5 * i + effect] * 3, [0.5 * i] * 3) for i, effect in enumerate(effects)]
    assert stats.interquartile_mean(strata).value == pytest.approx(0.015)


@some
@given(strata_of(SAMPLES))
def test_swapped_sides_swap_the_interquartile_mean_s_sign(strata: list[tuple[Sample, Sample]]) -> None:
    value = stats.interquartile_mean(strata, draws=2).value
    assert stats.interquartile_mean(swapped(strata), draws=2).value == pytest.approx(-value, abs=1e-12)


def test_three_seeds_interquartile_mean_is_their_mean_with_its_standard_error() -> None:
    """Of less than four values nothing is cut off: the bootstrap's error is the closed form of Student's."""
    treated, control = [0.1, 0.5, 0.6], [0.2, 0.3, 0.1]
    ours = stats.interquartile_mean([(treated, control)], draws=20_000)
    error = math.sqrt(np.var(treated, ddof=1) / 3 + np.var(control, ddof=1) / 3)
    assert ours.half_width == pytest.approx(scipy_stats.t.ppf(0.975, 4) * error, rel=0.03)


def test_too_few_values_have_no_interquartile_interval() -> None:
    for strata in ([([0.5], [0.4, 0.3])], [([0.5, 0.6], [0.4])], [([0.5, 0.5], [0.4, 0.4])]):
        assert np.isnan(stats.interquartile_mean(strata)[1:]).all()


# --- The probability of improvement


@some
@given(TIED, TIED)
def test_the_probability_of_improvement_is_mann_and_whitney_s_u(treated: Sample, control: Sample) -> None:
    u = (
        scipy_stats.mannwhitneyu(treated, control, method="asymptotic").statistic
        if len(set(treated + control)) > 1
        else None
    )
    expected = 0.5 if u is None else u / len(treated) / len(control)
    assert stats.probability_of_improvement([(treated, control)]).value == pytest.approx(expected)


def naive_newcombe(value: float, sizes: list[tuple[int, int]], confidence: float) -> tuple[float, float]:
    """The thetas that lie within z standard errors of the value (Newcombe 2006, method 5), on a fine grid."""
    z = scipy_stats.norm.ppf((1 + confidence) / 2)
    theta = np.linspace(0, 1, 20_001)[1:-1]
    variance = np.zeros_like(theta)
    for n, m in sizes:
        star = (n + m) / 2 - 1
        hanley_mcneil = 1 + star * (1 - theta) / (2 - theta) + star * theta / (1 + theta)
        variance += theta * (1 - theta) * hanley_mcneil / (n * m) / len(sizes) ** 2
    inside = theta[np.abs(value - theta) <= z * np.sqrt(variance)]
    return inside.min(), inside.max()


@some
@given(strata_of(TIED), st.sampled_from([0.9, 0.95, 0.99]))
def test_its_interval_is_newcombe_s(strata: list[tuple[Sample, Sample]], confidence: float) -> None:
    ours = stats.probability_of_improvement(strata, confidence)
    expected = naive_newcombe(ours.value, [(len(x), len(y)) for x, y in strata], confidence)
    assert ours[1:] == pytest.approx(expected, abs=1e-4)


@some
@given(strata_of(TIED))
def test_treated_and_controls_change_places(strata: list[tuple[Sample, Sample]]) -> None:
    value, low, high = stats.probability_of_improvement(strata)
    assert 0 <= low <= value <= high <= 1
    assert stats.probability_of_improvement(swapped(strata)) == pytest.approx((1 - value, 1 - high, 1 - low), abs=1e-9)
    assert stats.probability_of_improvement([(np.exp(x), np.exp(y)) for x, y in strata]) == (value, low, high)


def test_the_probability_of_improvement_where_all_treated_beat_all_controls() -> None:
    """The bound in closed form: with one run on each side, 1 - theta = z^2 theta."""
    z2 = scipy_stats.norm.ppf(0.975) ** 2
    assert stats.probability_of_improvement([([2], [1])]) == pytest.approx((1, 1 / (1 + z2), 1))
    assert stats.probability_of_improvement([([1], [2])]) == pytest.approx((0, 0, z2 / (1 + z2)))
    lows = [stats.probability_of_improvement([(np.arange(n) + n, np.arange(n))]).low for n in (2, 3, 5, 10, 20)]
    assert lows == sorted(lows)
    assert lows[1] == pytest.approx(naive_newcombe(1, [(3, 3)], 0.95)[0], abs=1e-4)
    value, low, high = stats.probability_of_improvement([([1, 1, 1], [1, 1, 1])])
    assert (value, low + high) == pytest.approx((0.5, 1))
    assert low < 0.2


# --- The ratio of times


HOURS = st.lists(st.integers(1, 400).map(float), min_size=2, max_size=7)


def edges(strata: list[tuple[Sample, Sample]]) -> tuple[np.ndarray, np.ndarray]:
    """The distinct finite ratios of the strata, and factors on each side of each."""
    at = np.unique([x / y for treated, control in strata for x in treated for y in control if x < INF > y])
    return at, np.concatenate([at / (1 + 1e-6), at * (1 + 1e-6)])


@some
@given(HOURS, HOURS, st.sampled_from([0.8, 0.9, 0.95]))
def test_the_time_ratio_s_interval_is_what_the_exact_test_does_not_refuse(
    treated: Sample, control: Sample, confidence: float
) -> None:
    """Factor by factor, on each side of each ratio; ratios all differ, so that no times are equal under any factor."""
    assume(len({x / y for x in treated for y in control}) == len(treated) * len(control))
    assume(len(set(treated)) == len(treated) and len(set(control)) == len(control))
    value, low, high = stats.time_ratio([(treated, control)], confidence)
    for factor in edges([(treated, control)])[1]:
        p = scipy_stats.mannwhitneyu(np.divide(treated, factor), control, method="exact").pvalue
        assert (low <= factor <= high) == (p > 1 - confidence + 1e-9), factor
    assert low <= value <= high


def rank_test_p(strata: list[tuple[Sample, Sample]], factor: float) -> float:
    """Two-sided p of the summed U of treated / factor against controls: over every way to deal out ranks."""
    doubled = []
    for treated, control in strata:
        pooled = [x / factor for x in treated] + list(control)
        n, ways = len(treated), []
        for chosen in itertools.combinations(range(len(pooled)), n):
            others = [pooled[i] for i in range(len(pooled)) if i not in chosen]
            ways.append(sum(int(pooled[i] > y) + int(pooled[i] >= y) for i in chosen for y in others))
        doubled.append(ways)
    totals = [sum(way) for way in itertools.product(*doubled)]
    observed = sum(ways[0] for ways in doubled)
    low = sum(total <= observed for total in totals)
    high = sum(total >= observed for total in totals)
    return 2 * min(low, high) / len(totals)


SOME_NEVER = st.lists(st.one_of(st.integers(1, 400).map(float), st.just(INF)), min_size=1, max_size=4)


@some
@given(strata_of(SOME_NEVER, most=2), st.sampled_from([0.7, 0.8, 0.9]))
def test_with_runs_that_never_get_there_it_is_still_exact(
    strata: list[tuple[Sample, Sample]], confidence: float
) -> None:
    assume(math.prod(math.comb(len(x) + len(y), len(x)) for x, y in strata) <= 1000)
    finite = [([v for v in x if v < INF], [v for v in y if v < INF]) for x, y in strata]
    assume(all(len(set(side)) == len(side) for stratum in finite for side in stratum))
    at, beside = edges(strata)
    assume(len(at) == sum(len(x) * len(y) for x, y in finite))
    _, low, high = stats.time_ratio(strata, confidence)
    for factor in [*beside, 1e-9, 1e9]:
        assert (low <= factor <= high) == (rank_test_p(strata, factor) > 1 - confidence + 1e-9), factor


@some
@given(strata_of(TIED.map(lambda x: [v + 0.125 for v in x]), most=2), st.sampled_from([0.7, 0.8, 0.9]))
def test_with_equal_times_it_is_cautious(strata: list[tuple[Sample, Sample]], confidence: float) -> None:
    """It holds every factor that any way to tell equal times apart would let it hold."""
    _, low, high = stats.time_ratio(strata, confidence)
    random = np.random.default_rng(0)
    for _ in range(3):
        told_apart = [tuple(np.multiply(side, np.exp(1e-9 * random.random(len(side)))) for side in s) for s in strata]
        _, its_low, its_high = stats.time_ratio(told_apart, confidence)
        assert low <= its_low * (1 + 1e-8)
        assert high >= its_high * (1 - 1e-8)


def test_many_strata_have_the_distribution_that_few_have() -> None:
    """The summed U of 30 strata: by Fourier's transform as by adding them one by one."""
    parts = [stats._doubled_rank_sums(n, m, never) for n, m, never in [(5, 5, 0), (8, 5, 3), (10, 10, 7)] * 10]
    expected = np.ones(1)
    for part in parts:
        expected = np.convolve(expected, part)
    assert len(expected) > stats._SHORT
    assert stats._convolved(parts) == pytest.approx(expected, rel=0, abs=1e-15)


@some
@given(strata_of(SOME_NEVER), st.floats(0.01, 100))
def test_the_time_ratio_follows_its_times(strata: list[tuple[Sample, Sample]], factor: float) -> None:
    value, low, high = before = stats.time_ratio(strata)
    longer = [(np.multiply(factor, x), y) for x, y in strata]
    assert stats.time_ratio(longer) == pytest.approx(tuple(factor * v for v in before), nan_ok=True, rel=1e-9, abs=0)
    assert math.isnan(value) or low <= value <= high
    upside_down = tuple(INF if v == 0 else 1 / v for v in (value, high, low))
    assert stats.time_ratio(swapped(strata)) == pytest.approx(upside_down, nan_ok=True)


def test_hollander_and_wolfe_s_permeability_constants() -> None:
    """Nonparametric Statistical Methods, section 4: the shift between placentas of two ages, as the log of a ratio."""
    term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
    early = [1.15, 0.88, 0.90, 0.74, 1.21]
    ours = stats.time_ratio([(np.exp(term), np.exp(early))])
    shifts = np.sort(np.subtract.outer(term, early).ravel())
    assert np.log(ours) == pytest.approx([0.305, shifts[8], shifts[50 - 9]])
    assert np.log(ours.low) == pytest.approx(-0.15)
    assert np.log(ours.high) == pytest.approx(0.76)


def test_few_runs_have_no_interval_of_their_ratio() -> None:
    def ratio(n: int, m: int, confidence: float = 0.95, cells: int = 1) -> stats.Estimate:
        return stats.time_ratio([([2.0 + i / 100 for i in range(n)], [1.0] * m)] * cells, confidence)

    for n, m in ((1, 1), (2, 2), (3, 3), (1, 30), (2, 6)):
        assert ratio(n, m)[1:] == (0, INF)
    for n, m in ((4, 4), (3, 5), (2, 8), (1, 39)):
        assert ratio(n, m).low == 2
    assert ratio(3, 3, 0.9)[1:] == (2, 2.02)  # just 90 %: 1 of 20 ways on each side
    assert ratio(3, 3, cells=2).low == 2
    assert ratio(1, 1, cells=8).low == 2


def test_times_of_runs_that_never_get_there() -> None:
    some = [10.0, 20.0, 30.0, 40.0]
    never = [INF] * 4
    value, low, high = stats.time_ratio([(never, never)])
    assert math.isnan(value)
    assert (low, high) == (0, INF)
    assert stats.time_ratio([(never, some)]) == (INF, INF, INF)
    assert stats.time_ratio([(some, never)]) == (0, 0, 0)
    assert stats.time_ratio([(never[:3], some[:3])]) == (INF, 0, INF)
    # A cell where nobody gets there says nothing of the factor, in favour of none.
    known = ([20.0, 25.0, 33.0, 47.0, 61.0], [10.0, 12.0, 17.0, 19.0, 23.0])
    assert stats.time_ratio([known, (never, never)])[1:] == stats.time_ratio([known])[1:]


def test_no_time_is_nothing_or_unknown() -> None:
    for bad in (0.0, -1.0, NAN):
        with pytest.raises(AssertionError):
            stats.time_ratio([([1.0, bad], [1.0, 2.0])])


# --- The spread between seeds


@some
@given(SAMPLES.filter(lambda x: len(x) > 2), SAMPLES.filter(lambda x: len(x) > 2))
def test_the_spread_ratio_s_p_is_brown_and_forsythe_s(treated: Sample, control: Sample) -> None:
    ratio, p = stats.spread_ratio([(treated, control)])
    assert ratio == pytest.approx(np.std(treated, ddof=1) / np.std(control, ddof=1))
    assume(any(len({round(abs(v - np.median(x)), 9) for v in x}) > 1 for x in (treated, control)))
    expected = scipy_stats.levene(treated, control, center="median").pvalue
    assert p == pytest.approx(expected, abs=1e-6)


@some
@given(strata_of(SAMPLES), st.floats(0.01, 100), st.floats(-10, 10))
def test_the_spread_ratio_knows_no_origin_or_unit(strata, factor, shift) -> None:
    before = stats.spread_ratio(strata)
    assert stats.spread_ratio(moved(strata, factor, shift)) == pytest.approx(before, rel=1e-4, abs=1e-6, nan_ok=True)
    there, back = before[0], stats.spread_ratio(swapped(strata))[0]
    assert there * back == pytest.approx(1)


def test_the_spread_ratio_of_several_strata_is_that_of_mean_variances() -> None:
    strata = [([0, 2, 4], [0, 1, 2]), ([5, 6, 7], [0, 0, 3])]
    assert stats.spread_ratio(strata)[0] == pytest.approx(math.sqrt((4 + 1) / (1 + 3)))


def test_known_spreads_are_found() -> None:
    random = np.random.default_rng(0)
    strata = [(random.normal(0.9, 0.03, 10), random.normal(0.9, 0.01, 10)) for _ in range(8)]
    ratio, p = stats.spread_ratio(strata)
    assert ratio == pytest.approx(3, rel=0.3)
    assert p < 1e-6


def test_where_nothing_varies_there_is_no_spread_ratio() -> None:
    same, other = [0.5, 0.5, 0.5], [0.4, 0.5, 0.7]
    assert np.isnan(stats.spread_ratio([(same, same)])).all()
    assert stats.spread_ratio([(same, other)])[0] == 0
    assert stats.spread_ratio([(other, same)])[0] == INF
    assert np.isnan(stats.spread_ratio([([0.5], other)])).all()


def test_two_seeds_have_no_test_of_their_spread() -> None:
    """Both lie as far from their median: what is left is rounding, from which p came out as 0."""
    ratio, p = stats.spread_ratio([([0.1, 0.4], [0.1, 0.2])])
    assert ratio == pytest.approx(3)
    assert math.isnan(p)
    assert math.isnan(stats.spread_ratio([([0.1, 0.4], [0.1, 0.2, 0.5, 0.7])])[1])
    assert math.isnan(stats.spread_ratio([([0.1, 0.1, 0.4, 0.4], [0.1, 0.1, 0.2, 0.2])])[1])


# --- Test images


def test_image_intervals_are_near_the_normal_ones() -> None:
    """Of many images the mean is normal: its standard error in closed form, within what 2,000 draws allow."""
    random = np.random.default_rng(0)
    images = random.choice([-1.0, -0.5, 0.0, 0.5, 1.0], p=[0.02, 0.03, 0.85, 0.06, 0.04], size=(3, 4000))
    ours = stats.image_intervals(images)
    assert ours.shape == (3, 2)
    error = images.std(axis=1) / math.sqrt(images.shape[1])
    expected = images.mean(axis=1)[:, None] + 1.959964 * error[:, None] * [-1, 1]
    assert (np.abs(ours - expected) < 0.2 * error[:, None]).all()


def test_image_intervals_against_scipy_s_bootstrap() -> None:
    images = np.random.default_rng(1).choice([-1.0, 0.0, 1.0], p=[0.05, 0.8, 0.15], size=(2, 60))
    ours = stats.image_intervals(images, 0.9, draws=20_000)
    for row, interval in zip(images, ours, strict=True):
        theirs = scipy_stats.bootstrap(
            (row,), np.mean, confidence_level=0.9, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
        )
        assert interval == pytest.approx(tuple(theirs.confidence_interval), abs=1.01 / 60)  # one image


def test_image_intervals_share_their_draws_and_repeat() -> None:
    images = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], size=(1, 50))
    both = stats.image_intervals(np.concatenate([images, images, -images]))
    assert (both[0] == both[1]).all()
    assert both[2] == pytest.approx(-both[0][::-1], abs=1e-6)
    assert (stats.image_intervals(images) == both[:1]).all()
    assert stats.image_intervals(np.zeros((2, 5))).tolist() == [[0, 0], [0, 0]]
    assert stats.image_intervals(np.empty((0, 5))).shape == (0, 2)


# --- What simulation.py measures at length


@pytest.mark.parametrize(
    ("method", "data", "strata", "seeds", "repetitions", "cautious"),
    [
        ("mean", "normal", 1, 3, 2000, False),
        ("difference", "normal", 1, 3, 2000, True),
        ("difference", "normal, treated SD 3 times", 1, 5, 2000, False),
        ("difference", "normal", 8, 5, 500, False),
        ("paired_difference", "normal, correlation 0.8", 8, 5, 500, False),
        ("interquartile_mean", "normal", 8, 5, 100, True),
        ("interquartile_mean", "skewed", 8, 8, 100, True),
        ("probability_of_improvement", "normal, effect 0 SD", 8, 5, 1000, False),
        ("probability_of_improvement", "normal, effect 3 SD", 8, 3, 1000, True),
        ("time_ratio", "no effect", 8, 5, 1000, False),
        ("time_ratio", "no effect, 30 % never", 8, 8, 1000, False),
        ("time_ratio", "no effect, whole epochs, 30 % never", 1, 5, 1000, True),
        ("permutation_p", "normal", 8, 3, 500, False),
        ("permutation_p", "skewed", 1, 5, 1000, True),
        ("spread_ratio", "normal", 8, 8, 500, True),
        ("paired if shown", "normal, correlation 0", 8, 5, 500, False),
    ],
)
def test_intervals_cover_and_tests_err_as_often_as_they_say(
    method: str, data: str, strata: int, seeds: int, repetitions: int, cautious: bool
) -> None:
    """95 % and 5 %, within four standard errors; cautious ones may cover more, and err less."""
    intervals = [*simulation.means(), *simulation.chances(), *simulation.times()]
    by_name = {
        (case.method, case.data, case.strata, nominal): case
        for cases, nominal in ((intervals, 0.95), (simulation.false_alarms(), 0.05))
        for case in cases
    }
    nominal = 0.95 if (method, data, strata, 0.95) in by_name else 0.05
    rate = by_name[method, data, strata, nominal].rate(seeds, repetitions)
    error = 4 * math.sqrt(0.95 * 0.05 / repetitions)
    lowest, highest = nominal - error, nominal + error
    if cautious:
        lowest, highest = (lowest, 1) if nominal == 0.95 else (0, highest)
    assert lowest <= rate <= highest


def test_intervals_over_test_images_cover() -> None:
    assert simulation.images(2000, 500) == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 500))


@some
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=12))
def test_a_mean_of_equal_weights_is_the_mean(values: list[float]) -> None:
    assume(np.ptp(values) > 1e-3)
    assert stats.weighted_mean(values, np.full(len(values), 0.3)) == pytest.approx(stats.mean(values))


def test_a_weighted_mean_s_interval_covers() -> None:
    """Where weights have nothing to do with what values scatter by, and where they are its precision."""
    random = np.random.default_rng(0)
    deviations = random.uniform(0.5, 2, size=12)
    for weights in (random.uniform(0.5, 2, size=12), deviations**-2):
        found = [stats.weighted_mean(random.normal(1, deviations), weights) for _ in range(2000)]
        assert 0.93 <= np.mean([each.low <= 1 <= each.high for each in found]) <= 0.985
    assert np.isnan(stats.weighted_mean([1], [2]).low)


# --- Rank correlations


@some
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=4, max_size=30))
def test_the_rank_correlation_is_scipy_s(pairs: list[tuple[int, int]]) -> None:
    """With ties; and swapped or turned round it is itself, or minus itself."""
    x, y = np.array(pairs, dtype=float).T
    found = stats.rank_correlation(x, y)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan([*found, stats.rank_correlation_p(x, y)]).all()
        return
    assert found.value == pytest.approx(scipy_stats.spearmanr(x, y).statistic, abs=1e-12)
    assert found.low <= found.value <= found.high
    assert stats.rank_correlation(y, x) == pytest.approx(found)
    assert stats.rank_correlation(x, -y) == pytest.approx((-found.value, -found.high, -found.low))


def test_the_rank_correlation_s_p_is_that_of_all_permutations() -> None:
    x, y = [1, 5, 3, 4, 2, 7, 6], [2.0, 9, 3, 3, 1, 4, 8]
    every = [abs(scipy_stats.spearmanr(x, dealt).statistic) for dealt in itertools.permutations(y)]
    observed = abs(scipy_stats.spearmanr(x, y).statistic)
    assert stats.rank_correlation_p(x, y) == pytest.approx(np.mean(np.array(every) >= observed - 1e-12))


def test_drawn_permutations_of_ranks_are_near_student_s_t() -> None:
    x, y = np.random.default_rng(3).normal(size=(2, 40))
    y += 0.3 * x
    assert stats.rank_correlation_p(x, y) == pytest.approx(scipy_stats.spearmanr(x, y).pvalue, abs=0.01)
    assert stats.rank_correlation_p(x, y) == stats.rank_correlation_p(x, y)


def test_the_rank_correlation_at_its_ends() -> None:
    """By hand: of 5, half a step below 1 is 1 - 6 / 120."""
    low = np.tanh(np.arctanh(0.95) - 1.959964 * np.sqrt((1 + 0.95**2 / 2) / 2))
    assert stats.rank_correlation([1, 2, 3, 4, 5], [0, 1, 4, 9, 16]) == pytest.approx((1, low, 1))
    assert np.isnan(stats.rank_correlation([1, 2, 3], [1, 3, 2])[1:]).all()


@pytest.mark.parametrize(("cells", "correlation"), [(5, 0.0), (7, 0.5), (10, 0.9), (20, 0.5)])
def test_intervals_of_rank_correlations_cover(cells: int, correlation: float) -> None:
    assert 0.93 <= simulation.rank_correlations(cells, correlation, repetitions=1500) <= 0.995


def test_ranks_within_groups() -> None:
    """By hand: in one group the same order, in the other the opposite of one pair; a third has one value."""
    x = [1, 2, 3, 10, 20, 30, 40, 99]
    y = [5, 6, 7, -3, -4, -2, -1, 0]
    labels = ["a", "a", "a", "b", "b", "b", "b", "c"]
    rho = (2 + 4) / (2 + 5)
    found = stats.rank_correlation(x, y, labels)
    reach = 1.959964 * np.sqrt((1 + rho**2 / 2) / (7 - 2 - 2))
    assert found == pytest.approx((rho, np.tanh(np.arctanh(rho) - reach), np.tanh(np.arctanh(rho) + reach)))
    ways = [
        abs(np.dot([-1, 0, 1], first) + np.dot([-1.5, -0.5, 0.5, 1.5], second))
        for first in itertools.permutations([-1, 0, 1])
        for second in itertools.permutations([-1.5, -0.5, 0.5, 1.5])
    ]
    assert stats.rank_correlation_p(x, y, labels) == pytest.approx(np.mean(np.array(ways) >= 6 - 1e-9))
    assert np.isnan(stats.rank_correlation([1, 2], [1, 2], ["a", "b"]).value)
    assert np.isnan(stats.rank_correlation_p([1, 2], [1, 2], ["a", "b"]))


def test_drawn_permutations_within_groups_are_near_the_normal() -> None:
    random = np.random.default_rng(5)
    labels = np.repeat(np.arange(4), 25)
    x, y = random.normal(size=(2, 100)) + 5 * labels
    y += 0.15 * (x - 5 * labels)
    rho = stats.rank_correlation(x, y, labels.tolist()).value
    normal = 2 * scipy_stats.norm.sf(abs(rho) * np.sqrt(100 - 4))  # each group's is 1 / (n - 1)
    assert stats.rank_correlation_p(x, y, labels.tolist()) == pytest.approx(normal, abs=0.01)


@pytest.mark.parametrize(("groups", "cells", "correlation"), [(2, 4, 0.0), (3, 6, 0.5), (4, 9, 0.5)])
def test_intervals_of_ranks_within_groups_cover(groups: int, cells: int, correlation: float) -> None:
    assert 0.93 <= simulation.rank_correlations(cells, correlation, groups, repetitions=1500) <= 0.995
