"""Optuna's samplers and pruners as a search uses them: the same trials again, within their ranges, to some purpose."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from sqlalchemy import event

from icbench.layout import Layout
from icbench.search import methods, settings, storage
from icbench.search.settings import Search
from icbench.search.space import Value
from icbench.search.study import CellStudy, Outcome, params

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage

Open = Callable[[str], "RDBStorage"]
RANGES = """
    dropout: {low: 0, high: 0.5, step: 0.05}
    learning_rate: {low: 1e-4, high: 1, log: true}
"""
CHOICES = RANGES + "    batch_size: {low: 16, high: 64}\n    norm: [batch, group, none]\n"
POINTS = """
    dropout: [0.1, 0.2]
    width: {low: 8, high: 24, step: 8}
    norm: [batch, none]
"""
# Each with few random trials before it begins in earnest.
SAMPLERS = {
    "tpe": "{name: tpe, n_startup_trials: 4}",
    "tpe, multivariate": "{name: tpe, n_startup_trials: 4, multivariate: true}",
    "gp": "{name: gp, n_startup_trials: 4}",
    "cmaes": "{name: cmaes, n_startup_trials: 1, popsize: 4}",
    "random": "random",
    "qmc": "qmc",
    "halton": "{name: qmc, qmc_type: halton, scramble: false}",
}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Open]:
    """Opens a database by name; all are closed at the end."""
    opened = []

    def connect(name: str) -> "RDBStorage":
        opened.append(storage.connect(f"sqlite:///{tmp_path / name}.db", Layout(tmp_path / "results")))
        event.listen(opened[-1].engine, "connect", _hasty)
        opened[-1].engine.dispose()  # of the connection that is not
        return opened[-1]

    yield connect
    for each in opened:
        each.engine.dispose()


def memory() -> "BaseStorage":
    """Much quicker, where nothing is begun anew."""
    import optuna

    return optuna.storages.InMemoryStorage()


def _hasty(connection: Any, _: object) -> None:
    """Nobody pulls the plug here: writes need not wait for the disk."""
    connection.execute("PRAGMA synchronous = OFF")


def load(folder: Path, parameters: str, *more: str) -> Search:
    file = folder / "search.yaml"
    lines = "".join(f"  {line}\n" for line in ("trials: 40", *more))
    fixed = "recipe: digits\nfixed: {dataset: digits, depth: 8, ordering: relu-ic-conv}\n"
    file.write_text(f"{fixed}search:\n  parameters:\n    {parameters.strip()}\n{lines}")
    return settings.load(file)


def height(values: Mapping[str, Value]) -> float:
    """One hill, its top at a rate of 0.35 and a learning rate of 0.01."""
    return -((float(values["dropout"]) - 0.35) ** 2) - 0.02 * (math.log10(float(values["learning_rate"])) + 2) ** 2


def drive(study: CellStudy, count: int, value: Callable[[Mapping[str, Value]], Any] = height) -> list[dict[str, Value]]:
    """So many trials more, done one after another; their values as they would be trained with."""
    found = []
    for _ in range(count):
        trial = study.ask("test")
        assert trial is not None
        values = dict(params(trial, study.cell))
        figures = value(values)
        study.complete(trial, list(figures) if isinstance(figures, tuple) else [figures], Outcome())
        found.append(values)
    return found


def study_of(search: Search, opened: "BaseStorage") -> CellStudy:
    return CellStudy(search, search.cells[0], cast("RDBStorage", opened))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_trials_again(sampler: str, tmp_path: Path, database: Open) -> None:
    """Also where another process goes on; and others with another seed."""
    parameters = RANGES if sampler in ("cmaes", "gp") else CHOICES
    search = load(tmp_path, parameters, f"sampler: {SAMPLERS[sampler]}")
    whole = drive(study_of(search, memory()), 7)
    stopped = drive(study_of(search, database("stopped")), 5)
    stopped += drive(study_of(search, database("stopped")), 2)
    assert stopped == whole
    other = load(tmp_path, parameters, f"sampler: {SAMPLERS[sampler]}", "seed: 1")
    others = drive(study_of(other, memory()), 7)
    if sampler == "halton":  # without scrambling there is one sequence; choices are random
        others, whole = ([each["norm"] for each in every] for every in (others, whole))
    assert others != whole


def test_a_trial_under_way_is_asked_for_once(tmp_path: Path, database: Open) -> None:
    """A process that dies between asking and telling: the next one has the same trial, and asks for the same others."""
    search = load(tmp_path, RANGES)
    whole = drive(study_of(search, memory()), 14)
    found = drive(study_of(search, database("stopped")), 12)
    lost = study_of(search, database("stopped")).ask("lost")
    assert lost is not None
    study = study_of(search, database("stopped"))
    (adopted,) = study.adopt(lambda owner: owner == "lost", "test", set())
    found.append(dict(params(adopted, study.cell)))
    study.complete(adopted, [height(found[-1])], Outcome())
    assert found + drive(study, 1) == whole


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_trials_are_within_their_ranges(sampler: str, tmp_path: Path) -> None:
    parameters = RANGES if sampler == "cmaes" else CHOICES
    search = load(tmp_path, parameters, f"sampler: {SAMPLERS[sampler]}")
    rates = [round(0.05 * n, 2) for n in range(11)]
    for values in drive(study_of(search, memory()), 8):
        assert values["dropout"] in rates
        assert 1e-4 <= float(values["learning_rate"]) <= 1
        if sampler != "cmaes":
            assert values["batch_size"] in range(16, 65)
            assert type(values["batch_size"]) is int
            assert values["norm"] in ("batch", "group", "none")
        runs = search.cells[0].runs(values, search.seeds)
        assert {config.dropout for _, config in runs} == {values["dropout"]}


def test_a_grid_has_each_point_once(tmp_path: Path, database: Open) -> None:
    """Also where it is begun anew; then it is at its end."""
    search = load(tmp_path, POINTS, "sampler: grid")
    assert search.trials_of(search.cells[0]) == 12

    def value(values: Mapping[str, Value]) -> float:
        return float(values["width"])

    found = drive(study_of(search, database("study")), 5, value)
    study = study_of(search, database("study"))
    found += drive(study, 7, value)
    points = {tuple(sorted(values.items())) for values in found}
    assert len(points) == 12
    assert {dict(point)["width"] for point in points} == {8, 16, 24}
    assert not study.wants_more()
    assert study.ask("test") is None
    other = drive(study_of(load(tmp_path, POINTS, "sampler: grid", "seed: 3"), memory()), 12, value)
    assert other != found
    assert {tuple(sorted(values.items())) for values in other} == points


def test_points_of_failed_trials_are_asked_for_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whether the trial was lost or its run failed: no other point is taken twice in its place."""
    search = load(tmp_path, POINTS, "sampler: grid")
    study = study_of(search, memory())

    def value(values: Mapping[str, Value]) -> float:
        return float(values["width"])

    for reason in ("", "run 123456789abc failed: out of memory"):
        failing = study.ask("test")
        assert failing is not None
        study.fail(failing, Outcome(reason=reason))
    found = drive(study, 12, value)
    assert len({tuple(sorted(values.items())) for values in found}) == 12
    assert not study.wants_more()
    assert study.ask("test") is None
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("sampler", "trials"), [("tpe", 30), ("tpe, multivariate", 30), ("cmaes", 40), ("gp", 14)])
def test_a_sampler_learns(sampler: str, trials: int, tmp_path: Path) -> None:
    """The later third of its trials is better than a random search's, with each of two seeds."""
    for seed in range(2):
        search = load(tmp_path, RANGES, f"sampler: {SAMPLERS[sampler]}", f"seed: {seed}")
        found = drive(study_of(search, memory()), trials)
        chance = drive(study_of(load(tmp_path, RANGES, "sampler: random"), memory()), trials)
        last = trials // 3
        assert sum(map(height, found[-last:])) / last > sum(map(height, chance)) / trials + 0.02, seed


@pytest.mark.parametrize("sampler", [each for each in SAMPLERS if each != "cmaes"])
def test_several_objectives(sampler: str, tmp_path: Path) -> None:
    """A front of trials of which none is better in both."""

    def both(values: Mapping[str, Value]) -> tuple[float, float]:
        return 1 - abs(float(values["dropout"]) - 0.1), 10 + 10 * abs(float(values["dropout"]) - 0.4)

    more = "objective: [accuracy, {name: epochs-to-target, target: 0.9}]"
    search = load(tmp_path, RANGES, f"sampler: {SAMPLERS[sampler]}", more)
    study = study_of(search, memory())
    found = drive(study, 12, both)
    best = [both(params(trial, study.cell)) for trial in study.best()]
    every = [both(values) for values in found]
    front = {one for one in every if not any(a >= one[0] and e <= one[1] and (a, e) != one for a, e in every)}
    assert set(best) == front


def curve(top: float, epochs: int) -> list[float]:
    return [top * (1 - 0.8**epoch) for epoch in range(1, epochs + 1)]


PRUNERS = {
    "median": "{name: median, n_startup_trials: 2}",
    "hyperband": "{name: hyperband, min_resource: 2}",
    "successive-halving": "{name: successive-halving, min_resource: 2}",
}


@pytest.mark.parametrize("pruner", ["none", *PRUNERS])
def test_a_pruner_spares_epochs_and_not_the_best(pruner: str, tmp_path: Path) -> None:
    """Fed with whole curves: the hopeless ones are ended early, the best never; the same ones again elsewhere."""

    def epochs_of_all(opened: "BaseStorage") -> list[int]:
        search = load(tmp_path, RANGES, "sampler: random", f"pruner: {PRUNERS.get(pruner, pruner)}")
        taken = []
        for number in range(20):
            study = study_of(search, opened)
            trial = study.ask("test")
            assert trial is not None
            accuracies = curve(0.9 if number % 5 == 0 else 0.3 + 0.01 * number, 10)
            for epoch, accuracy in enumerate(accuracies, start=1):
                trial.report(accuracy, epoch)
                if epoch < 10 and trial.should_prune():
                    study.prune(trial, Outcome())
                    break
            else:
                study.complete(trial, [accuracies[-1]], Outcome())
            taken.append(epoch)
        return taken

    taken = epochs_of_all(memory())
    assert epochs_of_all(memory()) == taken
    assert all(epochs == 10 for epochs in taken[::5])
    assert (sum(taken) < 160) == (pruner != "none")


def test_wilcoxon_ends_a_trial_that_is_worse_with_every_seed(tmp_path: Path) -> None:
    search = load(tmp_path, RANGES, "sampler: random", "pruner: wilcoxon", "seeds: 8")
    study = study_of(search, memory())

    def seeds_of(values: list[float]) -> int:
        trial = study.ask("test")
        assert trial is not None
        for seed, value in enumerate(values, start=1):
            trial.report(value, seed)
            if seed < len(values) and trial.should_prune():
                study.prune(trial, Outcome())
                return seed
        study.complete(trial, [sum(values) / len(values)], Outcome())
        return len(values)

    assert seeds_of([0.9 + 0.001 * n for n in range(8)]) == 8
    assert seeds_of([0.8 + 0.002 * n for n in range(8)]) == methods.seeds_to_tell(search.pruner) == 4
    assert seeds_of([0.9 + 0.0011 * n for n in range(8)]) == 8


@pytest.mark.parametrize(
    ("options", "seeds"), [("", 4), (", p_threshold: 0.5", 2), (", p_threshold: 0.01", 7), (", n_startup_steps: 6", 6)]
)
def test_from_when_on_wilcoxon_can_tell(options: str, seeds: int, tmp_path: Path) -> None:
    """The least p of n signed ranks is 2^-n, by SciPy too."""
    from scipy.stats import wilcoxon

    search = load(tmp_path, RANGES, f"pruner: {{name: wilcoxon{options}}}", "seeds: 20")
    assert methods.seeds_to_tell(search.pruner) == seeds
    threshold = dict(search.pruner.options).get("p_threshold", 0.1)
    assert wilcoxon([-1.5 * n for n in range(1, seeds + 1)], alternative="less").pvalue < float(threshold)


def test_seeds_of_samplers_are_their_own() -> None:
    places = [methods.Seeding(seed, place) for seed in (0, 1) for place in ("00000000", "00000001", "ffffffff")]
    drawn = [each.of(trial) for each in places for trial in (None, 0, 1, 9999)]
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= each < 2**32 for each in drawn)
