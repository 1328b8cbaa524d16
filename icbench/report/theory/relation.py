"""Whether cells that differ early in training in what was measured differ in how fast they train: rank correlations."""

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from icbench.config import Cell
from icbench.metrics import Floats
from icbench.report import stats
from icbench.report.comparison import UNTESTED
from icbench.report.stats import Tested
from icbench.report.theory.measured import Measured
from icbench.report.theory.statistics import Statistic, of_seeds, shown

# Of four cells in the same order even the exact test has p = 1/12.
FEWEST_CELLS = 5


@dataclass(frozen=True)
class Relation:
    """A statistic early in training against the area under the accuracy curve, a pair of means over seeds each cell.

    epoch: of those from 1 on at which the most cells were measured the first, or 0 where there is no other; cells that
    were not measured then are left out. x: the mean over layers, geometric of what is shown logarithmically; y:
    fractions. rho: Spearman's, with its interval and p, all NaN of less than 5 cells, or where all are equal.
    rho_equal_rates: the same of ranks among the cells of one dropout rate, for it changes both; NaN where there is but
    one. p_holm, p_holm_equal_rates: over all relations.
    """

    statistic: Statistic
    place: str
    cells: tuple[Cell, ...]
    epoch: int
    x: Floats
    y: Floats
    rho: Tested
    rho_equal_rates: Tested
    p_holm: float = np.nan
    p_holm_equal_rates: float = np.nan


def relations(measured: Measured) -> list[Relation]:
    """One for each statistic and place of at least two cells."""
    found = [
        relation
        for statistic in shown(measured)
        for place, cells in measured.places.items()
        for relation in _relation(measured, statistic, place, cells)
    ]
    adjusted = zip(
        found, stats.holm([r.rho.p for r in found]), stats.holm([r.rho_equal_rates.p for r in found]), strict=True
    )
    return [replace(each, p_holm=float(p), p_holm_equal_rates=float(equal)) for each, p, equal in adjusted]


def _relation(measured: Measured, statistic: Statistic, place: str, cells: list[Cell]) -> Iterator[Relation]:
    counts = Counter(epoch for cell in cells for epoch in measured.epochs(statistic.key, cell))
    if not counts:
        return
    epoch = min(counts, key=lambda each: (each == 0, -counts[each], each))
    points = [(cell, *point) for cell in cells for point in _point(measured, statistic, cell, epoch)]
    if len(points) < 2:
        return
    chosen, x, y = zip(*points, strict=True)
    rates = [cell.config.dropout or 0.0 for cell in chosen]  # without dropout as at a rate of 0
    equal = _tested(x, y, rates) if len(set(rates)) > 1 else UNTESTED
    yield Relation(statistic, place, chosen, epoch, np.array(x), np.array(y), _tested(x, y, [0] * len(x)), equal)


def _tested(x: Sequence[float], y: Sequence[float], groups: Sequence[Hashable]) -> Tested:
    """Nothing unless as many as the fewest cells could be dealt out, but for one of each further group."""
    sizes = [count for count in Counter(groups).values() if count > 1]
    if sum(sizes) - (len(sizes) - 1) < FEWEST_CELLS:
        return UNTESTED
    return Tested(*stats.rank_correlation(x, y, groups), stats.rank_correlation_p(x, y, groups))


def _point(measured: Measured, statistic: Statistic, cell: Cell, epoch: int) -> Iterator[tuple[float, float]]:
    """Both means over those seeds that were measured then; nothing where none was."""
    own = measured.values[statistic.key]
    rows = [measured.evidence.position[run_id] for run_id in cell.run_ids if (run_id, epoch) in own]
    if not rows:
        return
    x = float(of_seeds(measured, statistic, cell, epoch).mean())
    y = float(measured.evidence.measures["area"][rows].mean())
    if np.isfinite(x) and np.isfinite(y):
        yield x, y
