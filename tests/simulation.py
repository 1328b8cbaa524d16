"""How often the intervals of icbench.report.stats cover the truth, and its tests raise a false alarm.

`python tests/simulation.py` prints the tables of docs/statistics.md. tests/test_stats.py checks some of their rows.
"""

import math
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple
from unittest import mock

import numpy as np
from scipy.special import ndtr

from icbench.report import stats

Random = np.random.Generator
Stratum = tuple[np.ndarray, np.ndarray]

SEEDS = (3, 4, 5, 8, 10)
# Fewer than the functions draw, for time's sake.
BOOTSTRAP_DRAWS = 400
PERMUTATION_DRAWS = 999
# Times scatter by 20 % between seeds, about 30 epochs; the deadline leaves 70 %.
SCATTER = 0.2
EPOCHS = 30
DEADLINE = EPOCHS * math.exp(0.5244 * SCATTER)


class Shape(NamedTuple):
    """A distribution between seeds, of mean 0; treated: the standard deviation of treated seeds, if controls' is 1."""

    name: str
    draw: Callable[[Random, tuple[int, ...]], np.ndarray]
    treated: float = 1

    def strata(
        self, random: Random, strata: int, seeds: int, effect: float = 0, correlation: float = 0
    ) -> list[Stratum]:
        """Of each stratum, (seeds,) treated values and as many controls that share some of their deviation."""
        own = self.draw(random, (2, strata, seeds))
        if correlation:
            shared = self.draw(random, (strata, seeds))
            own = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
        return list(zip(effect + self.treated * own[0], own[1], strict=True))

    def chance(self, effect: float) -> float:
        """That a treated value is above a control."""
        if self.draw is _skewed:
            return 1 - math.exp(-effect) / 2  # the difference of two exponential values is Laplace's
        return float(ndtr(effect / math.hypot(1, self.treated)))


def _normal(random: Random, size: tuple[int, ...]) -> np.ndarray:
    return random.normal(size=size)


def _skewed(random: Random, size: tuple[int, ...]) -> np.ndarray:
    """A tail to the left, as of runs that fail now and then: 1 less an exponential value."""
    return 1 - random.exponential(size=size)


NORMAL = Shape("normal", _normal)
UNEQUAL = Shape("normal, treated SD 3 times", _normal, treated=3)
SKEWED = Shape("skewed", _skewed)
SHAPES = (NORMAL, UNEQUAL, SKEWED)


class Case(NamedTuple):
    """A row of a table. happens: whether what is counted happens in one simulation with so many seeds."""

    method: str
    data: str
    strata: int
    repetitions: int
    happens: Callable[[Random, int], bool]

    def rate(self, seeds: int, repetitions: int | None = None) -> float:
        """Its relative frequency; the same numbers come out whatever else is simulated."""
        random = np.random.default_rng([zlib.crc32(f"{self.method}, {self.data}, {self.strata}".encode()), seeds])
        return float(np.mean([self.happens(random, seeds) for _ in range(repetitions or self.repetitions)]))


def covers(interval: Sequence[float], truth: float) -> bool:
    """An interval that cannot be given has NaN bounds, and covers nothing."""
    return bool(interval[1] <= truth <= interval[2])


def means() -> list[Case]:
    cases = []
    iqm = partial(stats.interquartile_mean, draws=BOOTSTRAP_DRAWS)
    for shape in SHAPES:

        def mean(random: Random, seeds: int, shape: Shape = shape) -> bool:
            return covers(stats.mean(shape.draw(random, (seeds,))), 0)

        def percentile(random: Random, seeds: int, shape: Shape = shape) -> bool:
            values = shape.draw(random, (seeds,))
            drawn = values[random.integers(seeds, size=(BOOTSTRAP_DRAWS, seeds))].mean(axis=1)
            return covers((0, *np.quantile(drawn, [0.025, 0.975])), 0)

        def contrast(
            random: Random,
            seeds: int,
            function: Callable[[list[Stratum]], Sequence[float]],
            strata: int,
            correlation: float = 0,
            shape: Shape = shape,
        ) -> bool:
            return covers(function(shape.strata(random, strata, seeds, correlation=correlation)), 0)

        if shape is not UNEQUAL:
            cases.append(Case("mean", shape.name, 1, 4000, mean))
            cases.append(Case("mean", f"{shape.name}, by percentile bootstrap instead", 1, 4000, percentile))
        for strata in (1, 8):
            difference = partial(contrast, function=stats.difference, strata=strata)
            paired = partial(contrast, function=stats.paired_difference, strata=strata, correlation=0.8)
            cases += [
                Case("difference", shape.name, strata, 4000, difference),
                Case("paired_difference", f"{shape.name}, correlation 0.8", strata, 4000, paired),
                Case("interquartile_mean", shape.name, strata, 2000, partial(contrast, function=iqm, strata=strata)),
            ]
    return sorted(cases, key=lambda case: (case.method != "mean", case.method, case.strata))


def chances() -> list[Case]:
    def happens(random: Random, seeds: int, shape: Shape, strata: int, effect: float) -> bool:
        estimate = stats.probability_of_improvement(shape.strata(random, strata, seeds, effect))
        return covers(estimate, shape.chance(effect))

    return [
        Case(
            "probability_of_improvement",
            f"{shape.name}, effect {effect} SD",
            strata,
            4000,
            partial(happens, shape=shape, strata=strata, effect=effect),
        )
        for strata in (1, 8)
        for shape in SHAPES
        for effect in (0, 1, 3)
    ]


def times() -> list[Case]:
    def happens(
        random: Random,
        seeds: int,
        strata: int,
        factor: float = 1,
        treated: float = 1,
        whole: bool = False,
        deadline: float = math.inf,
    ) -> bool:
        deviations = SCATTER * random.normal(size=(2, strata, seeds)) * np.array([treated, 1])[:, None, None]
        taken = EPOCHS * np.exp(deviations) * np.array([factor, 1])[:, None, None]
        taken = np.ceil(taken) if whole else taken
        taken = np.where(taken > deadline, np.inf, taken)
        return covers(stats.time_ratio(list(zip(*taken, strict=True))), factor)

    kinds = {
        "no effect": {},
        "1.5 times": {"factor": 1.5},
        "no effect, whole epochs": {"whole": True},
        "no effect, 30 % never": {"deadline": DEADLINE},
        "no effect, whole epochs, 30 % never": {"whole": True, "deadline": DEADLINE},
        "1.1 times, 30 % of controls and 48 % of treated never": {"factor": 1.1, "deadline": DEADLINE},
        "no effect, treated scatter 3 times": {"treated": 3},
    }
    return [
        Case("time_ratio", name, strata, 4000, partial(happens, strata=strata, **options))
        for strata in (1, 8)
        for name, options in kinds.items()
    ]


def false_alarms() -> list[Case]:
    def alarm(
        random: Random,
        seeds: int,
        p: Callable[[list[Stratum]], float],
        shape: Shape,
        strata: int,
        correlation: float = 0,
    ) -> bool:
        return p(shape.strata(random, strata, seeds, correlation=correlation)) < 0.05

    def permutation(strata: list[Stratum]) -> float:
        with mock.patch.object(stats, "_DRAWS", PERMUTATION_DRAWS):
            return stats.permutation_p(strata)

    def paired_if_shown(strata: list[Stratum]) -> float:
        function = stats.paired_difference if stats.seed_correlation(strata)[1] < 0.05 else stats.difference
        return function(strata).p

    methods = {
        "difference": (lambda strata: stats.difference(strata).p, 4000),
        "permutation_p": (permutation, 4000),
        "spread_ratio": (lambda strata: stats.spread_ratio(strata)[1], 4000),
    }
    cases = [
        Case(name, shape.name, strata, repetitions, partial(alarm, p=p, shape=shape, strata=strata))
        for name, (p, repetitions) in methods.items()
        for strata in (1, 8)
        for shape in SHAPES
        if (name, shape) != ("spread_ratio", UNEQUAL)
    ]
    for strata in (1, 8):
        for shape in SHAPES:
            for correlation in (0, 0.3, 0.8) if shape is NORMAL else (0,):
                happens = partial(alarm, p=paired_if_shown, shape=shape, strata=strata, correlation=correlation)
                cases.append(Case("paired if shown", f"{shape.name}, correlation {correlation}", strata, 4000, happens))
    return cases


def images(count: int, repetitions: int = 2000) -> float:
    """The coverage of image_intervals by so many test images: many independent contrasts at once."""
    random = np.random.default_rng(count)
    values, chances = np.array([-1, -1 / 3, 0, 1 / 3, 1]), [0.01, 0.05, 0.86, 0.06, 0.02]
    truth = float(values @ chances)
    differences = random.choice(values, p=chances, size=(repetitions, count))
    low, high = stats.image_intervals(differences).T
    return float(((low <= truth) & (truth <= high)).mean())


def rank_correlations(cells: int, correlation: float, groups: int = 1, repetitions: int = 10_000) -> float:
    """The coverage of rank_correlation's intervals where values are normal with this correlation, in so many groups of
    so many cells whose means differ by far.

    The truth is Spearman's rho of that distribution, 6 / pi arcsin(correlation / 2) (Pearson 1907).
    """
    random = np.random.default_rng([cells, round(100 * correlation)])
    truth = 6 / math.pi * math.asin(correlation / 2)
    labels = np.repeat(np.arange(groups), cells)
    covered = 0
    for _ in range(repetitions):
        x, other = random.normal(size=(2, groups * cells))
        y = correlation * x + math.sqrt(1 - correlation**2) * other
        covered += covers(stats.rank_correlation(x + 10 * labels, y - 10 * labels, labels.tolist()), truth)
    return covered / repetitions


CELLS = (5, 7, 10, 20, 40)
GROUPS = ((2, 4), (3, 6), (4, 9), (5, 20))


def main() -> None:
    tables = {
        "Coverage of 95 % intervals, %": [*means(), *chances(), *times()],
        "False alarms at p < 0.05, %": false_alarms(),
    }
    for title, cases in tables.items():
        print(f"\n{title}, by seeds on each side\n")
        print("| function | data | strata |", " | ".join(map(str, SEEDS)), "| simulations | standard error |")
        print("|---|---|---|" + "---|" * (len(SEEDS) + 2))
        level = 0.95 if "95" in title else 0.05
        for case in cases:
            rates = " | ".join(f"{100 * case.rate(seeds):.1f}" for seeds in SEEDS)
            error = 100 * math.sqrt(level * (1 - level) / case.repetitions)
            row = f"| `{case.method}` | {case.data} | {case.strata} | {rates} | {case.repetitions:,} | {error:.1f} |"
            print(row, flush=True)
    print("\nCoverage of 95 % image_intervals, %, by test images; 2,000 simulations, standard error 0.5\n")
    counts = (360, 2000, 10_000)
    print("|", " | ".join(f"{count:,}" for count in counts), "|\n" + "|---" * len(counts) + "|")
    print("|", " | ".join(f"{100 * images(count):.1f}" for count in counts), "|")
    print("\nCoverage of 95 % rank_correlation, %, by cells; 10,000 simulations, standard error 0.2\n")
    print("| correlation |", " | ".join(map(str, CELLS)), "|\n|---" + "|---" * len(CELLS) + "|")
    for correlation in (0, 0.5, 0.9):
        print("|", correlation, "|", " | ".join(f"{100 * rank_correlations(n, correlation):.1f}" for n in CELLS), "|")
    print("\nThe same of ranks within groups\n")
    print(
        "| correlation |",
        " | ".join(f"{groups} of {n}" for groups, n in GROUPS),
        "|\n|---" + "|---" * len(GROUPS) + "|",
    )
    for correlation in (0, 0.5, 0.9):
        rates = (f"{100 * rank_correlations(n, correlation, groups):.1f}" for groups, n in GROUPS)
        print("|", correlation, "|", " | ".join(rates), "|")


if __name__ == "__main__":
    main()
