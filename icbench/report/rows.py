"""Estimates with their intervals as figures show them, one a row; what is outside goes to the edge, with its number."""

import math
import textwrap
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes

from icbench.report.drawing import NAME, window
from icbench.report.stats import Estimate


def draw_estimates(
    axes: Axes,
    estimates: Sequence[Estimate],
    cells: Sequence[Sequence[float]],
    at_least: tuple[float, float] | None = None,
    scope: Sequence[float] = (),
) -> None:
    """Estimates with their intervals, one a row, over those of single cells; what is outside goes to the edge.

    at_least: what an axis of ratios shows in any case; scope: what else an axis of differences shows.
    """
    shown = [*scope, *(each for estimate in estimates for each in estimate), *(each for row in cells for each in row)]
    known = [each for each in shown if math.isfinite(each) and (each > 0 or not at_least)]
    if at_least:
        low, high = (2**edge for edge in window(np.log2(known), np.log2(at_least)))
        edges = (low / 1.1, high * 1.1)
    else:
        low, high = window(known, [0.0, *scope])
        margin = 0.06 * (high - low) or 1.0
        edges = (low - margin, high + margin)
    axes.set_xlim(*edges)
    for row, (estimate, own) in enumerate(zip(estimates, cells, strict=True)):
        _estimate(axes, row, estimate, own, edges, in_times if at_least else in_points)


def in_points(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def in_times(value: float) -> str:
    return f"{value:.2g}×" if math.isfinite(value) else "∞"


def _estimate(
    axes: Axes,
    row: int,
    estimate: Estimate,
    cells: Sequence[float],
    edges: tuple[float, float],
    say: Callable[[float], str],
) -> None:
    value, low, high = estimate
    for each in cells:
        if not math.isnan(each):
            axes.plot(
                [np.clip(each, *edges)], [row], _shape(each, edges),
                color="C0", alpha=0.3, markersize=3, markeredgewidth=0,
            )  # fmt: skip
    if low == 0 and math.isinf(high):  # an interval that says nothing
        axes.axhline(row, color="C0", linewidth=0.8, linestyle=":")
    elif not math.isnan(low):
        start, end = max(low, edges[0]), min(high, edges[1])
        axes.plot([min(start, end), end], [row, row], color="C0", linewidth=1.6, solid_capstyle="butt")
        if math.isinf(high):
            axes.plot([edges[1]], [row], ">", color="C0", markersize=5, clip_on=False)
    if not math.isfinite(value):
        tell(axes, row, ">", "–" if math.isnan(value) else "never")
    elif edges[0] <= value <= edges[1]:
        axes.plot([value], [row], "o", color="C0", markersize=5)
        for bound in (low, high):
            # A ratio's interval from nought, or without an end, is not cut: it has no number there.
            if math.isfinite(bound) and bound != 0 and not edges[0] <= bound <= edges[1]:
                axes.plot([np.clip(bound, *edges)], [row], _shape(bound, edges), color="C0", markersize=5)
                tell(axes, row, _shape(bound, edges), f"to {say(bound)}")
    else:
        axes.plot([np.clip(value, *edges)], [row], _shape(value, edges), color="C0", markersize=5, clip_on=False)
        interval = "" if math.isnan(low) else f" [{say(low)}, {say(high)}]"
        tell(axes, row, _shape(value, edges), say(value) + interval)


def _shape(value: float, edges: tuple[float, float]) -> str:
    """A dot, or what points out of the figure."""
    return "<" if value < edges[0] else ">" if value > edges[1] else "o"


def tell(axes: Axes, row: int, side: str, words: str, lift: float = 0.08) -> None:
    """Words over a row's line at one of its ends."""
    x, align = (0.04, "left") if side == "<" else (0.96, "right")
    axes.annotate(words, (x, row - lift), xycoords=("axes fraction", "data"), ha=align, va="bottom", fontsize=8)


def name_rows(axes: Axes, names: Sequence[str], width: float) -> None:
    """Name the rows from the top, and give the figure so many inches beside the names, however long these are."""
    wrapped = [textwrap.fill(name, NAME) for name in names]
    axes.set_yticks(range(len(names)), wrapped)
    axes.set_ylim(len(names) - 0.5, -0.5)
    row = max(0.3, 0.16 * max(1 + name.count("\n") for name in wrapped))
    figure = axes.get_figure(root=True)
    assert figure is not None
    extent = axes.yaxis.get_tightbbox()
    figure.set_size_inches(width + (extent.width / figure.dpi if extent else 0), 1.2 + row * len(names))
