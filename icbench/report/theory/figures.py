"""The theory page's figures: colour is a cell's ordering, line and mark what else tells it from others of its place.

Each function returns figures by name, none where there is nothing to show.
"""

import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from icbench.config import Cell
from icbench.report.drawing import (
    INK,
    TITLE,
    Figures,
    label_outside,
    laid_out,
    panels_for,
    parts,
    put_one_legend,
)
from icbench.report.stats import Tested
from icbench.report.theory.factors import CORRELATION, INFORMATION, Profile, profiles
from icbench.report.theory.measured import Measured
from icbench.report.theory.relation import Relation
from icbench.report.theory.statistics import Statistic, of_seeds, shown

_PANELS = 15
# Epochs that are shown beside each other: the first ones and the last.
_EPOCHS = 3
_LINES = ("-", "--", ":", "-.")
_MARKS = "osD^vPX*"
_Z = 1.96
_TWO_DECADES = 100
# A factor whose interval reaches further to either side tells nothing: where there is hardly any dependence.
_ROUGH = 0.2


@dataclass(frozen=True)
class Looks:
    """How each cell is drawn, the same in all figures."""

    measured: Measured

    def of(self, cell: Cell) -> dict[str, Any]:
        """Colour, line and mark."""
        return {"color": self._colours[cell.config.ordering]} | self._style(self._rest(cell))

    def put_legend(self, figure: Figure, grid: Sequence[Axes], *, lines: bool) -> None:
        """Beside all panels: what the colours mean, and then what lines or marks do."""
        for ordering, colour in self._colours.items():
            grid[0].plot(
                [], [], color=colour, linestyle="-" if lines else "", marker="" if lines else "o", label=ordering
            )
        rests = [rest for rest in self._rests if rest]
        for rest in rests if len(rests) > 1 else ():
            style = self._style(rest) | ({"marker": ""} if lines else {"linestyle": ""})
            grid[0].plot([], [], color=INK, alpha=0.7, label=rest, **style)
        put_one_legend(figure, grid)

    @cached_property
    def _colours(self) -> dict[str, Any]:
        evidence = self.measured.evidence
        orderings = list(dict.fromkeys(cell.config.ordering for cell in self.measured.cells))
        baselines = {evidence.cells[cell_id].config.ordering for cell_id in evidence.baseline_cells}
        treated = [ordering for ordering in orderings if ordering not in baselines]
        colours = dict(zip(treated, sns.color_palette("colorblind", max(1, len(treated))), strict=False))
        return {ordering: colours.get(ordering, INK) for ordering in orderings}

    @cached_property
    def _rests(self) -> list[str]:
        return list(dict.fromkeys(self._rest(cell) for cell in self.measured.cells))

    def _rest(self, cell: Cell) -> str:
        """What tells a cell from others of its ordering; the first thing of it where there are too many for marks."""
        words = self._all_of_rest(cell)
        return words.split(", ")[0] if self._are_many else words

    def _all_of_rest(self, cell: Cell) -> str:
        return self.measured.name(cell).removeprefix(cell.config.ordering).removeprefix(", ")

    @cached_property
    def _are_many(self) -> bool:
        return len({self._all_of_rest(cell) for cell in self.measured.cells}) > len(_MARKS)

    def _style(self, rest: str) -> dict[str, Any]:
        at = [each for each in self._rests if each].index(rest) if rest else 0
        return {"linestyle": _LINES[at % len(_LINES)], "marker": _MARKS[at % len(_MARKS)]}


def factors(measured: Measured, statistic: str, label: str) -> Figures:
    """Of each cell with dropout a factor by dropout layer, measured and predicted; epochs are shades."""
    found = [(cell, profiles(measured, cell, statistic)) for cell in measured.cells if cell.config.dropout]
    shown = [(cell, [p for p in own if p.positions]) for cell, own in found if own]
    rates = {cell.config.dropout for cell, _ in shown}
    columns = _columns(len(rates))
    figures = {}
    for number, part in parts([each for each in shown if each[1]], _PANELS // columns * columns):
        figure, grid = panels_for(len(part), columns)
        for axes, (cell, own) in zip(grid, part, strict=False):
            _draw_factor(axes, _first_and_last(own))
            several = len(measured.places) > 1
            words = measured.name(cell) + (f"\n{measured.place(cell)}" if several else "")
            axes.set_title("\n".join(textwrap.fill(line, TITLE) for line in words.split("\n")))
        limits = _limits([profile for _, own in part for profile in own])
        for axes in grid[: len(part)]:
            axes.set_ylim(*limits)
        label_outside(grid, len(part), "dropout layer, from the input", textwrap.fill(label, TITLE))
        put_one_legend(figure, grid[: len(part)])
        figures[f"theory-{statistic.replace('_', '-')}{number}"] = figure
    return figures


def _limits(every: Sequence[Profile]) -> tuple[float, float]:
    """Of a factor: wide enough for what is predicted, and for what is measured so well that it could say otherwise."""
    predicted = np.concatenate([each.predicted for each in every])
    precise = np.concatenate([each.measured[np.nan_to_num(_Z * each.error) <= _ROUGH] for each in every])
    values = np.concatenate([predicted, precise])
    return min(0.0, values.min()), max(1.0, values.max()) + _ROUGH / 2


def _columns(alike: int) -> int:
    """Of panels beside each other: as many as belong together, where that is two or three."""
    return alike if alike in (2, 3) else 3


def _first_and_last(own: list[Profile]) -> list[Profile]:
    return own if len(own) <= _EPOCHS else [*own[: _EPOCHS - 1], own[-1]]


def _draw_factor(axes: Axes, own: list[Profile]) -> None:
    shades = sns.color_palette("crest", max(len(own), 2))
    for index, profile in enumerate(own):
        x = np.array(profile.positions, dtype=float)
        shift = 0.16 * (index - (len(own) - 1) / 2)
        axes.errorbar(
            x + shift, profile.measured, np.nan_to_num(_Z * profile.error), color=shades[index], marker="o",
            markersize=3.5, elinewidth=1, linestyle="", label=f"measured, epoch {profile.epoch}",
        )  # fmt: skip
    alike = all(np.allclose(each.predicted, own[0].predicted, rtol=1e-3) for each in own if _same_layers(each, own[0]))
    for index, profile in enumerate(own[:1] if alike else own):
        colour = INK if alike else shades[index]
        words = "predicted" if alike else f"predicted, epoch {profile.epoch}"
        axes.plot(profile.positions, profile.predicted, color=colour, linestyle="--", linewidth=1, label=words)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="x", visible=False)


def _same_layers(one: Profile, other: Profile) -> bool:
    return one.positions == other.positions


def by_layer(measured: Measured, statistic: Statistic, looks: Looks) -> Figures:
    """A statistic by weight layer, a panel for each place and epoch: means over seeds, bands over their range."""
    panels = [(place, cells, epoch) for place, cells in measured.places.items()
              for epoch in _chosen(_epochs(measured, statistic, cells))]  # fmt: skip
    figures = {}
    columns = _columns(max(Counter(place for place, _, _ in panels).values(), default=1))
    for number, part in parts(panels, _PANELS // columns * columns):
        figure, grid = panels_for(len(part), columns)
        for axes, (place, cells, epoch) in zip(grid, part, strict=False):
            for cell in cells:
                _draw_layers(axes, measured, statistic, cell, epoch, looks)
            words = f"epoch {epoch}" if epoch else "before the first step"
            axes.set_title(words if len(measured.places) == 1 else f"{textwrap.fill(place, TITLE)}\n{words}")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _scale(grid[: len(part)], "y", statistic)
        _share_heights(grid[: len(part)])
        label_outside(grid, len(part), "weight layer, from the input", textwrap.fill(statistic.title, TITLE))
        looks.put_legend(figure, grid[: len(part)], lines=True)
        figures[f"theory-layers-{_file(statistic)}{number}"] = figure
    return figures


def _draw_layers(axes: Axes, measured: Measured, statistic: Statistic, cell: Cell, epoch: int, looks: Looks) -> None:
    values, _ = measured.of_cell(statistic.key, cell, epoch)
    if not values.size:
        return
    x = measured.positions(statistic.key, cell, epoch)
    known = np.ma.masked_invalid(values)
    look = {"color": looks.of(cell)["color"], "linestyle": looks.of(cell)["linestyle"]}
    axes.plot(x, known.mean(axis=0), linewidth=1.2, marker=".", markersize=4, **look)
    axes.fill_between(x, known.min(axis=0), known.max(axis=0), color=look["color"], alpha=0.1, linewidth=0)


def _epochs(measured: Measured, statistic: Statistic, cells: Sequence[Cell]) -> list[int]:
    return sorted({epoch for cell in cells for epoch in measured.epochs(statistic.key, cell)})


def _chosen(epochs: list[int]) -> list[int]:
    return epochs if len(epochs) <= _EPOCHS else [*epochs[: _EPOCHS - 1], epochs[-1]]


def _scale(grid: Sequence[Axes], along: Literal["x", "y"], statistic: Statistic) -> None:
    """Logarithmic axes where all that is drawn is positive and spans a decade; with more ticks where it spans one."""
    drawn = [line.get_xdata() if along == "x" else line.get_ydata() for axes in grid for line in axes.lines]
    values = np.concatenate([np.ma.filled(np.ma.asarray(each, dtype=float), np.nan) for each in drawn] or [[]])
    known = values[np.isfinite(values)]
    if not statistic.log or not len(known) or known.min() <= 0 or known.max() < 10 * known.min():
        return
    for axes in grid:
        axis = axes.xaxis if along == "x" else axes.yaxis
        (axes.set_xscale if along == "x" else axes.set_yscale)("log")
        if known.max() < _TWO_DECADES * known.min():
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def _share_heights(grid: Sequence[Axes]) -> None:
    """The same range in all panels of a figure, since they show the same."""
    low, high = min(axes.get_ylim()[0] for axes in grid), max(axes.get_ylim()[1] for axes in grid)
    for axes in grid:
        axes.set_ylim(low, high)


def over_epochs(measured: Measured, statistics: Sequence[Statistic], looks: Looks) -> Figures:
    """What is of the net as a whole, or the mean over layers, by epoch: a panel for each statistic and place."""
    panels = [(statistic, place, cells) for statistic in statistics for place, cells in measured.places.items()
              if len(_epochs(measured, statistic, cells)) > 1]  # fmt: skip
    figures = {}
    columns = _columns(len(measured.places))
    for number, part in parts(panels, _PANELS // columns * columns):
        figure, grid = panels_for(len(part), columns)
        for axes, (statistic, place, cells) in zip(grid, part, strict=False):
            for cell in cells:
                _draw_epochs(axes, measured, statistic, cell, looks)
            title = textwrap.fill(statistic.title, TITLE)
            axes.set_title(title if len(measured.places) == 1 else f"{title}\n{textwrap.fill(place, TITLE)}")
            _scale([axes], "y", statistic)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        label_outside(grid, len(part), "epoch", "")
        looks.put_legend(figure, grid[: len(part)], lines=True)
        figures["theory-epochs" + number] = figure
    return figures


def _draw_epochs(axes: Axes, measured: Measured, statistic: Statistic, cell: Cell, looks: Looks) -> None:
    epochs = measured.epochs(statistic.key, cell)
    means = [float(np.mean(of_seeds(measured, statistic, cell, epoch))) for epoch in epochs]
    look = looks.of(cell)
    axes.plot(epochs, means, color=look["color"], linestyle=look["linestyle"], linewidth=1.2, marker=".", markersize=4)


def relations(measured: Measured, rows: Sequence[Relation], looks: Looks) -> Figures:
    """Each cell's speed against what was measured of it early; a panel for each statistic and place."""
    figures = {}
    for number, part in parts([row for row in rows if not math.isnan(row.rho.value)], _PANELS):
        figure, grid = panels_for(len(part))
        for axes, row in zip(grid, part, strict=False):
            for cell, x, y in zip(row.cells, row.x, row.y, strict=True):
                look = looks.of(cell)
                axes.plot([x], [100 * y], color=look["color"], marker=look["marker"], markersize=5, alpha=0.9)
            _scale([axes], "x", row.statistic)
            axes.set_xlabel(textwrap.fill(row.statistic.title, TITLE))
            told = [textwrap.fill(row.place, TITLE)] if len(measured.places) > 1 else []
            told.append(f"ρ = {_in_words(row.rho)}")
            if not math.isnan(row.rho_equal_rates.value):
                told.append(f"equal rates {_in_words(row.rho_equal_rates)}")
            axes.set_title("\n".join(told))
        for axes, _ in zip(grid[::3], part[::3], strict=False):
            axes.set_ylabel("area under the accuracy curve (%)")
        looks.put_legend(figure, grid[: len(part)], lines=False)
        figures["theory-relation" + number] = figure
    return figures


def _in_words(rho: Tested) -> str:
    return f"{rho.value:+.2f} [{rho.low:+.2f}, {rho.high:+.2f}]".replace("-", "−")


def _file(statistic: Statistic) -> str:
    return "-".join(statistic.key).replace("_", "-")


def draw(measured: Measured, rows: Sequence[Relation]) -> Figures:
    """All, in the page's order, as far as there is something to show in them."""
    looks = Looks(measured)
    every = shown(measured)
    layered = [statistic for statistic in every if _is_layered(measured, statistic)]
    figures = factors(measured, INFORMATION, "factor of the mutual information")
    figures |= factors(measured, CORRELATION, "factor of the correlation")
    for statistic in layered:
        figures |= by_layer(measured, statistic, looks)
    figures |= over_epochs(measured, every, looks)
    figures |= relations(measured, rows, looks)
    return laid_out(figures)


def _is_layered(measured: Measured, statistic: Statistic) -> bool:
    """Whether it has values of more than the net as a whole."""
    return any(layer for layers in measured.values[statistic.key].values() for layer in layers)
