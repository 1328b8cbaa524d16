"""How figures are drawn and saved: one style, small multiples, legends that cover nothing."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from numpy.typing import ArrayLike

from icbench.files import write_whole

# Every text and line that is neither data nor background has this colour; a page may put its own in its place.
INK = "#2b2b2b"
# Characters of a line of text: of a panel's title, of a row's name.
TITLE = 32
NAME = 40
# Inches that a page is wide.
_WIDEST = 9.0
# A legend of more text than this would cover the curves that it stands among.
_LEGEND_LINES = 5
# A range so many times as wide as that of the bulk squeezes it into a line.
_SQUEEZED = 3.0
# No accuracy is above 100 %, whatever an interval says.
TOP = 100.5
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.facecolor": "none",
    "grid.alpha": 0.15,
    "grid.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "icbench",
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}

Figures = dict[str, Figure]
T = TypeVar("T")


@contextmanager
def style() -> Iterator[None]:
    """Draw and save figures within this."""
    with sns.axes_style("ticks"), sns.color_palette("colorblind"), mpl.rc_context(_STYLE):
        yield


def save(figure: Figure, target: Path) -> None:
    """Write a figure as its file's suffix says, whole or not at all; the same figure gives the same file."""
    kind = target.suffix[1:]
    metadata: dict[str, Any] | None = {"Date": None} if kind == "svg" else None
    write_whole(target, lambda file: figure.savefig(file, format=kind, dpi=200, metadata=metadata), durable=False)


def laid_out(figures: Figures) -> Figures:
    """The figures with all in its place: to lay many panels out takes seconds, and would be done anew for each file."""
    for figure in figures.values():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return figures


def window(values: ArrayLike, always: ArrayLike = ()) -> tuple[float, float]:
    """The range to show: that of all values, unless this is over three times as wide as that of the bulk.

    The bulk is what lies within the outer fences, three interquartile ranges from the quartiles (Tukey 1977), and what
    is to be shown `always`. Where the middle half are equal there is no such measure, and everything is shown.
    """
    known, fixed = np.asarray(values, dtype=float), np.asarray(always, dtype=float)
    every = np.concatenate([known, fixed])
    first, third = np.percentile(every, [25, 75])
    reach = 3 * (third - first)
    bulk = np.concatenate([known[(known >= first - reach) & (known <= third + reach)], fixed])
    squeezed = reach > 0 and np.ptp(every) > _SQUEEZED * np.ptp(bulk)
    shown = bulk if squeezed else every
    return float(shown.min()), float(shown.max())


def parts(items: Sequence[T], most: int) -> Iterator[tuple[str, Sequence[T]]]:
    """Parts of at most so many, with what to add to their names: nothing to the only one."""
    for start in range(0, len(items), most):
        yield (f"-{start // most + 1}" if len(items) > most else ""), items[start : start + most]


def panels_for(count: int, columns: int = 3, least: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Small multiples: at most so many in a row, fewer where a panel needs many inches (`least`)."""
    columns = max(1, min(columns, count, int(_WIDEST / max(least, 0.1))))
    rows = -(-count // columns)
    width = max(least, {1: 4.8, 2: 3.6, 3: 2.9}[columns])
    figure = Figure(figsize=(width * columns, 2.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, list(grid)


def stand_beside(labels: Sequence[Sequence[str]]) -> bool:
    """Whether panels have legends of their own, and these are too long to stand among the curves."""
    wrapped = [[textwrap.fill(label, TITLE) for label in each] for each in labels]
    lines = [sum(1 + label.count("\n") for label in each) for each in wrapped]
    return any(each != wrapped[0] for each in wrapped) and max(lines) > _LEGEND_LINES


def put_legends(figure: Figure, grid: Sequence[Axes]) -> None:
    """One legend beside all panels where they show the same; else one in each that needs one, or beside it."""
    entries = [axes.get_legend_handles_labels() for axes in grid]
    wrapped = [[textwrap.fill(label, TITLE) for label in labels] for _, labels in entries]
    if all(labels == wrapped[0] for labels in wrapped):
        if wrapped[0]:
            make_room(figure, [figure.legend(entries[0][0], wrapped[0], loc="outside right upper")])
        return
    beside = stand_beside(wrapped)
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1)} if beside else {"loc": "lower right"}
    legends = [
        axes.legend(handles, labels, **place)
        for axes, (handles, _), labels in zip(grid, entries, wrapped, strict=True)
        if labels
    ]
    if beside:
        spec = grid[0].get_subplotspec()
        assert spec is not None
        rows, columns, *_ = spec.get_geometry()
        make_room(figure, legends, rows, columns)


def put_one_legend(figure: Figure, grid: Sequence[Axes]) -> None:
    """One legend beside all panels, of all that any of them shows, each once."""
    entries: dict[str, Any] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(textwrap.fill(label, TITLE), handle)
    make_room(figure, [figure.legend(list(entries.values()), list(entries), loc="outside right upper")])


def make_room(figure: Figure, legends: Sequence[Legend], rows: int = 1, columns: int = 1) -> None:
    """Widen the figure by a legend a column, and let each row be as high as its legend."""
    extents = [legend.get_window_extent() for legend in legends]
    width, height = figure.get_size_inches()
    room = max(extent.width for extent in extents) / figure.dpi
    needed = max(extent.height for extent in extents) / figure.dpi + (0.7 if rows * columns > 1 else 0.3)
    figure.set_size_inches(width + columns * room, max(height, rows * needed))


def label_outside(grid: list[Axes], count: int, x: str, y: str) -> None:
    """Label the axes at the left and at the bottom of the panels."""
    spec = grid[0].get_subplotspec()
    assert spec is not None
    columns = spec.get_geometry()[1]
    for index, axes in enumerate(islice(grid, count)):
        if index % columns == 0:
            axes.set_ylabel(y)
        if index + columns >= count:
            axes.set_xlabel(x)
