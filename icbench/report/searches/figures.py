"""A search's figures: its history, the objective along a rate, what matters, what test images say, the Pareto front.

Each function returns figures by name, none where there is nothing to show. Accuracies are shown in per cent.
"""

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from icbench.metrics import Floats
from icbench.report.comparison import NONE
from icbench.report.drawing import (
    INK,
    TITLE,
    TOP,
    Figures,
    label_outside,
    laid_out,
    panels_for,
    parts,
    put_one_legend,
    window,
)
from icbench.report.rows import draw_estimates, name_rows
from icbench.report.searches.confirmed import Confirmations, Difference
from icbench.report.searches.found import Found, Trial, beats, losses_of, number_of, scale
from icbench.report.searches.importance import Importance
from icbench.report.searches.parallel import parallel
from icbench.report.searches.rates import Curve
from icbench.report.stats import Estimate
from icbench.search import methods
from icbench.search.confirm import PAPERS_DROPOUT
from icbench.search.objective import Objective
from icbench.search.settings import Search

_PANELS = 12
_ROWS = 40
_BESIDE_NAMES = 5.4
# Every mark and line means the same in all figures.
_COMPLETE: dict[str, Any] = {"color": "C0", "marker": "o", "markersize": 4, "linestyle": ""}
_PRUNED: dict[str, Any] = {"color": "C1", "marker": "x", "markersize": 4, "linestyle": ""}
_BEST: dict[str, Any] = {
    "color": "C2", "marker": "D", "markersize": 6, "linestyle": "", "markerfacecolor": "none", "markeredgewidth": 1.6,
}  # fmt: skip


def suffix(search: Search, objective: Objective) -> str:
    """What is added to a figure's name where there are several objectives."""
    if len(search.objectives) == 1:
        return ""
    target = f"-{100 * objective.target:g}" if not objective.is_fraction else ""
    return f"-{objective.name}{target}".replace(".", "_")


def _label(objective: Objective) -> str:
    """The axis of an objective."""
    return f"{objective.title} (%)" if objective.is_fraction else objective.title


def history(every: Sequence[Found], objective: Objective) -> Figures:
    """Each trial's value in the order of the trials, and the best so far."""
    figures = {}
    shown = [found for found in every if any(trial.values for trial in found.trials) and found.dimensions]
    for number, part in parts(shown, _PANELS):
        figure, grid = panels_for(len(part))
        for axes, found in zip(grid, part, strict=False):
            _draw_history(axes, found, objective)
            axes.set_title(found.title)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        label_outside(grid, len(part), "trial", textwrap.fill(_label(objective), TITLE))
        put_one_legend(figure, grid[: len(part)])
        figures[f"history{suffix(part[0].search, objective)}{number}"] = figure
    return figures


def _draw_history(axes: Axes, found: Found, objective: Objective) -> None:
    index, times = found.search.objectives.index(objective), scale(objective)
    numbers, best = found.best_so_far(index)
    if numbers:
        last = max(trial.number for trial in found.trials)
        axes.step([*numbers, last], times * np.array([*best, best[-1]]), where="post", color=INK, linewidth=1,
                  label="best so far")  # fmt: skip
    axes.set_xlim(-0.5, max(trial.number for trial in found.trials) + 0.5)
    edges = _edges([times * trial.values[index] for trial in found.trials if trial.values], times * np.array(best))
    for state, look in (("complete", _COMPLETE), ("pruned", _PRUNED)):
        trials = [trial for trial in found.of_state(state) if trial.values]
        if trials:
            _put(
                axes,
                [t.number for t in trials],
                times * np.array([t.values[index] for t in trials]),
                edges,
                look,
                state,
            )
    if found.failed:
        low = axes.get_ylim()[0]
        axes.plot([t.number for t in found.failed], [low] * len(found.failed), "|", color=INK, label="failed")


def _edges(values: Sequence[float] | Floats, always: Sequence[float] | Floats = ()) -> tuple[float, float]:
    """The range to show of some values, without those far outside, and with a margin."""
    low, high = window(values, always)
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin


def _put(
    axes: Axes, x: Sequence[float], y: Floats, edges: tuple[float, float], look: dict[str, Any], label: str
) -> None:
    """Marks; those far outside as arrows at the edge."""
    inside = (y >= edges[0]) & (y <= edges[1])
    at = np.asarray(x, dtype=float)
    axes.plot(at[inside], y[inside], label=label, alpha=0.8, **look)
    for outside, mark, edge in ((y < edges[0], "v", edges[0]), (y > edges[1], "^", edges[1])):
        if outside.any():
            axes.plot(at[outside], np.full(outside.sum(), edge), mark, color=look["color"], markersize=4, clip_on=False)
    axes.set_ylim(*edges)


def along(curves: Sequence[Curve], objective: Objective) -> Figures:
    """An objective along the dropout rate: trials, the curve with its interval, and where it is best."""
    figures = {}
    own = [curve for curve in curves if curve.objective == objective]
    for number, part in parts(own, _PANELS):
        figure, grid = panels_for(len(part))
        for axes, curve in zip(grid, part, strict=False):
            _draw_curve(axes, curve)
            several = len(curve.found.rates) > 1
            axes.set_title(curve.found.title + (f"\n{curve.dimension.name}" if several else ""))
        label_outside(grid, len(part), "dropout rate", textwrap.fill(_label(objective), TITLE))
        put_one_legend(figure, grid[: len(part)])
        figures[f"rates{suffix(part[0].found.search, objective)}{number}"] = figure
    return figures


def _draw_curve(axes: Axes, curve: Curve) -> None:
    times, index = scale(curve.objective), curve.found.search.objectives.index(curve.objective)
    for low, high in curve.ranges:
        axes.axvspan(low, high, color="C2", alpha=0.12, linewidth=0, label="not told from the best")
    axes.fill_between(curve.x, times * curve.low, times * curve.high, color="C0", alpha=0.2, linewidth=0)
    axes.plot(curve.x, times * curve.mean, color="C0", linewidth=1.4, label="curve, 95 % interval")
    x = [number_of(curve.dimension, trial.parameters[curve.dimension.name]) for trial in curve.trials]
    y = times * np.array([trial.values[index] for trial in curve.trials])
    edges = _edges([*y, *(times * curve.mean)])
    alike = len(curve.found.dimensions) == 1
    _put(axes, x, y, edges, _COMPLETE | ({} if alike else {"markerfacecolor": "none"}), "trials")
    at = int(np.abs(curve.x - curve.best.value).argmin())
    axes.plot([curve.best.value], [times * curve.mean[at]], label="best of the curve", **_BEST)
    if curve.has_papers is not None:
        axes.axvline(PAPERS_DROPOUT, color=INK, linewidth=0.9, linestyle="--", label=f"the paper's {PAPERS_DROPOUT:g}")
    if curve.dimension.log:
        axes.set_xscale("log")
    if curve.objective.is_fraction:
        axes.set_ylim(top=min(axes.get_ylim()[1], TOP))


def importances(rows: Sequence[Importance]) -> Figures:
    """How much each parameter explains, a panel for each cell."""
    by_cell: dict[Found, list[Importance]] = {}
    for each in rows:
        by_cell.setdefault(each.found, []).append(each)
    figures = {}
    for number, part in parts(list(by_cell.items()), _PANELS):
        figure, grid = panels_for(len(part))
        for axes, (found, own) in zip(grid, part, strict=False):
            names = [textwrap.fill(each.parameter.replace("_", " "), TITLE // 2) for each in own]
            axes.barh(range(len(own)), [100 * each.value for each in own], color="C0", height=0.6)
            axes.set_yticks(range(len(own)), names)
            axes.set_ylim(len(own) - 0.4, -0.6)
            axes.set_xlim(0, 100)
            axes.set_title(found.title)
            axes.grid(axis="y", visible=False)
        label_outside(grid, len(part), "variance explained (%)", "")
        figures["importance" + number] = figure
    return figures


def trial_curves(every: Sequence[Found]) -> Figures:
    """The first objective while trials were trained, as the pruner saw it: pruned ones end early."""
    if not every or every[0].search.pruner.name == methods.WILCOXON:
        return {}
    figures = {}
    shown = [found for found in every if any(len(trial.steps) > 1 for trial in found.trials)]
    for number, part in parts(shown, _PANELS):
        figure, grid = panels_for(len(part))
        for axes, found in zip(grid, part, strict=False):
            _draw_trial_curves(axes, found)
            axes.set_title(found.title)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        label_outside(grid, len(part), "epoch", textwrap.fill(_label(part[0].search.objective), TITLE))
        put_one_legend(figure, grid[: len(part)])
        figures["trial-curves" + number] = figure
    return figures


def _draw_trial_curves(axes: Axes, found: Found) -> None:
    times = scale(found.search.objective)
    best = {trial.number for trial in found.best}
    looks: dict[str, dict[str, Any]] = {
        "pruned": {"color": "C1", "linewidth": 0.9, "alpha": 0.7},
        "complete": {"color": "C0", "linewidth": 0.9, "alpha": 0.6},
        "best": {"color": "C2", "linewidth": 2},
    }
    for kind, look in looks.items():
        for trial in found.trials:
            if trial.reported and (trial.state if trial.number not in best else "best") == kind:
                heights = times * np.array(trial.reported)
                axes.plot(trial.steps, heights, label=kind, **look)
                if kind == "pruned":
                    axes.plot(trial.steps[-1:], heights[-1:], "x", color="C1", markersize=4)


def front(every: Sequence[Found]) -> Figures:
    """Of two objectives or more the first two, one against the other, with the trials that no other beats in these."""
    if not every or len(every[0].search.objectives) < 2:
        return {}
    one, other = every[0].search.objectives[:2]
    figures = {}
    for number, part in parts([found for found in every if found.complete], _PANELS):
        figure, grid = panels_for(len(part))
        for axes, found in zip(grid, part, strict=False):
            _draw_front(axes, found, one, other)
            axes.set_title(found.title)
        label_outside(grid, len(part), textwrap.fill(_label(one), TITLE), textwrap.fill(_label(other), TITLE))
        put_one_legend(figure, grid[: len(part)])
        figures["front" + number] = figure
    return figures


def _draw_front(axes: Axes, found: Found, one: Objective, other: Objective) -> None:
    def places(trials: Sequence[Trial]) -> Floats:
        return np.array([[scale(one) * t.values[0], scale(other) * t.values[1]] for t in trials]).reshape(-1, 2)

    losses = {trial: losses_of(trial, found.search.objectives)[:2] for trial in found.different}
    best = [t for t, own in losses.items() if not any(beats(each, own) for each in losses.values())]
    rest = places([trial for trial in found.different if trial not in best])
    line = places(sorted(best, key=lambda trial: losses[trial]))
    axes.plot(*rest.T, label="complete", alpha=0.8, **_COMPLETE)
    axes.step(*line.T, where="post", color="C2", linewidth=0.9)
    axes.plot(*line.T, label="beaten by none", **_BEST)


def confirmed(found: Confirmations, objective: Objective) -> Figures:
    """The best values' figure on test images less that at the paper's rate, and less the baseline's."""
    rows = [each for each in found.every if each.objective == objective and (each.less_papers or each.less_baseline)]
    figures = {}
    for number, part in parts(rows, _ROWS):
        figure = Figure(layout="constrained")
        grid = figure.subplots(1, 2, sharey=True)
        names = [f"{each.found.name}: {each.trial.in_words}" for each in part]
        unit = "points" if objective.is_fraction else "epochs"
        for axes, against, differences in (
            (grid[0], f"less the same with dropout {PAPERS_DROPOUT:g}", [each.less_papers for each in part]),
            (grid[1], "less the baseline", [each.less_baseline for each in part]),
        ):
            own = [_scaled(each, objective) for each in differences]
            if any(differences):
                draw_estimates(axes, own, [[]] * len(own))
            axes.axvline(0, color=INK, linestyle="--", linewidth=0.8)
            axes.set_xlabel(textwrap.fill(f"best values {against}, on test images ({unit})", TITLE))
            axes.grid(axis="y", visible=False)
        name_rows(grid[0], names, _BESIDE_NAMES)
        figures[f"confirmed{suffix(part[0].found.search, objective)}{number}"] = figure
    return figures


def _scaled(difference: Difference | None, objective: Objective) -> Estimate:
    return Estimate(*(scale(objective) * each for each in difference.tested.estimate)) if difference else NONE


def draw(
    every: Sequence[Found],
    curves: Sequence[Curve],
    found: Confirmations,
    important: Sequence[Importance],
    kinds: Sequence[str] = (),
) -> Figures:
    """The figures of these kinds, or of all in the page's order, as far as there is something to show in them."""
    objectives = every[0].search.objectives

    def of_each(make: Callable[[Objective], Figures]) -> Figures:
        return {name: figure for objective in objectives for name, figure in make(objective).items()}

    makers: dict[str, Callable[[], Figures]] = {
        "confirmed": lambda: of_each(lambda objective: confirmed(found, objective)),
        "rates": lambda: of_each(lambda objective: along(curves, objective)),
        "front": lambda: front(every),
        "history": lambda: of_each(lambda objective: history(every, objective)),
        "importance": lambda: importances(important),
        "parallel": lambda: parallel(every),
        "trial-curves": lambda: trial_curves(every),
    }
    return laid_out({name: figure for kind in kinds or makers for name, figure in makers[kind]().items()})
