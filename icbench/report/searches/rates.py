"""An objective along a dropout rate: a smooth curve through the trials, its best, and which rates do as well."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icbench.metrics import Floats
from icbench.report.searches.found import Found, Trial, number_of, scale
from icbench.report.stats import Estimate
from icbench.search.confirm import PAPERS_DROPOUT
from icbench.search.objective import Objective
from icbench.search.space import Parameter, Value

# Of fewer different rates no curve is drawn.
FEWEST_RATES = 5
_POINTS = 51
_TAIL = 0.025
# An optimum that is so wide, of all rates that were searched, is called flat.
_FLAT = 0.2
# How far beyond the quartiles values may be, in interquartile ranges: Tukey's outer fences.
_FENCE = 3.0
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Curve:
    """Of an objective along a rate. x: (points,) rates; mean, low, high: the curve there with its 95 % interval.

    best: where the curve is best, with the 95 % interval of that place. alike: whether a rate is not told from it: the
    95 % interval of the difference reaches 0. within: how much worse than the best these may be at most, the upper ends
    of these intervals. trials: that it goes through, with so many different rates.
    """

    found: Found
    dimension: Parameter
    objective: Objective
    x: Floats
    mean: Floats
    low: Floats
    high: Floats
    best: Estimate
    alike: NDArray[np.bool_]
    within: float
    trials: tuple[Trial, ...]
    rates: int

    @property
    def ranges(self) -> list[tuple[float, float]]:
        """The rates that are not told from the best, from where to where."""
        edges = np.flatnonzero(np.diff(np.concatenate([[False], self.alike, [False]]).astype(int)))
        return [(float(self.x[start]), float(self.x[end - 1])) for start, end in edges.reshape(-1, 2)]

    @property
    def spans(self) -> list[str]:
        """These in words."""
        return [f"{low:.2g} to {high:.2g}" if low < high else f"{low:.2g}" for low, high in self.ranges]

    @property
    def is_flat(self) -> bool:
        """Whether a good part of all rates is not told from the best."""
        around = [high - low for low, high in self.ranges if low <= self.best.value <= high]
        return max(around) >= _FLAT * float(self.x[-1] - self.x[0])

    @property
    def has_papers(self) -> bool | None:
        """Whether the paper's rate is one of those that are not told from the best; None where it was not searched."""
        if not self.x[0] <= PAPERS_DROPOUT <= self.x[-1]:
            return None
        return bool(self.alike[np.abs(self.x - PAPERS_DROPOUT).argmin()])

    @property
    def fall(self) -> float:
        """By how much the curve is worse than its best, at most, where it is not told from that."""
        best = self.mean[np.abs(self.x - self.best.value).argmin()]
        return float(np.abs(best - self.mean[self.alike]).max())

    @property
    def in_words(self) -> str:
        """How wide the optimum is, and how flat at least: few trials leave room for much."""
        told = " and ".join(self.spans)
        unit = "points" if self.objective.is_fraction else "epochs"
        flat = f"flat to within {scale(self.objective) * self.within:.2g} {unit}"
        if self.alike.all():
            return f"no dropout rate from {told} is told from the best: the optimum is {flat}, as far as the trials say"
        if self.is_flat:
            return f"the optimum from {told} is {flat}, as far as the trials say"
        return f"rates from {told} are not told from the best"


def curves(found: Found) -> list[Curve]:
    """The curves of a cell: of each objective along each rate, where enough trials say something."""
    if found.all_diverged:
        return []
    every = (
        _curve(found, dimension, index) for dimension in found.rates for index in range(len(found.search.objectives))
    )
    return [curve for curve in every if curve is not None]


def _curve(found: Found, dimension: Parameter, index: int) -> Curve | None:
    """Along one rate, the others and all else as in the best trial."""
    objective = found.search.objectives[index]
    seeds = len(found.search.seeds)
    trials = tuple(trial for trial in found.different if len(trial.by_seed) == seeds)
    values = [number_of(dimension, trial.parameters[dimension.name]) for trial in trials]
    rates = len(set(values))
    if rates < FEWEST_RATES or any(math.isnan(value) for value in values):
        return None
    x = _places(dimension)
    best = best_in(trials, index, objective)
    at = _coordinates(found, [dict(best.parameters) | {dimension.name: rate} for rate in x], dimension)
    y = np.array([[values[index] for values in trial.by_seed] for trial in trials])
    sign = -1.0 if objective.direction == "minimize" else 1.0
    drawn = functions(_coordinates(found, [t.parameters for t in trials], dimension), sign * y, at)
    mean, (low, high) = (
        sign * drawn.mean(axis=0),
        np.sort(sign * np.quantile(drawn, [_TAIL, 1 - _TAIL], axis=0), axis=0),
    )
    where, alike = optimum(drawn, x)
    within = most_lost(drawn, alike)
    return Curve(found, dimension, objective, x, mean, low, high, where, alike, within, trials, rates)


def best_in(trials: Sequence[Trial], index: int, objective: Objective) -> Trial:
    """The trial that is best in one objective."""
    choose = min if objective.direction == "minimize" else max
    return choose(trials, key=lambda trial: trial.values[index])


def functions(x: Floats, y: Floats, at: Floats, seed: int = 0) -> Floats:
    """(draws, points): functions that may lie behind the values, the higher the better.

    x, y, at: as fit.draws has them. Values far below the others, such as those of runs that diverged, count as lying at
    the outer fence: how bad they are says nothing of the best.
    """
    from icbench.report.searches import fit

    first, third = np.percentile(y, [25, 75])
    kept = y.clip(min=first - _FENCE * (third - first)) if third > first else y
    means = kept.mean(axis=1)
    if np.ptp(means) <= _ROUNDING * max(1.0, float(np.abs(means).max())):
        return np.full((1, len(at)), means.mean())
    return fit.draws(x, kept, at, seed)


def optimum(drawn: Floats, x: Floats) -> tuple[Estimate, NDArray[np.bool_]]:
    """Where the mean of functions is highest, with the 95 % interval of where each is; and which places do as well.

    drawn: (draws, points), at places x. A place does as well where the 95 % interval of the difference reaches 0.
    """
    best = int(drawn.mean(axis=0).argmax())
    constant = np.ptp(drawn) == 0
    places = x[[0, -1]] if constant else x[drawn.argmax(axis=1)]
    low, high = (places[0], places[-1]) if constant else np.quantile(places, [_TAIL, 1 - _TAIL])
    less = np.quantile(drawn[:, [best]] - drawn, _TAIL, axis=0)
    return Estimate(
        float(x[best]), min(float(low), float(x[best])), max(float(high), float(x[best]))
    ), less <= _ROUNDING


def most_lost(drawn: Floats, alike: NDArray[np.bool_]) -> float:
    """By how much the best may be better than places that are not told from it: the highest upper end of the 95 %
    intervals of the differences. drawn: (draws, points); alike: (points,).
    """
    best = int(drawn.mean(axis=0).argmax())
    return float(np.quantile(drawn[:, [best]] - drawn, 1 - _TAIL, axis=0)[alike].max())


def _places(dimension: Parameter) -> Floats:
    """The rates at which a curve is looked at."""
    if dimension.choices:
        numbers = [number_of(dimension, label) for label, _ in dimension.choices]
        return np.linspace(min(numbers), max(numbers), _POINTS)
    if dimension.count is not None and dimension.count <= 2 * _POINTS:
        return np.array(dimension.points(), dtype=float)
    spaced = np.geomspace if dimension.log else np.linspace
    return np.asarray(spaced(dimension.low, dimension.high, _POINTS))


def _coordinates(found: Found, every: Sequence[Mapping[str, Value]], along: Parameter) -> Floats:
    """(n, dimensions): values from 0 to 1; each choice is a dimension of its own, but not of the rate `along`."""
    columns = []
    for dimension in found.dimensions:
        values = [each[dimension.name] for each in every]
        if dimension.choices and dimension is not along:
            columns += [[float(value == label) for value in values] for label, _ in dimension.choices]
        else:
            columns.append([_fraction(dimension, value) for value in values])
    return np.array(columns, dtype=float).T


def _fraction(dimension: Parameter, value: Value) -> float:
    """Where in its range a value lies."""
    if dimension.choices:
        numbers = [number_of(dimension, label) for label, _ in dimension.choices]
        number = float(value) if isinstance(value, int | float) else number_of(dimension, value)
        return (number - min(numbers)) / (max(numbers) - min(numbers))
    low, high, number = dimension.low, dimension.high, float(value)
    if dimension.log:
        low, high, number = math.log(low), math.log(high), math.log(number)
    return (number - low) / (high - low)
