"""The closed forms against exact enumeration, and the estimators against what they estimate."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import entropy, norm
from sklearn.metrics import mutual_info_score

from icbench import theory
from icbench.theory import Joint, gated

Floats = NDArray[np.float64]


@st.composite
def joints(draw: st.DrawFn, zeros: bool) -> Joint:
    """Of two variables with up to 5 values each; zeros: each can be 0, else neither."""
    support = st.lists(st.integers(-6, 6).filter(bool), min_size=2, max_size=4, unique=True)
    values = [[*draw(support), *([0] if zeros else [])] for _ in range(2)]
    shape = tuple(map(len, values))
    size = shape[0] * shape[1]
    weights = np.array(draw(st.lists(st.integers(1, 50), min_size=size, max_size=size)), dtype=float)
    # Offsets on a grid of sixteenths: means are anywhere, values stay apart and no value becomes 0.
    offset = 0 if zeros else draw(st.integers(0, 15)) / 16
    return Joint.of([np.array(axis) + offset for axis in values], (weights / weights.sum()).reshape(shape))


keeps = st.floats(0.05, 1)
flags = st.booleans()
few = settings(max_examples=60, deadline=None)


def moment(joint: Joint, variable: int) -> float:
    """The mean over the standard deviation."""
    return joint.expectation(variable) / joint.variance(variable) ** 0.5


@few
@given(joints(zeros=False), keeps, flags)
def test_without_zeros_information_and_entropy_are_the_papers(joint: Joint, keep: float, inverted: bool) -> None:
    after = gated(joint, keep, inverted=inverted)
    information = theory.gated_mutual_information(joint.mutual_information(), keep)
    assert after.mutual_information() == pytest.approx(information, abs=1e-12)
    for variable in (0, 1):
        predicted = theory.gated_entropy(joint.marginal(variable).entropy(), keep)
        assert after.marginal(variable).entropy() == pytest.approx(predicted, abs=1e-12)


@few
@given(joints(zeros=True), keeps)
def test_with_zeros_the_entropy_is_exact_and_the_information_is_bounded(joint: Joint, keep: float) -> None:
    after = gated(joint, keep)
    for variable in (0, 1):
        before = joint.marginal(variable)
        predicted = theory.gated_entropy(before.entropy(), keep, joint.zero_share(variable))
        assert after.marginal(variable).entropy() == pytest.approx(predicted, abs=1e-12)
        assert after.zero_share(variable) == pytest.approx(1 - keep + keep * before.zero_share(), abs=1e-12)
    bound = theory.gated_mutual_information(joint.mutual_information(), keep)
    assert after.mutual_information() <= bound + 1e-12


@few
@given(joints(zeros=True), st.floats(0.1, 0.9))
def test_with_zeros_the_equality_fails(joint: Joint, keep: float) -> None:
    """Wherever one variable says something of whether the other is 0."""
    together = joint.probabilities - np.outer(joint.marginal(0).probabilities, joint.marginal(1).probabilities)
    # The zero is each variable's last value.
    assume(max(abs(together[-1]).max(), abs(together[:, -1]).max()) > 0.01)
    bound = theory.gated_mutual_information(joint.mutual_information(), keep)
    assert gated(joint, keep).mutual_information() < bound - 1e-7


@pytest.mark.parametrize(("keep", "lost"), [(0.95, 0.19), (0.5, 0.7)])
def test_of_a_coin_seen_twice_most_is_lost(keep: float, lost: float) -> None:
    """y = x, a coin of 0 and 1: what a zero hides of its gate is much of what there is to know."""
    joint = Joint.of([[0, 1], [0, 1]], [[0.5, 0], [0, 0.5]])
    assert gated(joint, keep).mutual_information() < (1 - lost) * keep**2 * joint.mutual_information()


@few
@given(joints(zeros=False), keeps, flags)
def test_a_shared_gate_adds_its_own_entropy(joint: Joint, keep: float, inverted: bool) -> None:
    after = gated(joint, keep, shared=True, inverted=inverted)
    predicted = theory.gated_mutual_information(joint.mutual_information(), keep, shared=True)
    assert after.mutual_information() == pytest.approx(predicted, abs=1e-12)


@few
@given(joints(zeros=True), keeps)
def test_with_zeros_a_shared_gate_adds_at_most_that(joint: Joint, keep: float) -> None:
    bound = theory.gated_mutual_information(joint.mutual_information(), keep, shared=True)
    assert gated(joint, keep, shared=True).mutual_information() <= bound + 1e-12


def test_a_shared_gate_makes_independent_variables_dependent() -> None:
    joint = Joint.of([[-1, 1], [-1, 1]], [[0.25, 0.25], [0.25, 0.25]])
    assert gated(joint, 0.5, shared=True).mutual_information() == pytest.approx(math.log(2))


@few
@given(flags.flatmap(lambda zeros: joints(zeros)), keeps, flags, flags)
def test_correlation_and_expectation(joint: Joint, keep: float, shared: bool, inverted: bool) -> None:
    after = gated(joint, keep, shared=shared, inverted=inverted)
    predicted = theory.gated_correlation(joint.correlation(), keep, moment(joint, 0), moment(joint, 1), shared=shared)
    assert after.correlation() == pytest.approx(predicted, abs=1e-12)
    for variable in (0, 1):
        expectation = theory.gated_expectation(joint.expectation(variable), keep, inverted=inverted)
        assert after.expectation(variable) == pytest.approx(expectation, abs=1e-12)


@few
@given(joints(zeros=False), keeps)
def test_of_zero_means_correlation_is_scaled_by_p(joint: Joint, keep: float) -> None:
    values = [joint.values[variable] - joint.expectation(variable) for variable in (0, 1)]
    centred = Joint.of(values, joint.probabilities)
    assert gated(centred, keep).correlation() == pytest.approx(keep * joint.correlation(), abs=1e-12)
    assert gated(centred, keep, shared=True).correlation() == pytest.approx(joint.correlation(), abs=1e-12)


@few
@given(st.integers(2, 5), st.integers(0, 2**31), st.floats(0.05, 0.99))
def test_the_correlation_matrix_and_its_condition_number(size: int, seed: int, keep: float) -> None:
    rng = np.random.default_rng(seed)
    # Of one variable less than there are columns half of the time: the matrix is then singular.
    matrix = np.corrcoef(rng.standard_normal((size, size + 3 * int(rng.integers(2)))))
    after = theory.gated_correlation_matrix(matrix, keep)
    assert np.diag(after) == pytest.approx(np.ones(size))
    low, high = np.linalg.eigvalsh(matrix)[[0, -1]]
    number = theory.gated_condition_number(low, high, keep)
    assert np.linalg.cond(after) == pytest.approx(float(number), rel=1e-9)
    assert number <= theory.condition_number_bound(high, keep) * (1 + 1e-12)


def test_the_correlation_matrix_of_three_gated_variables() -> None:
    """Element by element, by enumeration."""
    rng = np.random.default_rng(0)
    weights = rng.random((3, 2, 4))
    joint = Joint.of([[-1, 0.5, 2], [-2, 1], [-1, 3, 4, 7]], weights / weights.sum())
    centred = Joint.of([joint.values[k] - joint.expectation(k) for k in range(3)], joint.probabilities)
    after = gated(centred, 0.7)
    pairs = [(0, 1), (0, 2), (1, 2)]
    before, behind = np.eye(3), np.eye(3)
    for i, j in pairs:
        before[i, j] = before[j, i] = centred.correlation(i, j)
        behind[i, j] = behind[j, i] = after.correlation(i, j)
    assert theory.gated_correlation_matrix(before, 0.7) == pytest.approx(behind, abs=1e-12)


@few
@given(joints(zeros=True))
def test_a_gate_that_is_always_open_changes_nothing(joint: Joint) -> None:
    after = gated(joint, 1.0, shared=True)
    assert after.mutual_information() == pytest.approx(joint.mutual_information(), abs=1e-12)
    assert float(theory.gated_entropy(joint.entropy(), 1.0)) == pytest.approx(joint.entropy())


@few
@given(joints(zeros=True))
def test_entropies_are_those_of_scipy(joint: Joint) -> None:
    assert joint.entropy() == pytest.approx(entropy(joint.probabilities.ravel()), abs=1e-12)
    product = np.outer(joint.marginal(0).probabilities, joint.marginal(1).probabilities)
    divergence = entropy(joint.probabilities.ravel(), product.ravel())
    assert joint.mutual_information() == pytest.approx(divergence, abs=1e-12)


@pytest.mark.parametrize(
    ("values", "probabilities", "says"),
    [
        ([[1, 2], [1, 2]], [[1.0]], "shape"),
        ([[1, 1]], [0.5, 0.5], "twice"),
        ([[1, 2]], [0.5, 0.6], "sum to 1"),
    ],
)
def test_what_is_no_distribution_is_refused(values: list[list[float]], probabilities: list[float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Joint.of(values, probabilities)


def test_a_variable_with_itself_is_refused() -> None:
    joint = Joint.of([[0, 1], [0, 1]], [[0.4, 0.1], [0.1, 0.4]])
    for of_two in (joint.correlation, joint.mutual_information, joint.marginal):
        with pytest.raises(ValueError, match="variable 1 with itself"):
            of_two(1, 1)


def test_a_keep_probability_is_no_percentage() -> None:
    with pytest.raises(ValueError, match="95"):
        gated(Joint.of([[1]], [1]), 95)


def test_codes_are_zeros_atoms_and_bins_of_equal_frequency() -> None:
    rng = np.random.default_rng(0)
    x = rng.permutation(np.concatenate([np.zeros(500), np.full(250, -0.3), rng.standard_normal(750)]))[:, None]
    counts = np.bincount(theory.codes(x, 16)[:, 0])
    assert counts[:2].tolist() == [500, 250]
    # Half of the samples are in half of the 16 bins.
    assert len(counts) - 2 == 8
    assert set(counts[2:]) == {93, 94}


def test_equal_values_lie_in_one_bin() -> None:
    x = np.round(np.random.default_rng(0).standard_normal((1000, 1)), 1)
    binned = theory.codes(x, 16)
    assert all(len(np.unique(binned[x == value])) == 1 for value in np.unique(x))
    assert len(np.unique(binned)) > 10


def test_bins_keep_the_order_whatever_the_scale() -> None:
    x = np.random.default_rng(0).standard_normal((300, 4))
    binned = theory.codes(x)
    assert (binned == theory.codes(3 * x)).all()
    for column in range(4):
        assert (np.diff(binned[np.argsort(x[:, column]), column]) >= 0).all()


def test_behind_gates_there_can_be_as_many_bins_as_before() -> None:
    """13 / 2 is 6 or 7, by how many of the gates happen to be open."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1000, 50))
    gated = x * (rng.random(x.shape) < 0.5)
    before = theory.codes(x, 13 / 2)
    assert len(set(theory.codes(gated, 13).max(axis=0))) == 2
    assert (theory.codes(gated, 13, like=before).max(axis=0) == before.max(axis=0)).all()


def test_a_constant_has_no_entropy_and_tells_nothing() -> None:
    x = np.random.default_rng(0).standard_normal((500, 3))
    x[:, 1], x[:, 2] = 0, 5
    binned = theory.codes(x)
    assert theory.estimate_entropy(binned).value[1:].tolist() == [0, 0]
    information = theory.estimate_mutual_information(binned, [(0, 1), (1, 2)])
    assert information.value == pytest.approx(np.zeros(2))
    assert np.isnan(theory.estimate_correlation(x, [(0, 1)]).value).all()


def test_constants_that_batch_norm_makes_of_zeros_do_not_tell_the_batches_apart() -> None:
    """Independent ReLU outputs, normalised batch by batch: pooled bins find 0.3 nats."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(16), 128)
    x = np.maximum(rng.standard_normal((2048, 40)), 0)
    for group in range(16):
        batch = x[groups == group]
        x[groups == group] = (batch - batch.mean(axis=0)) / batch.std(axis=0)
    pairs = np.arange(40).reshape(-1, 2)
    assert theory.estimate_mutual_information(theory.codes(x), pairs).mean().value > 0.3
    aware = theory.estimate_mutual_information(theory.codes(x, 16, groups), pairs).mean()
    assert abs(aware.value) < 4 * aware.standard_error < 0.02


def test_the_plain_estimates_are_those_of_sklearn_and_scipy() -> None:
    """But for the correction of their bias, (K - 1) / 2 N for each entropy."""
    rng = np.random.default_rng(0)
    binned = rng.integers(0, 5, (400, 3))
    binned[:, 1] = (binned[:, 0] + (rng.random(400) < 0.3)) % 5
    pairs = [(0, 1), (2, 0)]
    information = theory.estimate_mutual_information(binned, pairs).value
    for found, (i, j) in zip(information, pairs, strict=True):
        cells = len(np.unique(binned[:, [i, j]], axis=0))
        correction = (5 + 5 - cells - 1) / 800
        assert found == pytest.approx(mutual_info_score(binned[:, i], binned[:, j]) + correction, abs=1e-12)
    plain = [entropy(np.bincount(column)) for column in binned.T]
    assert theory.estimate_entropy(binned).value == pytest.approx(np.array(plain) + 4 / 800, abs=1e-12)


def gaussians(correlation: float, count: int, pairs: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    """(count, 2 pairs) standard normal, of which each of the pairs has that correlation; and their columns."""
    rng = np.random.default_rng(seed)
    x, noise = rng.standard_normal((2, count, pairs))
    y = correlation * x + (1 - correlation**2) ** 0.5 * noise
    return np.concatenate([x, y], axis=1), np.stack([np.arange(pairs), np.arange(pairs) + pairs], axis=1)


def binned_information(correlation: float, bins: int) -> float:
    """That of two standard normals in bins of equal probability, integrated over 1,000 points a bin."""
    edges = norm.ppf(np.linspace(0, 1, bins + 1))
    x = norm.ppf((np.arange(1000 * bins) + 0.5) / (1000 * bins))
    below = norm.cdf((edges - correlation * x[:, None]) / (1 - correlation**2) ** 0.5)
    joint = np.diff(below, axis=1).reshape(bins, 1000, bins).mean(axis=1) / bins
    return float(entropy(joint.ravel(), np.outer(joint.sum(axis=1), joint.sum(axis=0)).ravel()))


def test_binning_loses_little() -> None:
    true = -0.5 * math.log(1 - 0.5**2)
    assert binned_information(0.5, 16) == pytest.approx(0.95 * true, rel=0.01)
    assert binned_information(0.5, 8) == pytest.approx(0.89 * true, rel=0.01)


@pytest.mark.parametrize(("correlation", "count"), [(0.0, 2000), (0.3, 2000), (0.5, 2000), (0.5, 10000)])
def test_bias_and_error_of_the_information(correlation: float, count: int) -> None:
    """docs/theory.md has the table; here 200 or 60 draws: their deviation is known within 5 % or 9 %."""
    x, pairs = gaussians(correlation, count, 200 if count == 2000 else 60, seed=1)
    found = theory.estimate_mutual_information(theory.codes(x), pairs)
    bias = found.value.mean() - binned_information(correlation, 16)
    deviation = found.value.std(ddof=1)
    assert abs(bias) < 0.5 * deviation
    assert 0.75 < found.standard_error.mean() / deviation < 1.25


@pytest.mark.parametrize("keep", [0.95, 0.5])
def test_bias_and_error_of_the_factor_by_which_gates_scale_the_information(keep: float) -> None:
    x, pairs = gaussians(0.5, 4000, 100, seed=2)
    opened = np.random.default_rng(3).random(x.shape) < keep
    before = theory.estimate_mutual_information(theory.codes(x, 16 * keep), pairs)
    binned = theory.codes(x * opened, like=theory.codes(x, 16 * keep))
    for after in (
        theory.estimate_mutual_information(binned, pairs),
        theory.estimate_mutual_information(binned, pairs, opened),
    ):
        factor = after.over(before)
        deviation = factor.value.std(ddof=1)
        assert abs(factor.value.mean() - keep**2) < 0.5 * deviation
        assert 0.75 < factor.standard_error.mean() / deviation < 1.25
        pooled = after.mean().over(before.mean())
        assert abs(pooled.value - keep**2) < 4 * pooled.standard_error
        assert pooled.standard_error == pytest.approx(deviation / 100**0.5, rel=0.3)


def test_the_share_of_open_gates_is_in_the_error() -> None:
    """Of y = x with equally frequent values the density is a constant, so that it is the only error."""
    binned = np.tile(np.arange(4), 1000)[:, None]
    opened = np.random.default_rng(0).random((4000, 1)) < 0.7
    found = theory.estimate_mutual_information(binned, [(0, 0)], opened)
    share = opened.mean()
    assert found.value == pytest.approx(share * math.log(4), rel=1e-3)
    assert found.standard_error == pytest.approx(math.log(4) * (share * (1 - share) / 4000) ** 0.5, rel=0.02)


def test_with_zeros_only_who_sees_the_gates_finds_p_squared() -> None:
    """ReLU outputs of correlated variables, a half of them 0."""
    x, pairs = gaussians(0.8, 20000, 20, seed=4)
    x = np.maximum(x, 0)
    opened = np.random.default_rng(5).random(x.shape) < 0.5
    before = theory.estimate_mutual_information(theory.codes(x, 8), pairs).mean()
    binned = theory.codes(x * opened)
    blind = theory.estimate_mutual_information(binned, pairs).mean().over(before)
    aware = theory.estimate_mutual_information(binned, pairs, opened).mean().over(before)
    assert blind.value + 10 * blind.standard_error < 0.25
    assert abs(aware.value - 0.25) < 4 * aware.standard_error < 0.05


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_error_of_the_correlation(correlation: float) -> None:
    x, pairs = gaussians(correlation, 1000, 400, seed=6)
    found = theory.estimate_correlation(x, pairs)
    assert found.value == pytest.approx([np.corrcoef(x[:, i], x[:, j])[0, 1] for i, j in pairs], abs=1e-12)
    assert found.standard_error.mean() == pytest.approx(found.value.std(ddof=1), rel=0.15)
    assert found.standard_error.mean() == pytest.approx((1 - correlation**2) / 1000**0.5, rel=0.1)


def test_the_root_mean_square_has_no_floor_of_noise() -> None:
    """Plain, it would be 0.105 of a true 0.1 and 0.032 of a true 0."""
    found = theory.root_mean_square(theory.estimate_correlation(*gaussians(0.1, 1000, 400, seed=7)))
    assert abs(found.value - 0.1) < 3 * found.standard_error < 0.01
    nothing = theory.root_mean_square(theory.estimate_correlation(*gaussians(0.0, 1000, 400, seed=8)))
    assert not nothing.value > 0.015


def test_error_of_entropy_and_expectation() -> None:
    rng = np.random.default_rng(9)
    binned = (rng.random((500, 400, 1)) > np.cumsum([0.5, 0.2, 0.2])).sum(axis=2)
    found = theory.estimate_entropy(binned)
    assert abs(found.value.mean() - entropy([0.5, 0.2, 0.2, 0.1])) < 0.2 * found.value.std()
    assert found.standard_error.mean() == pytest.approx(found.value.std(), rel=0.15)
    expectation = theory.estimate_mean(binned)
    assert expectation.value == pytest.approx(binned.mean(axis=0))
    assert expectation.standard_error == pytest.approx(binned.std(axis=0) / 500**0.5)
