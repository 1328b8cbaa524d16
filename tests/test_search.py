"""`icbench search` on this machine: real trainings on digits, and all that may happen to who looks after them."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from conftest import Icbench, environment, made_once, wait_for

import icbench as package
from icbench import grid
from icbench.failure import record_failure
from icbench.layout import Layout
from icbench.results import finished
from icbench.search import settings, storage
from icbench.search.study import CellStudy

SEARCH = """
name: small
question: Which dropout rate is best in three epochs?
recipe: {name: digits, epochs: 3}
fixed: {dataset: digits, depth: 8, width: 4}
grid: {ordering: [baseline, relu-ic-conv]}
seeds: 2
baseline: {ordering: baseline}
search:
  parameters:
    dropout: {low: 0, high: 0.4, step: 0.1}
    learning_rate: {low: 1e-4, high: 1e-1, log: true}
  trials: 4
  seeds: 2
  pruner: {name: median, n_startup_trials: 1}
"""
COMMAND = [sys.executable, "-m", "icbench", "search", "search.yaml", "--profile", "one.yaml", "--no-build"]


def write(folder: Path, text: str = SEARCH) -> None:
    (folder / "search.yaml").write_text(text)
    (folder / "one.yaml").write_text("workers: 1")


def begin(folder: Path) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(COMMAND, cwd=folder, env=environment(), stdout=pipe, stderr=pipe, text=True)


def search_whole(folder: Path) -> None:
    write(folder)
    process = begin(folder)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    (folder / "out.txt").write_text(out)


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small search was made with one worker, undisturbed."""
    return made_once(tmp_path_factory, "searched", search_whole)


def table(folder: Path) -> pd.DataFrame:
    """The trials, without when."""
    frame = pd.read_parquet(folder / "results/sweeps/small/trials.parquet")
    return frame.drop(columns=["started_at", "ended_at", "train_seconds"])


def test_trials_are_ordinary_runs(searched: Path) -> None:
    """On held-out images, under the ids that a sweep gives them; their means are what the study says."""
    runs = package.load_runs(searched / "results").set_index("run_id")
    curves = package.load_epochs(searched / "results").groupby("run_id")["test_accuracy"].last()
    trials = table(searched)
    assert Counter(trials["cell"]) == dict.fromkeys(trials["cell"], 4)
    assert set(runs["split"]) == {"heldout"}
    assert set(runs["seed"]) == {1000, 1001}
    complete = trials[trials["state"] == "complete"]
    assert len(complete) >= 2
    for trial in complete.itertuples():
        assert trial.values[0] == pytest.approx(curves[list(trial.run_ids)].mean(), abs=1e-12)
        assert len(trial.run_ids) == 2
    as_grid = searched / "as-grid.yaml"
    as_grid.write_text(
        "recipe: {name: digits, epochs: 3, learning_rate: 0.01}\n"
        "fixed: {dataset: digits, depth: 8, width: 4, ordering: relu-ic-conv, dropout: 0.3, split: heldout}\n"
        "seeds: [1000]\n"
    )
    cell = settings.load(searched / "search.yaml").cells[1]
    ((run_id, _),) = cell.runs({"dropout": 0.3, "learning_rate": 0.01}, (1000,))
    assert [run_id] == grid.load(as_grid).run_ids


def test_pruned_runs_are_no_results(searched: Path, icbench_here: Icbench) -> None:
    """They are shown as pruned, keep a checkpoint and their epochs so far, and stop at an epoch's end."""
    trials = table(searched)
    pruned = trials[trials["state"] == "pruned"]
    assert len(pruned) >= 1
    (status,) = icbench_here("status", "--results", searched / "results", "--json").json()
    assert status["pruned"] >= 1
    assert status["finished"] + status["pruned"] == status["total"]
    assert (status["interrupted"], status["waiting"], status["failures"]) == ([], 0, [])
    layout = Layout(searched / "results")
    finished = set(package.load_runs(searched / "results")["run_id"])
    left = [run_id for ids in pruned["run_ids"] for run_id in ids if run_id not in finished]
    assert len(left) == status["pruned"]
    for run_id in left:
        assert layout.run(run_id).checkpoint.exists()
        assert "pruned after" in layout.run(run_id).log.read_text()
        assert icbench_here("show", run_id, "--results", searched / "results", "--json").json()["state"] == "pruned"


def test_the_confirming_sweep(searched: Path) -> None:
    """The best of each cell, the same at 0.05, and the tuned baseline; on test images, with other seeds."""
    sweep = grid.load(searched / "results/sweeps/small/confirm.yaml")
    assert {cell.config.split for cell in sweep.cells} == {"test"}
    assert {seed for cell in sweep.cells for seed in cell.seeds} == {0, 1}
    trials = table(searched)
    complete = trials[trials["state"] == "complete"]
    best = complete.loc[complete.groupby("cell")["values"].apply(lambda each: each.str[0].idxmax())]
    rates = {cell.config.dropout for cell in sweep.cells if cell.config.dropout is not None}
    found = [eval(text) for text in best["parameters"]]  # JSON of numbers
    assert rates == {0.05} | {each["dropout"] for each in found if "dropout" in each}
    assert {cell.config.recipe.learning_rate for cell in sweep.cells} == {each["learning_rate"] for each in found}
    (baseline,) = set(sweep.baselines.values())
    by_id = {cell.cell_id: cell.config for cell in sweep.cells}
    assert by_id[baseline].ordering == "baseline-v1"
    assert "confirmed on test images by: icbench sweep" in (searched / "out.txt").read_text()


def test_nothing_is_left_to_do(searched: Path, icbench_here: Icbench) -> None:
    """The same search again asks nothing and trains nothing; more trials are asked for on top of those."""
    before = sorted(searched.glob("results/sweeps/small/submissions/*"))
    began = time.monotonic()
    again = icbench_here("search", searched / "search.yaml", "--results", searched / "results", "--no-build", "--json")
    assert again.code == 0, again.err
    assert time.monotonic() - began < 30
    assert [each["trials"] for each in again.json()["studies"]]
    assert sorted(searched.glob("results/sweeps/small/submissions/*")) == before


def test_a_search_that_is_killed(searched: Path, tmp_path: Path) -> None:
    """kill -9 of the controller, of a worker, and Ctrl-C: trial by trial and bit for bit the undisturbed search."""
    write(tmp_path)
    results = tmp_path / "results"

    def runs() -> list[Path]:
        return list(results.glob("runs/*.parquet"))

    first = begin(tmp_path)
    wait_for(lambda: len(runs()) >= 2)
    first.kill()
    first.communicate()
    second = begin(tmp_path)
    before = len(runs())
    wait_for(lambda: len(runs()) > before)
    kill_worker(results)
    wait_for(lambda: len(runs()) > before + 2)
    second.send_signal(signal.SIGINT)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 130
    assert "Nothing is lost. To go on:" in err
    last = begin(tmp_path)
    _, err = last.communicate(timeout=300)
    assert last.returncode == 0, err
    assert "Traceback" not in err
    pd.testing.assert_frame_equal(table(tmp_path), table(searched), check_exact=True)
    (theirs, ours) = (package.load_epochs(each / "results").drop(columns="seconds") for each in (searched, tmp_path))
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


def kill_worker(results: Path) -> None:
    """SIGKILL to whoever is at a run."""
    for heart in results.glob("work/*/progress.json"):
        pid = package.files.read_json(heart)["pid"]  # type: ignore[attr-defined]
        os.kill(pid, signal.SIGKILL)


def test_two_controllers_of_one_search(searched: Path, tmp_path: Path) -> None:
    """Typed twice at once: no trial too many, no run twice, and both do some."""
    write(tmp_path)
    both = [begin(tmp_path) for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    url = f"sqlite:///{tmp_path}/results/studies.db"
    owners = set()
    for summary in optuna.get_all_study_summaries(url):
        found = optuna.load_study(study_name=summary.study_name, storage=url).trials
        states = Counter(trial.state.name for trial in found)
        assert states["COMPLETE"] + states["PRUNED"] == 4
        assert states["RUNNING"] == 0
        owners |= {trial.user_attrs["controller"] for trial in found}
    assert len(owners) == 2
    assert (package.load_runs(tmp_path / "results")["attempts"] == 1).all()


def test_a_search_is_cancelled(tmp_path: Path, icbench: Icbench) -> None:
    """`icbench cancel NAME` ends it as Ctrl-C does; what was under way is gone on with."""
    write(tmp_path)
    process = begin(tmp_path)
    wait_for(lambda: list((tmp_path / "results" / "work").glob("*/progress.json")))
    cancelled = icbench("cancel", "small")
    assert "stopped the local sweep small" in cancelled.out
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Nothing is lost" in err


def test_what_a_search_would_do(tmp_path: Path, icbench_here: Icbench) -> None:
    write(tmp_path)
    told = icbench_here("search", "search.yaml", "--dry-run", "--no-build")
    assert told.code == 0
    assert "relu-ic-conv digits basic-8 width 4: 4 trials, dropout, learning_rate" in told.out
    assert "At most 16 runs, 2 seeds a trial." in told.out
    assert not (tmp_path / "results").exists()
    record: Any = icbench_here("search", "search.yaml", "--dry-run", "--no-build", "--json").json()
    assert [cell["trials"] for cell in record["cells"]] == [4, 4]


def test_what_others_are_at_is_not_confirmed_yet(tmp_path: Path, icbench_here: Icbench) -> None:
    """A trial of a controller elsewhere, which may have died: the search is not said to be done."""
    text, _ = SEARCH.replace("epochs: 3", "epochs: 1").split("search:")
    write(tmp_path, text + "search: {parameters: {dropout: {low: 0, high: 0.4}}, trials: 1}")
    layout, search = Layout(tmp_path / "results"), settings.load(tmp_path / "search.yaml")
    database = storage.connect(storage.url(layout, None), layout)
    assert CellStudy(search, search.cells[1], database).ask("elsewhere") is not None
    database.engine.dispose()
    ended = icbench_here("search", "search.yaml", "--profile", "one.yaml", "--no-build", "--confirm")
    assert "1 trial of other controllers under way: what is best may still change." in ended.err
    assert not (tmp_path / "results/sweeps/small-confirm").exists()


def test_a_spent_budget_is_told(tmp_path: Path, icbench_here: Icbench) -> None:
    text, _ = SEARCH.split("search:")
    write(tmp_path, text + "search: {parameters: {dropout: {low: 0, high: 0.4}}, trials: 5, budget: 0.0000001hours}")
    ended = icbench_here("search", "search.yaml", "--profile", "one.yaml", "--no-build")
    assert "The budget of 1e-07 hours is spent: 6 trials not asked for." in ended.out


def test_failed_runs_are_tried_again(tmp_path: Path, icbench_here: Icbench) -> None:
    """A cell with nothing to search for has one configuration, and while its run is known to fail so do all trials."""
    text, _ = SEARCH.replace("epochs: 3", "epochs: 1").split("search:")
    write(tmp_path, text + "search: {parameters: {dropout: {low: 0, high: 0.4}}, trials: 1}")
    layout, search = Layout(tmp_path / "results"), settings.load(tmp_path / "search.yaml")
    ((run_id, _),) = search.cells[0].runs({}, search.seeds)
    record_failure(layout.run(run_id), "gpu-oom", "CUDA out of memory")
    words = ("search", "search.yaml", "--profile", "one.yaml", "--no-build")
    failed = icbench_here(*words)
    assert failed.code == 1
    assert "10 trials failed. The last: run" in failed.err
    other = icbench_here(*words, "--retry-failed=cancelled")
    assert other.code == 1
    assert "no run of small has failed in the way cancelled." in other.err
    again = icbench_here(*words, "--retry-failed=gpu-oom")
    assert again.code == 0, again.err
    assert "1 run of small that failed in the way gpu-oom may be trained again." in again.err
    assert run_id in finished(layout)
    assert "no run of small has failed." in icbench_here(*words, "--retry-failed").err
    assert icbench_here(*words, "--retry-failed=diverged").code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--storage", "nonsense"], "--storage nonsense is no database"),
        (["--storage", "mysql://nobody:secret@localhost/none"], "mysql://nobody:***@localhost/none"),
        (["--storage", "mysql://localhost/none?user=nobody&password=secret"], "password=***"),
        (["--storage", "sqlite:////nowhere/at/all.db"], "cannot be opened"),
        (["--detach"], "--detach needs a cluster"),
    ],
)
def test_mistakes_in_the_command(
    tmp_path: Path, icbench_here: Icbench, words: list[str], said: str, recwarn: Callable[[], object]
) -> None:
    write(tmp_path)
    refused = icbench_here("search", "search.yaml", "--no-build", *words)
    assert refused.code == 2
    assert said in refused.err
    assert "secret" not in refused.err


def test_a_sweep_has_the_name(tmp_path: Path, icbench_here: Icbench) -> None:
    write(tmp_path)
    (tmp_path / "results/sweeps/small").mkdir(parents=True)
    (tmp_path / "results/sweeps/small/grid.yaml").write_text("recipe: digits")
    refused = icbench_here("search", "search.yaml", "--no-build")
    assert refused.code == 2
    assert "small is the name of a sweep" in refused.err
