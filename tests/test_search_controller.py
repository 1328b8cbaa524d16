"""What a search's controller asks, hands out, prunes and tells, with learning curves that are made up."""

import contextlib
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest
from crew import SECONDS, search

from icbench.config import RunConfig
from icbench.curve import read_curve
from icbench.files import read_json
from icbench.results import finished
from icbench.search import storage, trials
from icbench.search.study import Outcome

EPOCHS = 4
TEXT = """
name: made-up
recipe: {name: digits, epochs: 4}
fixed: {dataset: digits, depth: 8, width: 4}
grid: {ordering: [relu-ic-conv]}
search:
  parameters: {dropout: {low: 0, high: 0.6, step: 0.05}}
  trials: 8
"""
WITH_BASELINE = TEXT.replace("[relu-ic-conv]", "[baseline, relu-ic-conv]\nbaseline: {ordering: baseline}").replace(
    "grid: {ordering: [baseline, relu-ic-conv]\nbaseline: {ordering: baseline}}",
    "grid: {ordering: [baseline, relu-ic-conv]}\nbaseline: {ordering: baseline}",
)


def best_at_a_fifth(config: RunConfig) -> Sequence[float]:
    """Best at a dropout rate of 0.2; a little better with each epoch; each seed a little higher than the last."""
    rate = config.dropout if isinstance(config.dropout, float) else 0.0
    top = 0.9 - (rate - 0.2) ** 2 + (config.seed - 1000) / 1000
    return [top - 0.01 * (EPOCHS - epoch) for epoch in range(1, EPOCHS + 1)]


def test_values_are_means_over_the_seeds(tmp_path: Path) -> None:
    done = search(tmp_path, TEXT + "  seeds: 3\n", best_at_a_fifth)
    assert [state for _, state, *_ in done.trials] == ["COMPLETE"] * 8
    for trial in done.studies[0].study.get_trials():
        rate = trial.params["dropout"]
        by_seed = [[0.9 - (rate - 0.2) ** 2 + seed / 1000] for seed in range(3)]
        outcome = Outcome.of(trial)
        assert [list(each) for each in outcome.by_seed] == [pytest.approx(each) for each in by_seed]
        assert trial.values == pytest.approx([sum(value for (value,) in by_seed) / 3])
        assert outcome.begun == 3
    assert len(done.ended) == 8


def test_a_known_configuration_costs_nothing(tmp_path: Path) -> None:
    """Of seven rates in twenty trials many are asked for again: no run is begun twice, and repeats have taken 0 s."""
    few = TEXT.replace("step: 0.05", "step: 0.1").replace("trials: 8", "trials: 20")
    done = search(tmp_path, few, best_at_a_fifth)
    assert len(done.crew.begun) == len(set(done.crew.begun)) <= 7
    found = done.studies[0].study.get_trials()
    first = {}
    for trial in found:
        seen = first.setdefault(round(trial.params["dropout"], 9), trial)
        assert trial.values == seen.values
        assert Outcome.of(trial).seconds == (EPOCHS * SECONDS if trial is seen else 0)
    assert len(first) == len(done.crew.begun) < len(found) == 20
    again = search(tmp_path, few, best_at_a_fifth)
    assert (again.crew.begun, again.ended, again.trials) == ([], [], done.trials)


@pytest.mark.parametrize("pruner", ["{name: median, n_startup_trials: 2}", "successive-halving", "hyperband"])
def test_pruned_trials(tmp_path: Path, pruner: str) -> None:
    """What a pruner stops ends with its epoch, keeps what it has done, and is no finished run."""
    text = TEXT.replace("trials: 8", f"trials: 16\n  seeds: 2\n  pruner: {pruner}")
    done = search(tmp_path, text, best_at_a_fifth)
    study = done.studies[0].study
    pruned = study.get_trials(states=(optuna.trial.TrialState.PRUNED,))
    assert 1 <= len(pruned) <= 15
    assert len(study.trials) == 16
    table = {row["number"]: row for row in trials.read(done.layout.sweep("made-up")).to_pylist()}
    for trial in pruned:
        last = max(trial.intermediate_values)
        assert trial.values == [trial.intermediate_values[last]]
        assert sorted(trial.intermediate_values) == list(range(1, last + 1))
        (run_id,) = table[trial.number]["run_ids"]  # its second seed was never begun
        assert table[trial.number]["state"] == "pruned"
        assert table[trial.number]["steps"] == list(range(1, last + 1))
        if trial.number == next(each.number for each in study.trials if each.params == trial.params):
            assert table[trial.number]["train_seconds"] == pytest.approx(last * SECONDS)
        if run_id not in finished(done.layout):  # as it is if another trial has let it go on
            assert len(read_curve(done.layout.run(run_id)).accuracies) >= last
    manifest = read_json(done.layout.sweep("made-up").manifest)["run_ids"]
    assert set(manifest) == set(done.crew.begun)


def test_wilcoxon_judges_seeds(tmp_path: Path) -> None:
    """Seeds are begun one after another; a trial that is worse seed by seed is not given all of them."""
    text = TEXT.replace("trials: 8", "trials: 10\n  seeds: 8\n  pruner: wilcoxon")
    done = search(tmp_path, text, best_at_a_fifth)
    rows = trials.read(done.layout.sweep("made-up")).to_pylist()
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert pruned
    for row in pruned:
        assert 2 <= len(row["by_seed"]) == len(row["run_ids"]) < 8
        assert row["steps"] == list(range(1, len(row["by_seed"]) + 1))
        assert row["reported"] == [value for (value,) in row["by_seed"]]
    assert all(len(row["by_seed"]) == 8 for row in rows if row["state"] == "complete")


def test_where_all_diverge_none_is_best(tmp_path: Path) -> None:
    done = search(tmp_path, TEXT, lambda config: best_at_a_fifth(config)[:2])
    assert done.studies[0].counts()["COMPLETE"] == 8
    assert done.studies[0].best() == []


def test_a_diverged_run_is_the_worst(tmp_path: Path) -> None:
    """It counts as 0, and is told: half of the trial's seeds diverge."""

    def half(config: RunConfig) -> Sequence[float]:
        return best_at_a_fifth(config)[: 2 if config.seed % 2 else EPOCHS]

    done = search(tmp_path, TEXT + "  seeds: 2\n", half)
    for trial in done.studies[0].study.get_trials():
        rate = trial.params["dropout"]
        assert trial.values == pytest.approx([(0.9 - (rate - 0.2) ** 2) / 2])
        assert Outcome.of(trial).diverged == 1
    epochs = TEXT.replace(
        "trials: 8", "trials: 1\n  objective: {name: epochs-to-target, target: 0.89}\n  seeds: [1001]"
    )
    assert search(tmp_path / "b", mkdir(tmp_path / "b", epochs), half).trials[0][2] == [2 * EPOCHS]


def mkdir(folder: Path, text: str) -> str:
    folder.mkdir()
    return text


def test_failed_trials_are_replaced(tmp_path: Path) -> None:
    """One rate cannot be trained: its trials fail with a reason, others take their place; not without end."""

    def not_at_none(config: RunConfig) -> Sequence[float]:
        return [] if config.dropout == 0.3 else best_at_a_fifth(config)

    text = TEXT.replace("parameters: {dropout: {low: 0, high: 0.6, step: 0.05}}", "parameters: {dropout: [0.1, 0.3]}")
    done = search(tmp_path, text, not_at_none)
    states = [state for _, state, *_ in done.trials]
    assert states.count("COMPLETE") == 8
    assert states.count("FAIL") >= 1
    failed = [each for each in done.ended if each.state == "failed"]
    assert all("made up to fail" in each.outcome.reason for each in failed)
    assert len(failed) == states.count("FAIL")

    (tmp_path / "b").mkdir()
    hopeless = search(tmp_path / "b", text, lambda _: [])
    assert [state for _, state, *_ in hopeless.trials] == ["FAIL"] * 10
    assert hopeless.studies[0].gave_up


def test_all_cells_have_the_same_budget(tmp_path: Path) -> None:
    """Trials in turn; of a budget in core-hours each study has its share; a cell without parameters one trial."""
    both = TEXT.replace("[relu-ic-conv]", "[relu-ic-conv, ic-conv-relu]")
    done = search(tmp_path, both, best_at_a_fifth)
    order = [each.study.cell.config.ordering for each in done.ended]
    assert order == ["relu-ic-conv", "ic-conv-relu"] * 8

    (tmp_path / "b").mkdir()
    hours = 2 * 3 * EPOCHS * SECONDS / 3600  # three runs of each cell
    spent = search(tmp_path / "b", both + f"  budget: {hours:.6f}core-hours\n", best_at_a_fifth)
    # The last run is the one that exceeds the share; a trial whose values were tried before costs nothing.
    assert all(sum(study.counts().values()) < 8 for study in spent.studies)
    assert all(2.99 < study.seconds() / (EPOCHS * SECONDS) < 4.01 for study in spent.studies)

    (tmp_path / "d").mkdir()
    over = search(tmp_path / "d", TEXT + "  budget: 1minutes\n", best_at_a_fifth)  # this one began long ago
    assert (over.trials, over.crew.begun) == ([], [])

    (tmp_path / "c").mkdir()
    with_baseline = search(tmp_path / "c", WITH_BASELINE, best_at_a_fifth)
    assert [study.counts()["COMPLETE"] for study in with_baseline.studies] == [1, 8]

    (tmp_path / "e").mkdir()  # what a baseline's one run leaves of the budget is the other's
    rest = search(tmp_path / "e", WITH_BASELINE + f"  budget: {hours:.6f}core-hours\n", best_at_a_fifth)
    baseline, other = (study.seconds() / (EPOCHS * SECONDS) for study in rest.studies)
    assert baseline == pytest.approx(1)
    assert 4.99 < other < 6.01


@pytest.mark.parametrize("pruner", ["none", "{name: median, n_startup_trials: 2}"])
def test_a_search_that_dies_again_and_again(tmp_path: Path, pruner: str) -> None:
    """Trial by trial the same as one that does not: nothing is asked twice, no run is begun anew."""
    text = TEXT + f"  seeds: 2\n  pruner: {pruner}\n"
    (tmp_path / "whole").mkdir()
    whole = search(tmp_path / "whole", text, best_at_a_fifth)
    begun: list[str] = []
    for looks in (3, 1, 9, 0, 17):
        begun += search(tmp_path, text, best_at_a_fifth, dies_after=looks).crew.begun
    last = search(tmp_path, text, best_at_a_fifth)
    assert last.trials == whole.trials
    assert begun + last.crew.begun == whole.crew.begun
    whole_table, table = (trials.read(each.layout.sweep("made-up")).to_pylist() for each in (whole, last))
    varying = ("started_at", "ended_at")
    assert [{k: v for k, v in row.items() if k not in varying} for row in table] == [
        {k: v for k, v in row.items() if k not in varying} for row in whole_table
    ]


def test_what_nobody_looks_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial without owner that is old has failed and is replaced; one that is young may be another controller's."""
    done = search(tmp_path, TEXT, best_at_a_fifth, dies_after=2)
    study = done.studies[0]
    with storage.unwarned():
        study.study.ask()  # killed before it had any values
    again = search(tmp_path, TEXT, best_at_a_fifth, dies_after=0)
    assert [state for _, state, *_ in again.trials][:2] == ["RUNNING", "RUNNING"]
    monkeypatch.setattr("icbench.search.study.GRACE_SECONDS", 0)
    last = search(tmp_path, TEXT, best_at_a_fifth)
    states = [state for _, state, *_ in last.trials]
    assert states.count("COMPLETE") == 8
    assert states[1] == "FAIL"
    assert len(states) == 9


def test_a_controller_that_was_away_for_long(tmp_path: Path) -> None:
    """The last sign of life of its trials is days old: they are adopted all the same."""
    done = search(tmp_path, TEXT, best_at_a_fifth, dies_after=2)
    study = done.studies[0]
    (running,) = study.study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
    study.beat(optuna.Trial(study.study, running._trial_id))
    with contextlib.closing(sqlite3.connect(done.layout.studies)) as database, database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-3 days')")
    again = search(tmp_path, TEXT, best_at_a_fifth)
    assert [state for _, state, *_ in again.trials] == ["COMPLETE"] * 8


def test_how_many_more_runs_may_come(tmp_path: Path) -> None:
    """Told with each run that is handed out, so that nobody waits for what will not come."""
    text = TEXT.replace(", step: 0.05", "")  # no value twice
    assert search(tmp_path, text, best_at_a_fifth).crew.further == [7, 6, 5, 4, 3, 2, 1, 0, 0]
    for name, more, further in (
        ("seeds", "  seeds: 2\n", [14, 14, 12, 12]),
        ("median", "  seeds: 2\n  pruner: median\n", [15, 14, 13, 12]),
        ("wilcoxon", "  seeds: 9\n  pruner: wilcoxon\n", [8, 8, 8]),
    ):
        (tmp_path / name).mkdir()
        assert search(tmp_path / name, text + more, best_at_a_fifth).crew.further[: len(further)] == further


def test_two_controllers_that_ask_for_the_last_trial(tmp_path: Path) -> None:
    """Both count before the other has asked: the later trial is withdrawn, and counts for nothing."""
    done = search(tmp_path, TEXT.replace("trials: 8", "trials: 1"), best_at_a_fifth)
    study = done.studies[0]
    assert not study.wants_more()
    assert study.ask("another") is None
    assert [state for _, state, *_ in done.trials] == ["COMPLETE", "FAIL"]
    assert study.failures() == []
    assert study.counted() == 1


def test_a_trial_that_was_ended_from_elsewhere(tmp_path: Path) -> None:
    """Somebody took us for lost, and has failed the trial: the search goes on with another."""
    done = search(tmp_path, TEXT, best_at_a_fifth, dies_after=3)
    study = done.studies[0].study
    (running,) = study.get_trials(states=(optuna.trial.TrialState.RUNNING,))

    def told_meanwhile(config: RunConfig) -> Sequence[float]:
        study.tell(running.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
        return best_at_a_fifth(config)

    again = search(tmp_path, TEXT, told_meanwhile)
    assert [each.state for each in again.ended].count("failed") == 1
    assert [state for _, state, *_ in again.trials].count("COMPLETE") == 8


def test_optunas_own_tools_open_it(tmp_path: Path) -> None:
    done = search(tmp_path, TEXT, best_at_a_fifth)
    url = f"sqlite:///{done.layout.studies}"
    (summary,) = optuna.get_all_study_summaries(url)
    study = optuna.load_study(study_name=summary.study_name, storage=url)
    assert study.metric_names == ["accuracy"]
    assert study.best_value == max(trial.values[0] for trial in study.trials)
    assert abs(study.best_params["dropout"] - 0.2) <= 0.1
    frame = study.trials_dataframe()
    assert len(frame) == 8
    row = trials.read(done.layout.sweep("made-up")).to_pylist()[0]
    assert json.loads(row["parameters"]) == {"dropout": pytest.approx(study.trials[0].params["dropout"])}
