"""The table of a sweep."""

import math
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from icbench import grid, results
from icbench.report import evidence, stats
from icbench.report.cells import CellRow, cell_rows

GRID = """
recipe: digits
fixed: {dataset: digits, depth: 8}
grid: {ordering: [baseline, relu-ic-conv, ic-conv-relu]}
seeds: 3
baseline: {ordering: baseline}
"""
CURVES = {
    "baseline-v1": [[0.5, 0.8], [0.6, 0.9], [0.7, 1.0]],
    "relu-ic-conv": [[0.9, 0.7], [0.9, 0.8], [0.1, 0.1]],
}


def table(sweep: grid.Sweep, curves: dict[str, list[list[float]]]) -> list[CellRow]:
    runs, epochs = [], []
    for cell in sweep.cells:
        for run_id, curve in zip(cell.run_ids, curves.get(cell.config.ordering, []), strict=False):
            runs.append(
                {
                    "run_id": run_id,
                    "cell_id": cell.cell_id,
                    "epochs": len(curve),
                    "test_accuracy": curve[-1],
                    "diverged": curve[-1] == 0.1,
                }
            )
            epochs += [{"run_id": run_id, "epoch": e, "test_accuracy": a} for e, a in enumerate(curve, start=1)]
    epochs.sort(key=lambda row: (row["run_id"], row["epoch"]))
    runs.sort(key=lambda row: row["run_id"])
    tables = [
        pa.Table.from_pylist(rows, schema=results.schema(name)) for name, rows in (("runs", runs), ("epochs", epochs))
    ]
    return cell_rows(evidence.gather(sweep, *tables, {}))


def test_the_table(write_grid: Callable[..., Path]) -> None:
    baseline, treated, empty = table(grid.load(write_grid(GRID)), CURVES)
    assert baseline.accuracy == pytest.approx(stats.mean([0.8, 0.9, 1.0]))
    assert baseline.difference is None
    assert baseline.target == 0.9
    assert (baseline.epochs_to_target, baseline.reached) == (2, 2)  # 2, 2 and never
    assert treated.accuracy == pytest.approx(stats.mean([0.7, 0.8, 0.1]))  # a diverged run counts
    assert treated.difference == pytest.approx(stats.difference([([0.7, 0.8, 0.1], [0.8, 0.9, 1.0])])[:3])
    assert (treated.epochs_to_target, treated.reached, treated.diverged) == (1, 2, 1)
    assert (empty.seeds, empty.seeds_wanted, empty.accuracy, empty.difference) == (0, 3, None, None)
    assert empty.epochs_to_target is None
    assert empty.record()["accuracy"] is None
    assert treated.record()["difference"]["value"] == pytest.approx(treated.difference.value)


def test_the_table_of_a_sweep_without_a_baseline(write_grid: Callable[..., Path]) -> None:
    rows = table(grid.load(write_grid(GRID.replace("baseline: {ordering: baseline}", ""))), CURVES)
    assert all(row.difference is None and row.target is None and row.epochs_to_target is None for row in rows)


def test_the_table_before_its_baseline_is_done(write_grid: Callable[..., Path]) -> None:
    _, treated, _ = table(grid.load(write_grid(GRID)), {"relu-ic-conv": CURVES["relu-ic-conv"]})
    assert treated.accuracy is not None
    assert (treated.difference, treated.target, treated.epochs_to_target) == (None, None, None)


def test_never_is_never_dropped(write_grid: Callable[..., Path]) -> None:
    never = {**CURVES, "relu-ic-conv": [[0.9, 0.8], [0.2, 0.2], [0.2, 0.2]]}
    _, treated, _ = table(grid.load(write_grid(GRID)), never)
    assert treated.epochs_to_target == math.inf
    assert treated.reached == 1
    assert treated.record()["epochs_to_target"] is None
