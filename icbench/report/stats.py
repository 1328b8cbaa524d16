"""Intervals for means and differences of means, from Student's t: right for the few seeds that runs have.

Each takes 1-d arrays of independent values, one a seed. Half-widths are NaN where there are too few values to say.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit


class Estimate(NamedTuple):
    """A value, and the half-width of its symmetric interval."""

    value: float
    half_width: float


def mean(values: ArrayLike, confidence: float = 0.95) -> Estimate:
    """The mean of (n,) values with its t-interval, n - 1 degrees of freedom. NaN half-width for n = 1."""
    x = np.asarray(values, dtype=float)
    assert x.ndim == 1
    if len(x) < 2:
        return Estimate(float(x[0]), math.nan)
    error = float(x.std(ddof=1)) / math.sqrt(len(x))
    return Estimate(float(x.mean()), error * _quantile(len(x) - 1, confidence))


def difference(treated: ArrayLike, control: ArrayLike, confidence: float = 0.95) -> Estimate:
    """mean(treated) - mean(control) with Welch's interval: unequal variances, Satterthwaite's degrees of freedom.

    treated: (n,), control: (m,). NaN half-width when n or m is 1; 0 when neither varies. Welch 1947, Biometrika 34.
    """
    x, y = np.asarray(treated, dtype=float), np.asarray(control, dtype=float)
    assert x.ndim == y.ndim == 1
    value = float(x.mean() - y.mean())
    if len(x) < 2 or len(y) < 2:
        return Estimate(value, math.nan)
    u, v = float(x.var(ddof=1)) / len(x), float(y.var(ddof=1)) / len(y)
    if u + v == 0:
        return Estimate(value, 0.0)
    freedom = (u + v) ** 2 / (u**2 / (len(x) - 1) + v**2 / (len(y) - 1))
    return Estimate(value, math.sqrt(u + v) * _quantile(freedom, confidence))


def _quantile(freedom: float, confidence: float) -> float:
    return float(stdtrit(freedom, (1 + confidence) / 2))
