"""The curve through a search's trials, against scikit-learn, SciPy, and searches whose truth is known."""

import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from search_simulation import LOOKED_AT, TRUTHS
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from icbench.report.searches.fit import Process, Theta, matern, walk
from icbench.report.searches.rates import functions, most_lost, optimum

BY_NAME = {truth.name: truth for truth in TRUTHS}


@pytest.mark.parametrize("dimensions", [1, 3])
def test_the_process_is_scikit_learn_s(dimensions: int) -> None:
    random = np.random.default_rng(dimensions)
    x, y, at = random.random((12, dimensions)), random.normal(size=(12, 1)), random.random((7, dimensions))
    theta = Theta(0.3, np.log(random.uniform(0.2, 2, dimensions)), -1.2, -3.0)
    noise = math.exp(-1.2) + math.exp(-3.0)
    kernel = ConstantKernel(math.exp(0.3)) * Matern(np.exp(theta.lengths), nu=2.5) + WhiteKernel(noise)
    theirs = GaussianProcessRegressor(kernel, optimizer=None, alpha=1e-8).fit(x, y[:, 0])
    process = Process.of(x, y)
    constant = 12 / 2 * math.log(2 * math.pi)
    assert process.likelihood(theta) - constant == pytest.approx(theirs.log_marginal_likelihood_value_, abs=1e-9)
    mean, covariance = theirs.predict(at, return_cov=True)
    ours, known = process.posterior(theta, at)
    np.testing.assert_allclose(ours, mean, atol=1e-10)
    np.testing.assert_allclose(known, covariance - noise * np.eye(7), atol=1e-10)


def test_seeds_that_shift_their_values_are_taken_into_account() -> None:
    """The likelihood is that of all single values at once, where nothing is known of the seeds' shifts."""
    random = np.random.default_rng(0)
    n, seeds, vague = 6, 3, 1e4
    x, y = random.random((n, 1)), random.normal(size=(n, seeds))
    process = Process.of(x, y)

    def of_all(theta: Theta) -> float:
        shared = matern(x, x, theta) + math.exp(theta.rough) * np.eye(n)
        shift = vague * (np.eye(seeds) - 1 / seeds)
        # Of a mean, the noise of the seeds over their number.
        single = seeds * math.exp(theta.noise) * np.eye(n * seeds)
        covariance = np.kron(shared, np.ones((seeds, seeds))) + np.kron(np.ones((n, n)), shift) + single
        return float(multivariate_normal.logpdf(y.ravel(), cov=covariance))

    thetas = [Theta(0.2, np.array([-0.5]), -1.0, -4.0), Theta(-1.0, np.array([0.4]), 0.5, -2.0)]
    ours, theirs = ([of(theta) for theta in thetas] for of in (process.likelihood, of_all))
    assert ours[0] - ours[1] == pytest.approx(theirs[0] - theirs[1], abs=1e-3)


def test_the_walk_draws_from_the_posterior() -> None:
    """Of a normal likelihood it is known: N(1, 1/4) seen beside N(0, 1) makes N(0.8, 1/5)."""
    random = np.random.default_rng(0)
    drawn = np.concatenate([list(walk(lambda z: -2 * float((z[0] - 1) ** 2), 2, random)) for _ in range(30)])
    error = 4 / math.sqrt(len(drawn) / 3)  # neighbours are somewhat alike
    np.testing.assert_allclose(drawn.mean(axis=0), [0.8, 0], atol=error)
    np.testing.assert_allclose(drawn.var(axis=0), [0.2, 1], atol=2 * error)


@pytest.mark.parametrize("name", ["parabola, best at 0.12", "line that falls from 0"])
def test_the_best_rate_is_covered(name: str) -> None:
    truth = BY_NAME[name]
    every = [truth.search(10, 2, number) for number in range(12)]
    assert sum(truth.is_covered(each) for each in every) >= 11
    widths = [each.best.high - each.best.low for each in every]
    assert np.mean(widths) < 0.25  # and not by taking in everything
    assert not any(each.alike.all() for each in every)


def test_a_constant_is_flat() -> None:
    every = [BY_NAME["constant"].search(10, 2, number) for number in range(12)]
    assert sum(bool(each.alike.all()) for each in every) >= 11


def test_the_same_values_give_the_same_curve() -> None:
    x, y = np.linspace(0, 1, 8)[:, None], np.sin(np.arange(16)).reshape(8, 2)
    one, other = (functions(x, y, x) for _ in range(2))
    assert np.array_equal(one, other)


def test_values_far_below_do_not_decide() -> None:
    """Two runs of eleven diverged at high rates: the curve is as sharp as without them, and low there."""
    x = np.linspace(0, 1, 11)[:, None]
    y = 0.95 - 0.1 * (x - 0.3) ** 2 + 0.001 * np.random.default_rng(0).normal(size=(11, 1))
    fallen = np.where(x > 0.85, 0.0, y)
    looked_at = LOOKED_AT[:, None] / 0.5
    curve = functions(x, fallen, looked_at).mean(axis=0)
    assert abs(curve[15] - 0.95) < 0.01
    assert curve[-1] < curve[15] - 0.05
    best, alike = optimum(functions(x, fallen, looked_at), LOOKED_AT)
    assert best.high < 0.4
    assert not alike[-1]


def test_equal_values_are_flat() -> None:
    x = np.linspace(0, 1, 6)[:, None]
    best, alike = optimum(functions(x, np.full((6, 2), 0.9), LOOKED_AT[:, None] / 0.5), LOOKED_AT)
    assert alike.all()
    assert (best.low, best.high) == (0, 0.5)


def test_how_flat_an_optimum_is_at_least() -> None:
    """Few noisy values do not tell places apart, and leave room for much; many good ones leave little."""
    drawn = np.array([[0.0, 1, 0.5], [0, 1, 0.9], [0, 1, 1.1], [0, 1, 0.4]]).repeat(100, axis=0)
    assert most_lost(drawn, np.array([False, True, True])) == 0.6
    assert most_lost(np.full((1, 3), 0.9), np.full(3, True)) == 0

    def lost(trials: int, spread: float) -> float:
        x = np.linspace(0, 1, trials)[:, None]
        y = 0.9 + spread * np.random.default_rng(0).normal(size=(trials, 2))
        found = functions(x, y, LOOKED_AT[:, None] / 0.5)
        return most_lost(found, optimum(found, LOOKED_AT)[1])

    assert lost(5, 0.1) > 0.1
    assert lost(40, 0.001) < 0.002


def test_where_functions_are_highest() -> None:
    drawn = np.array([[0.0, 1, 0], [0, 1, 0.9], [0, 1, 1.1], [0, 1, 0]])
    best, alike = optimum(np.repeat(drawn, 100, axis=0), np.array([0.1, 0.2, 0.3]))
    assert best == (0.2, 0.2, 0.3)
    assert alike.tolist() == [False, True, True]
