"""The report's figures, in one style: seaborn's colour-blind palette, units on the axes, the baseline dashed in ink.

Each function returns figures by name, none where there is nothing to show. Accuracies are shown in per cent,
differences in percentage points.
"""

import math
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from icbench import metrics, wording
from icbench.config import RunConfig
from icbench.metrics import Floats
from icbench.report import stats
from icbench.report.answer import BASELINE_S, target_in_words
from icbench.report.comparison import NONE, Comparisons
from icbench.report.drawing import (
    INK,
    NAME,
    TITLE,
    TOP,
    Figures,
    label_outside,
    laid_out,
    make_room,
    panels_for,
    parts,
    put_legends,
    stand_beside,
    window,
)
from icbench.report.evidence import Evidence
from icbench.report.published import SOURCES, Beside
from icbench.report.rows import draw_estimates, in_points, name_rows, tell
from icbench.report.stats import Estimate
from icbench.report.treatments import Contrast, contrasts, in_words, varying

_PANELS = 12
_LINES = 8
# Inches: of the panels beside the rows' names, and of a category along an axis.
_BESIDE_NAMES = 5.4
_CATEGORY = 0.36
# More runs than so many are not shown one by one.
_DOTS = 600
# A profile of fewer places is but a step.
_FEWEST_WORKLOADS = 3
# What an axis of ratios shows in any case.
_RATIOS = (0.5, 2.0)
_PLACE = {"dataset", "block", "depth"}
_ROWS = 40
_POINTS = 100


def effects(found: Comparisons, target: str = BASELINE_S) -> Figures:
    """What each treatment does to the final accuracy and to the epochs to the target; pale: the cells behind it."""
    figures = {}
    for number, part in parts(found.pooled, _ROWS):
        figure = Figure(layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        behind = [[c for c in found.single if len(p.pairs) > 1 and c.treatment == p.treatment] for p in part]
        draw_estimates(
            left,
            [_percent(p.final.estimate) for p in part],
            [[100 * c.final.value for c in cells] for cells in behind],
        )
        right.set_xscale("log", base=2)
        draw_estimates(
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
            axes.set_xlabel(textwrap.fill(label, TITLE))
            axes.grid(axis="y", visible=False)
        name_rows(left, [pooled.treatment for pooled in part], _BESIDE_NAMES)
        figures["effects" + number] = figure
    return figures


def _percent(estimate: Estimate) -> Estimate:
    return Estimate(*(100 * each for each in estimate))


def learning_curves(evidence: Evidence) -> Figures:
    """Test accuracy by epoch: means over seeds, bands from the lowest to the highest; a panel for each place."""
    panels = _panels(evidence)
    # Of very many panels the files would else be too large for a page; the bands still show every epoch.
    step = max(1, evidence.accuracy.shape[1] // _POINTS) if len(panels) > _PANELS else 1
    figures = {}
    for number, part in parts(panels, _PANELS):
        named = [(title, [(_label(evidence, *line), line[1]) for line in lines]) for title, lines in part]
        beside = stand_beside([[label for label, _ in lines] for _, lines in named])
        figure, grid = panels_for(len(part), columns=2 if beside else 3)
        for axes, (title, lines) in zip(grid, named, strict=False):
            _draw_curves(axes, title, lines, evidence, step)
        label_outside(grid, len(part), "epoch", f"{_whose(evidence)} accuracy (%)")
        put_legends(figure, grid[: len(part)])
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
        place = textwrap.fill(stratum, TITLE)
        for ordering, members in groups.items():
            for _, part in parts(members, _LINES):
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
        (textwrap.fill(title, TITLE), list(part)) for title, lines in places.items() for _, part in parts(lines, _LINES)
    ]


def _label(evidence: Evidence, name: str, cell_id: str) -> str:
    ended = int(evidence.of(cell_id, "diverged").sum())
    return f"{name} ({ended} of {len(evidence.rows[cell_id])} diverged)".lstrip() if ended else name


def _draw_curves(axes: Axes, title: str, lines: list[tuple[str, str]], evidence: Evidence, step: int) -> None:
    """Of each `step` epochs the last one's mean, and the lowest and highest of all of them as the band."""
    colours = iter(sns.color_palette())
    lows, highest = [], []
    for name, cell_id in lines:
        rows = evidence.rows[cell_id]
        epochs = evidence.cells[cell_id].config.recipe.epochs
        curves = 100 * metrics.carried_on(evidence.accuracy[rows, :epochs])
        ends = np.arange(curves.shape[1] - 1, -1, -step)[::-1]
        starts = np.concatenate([[0], ends[:-1] + 1])
        is_baseline = name.partition(" (")[0] == "baseline"
        look = {"color": INK, "linestyle": "--"} if is_baseline else {"color": next(colours)}
        low = np.minimum.reduceat(curves.min(axis=0), starts)
        high = np.maximum.reduceat(curves.max(axis=0), starts)
        axes.plot(ends + 1, curves.mean(axis=0)[ends], linewidth=1.2, label=name or None, **look)
        axes.fill_between(ends + 1, low, high, color=look["color"], alpha=0.15, linewidth=0)
        lows.append(low[len(low) // 8 :].min())
        highest.append(curves.mean(axis=0).max())
    until = min(evidence.before_drop[cell_id] for _, cell_id in lines)
    if until < evidence.accuracy.shape[1]:
        axes.axvline(until, color=INK, linewidth=0.6, linestyle=":")
    bottom = math.floor(min(lows))
    if min(highest) < bottom + 1:
        bottom -= 2  # else a curve that never rises would lie on the axis
    axes.set_ylim(bottom, min(axes.get_ylim()[1], TOP))
    axes.set_title(title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


_AXES: dict[str, Callable[[RunConfig], float | str]] = {
    "dropout": lambda c: c.dropout if isinstance(c.dropout, float) else math.nan,
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
            for number, part in parts(_lines_along(evidence, field), _PANELS):
                figures[f"by-{field}{number}"] = _draw_along(evidence, field, part, values)
    return figures


def _lines_along(evidence: Evidence, field: str) -> list[tuple[str, dict[str, Along]]]:
    """By place (all that differs but the field, the ordering and the rate) and by line: the cells along the field.

    Places where the field has one value have nothing to show. Along the rate, cells whose stages differ in it have no
    place.
    """
    of = _AXES[field]
    own = {field}
    differing = varying(cell.config for cell in evidence.sweep.cells)
    of_line = {"ordering"} | (differing & {"dropout"}) - own
    of_place = (_PLACE | differing) - of_line - own
    places: dict[str, dict[str, Along]] = {}
    for cell_id, cell in evidence.cells.items():
        if evidence.rows[cell_id] and not (field == "dropout" and isinstance(cell.config.dropout, tuple)):
            lines = places.setdefault(in_words(cell.config, of_place), {})
            lines.setdefault(in_words(cell.config, of_line), []).append((of(cell.config), cell_id))
    varied = {title: lines for title, lines in places.items() if _several_values(lines)}
    return [(title, part) for title, lines in varied.items() for part in _lines_in_parts(lines)]


def _several_values(lines: dict[str, Along]) -> bool:
    """Whether there is anything to see along the field; a baseline without dropout has no rate."""
    values = {v for cells in lines.values() for v, _ in cells}
    return len({v for v in values if isinstance(v, str) or not math.isnan(v)}) > 1


def _lines_in_parts(lines: dict[str, Along]) -> list[dict[str, Along]]:
    """No more lines than can be told apart, with the baselines in each part."""
    baselines = {name: cells for name, cells in lines.items() if name.startswith("baseline")}
    others = [item for item in lines.items() if item[0] not in baselines]
    return [baselines | dict(part) for _, part in parts(others, _LINES)] or [baselines]


def _draw_along(
    evidence: Evidence,
    field: str,
    part: Sequence[tuple[str, dict[str, Along]]],
    values: Sequence[float | str],
) -> Figure:
    words = [v for v in values if isinstance(v, str)]
    beside = stand_beside([list(lines) for _, lines in part])
    figure, grid = panels_for(len(part), columns=2 if beside else 3, least=_CATEGORY * len(words) + 0.8)
    for axes, (title, lines) in zip(grid, part, strict=False):
        _draw_panel_along(axes, evidence, lines, values, flat_baseline=field == "dropout")
        axes.set_title(textwrap.fill(title, TITLE))
        axes.set_ylim(top=min(axes.get_ylim()[1], TOP))
        if words:
            axes.set_xticks(range(len(words)), _short(words), rotation=30, ha="right", rotation_mode="anchor")
            axes.set_xlim(-0.6, len(words) - 0.4)
    label_outside(grid, len(part), _UNITS[field], f"final {_whose(evidence)} accuracy (%)")
    put_legends(figure, grid[: len(part)])
    return figure


def _draw_panel_along(
    axes: Axes, evidence: Evidence, lines: dict[str, Along], values: Sequence[float | str], *, flat_baseline: bool
) -> None:
    """Means with t-intervals, a line for each; those far from the others go to the edge, with their numbers."""
    words = [v for v in values if isinstance(v, str)]
    numbers = [v for v in values if not isinstance(v, str)]
    step = min(0.15, 0.7 / len(lines)) if words else 0.01 * (max(numbers) - min(numbers))
    colours = iter(sns.color_palette("colorblind", n_colors=len(lines)))
    means = {
        name: [stats.mean(100 * evidence.of(cell_id, "final")) for _, cell_id in cells] for name, cells in lines.items()
    }
    bounds = {name: [each for m in some for each in m if math.isfinite(each)] for name, some in means.items()}
    always = [each for name, some in bounds.items() if name.startswith("baseline") for each in some]
    edges = window([each for some in bounds.values() for each in some], always)
    outside: list[Outside] = []
    for index, (name, cells) in enumerate(lines.items()):
        is_baseline = name.startswith("baseline")
        colour = INK if is_baseline else next(colours)  # the same in panels with and without a baseline
        if flat_baseline and is_baseline:
            for each in means[name]:
                axes.axhline(each.value, color=INK, linestyle="--", linewidth=1, label=name)
                axes.axhspan(each.low, each.high, color=INK, alpha=0.08, linewidth=0)
            continue
        at = np.array([words.index(v) if isinstance(v, str) else v for v, _ in cells], dtype=float)
        x = at + step * (index - (len(lines) - 1) / 2)
        heights = np.array([m.value for m in means[name]])
        out = (heights < edges[0]) | (heights > edges[1])
        outside += [(*each, colour) for each in zip(at[out], x[out], heights[out], strict=True)]
        axes.errorbar(
            x, np.where(out, np.nan, heights), np.nan_to_num([m.half_width for m in means[name]]),
            color=colour, marker="o", markersize=3.5, elinewidth=1,
            linewidth=0 if words else 1, linestyle="--" if is_baseline else "-", label=name,
        )  # fmt: skip
    if outside:
        _tell_outside(axes, outside, edges)


# Of a mean that is not within its axes: its place along the field, where it is drawn, its height, its colour.
Outside = tuple[float, float, float, Any]


def _tell_outside(axes: Axes, outside: Sequence[Outside], edges: tuple[float, float]) -> None:
    """Marks at the lower and upper edge, their numbers over one another where several have one place."""
    sides = [[each for each in outside if each[2] < edges[0]], [each for each in outside if each[2] > edges[1]]]
    most = [max(Counter(at for at, *_ in side).values(), default=0) for side in sides]
    height = edges[1] - edges[0]
    low, high = (0.05 + 0.09 * count for count in most)
    axes.set_ylim(edges[0] - low * height, min(edges[1] + high * height, TOP))
    for side, mark, edge, way in zip(sides, "v^", axes.get_ylim(), (1, -1), strict=True):
        told: Counter[float] = Counter()
        for at, x, value, colour in side:
            axes.plot([x], [edge], mark, color=colour, markersize=5, clip_on=False)
            axes.annotate(
                f"{value:.1f}", (at, edge), xytext=(0, way * (5 + 8 * told[at])), textcoords="offset points",
                ha="center", va="bottom" if way > 0 else "top", fontsize=7, color=colour,
            )  # fmt: skip
            told[at] += 1


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
    for number, part in parts(found.pooled, _ROWS):
        names = ["baseline", *(pooled.treatment for pooled in part)]
        ids = [sorted({c.baseline.cell_id for pooled in part for c in pooled.pairs})]
        ids += [[c.cell.cell_id for c in pooled.pairs] for pooled in part]
        shown = {m: label for m, label in _STABILITY.items() if np.isfinite(evidence.measures[m]).any()}
        if not shown:
            return {}
        figure = Figure(layout="constrained")
        grid = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, (measure, label) in zip(grid, shown.items(), strict=True):
            values = [100 * np.concatenate([evidence.of(i, measure) for i in cells]) for cells in ids]
            show = _show_runs if sum(map(len, values)) <= _DOTS else _show_ranges
            finite = [each[np.isfinite(each)] for each in values]
            for row, each in enumerate(finite):
                show(axes, row, each)
            if show is _show_runs:
                _tell_far_runs(axes, finite)
            axes.set_xlabel(textwrap.fill(label, TITLE * 2 // 3))
            axes.grid(axis="y", visible=False)
        name_rows(grid[0], names, 0.2 + 2.0 * len(shown))
        figures["stability" + number] = figure
    return figures


def _show_runs(axes: Axes, row: int, values: Floats) -> None:
    """Each value a dot, the mean a bar."""
    heights = row + np.random.default_rng(row).uniform(-0.15, 0.15, len(values))
    axes.plot(values, heights, "o", color="C0", alpha=0.35, markersize=3, markeredgewidth=0)
    _show_mean(axes, row, values)


def _tell_far_runs(axes: Axes, values: Sequence[Floats]) -> None:
    """Where some runs squeeze all the others: a mark at the edge in their rows, with the mean and the largest."""
    every = np.concatenate(values)
    low, high = window(every, [0.0])
    if high >= every.max(initial=0.0):
        return
    margin = 0.05 * (high - low)
    edges = (low - margin, high + margin)
    axes.set_xlim(*edges)
    for row, each in enumerate(values):
        if len(each) and each.max() > edges[1]:
            axes.plot([edges[1]], [row], ">", color="C0", markersize=5, clip_on=False)
            tell(axes, row, ">", f"mean {each.mean():.1f}, to {each.max():.1f}", lift=0.2)


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
    figure = Figure(figsize=(3.6, 3.2), layout="constrained")
    axes = figure.subplots()
    ratios = np.linspace(1, 4, 301)
    heights = metrics.performance_profile(found.profiles.times, ratios)
    order = np.argsort(-found.profiles.scores, kind="stable")[: 2 * _LINES]
    palette = iter(sns.color_palette("colorblind", n_colors=max(1, len(found.profiles.contestants))))
    for index in order:
        name, score = found.profiles.contestants[index], found.profiles.scores[index]
        look = {"color": INK, "linestyle": "--"} if name == "baseline" else {"color": next(palette)}
        label = textwrap.fill(f"{name} ({score:.2f})", NAME)
        axes.step(ratios, heights[index], where="post", label=label, linewidth=1.3, **look)
    axes.set(
        xlabel="epochs to target, times the fastest's", ylabel="fraction of places", ylim=(-0.03, 1.03), xlim=(1, 4)
    )
    make_room(figure, [axes.legend(title="area (of 1)", loc="upper left", bbox_to_anchor=(1.01, 1))])
    return {"performance-profiles": figure}


def beside_published(rows: Sequence[Beside]) -> Figures:
    """Our differences to the baseline with their intervals, and the published ones as marks."""
    cells: dict[str, list[Beside]] = {}
    for each in rows:
        if each.our_effect is not None:
            cells.setdefault(wording.cell(each.config), []).append(each)
    figures = {}
    for number, part in parts(list(cells.items()), _ROWS):
        figure = Figure(layout="constrained")
        axes = figure.subplots()
        ours = [_percent(several[0].our_effect or NONE) for _, several in part]
        theirs = [
            100 * each.their_effect
            for _, several in part
            for each in several
            if each.their_effect is not None and each.published.source == "chen2019"
        ]
        draw_estimates(axes, ours, [[]] * len(part), scope=theirs)
        for row, (_, several) in enumerate(part):
            _mark_published(axes, row + 0.2, several)
        axes.plot([], [], "o-", color="C0", label="ours, 95 % interval")
        for index, words in enumerate(SOURCES.values()):
            axes.plot([], [], "sD"[index], color=f"C{index + 1}", label=words)
        axes.axvline(0, color=INK, linestyle="--", linewidth=0.8)
        name_rows(axes, [name for name, _ in part], _BESIDE_NAMES - 1.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("final accuracy less the baseline's (points)")
        make_room(figure, [axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))])
        figures["published" + number] = figure
    return figures


def _mark_published(axes: Axes, height: float, several: Sequence[Beside]) -> None:
    """Published differences as marks; those outside are told by number, and not let squeeze all the others."""
    low, high = axes.get_xlim()
    outside: dict[str, list[float]] = {"left": [], "right": []}
    for each in several:
        if each.their_effect is not None:
            index = list(SOURCES).index(each.published.source)
            x = 100 * each.their_effect
            at = [np.clip(x, low, high)]
            axes.plot(at, [height], "sD"[index], color=f"C{index + 1}", markersize=4, clip_on=False)
            if not low <= x <= high:
                outside["right" if x > high else "left"].append(x)
    for side, edge, way in (("left", low, 1), ("right", high, -1)):
        if outside[side]:
            words = ", ".join(in_points(x) for x in sorted(outside[side]))
            axes.annotate(
                words, (edge, height), xytext=(5 * way, 0), textcoords="offset points",
                ha=side, va="center", fontsize=7,
            )  # fmt: skip


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
    return laid_out(figures)
