"""How many seeds a difference needs to be found, by the power of the two-sided t-test.

Both sides have as many seeds and the same standard deviation between them; tests are corrected by Bonferroni, which is
what Holm's procedure asks of its smallest p.
"""

import math

from scipy.optimize import brentq
from scipy.stats import nct, t


def power(
    difference: float, deviation: float, seeds: int, cells: int = 1, tests: int = 1, level: float = 0.05
) -> float:
    """The chance to find a difference of means, and in its direction, at a standard deviation between seeds.

    seeds: of each side of each cell, from 2 up. cells: how many the difference is averaged over. tests: how many are
    made, and corrected for. Cohen 1988, chapter 2, by the non-central t distribution.
    """
    if deviation == 0:
        return float(difference != 0)
    freedom = 2 * cells * (seeds - 1)
    shift = abs(difference) / deviation * math.sqrt(seeds * cells / 2)
    critical = t.isf(level / tests / 2, freedom)
    return float(nct.sf(critical, freedom, shift))


def seeds_needed(
    difference: float, deviation: float, cells: int = 1, tests: int = 1, wanted: float = 0.8, most: int = 1_000
) -> int | None:
    """The fewest seeds of each side of each cell, from 2 up, that find `difference` with power `wanted`.

    None: more than `most`.
    """
    low, high = 1, 2
    while power(difference, deviation, high, cells, tests) < wanted:
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(difference, deviation, middle, cells, tests) >= wanted else (middle, high)
    return high


def detectable(deviation: float, seeds: int, cells: int = 1, tests: int = 1, wanted: float = 0.8) -> float:
    """The smallest difference that is found with power `wanted`; NaN for less than two seeds."""
    if seeds < 2:
        return math.nan
    high = 1.0
    while power(high, 1, seeds, cells, tests) < wanted:
        high *= 2
    return float(brentq(lambda d: power(d, 1, seeds, cells, tests) - wanted, 0, high)) * deviation
