"""Measures of learning curves against plain loops over one run at a time."""

import math
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from icbench import metrics

some = settings(max_examples=60, deadline=None)
Curves = np.ndarray
NAN = math.nan
INF = math.inf

# Few distinct values, so that ties and runs without any spread come up.
ACCURACIES = st.integers(0, 20).map(lambda n: n / 20)
CURVES = st.tuples(st.integers(1, 4), st.integers(1, 30)).flatmap(
    lambda shape: hnp.arrays(float, shape, elements=ACCURACIES)
)


@st.composite
def curves_that_may_end_early(draw: st.DrawFn) -> Curves:
    curves = draw(CURVES)
    for run in curves:
        run[draw(st.integers(1, len(run))) :] = NAN
    return curves


# --- How soon


def naive_epochs_to(target: float, curve: Curves) -> float:
    for epoch, accuracy in enumerate(curve, start=1):
        if accuracy >= target:
            return epoch
    return INF


@some
@given(curves_that_may_end_early(), st.one_of(ACCURACIES, st.just(NAN)))
def test_epochs_to(curves: Curves, target: float) -> None:
    assert metrics.epochs_to(target, curves).tolist() == [naive_epochs_to(target, run) for run in curves]


def test_epochs_to_a_target() -> None:
    curve = [0.1, 0.5, 0.4, 0.6]
    assert metrics.epochs_to([0, 0.5, 0.55, 0.6, 0.61], [curve] * 5).tolist() == [1, 2, 4, 4, INF]
    assert metrics.epochs_to([0.5, 0.6], curve).tolist() == [2, 4]  # several targets, one run
    assert metrics.epochs_to(0.1, []) == INF
    assert metrics.epochs_to(0.1, [NAN, 0.2]) == 2
    assert metrics.epochs_to(0.5, np.empty((3, 0))).tolist() == [INF] * 3


@some
@given(curves_that_may_end_early(), ACCURACIES, ACCURACIES)
def test_a_higher_target_is_reached_no_sooner(curves: Curves, one: float, other: float) -> None:
    low, high = sorted([one, other])
    assert (metrics.epochs_to(low, curves) <= metrics.epochs_to(high, curves)).all()


def test_seconds_to() -> None:
    seconds = [[1.0, 2.0, 3.0], [10.0, NAN, NAN], [1.0, 1.0, 1.0]]
    assert metrics.seconds_to([2, 1, INF], seconds).tolist() == [3, 10, INF]
    assert metrics.seconds_to(3, seconds[0]) == 6
    assert metrics.seconds_to(INF, seconds[0]) == INF
    assert metrics.seconds_to([INF, INF], np.empty((2, 0))).tolist() == [INF, INF]


@some
@given(CURVES, ACCURACIES)
def test_seconds_of_one_second_an_epoch_are_epochs(curves: Curves, target: float) -> None:
    epochs = metrics.epochs_to(target, curves)
    assert metrics.seconds_to(epochs, np.ones_like(curves)).tolist() == epochs.tolist()


@pytest.mark.parametrize(
    ("rates", "epochs"),
    [
        ([0.1, 0.1, 0.01, 0.001], 2),
        ([0.01, 0.1, 0.1, 0.01], 3),  # a warm-up is no drop
        ([0.1, 0.05, 0.1, 0.1], 1),
        ([0.1, 0.1, 0.1], 3),
        ([0.1, 0.1, NAN, NAN], 2),  # diverged before the drop
        ([0.1, 0.1, 0.01, NAN], 2),
        ([0.1], 1),
        ([], 0),
    ],
)
def test_epochs_before_drop(rates: list[float], epochs: int) -> None:
    assert metrics.epochs_before_drop(rates) == epochs
    assert metrics.epochs_before_drop([rates, rates]).tolist() == [epochs] * 2


def naive_area(curve: Curves) -> float:
    last, total = NAN, 0.0
    for accuracy in curve:
        last = last if math.isnan(accuracy) else accuracy
        total += last
    return total / len(curve)


@some
@given(curves_that_may_end_early())
def test_area(curves: Curves) -> None:
    assert metrics.area(curves) == pytest.approx([naive_area(run) for run in curves])


def test_the_area_of_a_diverged_run_goes_on_at_its_end() -> None:
    assert metrics.area([0.5, 0.1, NAN, NAN]) == pytest.approx(0.2)
    assert metrics.area([[0.5, NAN], [0.25, 0.75]]).tolist() == [0.5, 0.5]


def test_the_area_of_a_run_without_a_first_epoch_is_none() -> None:
    assert np.isnan(metrics.area([[NAN, 0.5], [NAN, NAN]])).all()
    assert np.isnan(metrics.area(np.empty((2, 0)))).all()


# --- How steadily


@some
@given(CURVES)
def test_detrended_deviation_is_that_about_polyfit_s_line(curves: Curves) -> None:
    epochs = curves.shape[1]
    if epochs < 3:
        assert np.isnan(metrics.detrended_deviation(curves)).all()
        return
    expected = []
    for run in curves:
        residuals = run - np.polyval(np.polyfit(range(epochs), run, 1), range(epochs))
        expected.append(math.sqrt(sum(r * r for r in residuals) / (epochs - 2)))
    assert metrics.detrended_deviation(curves) == pytest.approx(expected, abs=1e-12)


@some
@given(CURVES.filter(lambda curves: curves.shape[1] >= 3), st.floats(-1, 1), st.floats(-1, 1))
def test_no_line_changes_the_detrended_deviation(curves: Curves, height: float, slope: float) -> None:
    line = height + slope * np.arange(curves.shape[1])
    assert metrics.detrended_deviation(curves + line) == pytest.approx(metrics.detrended_deviation(curves), abs=1e-9)


def test_detrended_deviation_of_known_noise() -> None:
    """sigma, of noise about a line: of 1,000 runs of 40 epochs, the mean square within four standard errors."""
    noise = np.random.default_rng(0).normal(scale=0.02, size=(1000, 40))
    squares = metrics.detrended_deviation(0.5 + 0.01 * np.arange(40) + noise) ** 2
    assert squares.mean() == pytest.approx(0.02**2, rel=4 * math.sqrt(2 / 38 / 1000))


def naive_drawdown(curve: Curves) -> float:
    return max(curve[i] - curve[j] for i in range(len(curve)) for j in range(i, len(curve)))


@some
@given(CURVES)
def test_maximum_drawdown(curves: Curves) -> None:
    assert metrics.maximum_drawdown(curves) == pytest.approx([naive_drawdown(run) for run in curves])


def test_a_curve_that_rises_has_no_drawdown() -> None:
    assert metrics.maximum_drawdown([0.1, 0.2, 0.2, 0.9]) == 0
    assert metrics.maximum_drawdown([0.9, 0.2, 0.95, 0.5]) == pytest.approx(0.7)
    assert metrics.maximum_drawdown([0.9]) == 0
    assert math.isnan(metrics.maximum_drawdown([]))


def naive_spikes(curve: Curves) -> float:
    about = [median(curve[max(0, i - 4) : i + 5].tolist()) for i in range(len(curve))]
    below = [accuracy - middle for accuracy, middle in zip(curve.tolist(), about, strict=True)]
    mad = median(abs(d) for d in below)
    return sum(d < -3 * mad for d in below) / len(below)


@some
@given(CURVES)
def test_spike_fraction(curves: Curves) -> None:
    ours = metrics.spike_fraction(curves)
    if curves.shape[1] < 9:
        assert np.isnan(ours).all()
    else:
        assert ours == pytest.approx([naive_spikes(run) for run in curves])


@pytest.mark.parametrize("where", [0, 1, 20, 38, 39])
def test_a_spike_is_counted_wherever_it_is(where: int) -> None:
    curve = 0.5 + 0.001 * np.sin(2.4 * np.arange(40))
    assert metrics.spike_fraction(curve) == 0
    curve[where] = 0.3
    assert metrics.spike_fraction(curve) == 1 / 40


def test_a_spike_upwards_is_none_and_a_flat_curve_has_none() -> None:
    assert metrics.spike_fraction([0.5] * 40) == 0
    assert metrics.spike_fraction([0.5] * 20 + [0.9] + [0.5] * 19) == 0
    assert metrics.spike_fraction([0.5] * 20 + [0.499] + [0.5] * 19) == 1 / 40  # where nothing else varies, any fall


def test_the_spikes_of_normal_noise() -> None:
    """Some 4.5 %, as the docstring says."""
    noise = np.random.default_rng(0).normal(size=(2000, 40))
    assert metrics.spike_fraction(noise).mean() == pytest.approx(0.045, abs=0.005)


@some
@given(CURVES.filter(lambda curves: curves.shape[1] >= 9))
def test_a_diverged_run_has_no_figure_of_stability_and_the_others_keep_theirs(curves: Curves) -> None:
    ended = curves.copy()
    ended[0, -1] = NAN
    for measure in (metrics.detrended_deviation, metrics.maximum_drawdown, metrics.spike_fraction):
        values = measure(ended)
        assert math.isnan(values[0])
        assert values[1:].tolist() == measure(curves)[1:].tolist()


def test_any_leading_axes() -> None:
    curves = np.random.default_rng(0).random((2, 3, 12))
    for measure in (
        metrics.area,
        metrics.detrended_deviation,
        metrics.maximum_drawdown,
        metrics.spike_fraction,
        metrics.epochs_before_drop,
        lambda y: metrics.epochs_to(0.8, y),
        lambda y: metrics.seconds_to(np.full(y.shape[:-1], 4), y),
    ):
        together = measure(curves)
        assert together.shape == (2, 3)
        assert together.tolist() == [[measure(run) for run in row] for row in curves]
        assert np.ndim(measure(curves[0, 0])) == 0


# --- Compared


TIMES = st.tuples(st.integers(1, 4), st.integers(1, 5)).flatmap(
    lambda shape: hnp.arrays(float, shape, elements=st.one_of(st.integers(1, 9).map(float), st.just(INF)))
)


def naive_profile(times: Curves, contestant: int, ratio: float) -> float:
    done = 0
    for workload in range(times.shape[1]):
        fastest, own = min(times[:, workload]), times[contestant, workload]
        done += own < INF and own / fastest <= ratio
    return done / times.shape[1]


@some
@given(TIMES, st.lists(st.sampled_from([1, 1.5, 2, 3, 4, 9]), min_size=1, max_size=4))
def test_performance_profile(times: Curves, ratios: list[float]) -> None:
    expected = [[naive_profile(times, c, ratio) for ratio in ratios] for c in range(len(times))]
    assert metrics.performance_profile(times, ratios).tolist() == expected


@some
@given(TIMES)
def test_profile_score_is_the_area_under_the_profile(times: Curves) -> None:
    """By the midpoint rule on a fine grid, wrong by at most half a step for each workload."""
    steps = 3000
    grid = 1 + 3 * (np.arange(steps) + 0.5) / steps
    area = metrics.performance_profile(times, grid).mean(axis=1)
    assert metrics.profile_score(times) == pytest.approx(area, abs=1 / steps)


@some
@given(TIMES, st.floats(0.1, 10))
def test_profiles_know_no_unit(times: Curves, unit: float) -> None:
    assert metrics.profile_score(times * unit) == pytest.approx(metrics.profile_score(times))


def test_profiles_by_hand() -> None:
    times = [[1, 2, INF, INF], [2, 1, 5, INF]]
    assert metrics.performance_profile(times, [1, 2]).tolist() == [[0.25, 0.5], [0.5, 0.75]]
    assert metrics.profile_score(times) == pytest.approx([(1 + 2 / 3) / 4, (1 + 1 + 2 / 3) / 4])
    assert metrics.profile_score([[INF], [INF]]).tolist() == [0, 0]
    assert metrics.profile_score([[1, 1], [4, 5]]).tolist() == [1, 0]  # from four times the fastest's on, nothing


@pytest.mark.parametrize("times", [[[0, 1], [1, 1]], [[NAN, 1]], np.empty((2, 0)), [1, 2]])
def test_no_profile_of_what_are_no_times(times: list[list[float]]) -> None:
    with pytest.raises(AssertionError):
        metrics.profile_score(times)
