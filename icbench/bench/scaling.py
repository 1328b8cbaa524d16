"""How a cost grows with a size: power laws fitted to it, and from which size on it is so many times another."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class PowerLaw(NamedTuple):
    """cost ~ size^exponent, by least squares of logarithms over the `n` sizes from `least` up.

    error: the standard error of the exponent by the residuals, n - 2 degrees of freedom, which holds bends of the curve
    as well as noise; None for two sizes.
    """

    exponent: float
    error: float | None
    least: float
    n: int


def power_law(sizes: Sequence[float], costs: Sequence[float]) -> PowerLaw | None:
    """Fitted to the larger half of the rising sizes, three at least if there are as many; None for fewer than two."""
    n = min(len(sizes), max(3, len(sizes) // 2))
    if n < 2:
        return None
    x, y = ([math.log(each) for each in values[-n:]] for values in (sizes, costs))
    x_mean, y_mean = sum(x) / n, sum(y) / n
    spread = sum((each - x_mean) ** 2 for each in x)
    exponent = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / spread
    left = sum((b - y_mean - exponent * (a - x_mean)) ** 2 for a, b in zip(x, y, strict=True))
    error = math.sqrt(left / (n - 2) / spread) if n > 2 else None
    return PowerLaw(exponent, error, sizes[-n], n)


def stays_above(sizes: Sequence[float], ratios: Sequence[float], level: float) -> float | None:
    """The least size from which on the ratio is `level` or more, between two sizes by a line between logarithms.

    The first size where it is so at all of them; None where it is not so at the last.
    """
    below = [index for index, ratio in enumerate(ratios) if ratio < level]
    if not below:
        return sizes[0]
    last = below[-1]
    if last + 1 == len(sizes):
        return None
    way = math.log(level / ratios[last]) / math.log(ratios[last + 1] / ratios[last])
    return float(sizes[last] * (sizes[last + 1] / sizes[last]) ** way)
