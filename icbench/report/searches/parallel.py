"""Parallel coordinates: each trial a line through its parameters' values, coloured by what it came to."""

import math
import textwrap
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from icbench.metrics import Floats
from icbench.report.drawing import INK, TITLE, Figures, parts, window
from icbench.report.searches.found import Found, Trial, in_short, scale
from icbench.search.space import Parameter, Value

# The middle of viridis: told apart by all who see, and from white and from black.
_MAP = ListedColormap(mpl.colormaps["viridis"](np.linspace(0.2, 0.85, 256)))
_PANELS = 6
_TICKS = 4
_CHOICES = 12
# Values that are nearer to one another, of an axis's height, would stand in each other's way.
_NEAR = 0.12
_NAME = 14
_AXIS, _HEIGHT = 1.25, 2.7


def parallel(every: Sequence[Found]) -> Figures:
    """A panel for each cell with two parameters or more, by the first objective."""
    shown = [found for found in every if len(found.dimensions) > 1 and found.different]
    figures = {}
    for number, part in parts(shown, _PANELS):
        width = max(4.2, _AXIS * max(1 + len(found.dimensions) for found in part) + 1.2)
        figure = Figure(figsize=(width, _HEIGHT * len(part)), layout="constrained")
        for axes, found in zip(figure.subplots(len(part), 1, squeeze=False)[:, 0], part, strict=True):
            _draw(figure, axes, found)
            axes.set_title(textwrap.fill(found.name, 2 * TITLE))
        figures["parallel" + number] = figure
    return figures


def _draw(figure: Figure, axes: Axes, found: Found) -> None:
    objective = found.search.objective
    values = scale(objective) * np.array([trial.values[0] for trial in found.different])
    low, high = window(values)
    colours = Normalize(low, high if high > low else low + 1e-9, clip=True)
    heights = np.array([_heights(dimension, found.different) for dimension in found.dimensions]).T
    # The best is drawn last, on top.
    order = np.argsort(values if objective.direction == "maximize" else -values, kind="stable")
    lines = LineCollection(
        [list(enumerate(each)) for each in heights[order]], cmap=_MAP, norm=colours, linewidths=1.2, alpha=0.85
    )
    lines.set_array(values[order])
    axes.add_collection(lines)
    for place, dimension in enumerate(found.dimensions):
        _draw_axis(axes, place, dimension)
    names = [textwrap.fill(each.name.replace("_", " "), _NAME) for each in found.dimensions]
    axes.set_xticks(range(len(names)), names)
    axes.tick_params(axis="x", length=0, pad=6)
    axes.set(xlim=(-0.4, len(names) - 0.6), ylim=(-0.06, 1.06), yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    label = f"{objective.title} (%)" if objective.is_fraction else objective.title
    bar = figure.colorbar(ScalarMappable(colours, _MAP), ax=axes, extend=_extend(values, low, high), pad=0.02)
    bar.set_label(textwrap.fill(label, TITLE * 2 // 3))
    bar.outline.set_visible(False)


def _extend(values: Floats, low: float, high: float) -> str:
    """Whether values lie beyond the colours' ends."""
    below, above = values.min() < low, values.max() > high
    return "both" if below and above else "min" if below else "max" if above else "neither"


def _heights(dimension: Parameter, trials: Sequence[Trial]) -> list[float]:
    """Where the trials' values are on an axis from 0 to 1."""
    return [_height(dimension, trial.parameters[dimension.name]) for trial in trials]


def _height(dimension: Parameter, value: Value) -> float:
    if dimension.choices:
        labels = [label for label, _ in dimension.choices]
        return labels.index(str(value)) / (len(labels) - 1)
    low, high, number = dimension.low, dimension.high, float(value)
    if dimension.log:
        low, high, number = math.log(low), math.log(high), math.log(number)
    return (number - low) / (high - low)


def _draw_axis(axes: Axes, place: int, dimension: Parameter) -> None:
    """A vertical line with the values that stand beside it, of the first axis where there are no lines."""
    axes.axvline(place, 0.05, 0.95, color=INK, linewidth=0.8)
    away, align = (4, "left") if place else (-4, "right")
    for value in _told(dimension):
        told = in_short(value)
        axes.annotate(
            textwrap.shorten(told, _NAME, placeholder="…") if dimension.choices else told,
            (place, _height(dimension, value)), xytext=(away, 0), textcoords="offset points",
            ha=align, va="center", fontsize=7,
        )  # fmt: skip


def _told(dimension: Parameter) -> list[Value]:
    """The values that an axis tells."""
    if dimension.choices:
        labels = [label for label, _ in dimension.choices]
        step = -(-len(labels) // _CHOICES)
        return list(labels[::step])
    locator = (
        LogLocator(numticks=_TICKS + 2)
        if dimension.log
        else MaxNLocator(_TICKS, steps=[1, 2, 5, 10], integer=dimension.integer)
    )
    ends: list[Value] = [dimension.low, dimension.high]
    between = [float(value) for value in locator.tick_values(dimension.low, dimension.high)]
    heights = [_height(dimension, end) for end in ends]
    return ends + [
        value
        for value in between
        if dimension.low < value < dimension.high
        and all(abs(_height(dimension, value) - height) > _NEAR for height in heights)
    ]
