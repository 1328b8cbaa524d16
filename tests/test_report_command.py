"""`icbench report`, typed by a user: what is written, what is said, and what is refused."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPOSITORY, Finished, Icbench, environment
from synthetic import made_run, rising

from icbench import ledger, results
from icbench.grid import Sweep, load
from icbench.layout import Layout

GRID = """
question: Does it help?
recipe: {name: digits, epochs: 3}
fixed: {dataset: digits, depth: 8, width: 4}
grid: {ordering: [baseline, relu-ic-conv], dropout: [0.05, 0.2]}
seeds: 2
baseline: {ordering: baseline}
"""


@pytest.fixture
def icbench(icbench_here: Icbench) -> Icbench:
    return icbench_here


def store(root: Path, sweep: Sweep, *, leave_out: int = 0, commit: str = "0123456789abcdef") -> Layout:
    """A results directory that holds all runs of a sweep but the last few, as if they had been trained."""
    layout = Layout(root)
    ledger.record_sweep(layout, sweep)
    runs = sweep.runs()
    for run_id, config in runs[: len(runs) - leave_out]:
        run, epochs = made_run(run_id, config, rising(0.9 + 0.01 * config.seed, config.recipe.epochs))
        filled = dict.fromkeys(results.schema("runs").names) | run | {"git_commit": commit}
        blank = dict.fromkeys(results.schema("epochs").names)
        results.write_run(layout, filled, [blank | epoch for epoch in epochs])
    return layout


@pytest.fixture
def made(tmp_path: Path) -> Layout:
    (tmp_path / "made.yaml").write_text(GRID)
    return store(tmp_path / "results", load(tmp_path / "made.yaml"))


def test_a_report_on_real_runs(small_sweep: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "icbench", "report", "--results", small_sweep]
    ended = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    done = Finished(ended.returncode, ended.stdout, ended.stderr)
    assert done.code == 0, done.err
    assert done.out.startswith("small: Does a small sweep make a report?\n")
    assert "10 of 10 runs are finished, 0 missing, 0 failed" in done.out
    assert (tmp_path / "report" / "index.html").is_file()
    contrasts = pd.read_csv(tmp_path / "report" / "tables" / "contrasts.csv")
    runs = results.load_runs(small_sweep)
    means = runs.groupby("cell_id")["test_accuracy"].mean()
    baseline = means[runs.loc[runs["dropout"].isna(), "cell_id"].iloc[0]]
    for row in contrasts.itertuples():
        assert row.final == pytest.approx(means[row.cell_id] - baseline)
        assert row.images_low <= row.final <= row.images_high  # the runs have kept which images are right


def test_as_json(icbench: Icbench, made: Layout) -> None:
    record = icbench("report", "--json", "--results", made.root).json()[0]
    assert (record["name"], record["question"]) == ("made", "Does it help?")
    assert record["runs"] == {"wanted": 6, "finished": 6, "diverged": 0, "failed": 0, "missing": 0}
    assert [row["treatment"] for row in record["tables"]["treatments"]] == [
        "relu-ic-conv, dropout 0.05",
        "relu-ic-conv, dropout 0.2",
    ]
    assert record["mixtures"] == []


def test_mixed_conditions_are_said_or_refused(icbench: Icbench, made: Layout, tmp_path: Path) -> None:
    first = sorted(made.table("runs").iterdir())[0]
    row = pd.read_parquet(first)
    run_id = row["run_id"][0]
    rows = results.read(made, "runs", [run_id]).to_pylist()
    results.write_run(made, rows[0] | {"device": "NVIDIA H100"}, results.read(made, "epochs", [run_id]).to_pylist())
    done = icbench("report")
    assert done.code == 0
    assert "device: cpu (model) (5 runs), NVIDIA H100 (1 run)" in done.err
    assert "The runs are not known to be comparable" in (tmp_path / "report" / "index.html").read_text()
    refused = icbench("report", "--strict", "--out", "strict")
    assert refused.code == 2
    assert refused.err.startswith("icbench: the runs of made are not known to be comparable. device:")
    assert not (tmp_path / "strict").exists()


def test_unfinished_sweeps(icbench: Icbench, tmp_path: Path) -> None:
    (tmp_path / "half.yaml").write_text(GRID)
    store(tmp_path / "results", load(tmp_path / "half.yaml"), leave_out=2)
    done = icbench("report")
    assert done.code == 0, done.err
    assert "4 of 6 runs are finished, 2 missing" in done.out
    missing = pd.read_csv(tmp_path / "report" / "tables" / "not-as-wanted.csv")
    assert missing["state"].tolist() == ["missing", "missing"]


def test_several_sweeps(icbench: Icbench, made: Layout, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(GRID.replace("seeds: 2", "seeds: 3"))
    store(made.root, load(tmp_path / "other.yaml"))
    done = icbench("report")
    assert done.code == 0, done.err
    index = (tmp_path / "report" / "index.html").read_text()
    for name in ("made", "other"):
        assert f'href="{name}/index.html"' in index
        assert (tmp_path / "report" / name / "index.html").is_file()
    ledger.record_sweep(made, replace(load(tmp_path / "other.yaml"), name="empty", cells=(), baselines={}))
    (made.sweep("empty").grid).write_text(GRID.replace("depth: 8", "depth: 14"))
    with_an_empty_one = icbench("report", "--out", "three")
    assert with_an_empty_one.code == 0
    assert "empty: nothing is finished, so it has no page." in with_an_empty_one.err
    assert icbench("report", "--sweep", "other", "--out", "one").code == 0
    assert "9 of 9 runs" in (tmp_path / "one" / "index.html").read_text()


def test_a_report_again_leaves_nothing_of_the_one_before(icbench: Icbench, made: Layout, tmp_path: Path) -> None:
    figures = tmp_path / "report" / "figures"
    figures.mkdir(parents=True)
    for name in ("learning-curves-1.png", "by-norm.svg", "learning-curves-mine.png", "notes.txt"):
        (figures / name).touch()
    assert icbench("report").code == 0
    kept = {path.name for path in figures.iterdir() if path.name.startswith(("learning", "notes", "by-norm"))}
    assert kept == {"learning-curves.png", "learning-curves.svg", "learning-curves-mine.png", "notes.txt"}


def test_a_grid_s_own_file_names_a_sweep(icbench: Icbench, made: Layout) -> None:
    (made.sweep("made").grid).unlink()
    done = icbench("report", "--sweep", "made.yaml")
    assert done.code == 0, done.err
    assert "6 of 6 runs" in done.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--results", "nowhere"], "nowhere: there is no such results directory"),
        (["--sweep", "mad"], "there is no sweep 'mad' in results/. Did you mean 'made'? Valid: made."),
        (["--sweep", "missing.yaml"], "missing.yaml"),
        (["--out", "made.yaml"], "made.yaml: this is not a directory. Give one with --out DIR."),
        (["--target", "120"], "argument --target: 120 should be a number above 0 and at most 100"),
        (["--detect", "much"], "argument --detect: much should be a number above 0 and at most 100"),
        (["--out", "made.yaml/deep"], "made.yaml: this is not a directory. Give one with --out DIR."),
    ],
)
def test_mistakes(icbench: Icbench, made: Layout, tmp_path: Path, arguments: list[str], words: str) -> None:
    done = icbench("report", *arguments)
    assert done.code == 2
    assert words in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "report").exists()


def test_no_sweep_and_no_run(icbench: Icbench, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    done = icbench("report")
    assert (done.code, done.err.split(".")[0]) == (2, "icbench: results/ holds no sweep")
    (tmp_path / "made.yaml").write_text(GRID)
    ledger.record_sweep(Layout(tmp_path / "results"), load(tmp_path / "made.yaml"))
    done = icbench("report")
    assert done.code == 2
    assert "no run of made is finished in results/" in done.err


def test_a_target_of_one_s_own(icbench: Icbench, made: Layout, tmp_path: Path) -> None:
    done = icbench("report", "--target", "40%", "--detect", "2", "--json").json()[0]
    assert all(row["epochs_to_target"] == 1 for row in done["tables"]["cells"])
    assert "epochs to an accuracy of 40 %" in (tmp_path / "report" / "index.html").read_text()


def test_the_interface_for_notebooks(made: Layout) -> None:
    from icbench import report
    from icbench.errors import UserError

    found = report.load(made.root)
    assert found.name == "made"
    frame = pd.DataFrame(found.tables["contrasts"].records())
    assert frame["treatment"].tolist() == [c.treatment for c in found.comparisons.single]
    with pytest.raises(UserError, match="there is no sweep 'other'"):
        report.load(made.root, "other")


def test_our_own_sweeps_can_be_reported(tmp_path: Path) -> None:
    """Every sweep's treatments and places have names of their own, from its grid alone."""
    from icbench.report.treatments import contrasts

    for file in sorted((REPOSITORY / "sweeps").glob("*.yaml")):
        if "\nsearch:" in file.read_text():
            continue
        every = contrasts(load(file))
        assert every
        assert len({(c.treatment, c.stratum) for c in every}) == len(every), file
