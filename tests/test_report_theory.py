"""The theory page: known answers from tables of the test's own making, and a real sweep's page."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import Icbench, made_once, sweep_here
from scipy.stats import t as students_t
from synthetic import make, rising

from icbench import results
from icbench.config import RunConfig
from icbench.report.document import Report
from icbench.report.theory.factors import CORRELATION, INFORMATION, factors, profiles
from icbench.report.theory.measured import Measured, of_table
from icbench.report.theory.relation import Relation, relations

GRID = """
recipe: {name: digits, epochs: 4}
fixed: {dataset: digits, depth: 8, width: 4}
grid: {ordering: [baseline, relu-ic-conv, ic-conv-relu], dropout: [0.05, 0.1, 0.2]}
seeds: 2
baseline: {ordering: baseline}
"""
FEW = GRID.replace("[0.05, 0.1, 0.2]", "[0.05]")
DEPTHS = GRID.replace("depth: 8, ", "").replace("grid: {", "grid: {depth: [8, 14], ")
REAL = """
recipe: {name: digits, epochs: 2, batch_size: 200}
fixed: {dataset: digits, depth: 8, width: 4}
grid: {ordering: [baseline, relu-ic-conv], dropout: [0.05, 0.2]}
seeds: 2
baseline: {ordering: baseline}
probes:
  - {name: dependence, images: 256, pairs: 8, epochs: [0, 1]}
  - {name: effective-lr, steps: 2, epochs: [0, 1, 2]}
"""
# Of a run: (epoch, layer, probe, statistic, value) and perhaps a standard error.
Row = tuple[Any, ...]


def score(config: RunConfig) -> float:
    """What orders the cells: 0 of the baseline, then by ordering and rate."""
    if config.dropout is None:
        return 0.0
    assert isinstance(config.dropout, float)
    return {"relu-ic-conv": 1, "ic-conv-relu": 2}[config.ordering] + config.dropout


def measured(folder: Path, rows: Callable[[RunConfig], Iterable[Row]], grid: str = GRID) -> Measured:
    """Runs whose accuracy rises with their cell's score, and of each so many rows of the probes table."""
    evidence = make(folder, grid, lambda config: rising(0.6 + 0.1 * score(config), 4))
    table = [
        {
            "run_id": run_id,
            **dict(zip(("epoch", "layer", "probe", "statistic", "value"), row, strict=False)),
            "standard_error": row[5] if len(row) > 5 else None,
            "n": 100,
            "options": "{}",
        }
        for run_id, config in evidence.sweep.runs()
        for row in rows(config)
    ]
    return of_table(pa.Table.from_pylist(table, schema=results.schema("probes")), evidence)


def rank_correlations(found: Measured) -> dict[str, Relation]:
    return {each.statistic.key[1]: each for each in relations(found)}


def test_what_goes_with_speed_and_what_does_not(tmp_path: Path) -> None:
    def rows(config: RunConfig) -> Iterable[Row]:
        own, jitter = score(config), 0.001 * config.seed
        for layer, factor in (("a", 1), ("b", 3)):
            yield 0, layer, "dependence", "correlation", -own  # an earlier epoch, which does not count
            yield 1, layer, "dependence", "correlation", factor * own + jitter
            yield 3, layer, "dependence", "correlation", -own
            yield 1, layer, "zigzag", "update_cosine", -factor * own - jitter
            yield 1, layer, "dependence", "zero_share", 0.5
            yield 0, layer, "zigzag", "path_over_displacement", own
        yield 1, "", "zigzag", "update_cosine", 100 * own  # of the whole net, beside layers

    every = measured(tmp_path, rows)
    found = rank_correlations(every)
    up, down, none = (found[name] for name in ("correlation", "update_cosine", "zero_share"))
    assert up.rho[:3] == pytest.approx((1, 0.8216, 1), abs=1e-4)
    assert down.rho[:3] == pytest.approx((-1, -1, -0.8216), abs=1e-4)
    assert (up.rho.p, down.rho.p) == (pytest.approx(2 / 5040), pytest.approx(2 / 5040))
    assert up.p_holm == pytest.approx(3 * 2 / 5040)  # what never varies was not tested
    assert np.isnan(none.rho).all()
    assert (up.epoch, found["path_over_displacement"].epoch) == (1, 0)
    assert len(up.cells) == 7
    by_cell = dict(zip((cell.config.dropout for cell in up.cells[-3:]), up.x[-3:], strict=True))
    assert by_cell == pytest.approx({rate: 2 * (2 + rate) + 0.0005 for rate in (0.05, 0.1, 0.2)})
    before_drop = every.evidence.before_drop[up.cells[-1].cell_id]
    assert up.y[-1] == pytest.approx(np.mean(rising(0.6 + 0.1 * 2.2, 4)[:before_drop]))


def test_all_cells_are_measured_at_one_epoch(tmp_path: Path) -> None:
    """The baseline has no rows of epoch 1: the first that all have is 2. Of what it never has, the others' first."""

    def rows(config: RunConfig) -> Iterable[Row]:
        for epoch in (0, 1, 2, 3) if config.dropout else (0, 2, 3):
            yield epoch, "a", "dependence", "correlation", score(config) + epoch
            if epoch < 2:
                yield epoch, "a", "zigzag", "update_cosine", score(config)

    found = rank_correlations(measured(tmp_path, rows))
    assert [(each.epoch, len(each.cells)) for each in found.values()] == [(2, 7), (1, 6)]
    assert found["correlation"].x[0] == 2


def test_at_equal_rates(tmp_path: Path) -> None:
    """What only says the rate goes with nothing then; what says the ordering does, whatever the rate does to it."""

    def rows(config: RunConfig) -> Iterable[Row]:
        rate = config.dropout or 0.0
        assert isinstance(rate, float)
        yield 1, "a", "dependence", "correlation", rate + 0.001 * (config.ordering == "baseline")
        yield 1, "a", "dependence", "zero_share", score(config) - 100 * rate

    every = measured(tmp_path, rows, GRID.replace("[0.05, 0.1, 0.2]", "[0.05, 0.1, 0.2, 0.3]"))
    found = rank_correlations(every)
    own, of_rate = found["zero_share"], found["correlation"]
    # The baseline alone has no dropout: four pairs are left, each of two cells in the same order.
    assert own.rho_equal_rates.value == 1
    assert own.rho_equal_rates.p == pytest.approx(2 / 16)
    assert own.rho.value < 0.7
    assert np.isnan(of_rate.rho_equal_rates).all()
    assert own.p_holm_equal_rates == pytest.approx(2 / 16)
    theory = Report(every.evidence, measured=every).theory
    assert theory is not None
    assert "of 1 among cells of equal dropout rates, none is shown to differ from 0" in theory.answer
    (row,) = [row for row in theory.tables["theory-relation"].texts() if row[1][0].startswith("P(x = 0)")]
    assert row[-3][0].startswith("+1.00")


def test_what_differs_by_factors_is_averaged_geometrically(tmp_path: Path) -> None:
    def rows(config: RunConfig) -> Iterable[Row]:
        for layer, value in (("a", 1.0), ("b", 100.0)):
            yield 1, layer, "conditioning", "covariance_condition_number", value
            yield 1, layer, "zigzag", "update_cosine", value

    found = rank_correlations(measured(tmp_path, rows))
    assert found["covariance_condition_number"].x == pytest.approx(10)
    assert found["update_cosine"].x == pytest.approx(50.5)


def test_few_cells_tell_nothing(tmp_path: Path) -> None:
    found = measured(tmp_path, lambda config: [(1, "a", "dependence", "correlation", score(config))], FEW)
    (relation,) = relations(found)
    assert len(relation.cells) == 3
    assert np.isnan(relation.rho).all()
    theory = Report(found.evidence, measured=found).theory
    assert theory is not None
    assert "cannot be told: 3 cells of one data set and net, at least 5 are needed" in theory.answer
    assert theory.tables["theory-relation"].texts()[0][-3:] == [("–", pytest.approx(np.nan, nan_ok=True))] * 3


def test_nets_are_not_mixed(tmp_path: Path) -> None:
    """Within each depth the same order; pooled, depth would undo it."""

    def rows(config: RunConfig) -> Iterable[Row]:
        yield 1, "a", "dependence", "correlation", score(config) - 10 * config.depth

    found = relations(measured(tmp_path, rows, DEPTHS))
    assert [(each.place, len(each.cells), each.rho.value) for each in found] == [
        ("digits, basic-8", 7, 1),
        ("digits, basic-14", 7, 1),
    ]


def test_dropout_against_its_prediction(tmp_path: Path) -> None:
    """By hand: two layers that count by their precision, of which one run lacks the second; over the seeds' means."""

    def rows(config: RunConfig) -> Iterable[Row]:
        if config.dropout != 0.1:
            return
        for epoch in (0, 2):
            yield epoch, "one", "dependence", INFORMATION, 0.80 + 0.02 * config.seed, 0.03
            yield epoch, "one", "dependence", f"predicted_{INFORMATION}", 0.81
            yield epoch, "two", "dependence", f"predicted_{INFORMATION}", 0.81
            yield epoch, "one", "dependence", "zero_share_before", 0.0
            if config.seed == 0:
                yield epoch, "two", "dependence", INFORMATION, 0.86, 0.04

    found = measured(tmp_path, rows)
    every = factors(found)
    assert [(each.name, each.epoch) for each in every] == [
        (f"{ordering}, dropout 0.1", epoch) for ordering in ("relu-ic-conv", "ic-conv-relu") for epoch in (0, 2)
    ]
    first = every[0]
    of_seeds = np.array([np.average([-0.01, 0.05], weights=[0.03**-2, 0.04**-2]), 0.01])
    reach = students_t.ppf(0.975, 1) * of_seeds.std(ddof=1) / np.sqrt(2)
    assert first.difference == pytest.approx((of_seeds.mean(), of_seeds.mean() - reach, of_seeds.mean() + reach))
    assert (first.over, first.is_within, first.zeros, first.predicted) == ("2 seeds", False, 0, pytest.approx(0.81))
    assert first.measured - first.predicted == pytest.approx(first.difference.value)
    profile = profiles(found, first.cell, INFORMATION)[0]
    assert profile.positions == [1, 2]
    assert profile.measured == pytest.approx([0.81, 0.86])
    assert profile.error == pytest.approx([np.hypot(0.03, 0.03) / 2, 0.04])


def test_a_bound_is_neither_within_nor_without(tmp_path: Path) -> None:
    """p^2 is none of it where the values alone tell no gate of a zero; given the gates it is."""

    def rows(config: RunConfig) -> Iterable[Row]:
        for zeros, layer in ((0.3, "one"), (0.4, "two")):
            yield 1, layer, "dependence", "zero_share_before", zeros if config.ordering == "ic-conv-relu" else 0.0
            for name in (INFORMATION, "mutual_information_gate_aware_factor"):
                yield 1, layer, "dependence", name, 0.7 + zeros / 10, 0.01
            yield 1, layer, "dependence", f"predicted_{INFORMATION}", 0.8

    every = measured(tmp_path, rows, FEW)
    found = {(each.name.split(",")[0], each.prediction.title): each for each in factors(every)}
    plain, given = "mutual information, factor", "mutual information given the gates, factor"
    assert {key for key, each in found.items() if each.is_within is None} == {("ic-conv-relu", plain)}
    assert found["relu-ic-conv", given].is_within is False
    theory = Report(every.evidence, measured=every).theory
    assert theory is not None
    assert "in 0 of 3 comparisons" in theory.answer
    titles = [column.title for column in theory.on_page("theory-factors").columns]
    predicted = {row[titles.index("predicted")][0] for row in theory.on_page("theory-factors").texts()}
    assert predicted == {"0.8000", "≤ 0.8000"}


def test_one_seed_s_interval_is_over_layers_by_their_precision(tmp_path: Path) -> None:
    def rows(config: RunConfig) -> Iterable[Row]:
        for layer, value, error in (("one", 0.90, 0.1), ("two", 0.81, 0.01), ("three", 0.83, 0.02)):
            yield 1, layer, "dependence", CORRELATION, value, error
            yield 1, layer, "dependence", f"predicted_{CORRELATION}", 0.8 + error

    found = factors(measured(tmp_path, rows, GRID.replace("seeds: 2", "seeds: 1")))[0]
    assert found.measured - found.predicted == pytest.approx(found.difference.value)
    weights = np.array([1.0, 100.0, 25.0])
    mean = np.average([0, 0, 0.01], weights=weights)
    assert found.difference.value == pytest.approx(mean)
    shares = weights / weights.sum()
    error = np.sqrt(shares**2 / (1 - shares) @ (np.array([0, 0, 0.01]) - mean) ** 2)
    assert found.difference.high - mean == pytest.approx(students_t.ppf(0.975, 1 / (shares @ shares) - 1) * error)


def test_one_seed_s_interval_is_over_layers(tmp_path: Path) -> None:
    def rows(config: RunConfig) -> Iterable[Row]:
        for layer, value in (("one", 0.90), ("two", 0.91), ("three", 0.92)):
            yield 1, layer, "dependence", CORRELATION, value
            yield 1, layer, "dependence", f"predicted_{CORRELATION}", 0.8

    found = factors(measured(tmp_path, rows, GRID.replace("seeds: 2", "seeds: 1")))
    assert {(each.over, each.is_within) for each in found} == {("3 layers", False)}


def test_a_layer_without_pairs_keeps_its_place(tmp_path: Path) -> None:
    def rows(config: RunConfig) -> Iterable[Row]:
        yield from ((1, layer, "dependence", "zero_share", 0.0) for layer in ("stem", "middle", "last"))
        yield from ((1, layer, "dependence", "correlation", 0.1) for layer in ("middle", "last"))

    found = measured(tmp_path, rows)
    cell = found.cells[0]
    assert found.positions(("dependence", "correlation"), cell, 1) == [2, 3]
    assert found.positions(("dependence", "zero_share"), cell, 1) == [1, 2, 3]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a real sweep with probes."""
    return made_once(tmp_path_factory, "theory-page", lambda folder: sweep_here(folder, REAL)) / "results"


def test_the_page_of_a_real_sweep(swept: Path, icbench_here: Icbench, tmp_path: Path) -> None:
    done = icbench_here("report", "--results", swept, "--json")
    assert done.code == 0, done.err
    folder = tmp_path / "report"
    assert 'href="theory.html"' in (folder / "index.html").read_text()
    page = (folder / "theory.html").read_text()
    assert "6 of 6 finished runs were measured, in 3 cells, by dependence, effective-lr, after epochs 0, 1, 2." in page
    assert 'href="index.html"' in page
    assert "cannot be told: 3 cells" in page
    drawn = {file.stem for file in (folder / "figures").glob("theory-*.svg")}
    assert drawn >= {
        "theory-mutual-information-factor",
        "theory-correlation-factor",
        "theory-layers-dependence-correlation",
        "theory-layers-effective-lr-effective-learning-rate",
        "theory-epochs",
    }
    assert all(f'aria-label="{name}"' in page for name in drawn)
    assert "theory-" not in "".join(line for line in (folder / "index.html").read_text().split("aria-label=")[1:])
    table = pd.read_csv(folder / "tables" / "theory-factors.csv")
    frame = results.load_probes(swept)
    dropouts = results.load_runs(swept).set_index("run_id")["dropout"]
    own = frame[(frame["statistic"] == INFORMATION) & (frame["run_id"].map(dropouts) == 0.2) & (frame["epoch"] == 1)]
    row = table.query("cell == 'relu-ic-conv, dropout 0.2' and epoch == 1 and quantity == 'mutual information, factor'")
    assert row["predicted"].item() == pytest.approx(0.64)
    weighted = own.assign(weight=own["standard_error"] ** -2).groupby("run_id")
    by_seed = [np.average(each["value"], weights=each["weight"]) for _, each in weighted]
    assert row["measured"].item() == pytest.approx(np.mean(by_seed))
    recorded = json.loads(done.out)[0]["theory"]["tables"]
    assert len(recorded["theory-factors"]) == len(table) == 2 * 2 * 5
    assert [line["cells"] for line in recorded["theory-relation"]] == [3] * 5


def test_the_answer_is_told(swept: Path, icbench_here: Icbench, tmp_path: Path) -> None:
    done = icbench_here("report", "--results", swept)
    assert "grid, theory.html: What theory predicts of dropout lies within" in done.out


def test_without_probes_there_is_no_page(swept: Path, icbench_here: Icbench, tmp_path: Path) -> None:
    import shutil

    copied = tmp_path / "copied"
    shutil.copytree(swept, copied)
    shutil.rmtree(copied / "probes")
    (tmp_path / "report" / "figures").mkdir(parents=True)
    for earlier in ("theory.html", "figures/theory-epochs-2.svg", "figures/theory-layers-zigzag-update-cosine.png"):
        (tmp_path / "report" / earlier).touch()
    done = icbench_here("report", "--results", copied, "--json")
    assert "theory" not in done.json()[0]
    assert not (tmp_path / "report" / "theory.html").exists()
    assert "theory.html" not in (tmp_path / "report" / "index.html").read_text()
    assert not list((tmp_path / "report" / "figures").glob("theory-*"))


def test_a_folder_in_the_page_s_place(swept: Path, icbench_here: Icbench, tmp_path: Path) -> None:
    (tmp_path / "report" / "theory.html").mkdir(parents=True)
    done = icbench_here("report", "--results", swept)
    assert (done.code, "theory.html: this is a directory." in done.err) == (2, True), done.err
