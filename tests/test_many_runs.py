"""The made-up runs that tables are measured on are those of a real sweep."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import icbench as package
from icbench import grid, results
from icbench.bench.many_runs import generate, grid_text
from icbench.layout import Layout


@pytest.mark.parametrize("small_files", [True, False])
def test_made_up_runs_are_a_finished_sweep(tmp_path: Path, small_files: bool) -> None:
    sweep = generate(tmp_path / "results", cells=40, seeds=5, epochs=12, small_files=small_files)
    layout = Layout(tmp_path / "results")
    assert results.finished(layout) == set(sweep.run_ids)
    assert len(sweep.run_ids) == 200
    assert grid.load(layout.sweep(sweep.name).grid).run_ids == sweep.run_ids
    runs, epochs = package.load_runs(layout.root), package.load_epochs(layout.root)
    for table in results.TABLES:
        assert results.read(layout, table).schema == results.schema(table)
    correct = [np.unpackbits(np.frombuffer(bits, np.uint8)).sum() for bits in runs["test_correct"]]
    assert (np.array(correct) == (runs["test_accuracy"] * 10_000).round()).all()
    last = epochs.groupby("run_id").tail(1)
    assert (last["epoch"].to_numpy() == runs["epochs"]).all()
    assert (last["test_accuracy"].to_numpy() == runs["test_accuracy"]).all()
    assert (last["test_loss"].isna().to_numpy() == runs["diverged"]).all()
    assert (runs["diverged"] | (runs["epochs"] == 12)).all()
    assert runs["diverged"].any()
    ids = {config.run_id: config.canonical_json() for _, config in sweep.runs()}
    assert runs["config"].tolist() == [ids[run_id] for run_id in runs["run_id"]]


def test_small_files_and_compacted_tables_hold_the_same(tmp_path: Path) -> None:
    for name, small_files in (("small", True), ("compacted", False)):
        generate(tmp_path / name, cells=8, seeds=2, epochs=10, small_files=small_files)
    for load in (package.load_runs, package.load_epochs):
        pd.testing.assert_frame_equal(load(tmp_path / "small"), load(tmp_path / "compacted"))


def test_a_grid_has_as_many_cells_as_asked_for() -> None:
    with pytest.raises(ValueError, match="no grid of 9 cells"):
        grid_text(9, 1, 200)
    assert "recipe: chen2019\n" in grid_text(1000, 20, 200)
