"""A smooth function through noisy values: draws from a Gaussian process's posterior, its hyperparameters included.

Not the likeliest hyperparameters alone are taken: of few values they would claim to know too much. Rasmussen and
Williams 2006, chapters 2 and 5. tests/test_search_fit.py holds it against scikit-learn's GaussianProcessRegressor,
whose parts would take ten times as long here.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from icbench.metrics import Floats

# Of values of variance 1, where each dimension runs from 0 to 1: of the logarithms of Theta's parts, what is thought
# beforehand: middle and standard deviation.
_SIGNAL = (math.log(1.0), 1.5)
_LENGTH = (math.log(0.5), 0.8)
_NOISE = (math.log(0.1), 2.0)
_ROUGH = (math.log(0.01), 2.0)
# Hyperparameters that are kept, steps before the first and between two of them; functions drawn with each.
_KEPT, _BEFORE, _BETWEEN, _EACH = 60, 40, 4, 40
# So that matrices have inverses; of what is drawn, a thousandth of the signal's deviation.
_JITTER = 1e-8
_LITTLE = 1e-6


@dataclass(frozen=True)
class Theta:
    """Logarithms of a process's hyperparameters. signal: the function's variance; lengths: (dimensions,), how far it
    reaches; noise: the variance of the means, as the scatter of single values tells it; rough: what it is beyond that.
    """

    signal: float
    lengths: Floats
    noise: float
    rough: float

    @property
    def of_means(self) -> float:
        """The variance of the means about the function."""
        return math.exp(self.noise) + math.exp(self.rough)


@dataclass(frozen=True)
class Process:
    """Means of values at some places, which scatter about a smooth function. x: (n, dimensions); means: (n,).

    squares, freedom: of the scatter of single values about the means, the sum of squares over the number of seeds, and
    its degrees of freedom.
    """

    x: Floats
    means: Floats
    squares: float
    freedom: int

    @classmethod
    def of(cls, x: Floats, y: Floats) -> "Process":
        """Of (n, seeds) values, each seed of which may have shifted all of its own alike."""
        rest = y - y.mean(axis=1, keepdims=True) - y.mean(axis=0) + y.mean()
        n, seeds = y.shape
        return cls(x, y.mean(axis=1), float((rest**2).sum()) / seeds, (n - 1) * (seeds - 1))

    def likelihood(self, theta: Theta) -> float:
        """Its logarithm, but for a constant: of the means, and of the scatter about them."""
        factor = cho_factor(self._covariance(theta), lower=True, check_finite=False)
        heights = np.diag(factor[0])
        of_means = float(self.means @ cho_solve(factor, self.means, check_finite=False)) / 2 + float(
            np.log(heights).sum()
        )
        of_scatter = (self.squares * math.exp(-theta.noise) + self.freedom * theta.noise) / 2
        return -of_means - of_scatter

    def posterior(self, theta: Theta, at: Floats) -> tuple[Floats, Floats]:
        """(points,) and (points, points): mean and covariance of the function, without noise, at some points."""
        factor = cho_factor(self._covariance(theta), lower=True, check_finite=False)
        between = matern(self.x, at, theta)
        known = matern(at, at, theta) - between.T @ cho_solve(factor, between, check_finite=False)
        return between.T @ cho_solve(factor, self.means, check_finite=False), known

    def _covariance(self, theta: Theta) -> Floats:
        return matern(self.x, self.x, theta) + (theta.of_means + _JITTER) * np.eye(len(self.x))


def matern(one: Floats, other: Floats, theta: Theta) -> Floats:
    """(n, m): the Matérn covariance of smoothness 5/2 between (n, dimensions) and (m, dimensions) places."""
    squared = (one[:, None] - other) ** 2 @ np.exp(-2 * theta.lengths)
    r = np.sqrt(5 * squared)
    return np.asarray(math.exp(theta.signal) * (1 + r + r**2 / 3) * np.exp(-r))


def draws(x: Floats, y: Floats, at: Floats, seed: int = 0) -> Floats:
    """(draws, points): functions drawn from what is known after seeing `y`, without the noise, at some points.

    x: (n, dimensions), from 0 to 1. y: (n, seeds), at least two means of which differ. at: (points, dimensions). The
    same values give the same draws.
    """
    level, spread = y.mean(), y.mean(axis=1).std()
    process, random = Process.of(x, (y - level) / spread), np.random.default_rng(seed)
    middles, deviations = np.array([_SIGNAL, *[_LENGTH] * x.shape[1], _NOISE, _ROUGH]).T

    def theta(z: Floats) -> Theta:
        signal, *lengths, noise, rough = middles + deviations * z
        return Theta(float(signal), np.array(lengths), float(noise), float(rough))

    found = []
    for z in walk(lambda z: process.likelihood(theta(z)), len(middles), random):
        mean, covariance = process.posterior(theta(z), at)
        root = np.linalg.cholesky(covariance + _LITTLE * math.exp(theta(z).signal) * np.eye(len(at)))
        found.append(mean + random.normal(size=(_EACH, len(at))) @ root.T)
    return np.asarray(level + spread * np.concatenate(found))


def walk(likelihood: Callable[[Floats], float], size: int, random: np.random.Generator) -> Iterator[Floats]:
    """Draws from the posterior of a standard normal vector, given the logarithm of a likelihood.

    Elliptical slice sampling (Murray, Adams and MacKay 2010), which nothing needs to be set for.
    """
    at = np.zeros(size)
    height = likelihood(at)
    for step in range(_BEFORE + _KEPT * _BETWEEN):
        other, least = random.normal(size=size), height + math.log(1 - random.random())
        angle = random.uniform(0, 2 * math.pi)
        low, high = angle - 2 * math.pi, angle
        while True:
            proposed = at * math.cos(angle) + other * math.sin(angle)
            height = likelihood(proposed)
            if height > least:
                break
            low, high = (angle, high) if angle < 0 else (low, angle)
            angle = random.uniform(low, high)
        at = proposed
        if step >= _BEFORE and (step - _BEFORE) % _BETWEEN == 0:
            yield at
