"""The figure of `icbench bench whitening`: time and memory by width, a line a layer, exponents beneath each panel."""

from collections.abc import Sequence
from pathlib import Path

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from icbench.bench.findings import Row
from icbench.bench.measure import Spread
from icbench.bench.scaling import PowerLaw
from icbench.bench.whitening import LAYERS, curve, growth
from icbench.report.drawing import save, style

# A panel's cost, its title, what stands along its axis, and a unit's worth of that.
_PANELS = (
    ("forward", "forward", "time of a step (ms)", 1e-3),
    ("backward", "backward", "time of a step (ms)", 1e-3),
    ("memory", "a whole step", "peak extra memory (MB)", 1e6),
)
# To be told apart without colour, too: a marker a kind of layer; dashed is a cheaper way, dotted has no gradient.
_MARKERS = {"ic": "o", "fast": "o", "zca": "s", "iternorm": "^", "ica": "D"}
_DASHES = {"fast-ic": "--", "zca-16": "--", "iternorm-16": "--", "ica": ":"}
_COLOURS = {"ic": 0, "fast": 0, "zca": 3, "iternorm": 2, "ica": 4}
_NAMES = {"fast-ic": "ic, fast dropout", "zca-16": "zca, groups of 16", "iternorm-16": "iternorm, groups of 16"}
# Channels shown along the axis, at most.
_TICKS = 8


def draw(rows: Sequence[Row], target: Path) -> None:
    """Write the figure as the file's suffix says."""
    with style():
        save(figure(rows), target)


def figure(rows: Sequence[Row]) -> Figure:
    """rows: of the bench's first table."""
    drawn = Figure(figsize=(8.7, 4.2), layout="constrained")
    panels = drawn.subplots(1, len(_PANELS))
    for axes, (cost, title, label, unit) in zip(panels, _PANELS, strict=True):
        for layer in LAYERS:
            _draw_line(axes, rows, layer, cost, unit)
        axes.set(title=title, xlabel="channels C", ylabel=label, xscale="log", yscale="log")
        _label_widths(axes, sorted({row["width"] for row in rows}))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left", bbox_to_anchor=(-0.08, -0.2), handlelength=3, labelspacing=0.3)
    low, high = zip(*(axes.get_ylim() for axes in panels[:2]), strict=True)
    for axes in panels[:2]:
        axes.set_ylim(min(low), max(high))
    return drawn


def _draw_line(axes: Axes, rows: Sequence[Row], layer: str, cost: str, unit: float) -> None:
    """Medians, with the least and the most of the turns."""
    widths, values = curve(rows, layer, cost)
    if not widths:
        return
    spreads = [value if isinstance(value, Spread) else Spread(value, value, value, 1) for value in values]
    middles = [each.median / unit for each in spreads]
    below = [(each.median - each.least) / unit for each in spreads]
    above = [(each.most - each.median) / unit for each in spreads]
    kind, cheaper = layer.partition("-")[0], _DASHES.get(layer) == "--"
    colour = sns.color_palette()[_COLOURS[kind]]
    axes.errorbar(
        widths,
        middles,
        [below, above],
        label=_NAMES.get(layer, layer) + _power(growth(rows, layer, cost)),
        color=colour,
        linestyle=_DASHES.get(layer, "-"),
        linewidth=1.2,
        elinewidth=0.8,
        marker=_MARKERS[kind],
        markersize=3.5,
        markerfacecolor="white" if cheaper else colour,
    )


def _power(law: PowerLaw | None) -> str:
    if law is None:
        return ""
    error = "" if law.error is None else rf" \pm {law.error:.2f}"
    return rf": $C^{{\,{law.exponent:.2f}{error}}}$"


def _label_widths(axes: Axes, widths: Sequence[int]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(widths[:: -(-len(widths) // _TICKS)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda width, _: f"{width:g}"))
    axes.tick_params(axis="x", labelsize=7)
