"""How often the curve through a search's trials covers the truth.

`python tests/search_simulation.py` prints the table of docs/statistics.md. tests/test_search_fit.py checks some rows.
"""

import math
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from icbench.report.searches.rates import functions, optimum
from icbench.report.stats import Estimate

# The rates that are searched, those that are looked at, and what each seed shifts all of its values by.
RATES = np.linspace(0, 0.5, 21)
LOOKED_AT = np.linspace(0, 0.5, 51)
SHIFT = 0.3
# Different rates, and seeds of each.
SIZES = ((6, 2), (10, 1), (20, 1), (20, 3))
SIMULATIONS = 400


class Found(NamedTuple):
    """What a simulated search came to. alike: which of LOOKED_AT are not told from the best."""

    best: Estimate
    alike: np.ndarray


class Truth(NamedTuple):
    """An objective along the rate, from 0 to about 1; noise: the standard deviation of a run's value about it."""

    name: str
    of: Callable[[np.ndarray], np.ndarray]
    noise: float

    def search(self, rates: int, seeds: int, number: int) -> Found:
        """What a search comes to that tries so many of RATES, at random, with so many seeds."""
        random = np.random.default_rng([zlib.crc32(self.name.encode()), rates, seeds, number])
        x = random.choice(RATES, size=rates, replace=False)
        y = self.of(x)[:, None] + self.noise * random.normal(size=(rates, seeds)) + SHIFT * random.normal(size=seeds)
        drawn = functions(x[:, None] / RATES[-1], y, LOOKED_AT[:, None] / RATES[-1], number)
        return Found(*optimum(drawn, LOOKED_AT))

    @property
    def is_best(self) -> np.ndarray:
        """Which of LOOKED_AT are best; of a constant all are."""
        heights = self.of(LOOKED_AT)
        return heights >= heights.max() - 1e-9

    def is_covered(self, found: Found) -> bool:
        """Whether the interval of the best rate holds one that is best."""
        inside = (found.best.low - 1e-9 <= LOOKED_AT) & (found.best.high + 1e-9 >= LOOKED_AT)
        return bool((inside & self.is_best).any())

    def is_among(self, found: Found) -> float:
        """The part of the best rates that are not told from the best of the curve."""
        return float(found.alike[self.is_best].mean())


TRUTHS = (
    Truth("parabola, best at 0.12", lambda p: 1 - ((p - 0.12) / 0.38) ** 2, 0.1),
    Truth("the same, noise 0.3", lambda p: 1 - ((p - 0.12) / 0.38) ** 2, 0.3),
    Truth("line that falls from 0", lambda p: 1 - p / 0.5, 0.1),
    Truth("level up to 0.2, then a line that falls", lambda p: 1 - np.clip((p - 0.2) / 0.3, 0, None), 0.1),
    Truth("peak of width 0.05 at 0.1", lambda p: np.exp(-(((p - 0.1) / 0.05) ** 2)), 0.1),
    Truth("constant", lambda p: np.ones_like(p), 0.1),
)


def main() -> None:
    error = 100 * math.sqrt(0.95 * 0.05 / SIMULATIONS)
    print(f"{SIMULATIONS} simulations, standard error {error:.1f}\n")
    print("| truth | noise | rates | seeds | interval of the best rate | its width | best rates not told | all alike |")
    print("|---|---|---|---|---|---|---|---|")
    for truth in TRUTHS:
        for rates, seeds in SIZES:
            every = [truth.search(rates, seeds, number) for number in range(SIMULATIONS)]
            covered, among = (100 * np.mean([of(each) for each in every]) for of in (truth.is_covered, truth.is_among))
            width = np.mean([each.best.high - each.best.low for each in every])
            alike = 100 * np.mean([each.alike.all() for each in every])
            row = f"{covered:.1f} | {width:.2f} | {among:.1f} | {alike:.1f}"
            print(f"| {truth.name} | {truth.noise:g} | {rates} | {seeds} | {row} |", flush=True)


if __name__ == "__main__":
    main()
