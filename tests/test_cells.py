"""Statistics against SciPy and closed forms; the table of a sweep."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from icbench import grid, results
from icbench.report import evidence, stats
from icbench.report.cells import CellRow, cell_rows
from icbench.report.metrics import epochs_to

SAMPLES = st.lists(st.floats(0, 1).map(lambda x: round(x, 6)), min_size=2, max_size=12).filter(
    lambda x: len(set(x)) > 1
)


@given(SAMPLES)
def test_the_mean_s_interval_is_scipy_s(values: list[float]) -> None:
    ours = stats.mean(values)
    low, high = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert ours.value == pytest.approx(np.mean(values))
    assert ours[1:] == pytest.approx((low, high))


@given(SAMPLES, SAMPLES, st.sampled_from([0.9, 0.95, 0.99]))
def test_welch_s_interval_is_scipy_s(treated: list[float], control: list[float], confidence: float) -> None:
    ours = stats.difference([(treated, control)], confidence)
    test = scipy_stats.ttest_ind(treated, control, equal_var=False)
    assert ours[1:3] == pytest.approx(test.confidence_interval(confidence))
    assert ours.p == pytest.approx(test.pvalue)


def test_too_few_values_have_no_interval() -> None:
    assert stats.mean([0.5])[0] == 0.5
    assert math.isnan(stats.mean([0.5]).half_width)
    assert np.isnan(stats.difference([([0.5], [0.4, 0.3])])[1:]).all()
    assert np.isnan(stats.difference([([0.5, 0.5], [0.4, 0.4])])[1:]).all()
    assert stats.mean([0.5, 0.5]).half_width == 0


def test_intervals_cover_what_they_say() -> None:
    """95 % of 95 % intervals from 3 seeds hold the truth; of 4,000, the count is within four standard errors."""
    random = np.random.default_rng(0)
    covered = sum(e.low <= 0 <= e.high for e in (stats.mean(random.normal(size=3)) for _ in range(4000)))
    assert covered / 4000 == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 4000))


def test_epochs_to_a_target() -> None:
    curve = [0.1, 0.5, 0.4, 0.6]
    assert epochs_to([0, 0.5, 0.55, 0.6, 0.61], [curve] * 5).tolist() == [1, 2, 4, 4, math.inf]
    assert epochs_to(0.1, []) == math.inf
    assert epochs_to(0.1, [math.nan, 0.2]) == 2


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
