"""Whether cells that differ early in training in what was measured differ in how fast they train: rank correlations."""

from collections.abc import Iterator
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

    epochs: at which each cell was measured: its first from 1 on, or 0 where there is no other. x: the mean over layers,
    geometric of what is shown logarithmically; y: fractions. rho: Spearman's, with its interval and p, all NaN of less
    than 5 cells, or where all are equal. p_holm: over all relations.
    """

    statistic: Statistic
    place: str
    cells: tuple[Cell, ...]
    epochs: tuple[int, ...]
    x: Floats
    y: Floats
    rho: Tested
    p_holm: float = np.nan

    @property
    def at(self) -> str:
        """The epochs, in words."""
        return " or ".join(str(epoch) for epoch in sorted(set(self.epochs)))


def relations(measured: Measured) -> list[Relation]:
    """One for each statistic and place of at least two cells."""
    found = [
        relation
        for statistic in shown(measured)
        for place, cells in measured.places.items()
        for relation in _relation(measured, statistic, place, cells)
    ]
    adjusted = stats.holm([each.rho.p for each in found])
    return [replace(each, p_holm=float(p)) for each, p in zip(found, adjusted, strict=True)]


def _relation(measured: Measured, statistic: Statistic, place: str, cells: list[Cell]) -> Iterator[Relation]:
    points = [(cell, *point) for cell in cells for point in _point(measured, statistic, cell)]
    if len(points) < 2:
        return
    chosen, epochs, x, y = zip(*points, strict=True)
    enough = len(points) >= FEWEST_CELLS
    rho = Tested(*stats.rank_correlation(x, y), stats.rank_correlation_p(x, y)) if enough else UNTESTED
    yield Relation(statistic, place, chosen, epochs, np.array(x), np.array(y), rho)


def _point(measured: Measured, statistic: Statistic, cell: Cell) -> Iterator[tuple[int, float, float]]:
    """The epoch, and both means over those seeds that were measured then; nothing where none was."""
    epochs = measured.epochs(statistic.key, cell)
    if not epochs:
        return
    epoch = next((each for each in epochs if each >= 1), epochs[0])
    own = measured.values[statistic.key]
    rows = [measured.evidence.position[run_id] for run_id in cell.run_ids if (run_id, epoch) in own]
    x = float(of_seeds(measured, statistic, cell, epoch).mean())
    y = float(measured.evidence.measures["area"][rows].mean())
    if np.isfinite(x) and np.isfinite(y):
        yield epoch, x, y
