"""Figures: drawn without a warning for whatever a sweep may hold, in ink and a palette that all can tell apart."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from synthetic import make_report, rising

from icbench.config import RunConfig
from icbench.report.drawing import INK, save, style, window
from icbench.report.figures import effects, learning_curves

GRID = """
recipe: {name: digits, epochs: 30}
fixed: {dataset: digits}
grid:
  depth: [8, 14]
  ordering: [baseline, relu-ic-conv, ic-conv-relu]
  dropout: [0.05, 0.1]
  norm: [batch, layer]
seeds: 2
baseline: {ordering: baseline, norm: batch}
exclude: [{ordering: baseline, norm: layer}]
"""

# Sixteen norms, some with long names, in two orderings.
NORMS = """
recipe: {name: digits, epochs: 30}
fixed: {dataset: digits, depth: 8, dropout: 0.05}
grid:
  ordering: [relu-ic-conv, ic-conv-relu]
  norm:
    - batch
    - instance
    - adain
    - layer
    - zca
    - ghost
    - divisive
    - virtual
    - iternorm
    - switchable
    - {name: lp, p: 1.5, epsilon: 0.000123, momentum: 0.123, streaming: true}
    - {name: lp, p: 1.25, epsilon: 0.000123, momentum: 0.123, streaming: true}
    - {name: lp, p: 1.25, epsilon: 0.000123, momentum: 0.456, streaming: true}
    - {name: group, groups: 2}
    - {name: group, groups: 4}
    - {name: group, groups: 8}
seeds: 3
baseline: {ordering: relu-ic-conv, norm: batch}
"""


def noisy(config: RunConfig) -> list[float]:
    return rising(0.8 + 0.01 * config.seed, config.recipe.epochs, 0.01, config.seed + config.depth)


def many_cells(epochs: int) -> str:
    """A grid of 113 cells, with one seed."""
    rates = ", ".join(str(round(0.01 * k, 2)) for k in range(1, 15))
    text = GRID.replace("[0.05, 0.1]", f"[{rates}]").replace("seeds: 2", "seeds: 1")
    return text.replace("epochs: 30", f"epochs: {epochs}")


def drawn(folder: Path, text: str, curve=noisy, *kinds: str):  # type: ignore[no-untyped-def]
    return make_report(folder, text, curve).figures(*kinds)


def test_each_question_has_its_figure(tmp_path: Path) -> None:
    figures = drawn(tmp_path, GRID.replace("[8, 14]", "[8, 14, 20]"))
    assert list(figures) == [
        "effects", "learning-curves", "by-dropout", "by-depth", "by-norm", "stability", "performance-profiles",
    ]  # fmt: skip
    for name, figure in figures.items():
        labels = [axes.get_xlabel() + axes.get_ylabel() for axes in figure.axes if axes.get_visible()]
        assert any(labels), name
    text = " ".join(axes.get_xlabel() for axes in figures["effects"].axes)
    assert "(points)" in text
    assert "(ratio)" in text


def test_a_panel_for_each_place_and_a_line_for_each_cell(tmp_path: Path) -> None:
    many = GRID.replace("[0.05, 0.1]", "[0.05, 0.1, 0.2]")
    figure = drawn(tmp_path, many, noisy, "learning-curves")["learning-curves"]
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert titles == [  # 12 treatments a place are more than one panel holds, so each ordering has one
        f"digits, basic-{depth}\n{ordering}" for depth in (8, 14) for ordering in ("relu-ic-conv", "ic-conv-relu")
    ]
    lines = [line.get_label() for line in figure.axes[0].get_lines()]
    assert lines[:2] == ["baseline", "dropout 0.05"]
    assert len(figure.legends) == 1  # the same in all panels
    assert figure.axes[0].get_lines()[0].get_color() == INK
    report = make_report(tmp_path, many, noisy)
    cell = report.evidence.sweep.cells[0]
    expected = 100 * report.evidence.accuracy[report.evidence.rows[cell.cell_id]].mean(axis=0)
    assert figure.axes[0].get_lines()[0].get_ydata() == pytest.approx(expected)


@pytest.mark.parametrize(
    "curve",
    [
        lambda c: [0.1] if c.dropout else noisy(c),  # all treated diverge at once
        lambda c: [0.1],  # and all do
        lambda c: noisy(c) if c.seed == 0 else None,  # one seed
        lambda c: noisy(c) if c.dropout is None else None,  # nothing but baselines
        lambda c: None if c.dropout is None else noisy(c),  # no baseline
        lambda c: [0.5] * 30,  # nothing varies
    ],
    ids=["treated diverged", "all diverged", "one seed", "baselines alone", "no baseline", "nothing varies"],
)
def test_odd_sweeps(tmp_path: Path, curve) -> None:  # type: ignore[no-untyped-def]
    figures = drawn(tmp_path, GRID.replace("[8, 14]", "[8]"), curve)
    assert "learning-curves" in figures
    with style():
        for name, figure in figures.items():
            save(figure, tmp_path / f"{name}.svg")
            assert re.search(r"<text", (tmp_path / f"{name}.svg").read_text())


def test_every_epoch_is_shown_and_a_diverged_run_stays(tmp_path: Path) -> None:
    """Falls in even epochs alone, and a run that ended after the first: neither is lost."""

    def curve(config: RunConfig) -> list[float]:
        if config.dropout and config.seed == 0:
            return [0.3]
        return [0.5 if epoch % 2 else 0.9 for epoch in range(1, 31)]

    axes = drawn(tmp_path, GRID.replace("[8, 14]", "[8]"), curve, "learning-curves")["learning-curves"].axes[0]
    treated = axes.get_lines()[1]
    assert treated.get_label() == "relu-ic-conv, dropout 0.05 (1 of 2 diverged)"
    assert list(treated.get_xdata()) == list(range(1, 31))
    assert treated.get_ydata() == pytest.approx([(30 + (50 if e % 2 else 90)) / 2 for e in range(1, 31)])
    assert axes.get_ylim()[0] <= 30


def test_thinned_curves_end_at_the_last_epoch_and_their_bands_hide_no_fall(tmp_path: Path) -> None:
    evidence = make_report(tmp_path, many_cells(200), lambda c: [0.9] * 150 + [0.2] + [0.9] * 49).evidence
    with style():
        axes = learning_curves(evidence)["learning-curves-1"].axes[0]
    line = axes.get_lines()[1]
    assert line.get_xdata()[-1] == 200
    assert len(line.get_xdata()) == 100
    lowest = min(path.vertices[:, 1].min() for path in axes.collections[1].get_paths())
    assert lowest == pytest.approx(20)


def test_recipes_precisions_and_norm_options_are_not_joined_into_one_line(tmp_path: Path) -> None:
    text = """
fixed: {dataset: digits, depth: 8, ordering: relu-ic-conv}
grid:
  recipe: [{name: digits, epochs: 30}, {name: digits, epochs: 20}]
  precision: [float32, bfloat16]
  norm: [{name: group, groups: 2}, {name: group, groups: 4}]
  dropout: [0, 0.1]
seeds: 2
"""
    figures = drawn(tmp_path, text, noisy, "sensitivity")
    panels = [axes for axes in figures["by-dropout"].axes if axes.get_visible()]
    assert len({axes.get_title() for axes in panels}) == 8
    assert all(len(axes.containers) == 1 and len(axes.containers[0][0].get_xdata()) == 2 for axes in panels)
    ticks = [label.get_text() for label in figures["by-norm"].axes[0].get_xticklabels()]
    assert ticks == ["group groups=2", "group groups=4"]


def test_intervals_without_an_end_lead_out_of_the_figure(tmp_path: Path) -> None:
    """Certainly slower, to never: not as where nothing can be said."""

    def curve(config: RunConfig) -> list[float]:
        return rising(0.8 if config.dropout is None else 0.5, 30)

    few, many = (
        drawn(tmp_path, text, curve, "effects")["effects"].axes[1]
        for text in (GRID.replace("seeds: 2", f"seeds: {seeds}").replace("[8, 14]", "[8]") for seeds in (2, 5))
    )
    dotted = [[line for line in axes.get_lines() if line.get_linestyle() == ":"] for axes in (few, many)]
    arrows = [[line for line in axes.get_lines() if line.get_marker() == ">"] for axes in (few, many)]
    assert (len(dotted[0]), len(arrows[0])) == (8, 0)
    assert (len(dotted[1]), len(arrows[1])) == (0, 8)
    assert [text.get_text() for text in many.texts] == ["never"] * 8


def test_a_grid_without_a_baseline(tmp_path: Path) -> None:
    text = GRID.replace("baseline: {ordering: baseline, norm: batch}", "")
    figures = drawn(tmp_path, text)
    assert "effects" not in figures
    assert "learning-curves" in figures


def test_published_numbers_stand_beside(tmp_path: Path) -> None:
    text = GRID.replace("digits", "cifar10").replace("name: cifar10", "name: chen2019")
    figure = drawn(tmp_path, text, noisy, "published")["published"]
    marks = [line.get_xdata() for line in figure.axes[0].get_lines() if line.get_marker() == "s"]
    assert np.isclose(marks[0][0], 0.69)  # relu-ic-conv less the baseline, basic 110


def test_many_cells_are_cut_into_readable_figures(tmp_path: Path) -> None:
    report = make_report(tmp_path, many_cells(30), noisy)
    with style():
        curves = list(learning_curves(report.evidence).values())
        tables = list(effects(report.comparisons).values())
    assert len(curves) > 1
    for figure in curves:
        shown = [axes for axes in figure.axes if axes.get_visible()]
        assert len(shown) <= 12
        assert all(len(axes.get_lines()) <= 10 for axes in shown)  # eight, the baseline, and where the rate drops
    assert len(tables) > 1
    assert max(len(figure.axes[0].get_yticks()) for figure in tables) <= 40


def test_the_same_figure_is_the_same_file(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        with style():
            text = GRID.replace("[8, 14]", "[8]")
            save(drawn(tmp_path, text, noisy, "stability")["stability"], tmp_path / f"{name}.svg")
        files.append((tmp_path / f"{name}.svg").read_bytes())
    assert files[0] == files[1]


def of_norms(config: RunConfig) -> list[float]:
    """Two norms do not learn; one is unsteady."""
    if config.norm.name in {"instance", "adain"}:
        return [0.1] * config.recipe.epochs
    curve = rising(0.9, config.recipe.epochs, 0.003, int(config.cell_id, 16) % 1000 + config.seed)
    falls = range(5, 15, 3) if config.norm.name == "zca" else ()
    return [each - 0.2 * (epoch in falls) for epoch, each in enumerate(curve)]


def shown_texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Upright texts with their extents in pixels."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_visible()]
    upright = [text for text in texts if text.get_text().strip() and text.get_rotation() in (0, 90)]
    hidden = {text for axes in figure.axes if not axes.get_visible() for text in axes.findobj(Text)}
    unlabelled = {
        text
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for text in (tick.label1, tick.label2)
        if not (text is tick.label1 and axis.get_tick_params().get("labelleft", True))
        or not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    return [(t.get_text(), t.get_window_extent(renderer)) for t in upright if t not in hidden | unlabelled]


def widths(figure: Figure) -> list[float]:
    """Of the panels, in inches."""
    return [axes.get_position().width * figure.get_size_inches()[0] for axes in figure.axes if axes.get_visible()]


@pytest.mark.parametrize(
    "kind", ["effects", "learning-curves", "sensitivity", "stability", "performance-profiles", "published"]
)
@pytest.mark.parametrize("text", [NORMS, GRID], ids=["long", "short"])
def test_nothing_overlaps_or_is_cut_off(tmp_path: Path, text: str, kind: str) -> None:
    if kind == "performance-profiles":  # needs several places
        text = text.replace("depth: 8, ", "").replace("  depth: [8, 14]\n", "")
        text = text.replace("grid:\n", "grid:\n  depth: [8, 14, 20]\n")
    if kind == "published":
        text = text.replace("digits", "cifar10").replace("name: cifar10", "name: chen2019")
    figures = drawn(tmp_path, text, of_norms, kind)
    assert figures
    for figure in figures.values():
        width, height = figure.get_size_inches()
        box = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
        assert -0.05 < box.x0 < box.x1 < width + 0.05
        assert -0.05 < box.y0 < box.y1 < height + 0.05
        texts = shown_texts(figure)
        for index, (one, extent) in enumerate(texts):
            for other, another in texts[:index]:
                shared = Bbox.intersection(extent, another)
                assert shared is None or min(shared.width, shared.height) < 2, (one, other)
        assert min(widths(figure)) > 1.5


@pytest.mark.parametrize("kind", ["effects", "stability"])
def test_names_take_no_width_from_the_panels(tmp_path: Path, kind: str) -> None:
    long, short = (widths(drawn(tmp_path, text, of_norms, kind)[kind]) for text in (NORMS, GRID))
    assert long == pytest.approx(short, abs=0.15)


def test_long_legends_stand_beside_their_panels(tmp_path: Path) -> None:
    figure = drawn(tmp_path, NORMS, of_norms, "learning-curves")["learning-curves"]
    panels = [axes for axes in figure.axes if axes.get_visible()]
    frames = [axes.get_window_extent() for axes in panels]
    assert len(panels) == 4
    for axes in panels:
        legend = axes.get_legend()
        assert legend is not None
        assert not any(legend.get_window_extent().overlaps(frame) for frame in frames)
        # A curve that never rises from 10 % does not lie on the axis.
        lowest = min(max(line.get_ydata()) for line in axes.get_lines() if line.get_label()[0] != "_")
        assert axes.get_ylim()[0] < lowest - 0.5


def test_what_is_far_from_all_others_is_told_at_the_edge(tmp_path: Path) -> None:
    """Four treatments of 31 end 80 points below: the others fill the axis."""
    report = make_report(tmp_path, NORMS, of_norms)
    far = [p.final.value for p in report.comparisons.pooled if p.final.value < -0.7]
    assert len(far) == 4
    figures = report.figures("effects", "sensitivity")
    points = figures["effects"].axes[0]
    assert -20 < points.get_xlim()[0] < 0
    assert [text.get_text().split(" ")[0] for text in points.texts] == [f"−{-100 * each:.1f}" for each in far]
    edge = [line for line in points.get_lines() if line.get_marker() == "<"]
    assert [line.get_xdata()[0] for line in edge] == [points.get_xlim()[0]] * 4
    assert [points.get_yticklabels()[line.get_ydata()[0]].get_text().split()[-1] for line in edge] == [
        "instance", "adain", "instance", "adain",
    ]  # fmt: skip
    by_norm = figures["by-norm"].axes[0]
    assert by_norm.get_ylim()[0] > 70
    assert [text.get_text() for text in by_norm.texts] == ["10.0"] * 4
    assert sum(line.get_marker() == "v" for line in by_norm.get_lines()) == 4


def test_runs_far_from_all_others_are_told_at_the_edge(tmp_path: Path) -> None:
    report = make_report(tmp_path, NORMS, of_norms)
    axes = report.figures("stability")["stability"].axes[0]
    values = 100 * np.concatenate([
        report.evidence.of(cell.cell_id, "deviation")
        for cell in report.evidence.sweep.cells
        if cell.config.norm.name == "zca" and cell.config.ordering == "relu-ic-conv"
    ])  # fmt: skip
    assert axes.get_xlim()[1] < values.max()
    assert axes.texts[0].get_text() == f"mean {values.mean():.1f}, to {values.max():.1f}"


def test_usual_figures_show_all_there_is(tmp_path: Path) -> None:
    """The whole range with its margins, whatever leads away from it."""

    def curve(config: RunConfig) -> list[float]:
        return rising(0.9, 30, 0.02, int(config.cell_id, 16) % 1000 + config.seed)

    report = make_report(tmp_path, GRID, curve)
    figures = report.figures("effects", "sensitivity")
    shown = [0.0, *(100 * each for p in report.comparisons.pooled for each in p.final.estimate)]
    shown += [100 * c.final.value for c in report.comparisons.single]
    margin = 0.06 * (max(shown) - min(shown))
    left = figures["effects"].axes[0]
    assert left.get_xlim() == pytest.approx((min(shown) - margin, max(shown) + margin))
    assert not left.texts
    for axes in figures["by-depth"].axes:
        low, high = axes.get_ylim()
        assert not axes.texts
        for bars in axes.containers:
            assert low < min(bars[0].get_ydata()) <= max(bars[0].get_ydata()) < high


def test_places_of_one_value_have_nothing_to_show(tmp_path: Path) -> None:
    grid = """
fixed: {dataset: digits, ordering: relu-ic-conv, dropout: 0.05}
recipe: {name: digits, epochs: 30}
grid:
  depth: [8, 14]
  norm: [batch, layer, none]
exclude: [{depth: 8, norm: none}, {depth: 14, norm: batch}, {depth: 14, norm: layer}]
seeds: 2
"""
    figures = drawn(tmp_path, grid, noisy, "sensitivity")
    assert list(figures) == ["by-norm"]
    assert [axes.get_title() for axes in figures["by-norm"].axes if axes.get_visible()] == ["digits, basic-8"]


def test_marks_of_categories_stand_clear_of_the_frame(tmp_path: Path) -> None:
    axes = drawn(tmp_path, GRID, noisy, "sensitivity")["by-norm"].axes[0]
    low, high = axes.get_xlim()
    drawn_at = [x for bars in axes.containers for x in bars[0].get_xdata()]
    assert min(drawn_at) - low > 0.1
    assert high - max(drawn_at) > 0.1


def test_a_panel_is_as_wide_as_its_categories_need(tmp_path: Path) -> None:
    figure = drawn(tmp_path, NORMS, of_norms, "sensitivity")["by-norm"]
    assert widths(figure)[0] > 0.33 * 16
    for label in figure.axes[0].get_xticklabels():  # the words end at the tick, not the box around them
        assert (label.get_rotation_mode(), label.get_ha()) == ("anchor", "right")


def test_an_interval_that_is_cut_says_where_it_ends(tmp_path: Path) -> None:
    def curve(config: RunConfig) -> list[float]:
        accuracies = of_norms(config)
        return [each + 0.05 * (config.seed - 1) * (config.norm.name == "ghost") for each in accuracies]

    text = NORMS.replace("    - instance\n    - adain\n", "")
    report = make_report(tmp_path, text, curve)
    axes = report.figures("effects")["effects"].axes[0]
    wide = [p.final for p in report.comparisons.pooled if "ghost" in p.treatment]
    told = [f"to {sign}{abs(100 * bound):.1f}" for f in wide for sign, bound in (("−", f.low), ("+", f.high))]
    assert [text.get_text() for text in axes.texts] == told


@pytest.mark.parametrize(
    ("values", "always", "shown"),
    [
        ([1, 2, 3, 4, 5], [0], (0, 5)),
        ([1, 2, 3, 4, 12], [0], (0, 12)),  # far from the others, and these are still to be told apart
        ([*range(11), 100, -200], [0], (0, 10)),
        ([*range(11), 100], [100], (0, 100)),  # wanted in any case
        ([0] * 8 + [1, 50], [0], (0, 50)),  # the middle half are equal
        ([], [0], (0, 0)),
    ],
)
def test_the_window_is_the_whole_range_or_that_of_the_bulk(
    values: list[float], always: list[float], shown: tuple[float, float]
) -> None:
    assert window(values, always) == shown


def test_an_ordering_has_one_colour_in_all_panels(tmp_path: Path) -> None:
    panels = [axes for axes in drawn(tmp_path, GRID, noisy, "sensitivity")["by-dropout"].axes if axes.get_visible()]
    colours = {(bars.get_label(), bars[0].get_color()) for axes in panels for bars in axes.containers}
    assert len(panels) == 4
    assert len(colours) == 2
