"""The table of a sweep."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic import make

from icbench.config import RunConfig
from icbench.report import stats, tables
from icbench.report.cells import CellRow, cell_rows
from icbench.report.tables import Table

GRID = """
recipe: {name: digits, epochs: 2}
fixed: {dataset: digits, depth: 8}
grid: {ordering: [baseline, relu-ic-conv, ic-conv-relu]}
seeds: 3
baseline: {ordering: baseline}
"""
CURVES = {
    "baseline-v1": [[0.5, 0.8], [0.6, 0.9], [0.7, 1.0]],
    "relu-ic-conv": [[0.9, 0.7], [0.9, 0.8], [0.1]],
}


def table(file: Path, curves: dict[str, list[list[float]]]) -> list[CellRow]:
    def curve(config: RunConfig) -> list[float] | None:
        return dict(enumerate(curves.get(config.ordering, []))).get(config.seed)

    return cell_rows(make(file.parent, file.read_text(), curve))


def test_the_table(write_grid: Callable[..., Path]) -> None:
    baseline, treated, empty = table(write_grid(GRID), CURVES)
    assert baseline.accuracy == pytest.approx(stats.mean([0.8, 0.9, 1.0]))
    assert baseline.difference is None
    assert baseline.target == 0.9
    assert (baseline.epochs_to_target, baseline.reached) == (2, 2)  # 2, 2 and never
    assert (baseline.images_to_target, baseline.seconds_to_target) == (2000, 2)
    assert treated.accuracy == pytest.approx(stats.mean([0.7, 0.8, 0.1]))  # a diverged run counts
    assert treated.difference == pytest.approx(stats.difference([([0.7, 0.8, 0.1], [0.8, 0.9, 1.0])])[:3])
    assert (treated.epochs_to_target, treated.reached, treated.diverged) == (1, 2, 1)
    assert (empty.seeds, empty.seeds_wanted, empty.accuracy, empty.difference) == (0, 3, None, None)
    assert empty.epochs_to_target is None
    assert empty.record()["accuracy"] is None
    assert treated.record()["difference"]["value"] == pytest.approx(treated.difference.value)


def test_the_table_of_a_sweep_without_a_baseline(write_grid: Callable[..., Path]) -> None:
    rows = table(write_grid(GRID.replace("baseline: {ordering: baseline}", "")), CURVES)
    assert all(row.difference is None and row.target is None and row.epochs_to_target is None for row in rows)


def test_the_table_before_its_baseline_is_done(write_grid: Callable[..., Path]) -> None:
    _, treated, _ = table(write_grid(GRID), {"relu-ic-conv": CURVES["relu-ic-conv"]})
    assert treated.accuracy is not None
    assert (treated.difference, treated.target, treated.epochs_to_target) == (None, None, None)


def test_never_is_never_dropped(write_grid: Callable[..., Path]) -> None:
    never = {**CURVES, "relu-ic-conv": [[0.9, 0.8], [0.2, 0.2], [0.2, 0.2]]}
    _, treated, _ = table(write_grid(GRID), never)
    assert treated.epochs_to_target == math.inf
    assert treated.reached == 1
    assert treated.record()["epochs_to_target"] is None


def test_top5_stands_in_the_table_where_there_is_one(write_grid: Callable[..., Path]) -> None:
    def table_of(known: Callable[[RunConfig], float | None]) -> tuple[list[CellRow], Table]:
        file = write_grid(GRID)

        def conditions(config: RunConfig) -> dict[str, float | None]:
            return {"test_top5_accuracy": known(config)}

        rows = cell_rows(make(file.parent, file.read_text(), lambda _: [0.5, 0.8], conditions=conditions))
        return rows, tables.cells(rows)

    rows, without = table_of(lambda _: None)
    assert [row.top5 for row in rows] == [None] * 3
    assert "top5" not in without.records()[0]
    assert "Top-5" not in without.note

    # Of the baseline one run is old.
    rows, having = table_of(lambda c: None if (c.ordering, c.seed) == ("baseline-v1", 1) else 0.9 + c.seed / 100)
    assert rows[0].top5 is None
    assert rows[1].top5 == pytest.approx(stats.mean([0.9, 0.91, 0.92]))
    assert rows[1].record()["top5"]["value"] == pytest.approx(0.91)
    assert having.only("accuracy", "top5").records()[1]["top5"] == pytest.approx(0.91)
    assert having.only("top5").texts()[1][0][0].startswith("91.00")
    assert having.only("top5").texts()[0][0][0] == "–"
    assert "Top-5" in having.note
