"""Results: written whole or not at all, read back by icbench, pandas and DuckDB, compacted at any moment."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Icbench

import icbench as package
from icbench import results
from icbench.errors import IcbenchError, UserError
from icbench.layout import Layout
from icbench.locks import Lock

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
TYPES = {"string": "x", "int32": 1, "int64": 2, "float64": 0.5, "bool": False, "timestamp": MOMENT, "binary": b"x"}


def run_row(run_id: str, **more: Any) -> dict[str, Any]:
    row = {column: TYPES[kind] for column, kind in results._RUNS.items()}
    return row | {"run_id": run_id, "dropout": None, "git_dirty": None, "slurm_job_id": None} | more


def epoch_rows(run_id: str, count: int = 3) -> list[dict[str, Any]]:
    row = {column: TYPES[kind] for column, kind in results._EPOCHS.items()}
    return [row | {"run_id": run_id, "epoch": epoch, "test_accuracy": epoch / 10} for epoch in range(1, count + 1)]


def write(layout: Layout, *run_ids: str, **more: Any) -> None:
    for run_id in run_ids:
        results.write_run(layout, run_row(run_id, **more), epoch_rows(run_id))


@pytest.fixture(params=["pyarrow", "duckdb"])
def layout(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Every test holds whichever of the two reads the small files."""
    monkeypatch.setattr(results, "_MANY_FILES", 1 if request.param == "duckdb" else 10**9)
    return Layout(tmp_path / "results")


@pytest.fixture
def by_pyarrow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files pyarrow read, call by call."""
    counts: list[int] = []
    original = results._dataset

    def counted(files: Iterable[Path], table: str, columns: list[str]) -> pa.Table:
        listed = list(files)
        counts.append(len(listed))
        return original(listed, table, columns)

    monkeypatch.setattr(results, "_dataset", counted)
    return counts


RUN_COLUMNS = """run_id cell_id dataset block depth width ordering norm norm_options dropout recipe precision split seed
parameters epochs test_accuracy test_accuracy_last10 diverged train_seconds images_per_second started_at finished_at
attempts icbench_version git_commit git_dirty torch_version device hostname threads world_size slurm_job_id config
node gpu test_correct weight activation procedures engine images_at_once test_top5_accuracy dropout_by_stage"""
EPOCH_COLUMNS = """run_id epoch learning_rate train_loss train_accuracy test_loss test_accuracy seconds
test_top5_accuracy"""


def test_what_is_written_is_read(layout: Layout) -> None:
    write(layout, "bb", "aa")
    runs, epochs = package.load_runs(layout.root), package.load_epochs(str(layout.root))
    assert list(runs.columns) == RUN_COLUMNS.split()
    assert list(epochs.columns) == EPOCH_COLUMNS.split()
    assert runs["run_id"].tolist() == ["aa", "bb"]
    assert runs["dropout"].isna().all()
    assert runs["finished_at"][0] == pd.Timestamp(MOMENT)
    assert epochs["run_id"].tolist() == ["aa"] * 3 + ["bb"] * 3
    assert epochs["epoch"].tolist() == [1, 2, 3] * 2
    assert package.load_runs(layout.root, ["bb", "none"])["run_id"].tolist() == ["bb"]


def test_plain_pandas_and_duckdb_read_it(layout: Layout) -> None:
    write(layout, "aa", "bb")
    results.compact(layout)
    write(layout, "cc")
    runs_folder, epochs_folder = layout.table("runs"), layout.table("epochs")
    runs = pd.read_parquet(runs_folder)
    assert sorted(runs["run_id"]) == ["aa", "bb", "cc"]
    query = f"""
        select run_id, max(e.test_accuracy), any_value(r.dropout)
        from '{epochs_folder}/*.parquet' e join '{runs_folder}/*.parquet' r using (run_id)
        group by run_id order by run_id
    """
    assert duckdb.sql(query).fetchall() == [("aa", 0.3, None), ("bb", 0.3, None), ("cc", 0.3, None)]
    assert duckdb.sql(f"select count(*) from '{layout.compacted}/epochs.parquet'").fetchall() == [(6,)]


def test_the_files_have_the_schema(layout: Layout) -> None:
    write(layout, "aa")
    for table in results.TABLES:
        assert pq.read_schema(layout.row(table, "aa")).remove_metadata() == results.schema(table)


def test_a_missing_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: there is no such results directory. Make one with: icbench sweep"):
        package.load_runs(tmp_path / "nowhere")
    assert package.load_runs(tmp_path).empty
    assert list(package.load_epochs(tmp_path).columns) == EPOCH_COLUMNS.split()


def test_epochs_without_a_run_are_not_finished(layout: Layout) -> None:
    """Killed between the two files."""
    write(layout, "aa", "bb")
    layout.row("runs", "bb").unlink()
    assert results.finished(layout) == {"aa"}
    assert set(package.load_epochs(layout.root)["run_id"]) == {"aa"}


def test_columns_added_later_are_null_in_older_files(layout: Layout) -> None:
    write(layout, "aa", "bb")
    old = pq.read_table(layout.row("runs", "aa")).drop_columns(["config", "world_size"])
    pq.write_table(old, layout.row("runs", "aa"))
    runs = package.load_runs(layout.root)
    assert runs["config"].isna().tolist() == [True, False]


def test_top5_is_null_in_older_epochs_and_runs_and_shown_where_there_is_one(
    layout: Layout, icbench_here: Icbench
) -> None:
    write(layout, "aa", "bb", config='{"recipe": {}}', norm_options="{}")
    for table in results.TABLES:
        old = pq.read_table(layout.row(table, "aa")).drop_columns(["test_top5_accuracy"])
        pq.write_table(old, layout.row(table, "aa"))
    for frame in (package.load_runs(layout.root), package.load_epochs(layout.root)):
        assert frame.loc[frame["run_id"] == "aa", "test_top5_accuracy"].isna().all()
        assert (frame.loc[frame["run_id"] == "bb", "test_top5_accuracy"] == 0.5).all()
    shown = {run_id: icbench_here("show", run_id, "--results", layout.root).out for run_id in ("aa", "bb")}
    assert "top5" not in shown["aa"]
    assert "not finite" not in shown["aa"]
    assert "test_top5_accuracy" in shown["bb"]
    assert "test top5" in " ".join(shown["bb"].split())


def test_columns_may_be_missing_anywhere(layout: Layout) -> None:
    write(layout, "aa", "bb", "cc")
    for run_id in ("bb", "cc"):
        old = pq.read_table(layout.row("runs", run_id)).drop_columns(["test_correct"])
        pq.write_table(old, layout.row("runs", run_id))
    assert results.compact(layout) == 3
    assert package.load_runs(layout.root)["test_correct"].isna().tolist() == [False, True, True]


def test_files_of_several_ages_are_read_by_duckdb_too(
    layout: Layout, by_pyarrow: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_MANY_FILES", 1)
    write(layout, "aa", "bb", "cc", "dd")
    whole = results.read(layout, "runs")
    for run_id, dropped in (("bb", ["test_correct"]), ("cc", ["test_correct", "started_at", "threads"])):
        old = pq.read_table(layout.row("runs", run_id)).drop_columns(dropped)
        pq.write_table(old, layout.row("runs", run_id))
    runs = results.read(layout, "runs")
    assert by_pyarrow == []
    assert runs.schema == whole.schema
    assert [value is None for value in runs["test_correct"].to_pylist()] == [False, True, True, False]
    assert [value is None for value in runs["threads"].to_pylist()] == [False, False, True, False]
    kept = [name for name in whole.column_names if name not in ("test_correct", "started_at", "threads")]
    assert runs.select(kept).equals(whole.select(kept))


def test_many_small_files_are_read_by_duckdb(tmp_path: Path, by_pyarrow: list[int]) -> None:
    layout = Layout(tmp_path / "results")
    write(layout, *(f"{number:03}" for number in range(results._MANY_FILES, 0, -1)))
    many = [results.read(layout, table) for table in results.TABLES]
    assert by_pyarrow == []
    layout.row("runs", "001").unlink()
    few = [results.read(layout, table) for table in results.TABLES]
    assert by_pyarrow == [results._MANY_FILES - 1] * 2
    for table, ours, theirs in zip(results.TABLES, many, few, strict=True):
        assert ours.schema == theirs.schema == results.schema(table)
        assert ours.slice(3 if table == "epochs" else 1).equals(theirs)


def test_many_small_files_are_read_without_duckdb(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    write(layout, "aa", "bb")
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert package.load_runs(layout.root)["run_id"].tolist() == ["aa", "bb"]


@pytest.mark.parametrize("name", ["results[1]", "seed=7", "r*"])
def test_a_directory_s_name_is_no_pattern(layout: Layout, name: str) -> None:
    write(layout, "aa", parameters=1)
    odd = Layout(layout.root.with_name(name))
    write(odd, "aa", parameters=2)
    runs = package.load_runs(odd.root)
    assert (runs["parameters"].tolist(), runs["seed"].tolist()) == ([2], [2])


def test_what_is_in_order_is_not_copied(layout: Layout) -> None:
    rows = pa.table({"run_id": ["a", "a", "b", "b"], "epoch": [1, 2, 1, 2]})
    assert results._in_order(rows) is rows
    for order in ([1, 0, 2, 3], [2, 3, 0, 1], [0, 2, 1, 3]):
        assert results._in_order(rows.take(order)).equals(rows)
    runs = rows.take([0, 2]).select(["run_id"])
    assert results._in_order(runs) is runs
    assert results._in_order(runs.take([1, 0])).equals(runs)
    assert len(results._in_order(rows.slice(0, 0))) == 0


def test_a_damaged_file_is_named(layout: Layout) -> None:
    write(layout, "aa", "bb")
    file = layout.row("runs", "bb")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(
        IcbenchError, match=r"runs/bb\.parquet cannot be read. .*remove it: its runs are then done again"
    ):
        package.load_runs(layout.root)


@pytest.mark.parametrize("table", results.TABLES)
def test_a_run_that_lacks_a_file_is_done_again(layout: Layout, table: str) -> None:
    write(layout, "aa", "bb")
    layout.row(table, "bb").unlink()
    assert results.finished(layout) == {"aa"}
    assert not results.is_finished(layout, "bb")
    write(layout, "bb")
    results.compact(layout)
    layout.compacted_table(table).unlink()
    layout.row(table, "bb").unlink()
    assert results.finished(layout) == {"aa"}


def test_one_compaction_at_a_time(layout: Layout) -> None:
    write(layout, "aa")
    results.compact(layout)
    lock = Lock.take(layout.compaction_lock)
    assert lock is not None
    with lock, pytest.raises(UserError, match="another compaction is under way"):
        results.compact(layout)
    assert results.compact(layout) == 1


def test_compaction_changes_nothing_but_the_files(layout: Layout) -> None:
    write(layout, "cc", "aa", "bb")
    before = package.load_runs(layout.root), package.load_epochs(layout.root)
    assert results.compact(layout) == 3
    assert json.loads(layout.manifest.read_text()) == {"run_ids": ["aa", "bb", "cc"]}
    for table, frame in zip((package.load_runs, package.load_epochs), before, strict=True):
        pd.testing.assert_frame_equal(table(layout.root), frame)
    for path in layout.table("runs").iterdir():  # an archive may keep the compacted files alone
        path.unlink()
    assert results.finished(layout) == {"aa", "bb", "cc"}
    pd.testing.assert_frame_equal(package.load_runs(layout.root), before[0])
    write(layout, "dd")
    assert results.compact(layout) == 4
    assert results.compact(layout) == 4
    assert sorted(path.name for path in layout.compacted.iterdir()) == [
        ".lock",
        "epochs.parquet",
        "manifest.json",
        "runs.parquet",
    ]
    assert package.load_epochs(layout.root)["run_id"].value_counts().to_dict() == dict.fromkeys(
        ["aa", "bb", "cc", "dd"], 3
    )


def test_of_the_compacted_runs_those_asked_for_are_read(layout: Layout) -> None:
    write(layout, "aa", "bb", "cc")
    results.compact(layout)
    write(layout, "dd")
    assert package.load_runs(layout.root, ["bb", "dd", "none"])["run_id"].tolist() == ["bb", "dd"]
    assert package.load_epochs(layout.root, ["aa"])["run_id"].tolist() == ["aa"] * 3


def test_readers_see_each_run_once_whatever_compaction_has_got_to(layout: Layout) -> None:
    write(layout, "aa", "bb")
    results.compact(layout)
    write(layout, "cc")
    old = layout.compacted_table("runs").read_bytes()
    results.compact(layout)
    layout.compacted_table("runs").write_bytes(old)  # epochs are replaced already, runs are not
    assert package.load_runs(layout.root)["run_id"].tolist() == ["aa", "bb", "cc"]
    assert len(package.load_epochs(layout.root)) == 9
    layout.manifest.unlink()
    assert len(package.load_runs(layout.root)) == 3


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from test_results import Layout, Path, write
layout = Layout(Path({root!r}))
print("ready", flush=True)
for i in range(100000):
    write(layout, f"{{i % 5}}", parameters=i)
"""


def test_a_killed_writer_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of the two reads."""
    layout = Layout(tmp_path / "results")
    for attempt in range(4):
        script = WRITER.format(tests=str(Path(__file__).parent), root=str(layout.root))
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.2 + 0.03 * attempt)
            os.kill(writer.pid, signal.SIGKILL)
        for many_files in (1, 10**9):
            monkeypatch.setattr(results, "_MANY_FILES", many_files)
            runs, epochs = package.load_runs(layout.root), package.load_epochs(layout.root)
            assert len(runs) > 0
            assert set(runs["run_id"]) == set(epochs["run_id"])
            assert len(epochs) == 3 * len(runs)
    write(layout, *map(str, range(5)))
    assert all(path.suffix == ".parquet" and not path.name.startswith(".") for path in layout.table("runs").iterdir())
