"""The report's figures, in one style: seaborn's colour-blind palette, units on the axes, the baseline dashed in ink.

Each function returns figures by name, none where there is nothing to show. Accuracies are shown in per cent,
differences in percentage points.
"""

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from icbench.config import RunConfig
from icbench.files import write_whole
from icbench.report import metrics, stats
from icbench.report.answer import BASELINE_S, target_in_words
from icbench.report.comparison import NONE, Comparisons
from icbench.report.evidence import Evidence
from icbench.report.metrics import Floats
from icbench.report.published import SOURCES, Beside
from icbench.report.stats import Estimate
from icbench.report.treatments import Contrast, cell_in_words, contrasts, in_words, varying

# Every text and line that is neither data nor background has this colour; a page may put its own in its place.
INK = "#2b2b2b"
_PANELS = 12
_LINES = 8
_TITLE = 32
# More runs than so many are not shown one by one.
_DOTS = 600
# A profile of fewer places is but a step.
_FEWEST_WORKLOADS = 3
# What an axis of ratios shows in any case.
_RATIOS = (0.5, 2.0)
_PLACE = {"dataset", "block", "depth"}
_ROWS = 40
_POINTS = 100
# No accuracy is above 100 %, whatever an interval says.
_TOP = 100.5
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


def effects(found: Comparisons, target: str = BASELINE_S) -> Figures:
    """What each treatment does to the final accuracy and to the epochs to the target; pale: the cells behind it."""
    figures = {}
    for number, part in _parts(found.pooled, _ROWS):
        figure = Figure(figsize=(7.2, 1.1 + 0.3 * len(part)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        behind = [[c for c in found.single if len(p.pairs) > 1 and c.treatment == p.treatment] for p in part]
        _estimates(
            left,
            [_percent(p.final.estimate) for p in part],
            [[100 * c.final.value for c in cells] for cells in behind],
        )
        right.set_xscale("log", base=2)
        _estimates(
            right,
            [p.epochs_ratio for p in part],
            [[c.epochs_ratio.value for c in cells] for cells in behind],
            at_least=_RATIOS,
        )
        right.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        right.xaxis.set_minor_formatter(NullFormatter())
        for axes, same, label in (
            (left, 0.0, "final accuracy less the baseline's (points)"),
            (right, 1.0, f"epochs to {target} (ratio)"),
        ):
            axes.axvline(same, color=INK, linestyle="--", linewidth=0.8)
            axes.set_xlabel(label)
            axes.grid(axis="y", visible=False)
        left.set_yticks(range(len(part)), [pooled.treatment for pooled in part])
        left.set_ylim(len(part) - 0.5, -0.5)
        figures["effects" + number] = figure
    return figures


def _percent(estimate: Estimate) -> Estimate:
    return Estimate(*(100 * each for each in estimate))


def _estimates(
    axes: Axes,
    estimates: Sequence[Estimate],
    cells: Sequence[Sequence[float]],
    at_least: tuple[float, float] | None = None,
    scope: Sequence[float] = (),
) -> None:
    """Estimates with their intervals, one a row, over those of single cells; what has no end goes to the edge.

    at_least: what an axis of ratios shows in any case; scope: what else the axis is to show.
    """
    shown = [*scope, *(each for estimate in estimates for each in estimate), *(each for row in cells for each in row)]
    known = [each for each in (*shown, *(at_least or (0.0,))) if math.isfinite(each) and (each > 0 or not at_least)]
    low, high = min(known), max(known)
    if at_least:
        edges = (low / 1.1, high * 1.1)
    else:
        margin = 0.06 * (high - low) or 1.0
        edges = (low - margin, high + margin)
    axes.set_xlim(*edges)
    for row, (estimate, own) in enumerate(zip(estimates, cells, strict=True)):
        _estimate(axes, row, estimate, own, edges)


def _estimate(axes: Axes, row: int, estimate: Estimate, cells: Sequence[float], edges: tuple[float, float]) -> None:
    value, low, high = estimate
    for each in cells:
        if not math.isnan(each):
            shape = "o" if math.isfinite(each) else ">"
            axes.plot([min(each, edges[1])], [row], shape, color="C0", alpha=0.3, markersize=3, markeredgewidth=0)
    if low == 0 and math.isinf(high):  # an interval that says nothing
        axes.axhline(row, color="C0", linewidth=0.8, linestyle=":")
    elif not math.isnan(low):
        start, end = max(low, edges[0]), min(high, edges[1])
        axes.plot([min(start, end), end], [row, row], color="C0", linewidth=1.6, solid_capstyle="butt")
        if math.isinf(high):
            axes.plot([edges[1]], [row], ">", color="C0", markersize=5, clip_on=False)
    if math.isfinite(value):
        axes.plot([value], [row], "o", color="C0", markersize=5)
    else:
        words = "–" if math.isnan(value) else "never"
        axes.annotate(
            words, (0.96, row - 0.08), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8
        )


def learning_curves(evidence: Evidence) -> Figures:
    """Test accuracy by epoch: means over seeds, bands from the lowest to the highest; a panel for each place."""
    panels = _panels(evidence)
    # Of very many panels the files would else be too large for a page; the bands still show every epoch.
    step = max(1, evidence.accuracy.shape[1] // _POINTS) if len(panels) > _PANELS else 1
    figures = {}
    for number, part in _parts(panels, _PANELS):
        figure, grid = _grid(len(part))
        for axes, (title, lines) in zip(grid, part, strict=False):
            _draw_curves(axes, title, lines, evidence, step)
        _label_outside(grid, len(part), "epoch", f"{_whose(evidence)} accuracy (%)")
        _legends(figure, grid[: len(part)])
        figures["learning-curves" + number] = figure
    return figures


Panel = tuple[str, list[tuple[str, str]]]
# Of a line the cells: where each stands along the axis, and its id.
Along = list[tuple[float | str, str]]


def _whose(evidence: Evidence) -> str:
    """What images accuracies are of, as the axes say it."""
    splits = {cell.config.split for cell in evidence.sweep.cells}
    return {"test": "test", "heldout": "held-out"}[splits.pop()] if len(splits) == 1 else "test or held-out"


def _panels(evidence: Evidence) -> list[Panel]:
    """Title, and the cells with their names, of each panel: the baseline of a place and its treatments."""
    by_place: dict[tuple[str, str], list[Contrast]] = {}
    for contrast in contrasts(evidence.sweep):
        by_place.setdefault((contrast.stratum, contrast.baseline.cell_id), []).append(contrast)
    panels: list[Panel] = []
    for (stratum, baseline), all_here in by_place.items():
        groups: dict[str, list[Contrast]] = {}
        for contrast in all_here:
            key = contrast.cell.config.ordering if len(all_here) > _LINES else ""
            groups.setdefault(key, []).append(contrast)
        place = textwrap.fill(stratum, _TITLE)
        for ordering, members in groups.items():
            for _, part in _parts(members, _LINES):
                lines = [(c.treatment.removeprefix(f"{ordering}, "), c.cell.cell_id) for c in part]
                panels.append((f"{place}\n{ordering}" if ordering else place, [("baseline", baseline), *lines]))
    compared = {cell_id for _, lines in panels for _, cell_id in lines}
    panels += _panels_of_others(evidence, compared)
    drawn = [(title, [line for line in lines if evidence.rows[line[1]]]) for title, lines in panels]
    return [(title, lines) for title, lines in drawn if lines]


def _panels_of_others(evidence: Evidence, compared: set[str]) -> list[Panel]:
    """Panels of the cells that have no baseline, by data set and net."""
    differing = varying(cell.config for cell in evidence.sweep.cells)
    of_place = _PLACE | (differing & {"width", "recipe", "precision", "split"})
    places: dict[str, list[tuple[str, str]]] = {}
    for cell_id, cell in evidence.cells.items():
        if cell_id not in compared:
            words = in_words(cell.config, {"ordering"} | differing - of_place)
            places.setdefault(in_words(cell.config, of_place), []).append((words, cell_id))
    return [
        (textwrap.fill(title, _TITLE), list(part))
        for title, lines in places.items()
        for _, part in _parts(lines, _LINES)
    ]


def _draw_curves(axes: Axes, title: str, lines: list[tuple[str, str]], evidence: Evidence, step: int) -> None:
    """Of each `step` epochs the last one's mean, and the lowest and highest of all of them as the band."""
    colours = iter(sns.color_palette())
    lows = []
    for name, cell_id in lines:
        rows = evidence.rows[cell_id]
        epochs = evidence.cells[cell_id].config.recipe.epochs
        curves = 100 * metrics.carried_on(evidence.accuracy[rows, :epochs])
        ends = np.arange(curves.shape[1] - 1, -1, -step)[::-1]
        starts = np.concatenate([[0], ends[:-1] + 1])
        look = {"color": INK, "linestyle": "--"} if name == "baseline" else {"color": next(colours)}
        ended = int(evidence.of(cell_id, "diverged").sum())
        words = f"{name} ({ended} of {len(rows)} diverged)".lstrip() if ended else name
        low = np.minimum.reduceat(curves.min(axis=0), starts)
        high = np.maximum.reduceat(curves.max(axis=0), starts)
        axes.plot(ends + 1, curves.mean(axis=0)[ends], linewidth=1.2, label=words or None, **look)
        axes.fill_between(ends + 1, low, high, color=look["color"], alpha=0.15, linewidth=0)
        lows.append(low[len(low) // 8 :].min())
    until = min(evidence.before_drop[cell_id] for _, cell_id in lines)
    if until < evidence.accuracy.shape[1]:
        axes.axvline(until, color=INK, linewidth=0.6, linestyle=":")
    axes.set_ylim(math.floor(min(lows)), min(axes.get_ylim()[1], _TOP))
    axes.set_title(title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


_AXES: dict[str, Callable[[RunConfig], float | str]] = {
    "dropout": lambda c: math.nan if c.dropout is None else c.dropout,
    "depth": lambda c: c.depth,
    "width": lambda c: c.width,
    "norm": lambda c: str(c.norm),
}
_UNITS = {"dropout": "dropout rate", "depth": "depth (layers)", "width": "width (channels)", "norm": "normalisation"}


def sensitivity(evidence: Evidence) -> Figures:
    """Final accuracy by dropout rate, depth, width and norm, where the sweep has several: means with t-intervals."""
    figures = {}
    for field, of in _AXES.items():
        cells = [c.config for c in evidence.sweep.cells if evidence.rows[c.cell_id]]
        values = list(dict.fromkeys(v for v in map(of, cells) if isinstance(v, str) or not math.isnan(v)))
        if len(values) > 1:
            for number, part in _parts(_lines_along(evidence, field), _PANELS):
                figures[f"by-{field}{number}"] = _draw_along(evidence, field, part, values)
    return figures


def _lines_along(evidence: Evidence, field: str) -> list[tuple[str, dict[str, Along]]]:
    """By place (all that differs but the field, the ordering and the rate) and by line: the cells along the field."""
    of = _AXES[field]
    own = {field}
    differing = varying(cell.config for cell in evidence.sweep.cells)
    of_line = {"ordering"} | (differing & {"dropout"}) - own
    of_place = (_PLACE | differing) - of_line - own
    places: dict[str, dict[str, Along]] = {}
    for cell_id, cell in evidence.cells.items():
        if evidence.rows[cell_id]:
            lines = places.setdefault(in_words(cell.config, of_place), {})
            lines.setdefault(in_words(cell.config, of_line), []).append((of(cell.config), cell_id))
    return [(title, part) for title, lines in places.items() for part in _lines_in_parts(lines)]


def _lines_in_parts(lines: dict[str, Along]) -> list[dict[str, Along]]:
    """No more lines than can be told apart, with the baselines in each part."""
    baselines = {name: cells for name, cells in lines.items() if name.startswith("baseline")}
    others = [item for item in lines.items() if item[0] not in baselines]
    return [baselines | dict(part) for _, part in _parts(others, _LINES)] or [baselines]


def _draw_along(
    evidence: Evidence,
    field: str,
    part: Sequence[tuple[str, dict[str, Along]]],
    values: Sequence[float | str],
) -> Figure:
    figure, grid = _grid(len(part))
    words = [v for v in values if isinstance(v, str)]
    numbers = [v for v in values if not isinstance(v, str)]
    span = max(numbers) - min(numbers) if numbers else 0.0
    for axes, (title, lines) in zip(grid, part, strict=False):
        palette = sns.color_palette("colorblind", n_colors=max(1, len(lines)))
        for index, (name, cells) in enumerate(lines.items()):
            is_baseline = name.startswith("baseline")
            colour = INK if is_baseline else palette[index]
            means = [stats.mean(100 * evidence.of(cell_id, "final")) for _, cell_id in cells]
            if field == "dropout" and is_baseline:
                for each in means:
                    axes.axhline(each.value, color=INK, linestyle="--", linewidth=1, label=name)
                    axes.axhspan(each.low, each.high, color=INK, alpha=0.08, linewidth=0)
                continue
            shift = (0.08 if words else 0.01 * span) * (index - len(lines) / 2)
            x = [(words.index(v) if isinstance(v, str) else v) + shift for v, _ in cells]
            reach = np.nan_to_num([m.half_width for m in means])
            axes.errorbar(
                x, [m.value for m in means], reach, color=colour, marker="o", markersize=3.5, elinewidth=1,
                linewidth=0 if words else 1, linestyle="--" if is_baseline else "-", label=name,
            )  # fmt: skip
        axes.set_title(textwrap.fill(title, _TITLE))
        axes.set_ylim(top=min(axes.get_ylim()[1], _TOP))
        if words:
            axes.set_xticks(range(len(words)), _short(words), rotation=30, ha="right")
    _label_outside(grid, len(part), _UNITS[field], f"final {_whose(evidence)} accuracy (%)")
    _legends(figure, grid[: len(part)])
    return figure


def _short(norms: Sequence[str]) -> list[str]:
    """Norms without the options that no other norm of their name has otherwise."""
    told = [norm.split() for norm in norms]
    same = {name: set.intersection(*(set(words[1:]) for words in told if words[0] == name)) for name, *_ in told}
    return [" ".join([words[0], *(w for w in words[1:] if w not in same[words[0]])]) for words in told]


_STABILITY = {
    "deviation": "detrended deviation (points)",
    "drawdown": "largest fall (points)",
    "spikes": "spikes (% of epochs)",
}


def stability(evidence: Evidence, found: Comparisons) -> Figures:
    """How steadily runs train before the learning rate first drops: each run a dot, means as bars."""
    figures = {}
    for number, part in _parts(found.pooled, _ROWS):
        names = ["baseline", *(pooled.treatment for pooled in part)]
        ids = [sorted({c.baseline.cell_id for pooled in part for c in pooled.pairs})]
        ids += [[c.cell.cell_id for c in pooled.pairs] for pooled in part]
        shown = {m: label for m, label in _STABILITY.items() if np.isfinite(evidence.measures[m]).any()}
        if not shown:
            return {}
        figure = Figure(figsize=(1.2 + 2 * len(shown), 1.1 + 0.3 * len(names)), layout="constrained")
        grid = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, (measure, label) in zip(grid, shown.items(), strict=True):
            values = [100 * np.concatenate([evidence.of(i, measure) for i in cells]) for cells in ids]
            show = _show_runs if sum(map(len, values)) <= _DOTS else _show_ranges
            for row, each in enumerate(values):
                show(axes, row, each[np.isfinite(each)])
            axes.set_xlabel(label)
            axes.grid(axis="y", visible=False)
        grid[0].set_yticks(range(len(names)), names)
        grid[0].set_ylim(len(names) - 0.5, -0.5)
        figures["stability" + number] = figure
    return figures


def _show_runs(axes: Axes, row: int, values: Floats) -> None:
    """Each value a dot, the mean a bar."""
    heights = row + np.random.default_rng(row).uniform(-0.15, 0.15, len(values))
    axes.plot(values, heights, "o", color="C0", alpha=0.35, markersize=3, markeredgewidth=0)
    _show_mean(axes, row, values)


def _show_ranges(axes: Axes, row: int, values: Floats) -> None:
    """Of very many values the middle 90 % as a thin line, the middle half as a thick one, the mean a bar."""
    if len(values):
        for tail, width in ((5, 1), (25, 4)):
            axes.plot(np.percentile(values, [tail, 100 - tail]), [row, row], color="C0", alpha=0.6, linewidth=width)
    _show_mean(axes, row, values)


def _show_mean(axes: Axes, row: int, values: Floats) -> None:
    if len(values):
        axes.plot([values.mean()] * 2, [row - 0.3, row + 0.3], color=INK, linewidth=1.5)


def profiles(found: Comparisons) -> Figures:
    """The fraction of places where each contestant reaches the target within so many times the fastest one's epochs."""
    if found.profiles is None or len(found.profiles.workloads) < _FEWEST_WORKLOADS:
        return {}
    if not np.isfinite(found.profiles.times).any():
        return {}
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.subplots()
    ratios = np.linspace(1, 4, 301)
    heights = metrics.performance_profile(found.profiles.times, ratios)
    order = np.argsort(-found.profiles.scores, kind="stable")[: 2 * _LINES]
    palette = iter(sns.color_palette("colorblind", n_colors=max(1, len(found.profiles.contestants))))
    for index in order:
        name, score = found.profiles.contestants[index], found.profiles.scores[index]
        look = {"color": INK, "linestyle": "--"} if name == "baseline" else {"color": next(palette)}
        axes.step(ratios, heights[index], where="post", label=f"{name} ({score:.2f})", linewidth=1.3, **look)
    axes.set(
        xlabel="epochs to target, times the fastest's", ylabel="fraction of places", ylim=(-0.03, 1.03), xlim=(1, 4)
    )
    axes.legend(title="area (of 1)", loc="upper left", bbox_to_anchor=(1.01, 1))
    return {"performance-profiles": figure}


def beside_published(rows: Sequence[Beside]) -> Figures:
    """Our differences to the baseline with their intervals, and the published ones as marks."""
    cells: dict[str, list[Beside]] = {}
    for each in rows:
        if each.our_effect is not None:
            cells.setdefault(cell_in_words(each.config), []).append(each)
    figures = {}
    for number, part in _parts(list(cells.items()), _ROWS):
        figure = Figure(figsize=(7.2, 1.2 + 0.3 * len(part)), layout="constrained")
        axes = figure.subplots()
        ours = [_percent(several[0].our_effect or NONE) for _, several in part]
        theirs = [
            100 * each.their_effect
            for _, several in part
            for each in several
            if each.their_effect is not None and each.published.source == "chen2019"
        ]
        _estimates(axes, ours, [[]] * len(part), scope=theirs)
        low, high = axes.get_xlim()
        for row, (_, several) in enumerate(part):
            for each in several:
                index = list(SOURCES).index(each.published.source)
                if each.their_effect is not None:
                    x = 100 * each.their_effect
                    axes.plot([np.clip(x, low, high)], [row + 0.2], "sD"[index], color=f"C{index + 1}", markersize=4)
                    if not low <= x <= high:  # told, and not let squeeze all the others
                        side = "right" if x > high else "left"
                        axes.annotate(
                            f"{x:+.1f} ", (np.clip(x, low, high), row + 0.2), ha=side, va="center", fontsize=7
                        )
        axes.plot([], [], "o-", color="C0", label="ours, 95 % interval")
        for index, words in enumerate(SOURCES.values()):
            axes.plot([], [], "sD"[index], color=f"C{index + 1}", label=words)
        axes.axvline(0, color=INK, linestyle="--", linewidth=0.8)
        axes.set_yticks(range(len(part)), [name for name, _ in part])
        axes.set_ylim(len(part) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("final accuracy less the baseline's (points)")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
        figures["published" + number] = figure
    return figures


def draw(evidence: Evidence, found: Comparisons, published: Sequence[Beside], kinds: Sequence[str] = ()) -> Figures:
    """The figures of these kinds, or of all in the report's order, as far as there is something to show in them."""
    makers: dict[str, Callable[[], Figures]] = {
        "effects": lambda: effects(found, target_in_words(evidence.target)),
        "learning-curves": lambda: learning_curves(evidence),
        "sensitivity": lambda: sensitivity(evidence),
        "stability": lambda: stability(evidence, found),
        "performance-profiles": lambda: profiles(found),
        "published": lambda: beside_published(published),
    }
    figures = {name: figure for kind in kinds or makers for name, figure in makers[kind]().items()}
    for figure in figures.values():
        # To lay many panels out takes seconds, and would else be done anew for each file.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return figures


def _parts(items: Sequence[T], most: int) -> Iterator[tuple[str, Sequence[T]]]:
    """Parts of at most so many, with what to add to their names: nothing to the only one."""
    for start in range(0, len(items), most):
        yield (f"-{start // most + 1}" if len(items) > most else ""), items[start : start + most]


def _grid(count: int) -> tuple[Figure, list[Axes]]:
    """Small multiples: three in a row, or two or one if there are no more."""
    columns = min(3, count)
    rows = -(-count // columns)
    figure = Figure(figsize=({1: 4.8, 2: 3.6, 3: 2.9}[columns] * columns, 2.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, list(grid)


def _legends(figure: Figure, grid: Sequence[Axes]) -> None:
    """One legend beside all panels where they show the same; else one in each that needs one."""
    entries = [axes.get_legend_handles_labels() for axes in grid]
    wrapped = [[textwrap.fill(label, _TITLE) for label in labels] for _, labels in entries]
    if all(labels == wrapped[0] for labels in wrapped):
        if wrapped[0]:
            figure.legend(entries[0][0], wrapped[0], loc="outside right upper")
        return
    for axes, (handles, _), labels in zip(grid, entries, wrapped, strict=True):
        if labels:
            axes.legend(handles, labels, loc="lower right")


def _label_outside(grid: list[Axes], count: int, x: str, y: str) -> None:
    columns = min(3, count)
    for index, axes in enumerate(islice(grid, count)):
        if index % columns == 0:
            axes.set_ylabel(y)
        if index + columns >= count:
            axes.set_xlabel(x)
