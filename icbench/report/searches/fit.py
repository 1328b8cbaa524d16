"""A smooth function through noisy values: draws from a Gaussian process's posterior, hyperparameters included.

scikit-learn's GaussianProcessRegressor gives the likelihood of hyperparameters and the posterior for given ones. Not
the likeliest ones alone are taken: of few values they would claim to know too much.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from icbench.metrics import Floats

# Of the logarithms of the signal's variance, of a length scale in a dimension from 0 to 1, and of the variance of the
# means' noise: middle and standard deviation beforehand. Values have variance 1.
_SIGNAL = (math.log(1.0), 1.5)
_LENGTH = (math.log(0.5), 0.8)
_NOISE = (math.log(0.1), 2.0)
# Hyperparameters that are kept, steps before the first and between two of them; functions drawn with each.
_KEPT, _BEFORE, _BETWEEN, _EACH = 50, 30, 3, 40
# So that matrices have inverses; of variance 1.
_JITTER = 1e-8


def draws(x: Floats, y: Floats, at: Floats, seed: int = 0) -> Floats:
    """(draws, points): functions drawn from what is known after seeing `y`, without the noise, at some points.

    x: (n, dimensions), from 0 to 1. y: (n, seeds), at least two means of which differ; each seed may shift all of its
    values alike. at: (points, dimensions). The same values give the same draws.
    """
    means = y.mean(axis=1)
    level, spread = means.mean(), means.std()
    random = np.random.default_rng(seed)
    found = []
    for regressor in _posteriors(x, (y - level) / spread, random):
        mean, covariance = regressor.predict(at, return_cov=True)
        covariance[np.diag_indices_from(covariance)] -= math.exp(regressor.kernel_.theta[-1])
        variances, directions = np.linalg.eigh(covariance)
        root = directions * np.sqrt(variances.clip(0))
        found.append(mean + random.normal(size=(_EACH, len(at))) @ root.T)
    return np.asarray(level + spread * np.concatenate(found))


def _posteriors(x: Floats, y: Floats, random: np.random.Generator) -> Iterator[GaussianProcessRegressor]:
    """Regressions through the means over seeds, each with other hyperparameters, as likely as they are."""
    means, dimensions = y.mean(axis=1), x.shape[1]
    kernel = ConstantKernel() * Matern(np.ones(dimensions), nu=2.5) + WhiteKernel()
    regressor = GaussianProcessRegressor(kernel, optimizer=None, alpha=_JITTER).fit(x, means)
    middles, deviations = np.array([_SIGNAL, *[_LENGTH] * dimensions, _NOISE]).T
    squares, freedom = _within(y)

    def likelihood(theta: Floats) -> float:
        """Its logarithm: of the means, and of how the seeds scatter about them."""
        noise = float(theta[-1])
        scatter = (freedom * noise + squares * math.exp(-noise)) / 2
        return float(regressor.log_marginal_likelihood(theta, clone_kernel=False)) - scatter

    for z in _walk(lambda z: likelihood(middles + deviations * z), len(middles), random):
        own = kernel.clone_with_theta(middles + deviations * z)
        yield GaussianProcessRegressor(own, optimizer=None, alpha=_JITTER).fit(x, means)


def _within(y: Floats) -> tuple[float, int]:
    """What neither the rows' nor the seeds' means tell: the sum of its squares, over the seeds, and its freedom."""
    n, seeds = y.shape
    rest = y - y.mean(axis=1, keepdims=True) - y.mean(axis=0) + y.mean()
    return float((rest**2).sum()) / seeds, (n - 1) * (seeds - 1)


def _walk(likelihood: Callable[[Floats], float], size: int, random: np.random.Generator) -> Iterator[Floats]:
    """Draws from the posterior of a standard normal vector: elliptical slice sampling (Murray, Adams, MacKay 2010)."""
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
