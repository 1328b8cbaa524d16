"""Figures: drawn without a warning for whatever a sweep may hold, in ink and a palette that all can tell apart."""

import re
from pathlib import Path

import numpy as np
import pytest
from synthetic import make_report, rising

from icbench.config import RunConfig
from icbench.report.figures import INK, effects, learning_curves, save, style

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
