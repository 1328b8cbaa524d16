"""Searching: trials an hour beside Optuna's own `study.optimize`, the controller's overhead, regret beside a grid.

Everything runs on the digits and on this machine's CPU.
"""

import argparse
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icbench.bench.findings import Column, Findings, Row, Table, Tell, digits, spread
from icbench.bench.measure import Comparison, Spread, in_turn
from icbench.bench.task import PLAIN
from icbench.console import plural
from icbench.errors import IcbenchError, UserError
from icbench.machine import cores

if TYPE_CHECKING:
    from icbench.events import Event
    from icbench.grid import Sweep
    from icbench.layout import Layout
    from icbench.plan import Run
    from icbench.search.settings import Search

_SEARCH = """
name: {name}
recipe: {{name: digits, epochs: {epochs}}}
fixed: {{dataset: digits, depth: 8, width: {width}, ordering: relu-ic-conv}}
search:
  parameters: {{dropout: {{low: 0, high: 0.5{step}}}}}
  trials: {trials}
  seeds: {seeds}
  seed: {seed}
  sampler: {sampler}
"""
_RATES = 21  # of the table that searches are looked up in, from 0 to 0.5
_STEP = 0.5 / (_RATES - 1)
_COARSE = 11  # of the exhaustive grid
_FIRST_SEED, _FIRST_TRUE_SEED = 1000, 5000
_ICBENCH = [sys.executable, "-P", "-m", "icbench"]
# By what the other side trains.
_OBJECTIVES = {PLAIN: "the plain loop", "eager": "icbench's training"}
_OPTIMIZE = [sys.executable, "-P", "-c", "from icbench.bench.optimize import main; main()"]


@dataclass(frozen=True)
class Settings:
    """trials, epochs: of the searches that are timed. runs: of one epoch, by which the overhead is found. searches:
    made-up ones, each with a seed of its own, whose regret is looked up; true_seeds: of each rate, by whose mean they
    are judged.
    """

    repeats: int = 3
    trials: int = 24
    epochs: int = 10
    runs: int = 60
    searches: int = 10
    true_seeds: int = 10


SHORT = Settings(repeats=1, trials=8, runs=20, searches=0)
QUICK = Settings(repeats=1, trials=1, epochs=1, runs=1, searches=0)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", metavar="N", type=int, help="turns of each side (default: 3)")
    parser.add_argument("--trials", metavar="N", type=int, help="of the searches that are timed (default: 24)")
    parser.add_argument("--epochs", metavar="N", type=int, help="of each of their runs (default: 10)")
    parser.add_argument("--runs", metavar="N", type=int, help="short ones to find the overhead by (default: 60)")
    parser.add_argument("--searches", metavar="N", type=int, help="whose regret is found; 0: none (default: 10)")
    parser.add_argument("--true-seeds", metavar="N", type=int, help="of each rate, for the truth (default: 10)")


def check(settings: Settings) -> None:
    """Raise UserError unless the numbers are from 1 up; searches may be 0."""
    for option in ("repeats", "trials", "epochs", "runs", "true_seeds"):
        if getattr(settings, option) < 1:
            raise UserError(f"--{option.replace('_', '-')} {getattr(settings, option)} should be from 1 up.")
    if settings.searches < 0:
        raise UserError(f"--searches {settings.searches} should be from 0 up.")


def expected_seconds(settings: Settings) -> float:
    run = settings.epochs * 0.16
    timed = settings.repeats * (3 * 8 + settings.trials * run * 5 / cores())
    short = settings.repeats * (2 * 8 + settings.runs * 0.4)
    table = _RATES * (settings.searches + settings.true_seeds) * run / cores() if settings.searches else 0
    return 10 + timed + short + table + 2 * settings.searches


def measure(settings: Settings, tell: Tell) -> Findings:
    found = Findings()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cpu.yaml").write_text(f"device: cpu\nworkers: {cores()}\nthreads: 1\n", encoding="utf-8")
        (folder / "one.yaml").write_text("device: cpu\nworkers: 1\nthreads: 1\n", encoding="utf-8")
        tell("search: trials an hour, by icbench and by study.optimize")
        found.comparisons.extend(_trials_an_hour(settings, folder))
        tell("search: the overhead of a trial")
        found.tables.append(_overhead(settings, folder))
        if settings.searches:
            tell("search: regret")
            found.tables.append(_regret(settings, folder))
    return found


def _trials_an_hour(settings: Settings, folder: Path) -> list[Comparison]:
    # Of a range without steps no value comes twice, which would cost icbench nothing.
    file = _write(folder, "timed", epochs=settings.epochs, width=16, trials=settings.trials, sampler="tpe")
    ways = {"icbench": partial(_by_icbench, file, "cpu.yaml")}
    ways |= {engine: partial(_by_optimize, file, engine) for engine in _OBJECTIVES}
    seconds = in_turn(ways, settings.repeats)
    rates = {name: [3600 * settings.trials / each for each in taken] for name, taken in seconds.items()}
    runs = f"{plural(settings.trials, 'trial')} of {plural(settings.epochs, 'epoch')}, {cores()} at a time"
    return [
        Comparison.of_rates(
            f"{runs}, starts included; other: study.optimize, {by}",
            "trials/h",
            rates["icbench"],
            rates[engine],
        )
        for engine, by in _OBJECTIVES.items()
    ]


def _write(folder: Path, name: str, **given: Any) -> Path:
    """A search's file."""
    fields = {"step": "", "seeds": [_FIRST_SEED], "seed": 0, "name": name} | given
    file = folder / f"{name}.yaml"
    file.write_text(_SEARCH.format(**fields), encoding="utf-8")
    return file


def _by_icbench(file: Path, profile: str, command: str = "search") -> float:
    """Seconds of `icbench search`, or sweep, from typing to its end, in a new results directory."""
    results = file.parent / "timed-results"
    words = [command, file.name, "--profile", profile, "--no-build", "--results", results.name]
    began = time.perf_counter()
    _call([*_ICBENCH, *words], file.parent)
    seconds = time.perf_counter() - began
    shutil.rmtree(results)
    return seconds


def _by_optimize(file: Path, engine: str) -> float:
    """Seconds of a process that does the same by `study.optimize`, with its study in an SQLite file as ours is."""
    from icbench.layout import Layout
    from icbench.search import settings

    layout = Layout(file.parent / "optimized")
    began = time.perf_counter()
    _call(_OPTIMIZE, file.parent, pickle.dumps((settings.load(file), layout, cores(), engine)))
    seconds = time.perf_counter() - began
    shutil.rmtree(layout.root)
    return seconds


def _call(command: Sequence[str], folder: Path, request: bytes = b"") -> None:
    done = subprocess.run(command, cwd=folder, input=request, capture_output=True, check=False)
    if done.returncode:
        raise IcbenchError(f"{' '.join(command)} failed:\n{done.stderr.decode(errors='replace')}")


def _overhead(settings: Settings, folder: Path) -> Table:
    """Of a trial over its run: a search of many short runs and of one, beside sweeps of as many, by one worker."""
    few, many = 1, 1 + settings.runs
    ways = {}
    for count in (few, many):
        file = _write(folder, f"search-{count}", epochs=1, width=4, trials=count, sampler="random")
        ways[f"search {count}"] = partial(_by_icbench, file, "one.yaml")
        grid = folder / f"sweep-{count}.yaml"
        grid.write_text(_grid([0.5 * (n + 1) / many for n in range(count)], [_FIRST_SEED], epochs=1, width=4))
        ways[f"sweep {count}"] = partial(_by_icbench, grid, "one.yaml", "sweep")
    seconds = in_turn(ways, settings.repeats)
    each = {
        way: [(b - a) / settings.runs for a, b in zip(seconds[f"{way} {few}"], seconds[f"{way} {many}"], strict=True)]
        for way in ("search", "sweep")
    }
    over = [ours - theirs for ours, theirs in zip(each["search"], each["sweep"], strict=True)]
    rows: list[Row] = [
        {"what": "a further run of 1 epoch in a search", "seconds": Spread.of(each["search"])},
        {"what": "the same in a sweep", "seconds": Spread.of(each["sweep"])},
        {"what": "the overhead of a trial", "seconds": Spread.of(over)},
    ]
    return Table("overhead", "overhead", (Column("what", "what"), Column("seconds", "seconds", spread)), rows)


def _grid(rates: Sequence[float], seeds: Sequence[int], epochs: int, width: int) -> str:
    return (
        f"recipe: {{name: digits, epochs: {epochs}}}\n"
        f"fixed: {{dataset: digits, depth: 8, width: {width}, ordering: relu-ic-conv, split: heldout}}\n"
        f"grid: {{dropout: {[round(rate, 12) for rate in rates]}}}\nseeds: {list(seeds)}\n"
    )


def _regret(settings: Settings, folder: Path) -> Table:
    """How much worse the rate that a search of so many trials chooses is than the best, on the mean over seeds that it
    has not seen; all runs are there beforehand.
    """
    from icbench import grid
    from icbench.layout import Layout

    chosen = range(_FIRST_SEED, _FIRST_SEED + settings.searches)
    true = range(_FIRST_TRUE_SEED, _FIRST_TRUE_SEED + settings.true_seeds)
    rates = [round(_STEP * n, 12) for n in range(_RATES)]
    file = folder / "table.yaml"
    file.write_text(_grid(rates, [*chosen, *true], settings.epochs, 16), encoding="utf-8")
    _call([*_ICBENCH, "sweep", file.name, "--profile", "cpu.yaml", "--no-build", "--results", "table"], folder)
    layout = Layout(folder / "table")
    truth = _truth(layout, grid.load(file), set(true))
    best = max(truth.values())
    rows: list[Row] = []
    for name, sampler, step in (
        ("grid", "grid", 0.5 / (_COARSE - 1)),
        ("tpe", "{name: tpe, n_startup_trials: 5}", _STEP),
        ("gp", "{name: gp, n_startup_trials: 5}", _STEP),
        ("random", "random", _STEP),
    ):
        given = {"trials": _COARSE, "sampler": sampler, "step": f", step: {step:g}", "epochs": settings.epochs}
        regrets = []
        for seed in chosen:
            search = _write(folder, f"{name}-{seed}", width=16, seeds=[seed], seed=seed, **given)
            regrets.append(100 * (best - truth[_choice(search, layout)]))
        rows.append({"by": name, "mean": sum(regrets) / len(regrets), "regret": Spread.of(regrets)})
    columns = (
        Column("by", "by"),
        Column("mean", "regret, points: mean", digits),
        Column("regret", f"median (range), n = {settings.searches}", spread),
    )
    return Table("regret", f"regret of {_COARSE} trials of one seed each", columns, rows)


def _truth(layout: "Layout", sweep: "Sweep", seeds: set[int]) -> dict[float, float]:
    """Dropout rate -> the mean accuracy over these seeds."""
    from icbench.results import load_runs

    accuracy = load_runs(layout.root).set_index("run_id")["test_accuracy"]
    means = {}
    for cell in sweep.cells:
        ids = [run_id for run_id, seed in zip(cell.run_ids, cell.seeds, strict=True) if seed in seeds]
        assert isinstance(cell.config.dropout, float)
        means[cell.config.dropout] = float(accuracy[ids].mean())
    return means


class _Nobody:
    """A crew without workers."""

    closed = False

    def __enter__(self) -> "_Nobody":
        return self

    def __exit__(self, *_: object) -> None: ...

    def give(self, runs: "Collection[Run]", further: int) -> None:
        if runs:
            raise IcbenchError("a run is missing of the table that searches are looked up in.")

    def stop(self, run_id: str) -> None: ...

    def close(self) -> None:
        self.closed = True

    def events(self) -> "Iterator[Event | None]":
        while not self.closed:
            yield None


def _choice(file: Path, layout: "Layout") -> float:
    """The rate that a search chooses whose runs are all there: asked and told by its controller, trained by nobody."""
    from icbench.search import settings, storage
    from icbench.search.controller import Controller, prepare
    from icbench.search.study import CellStudy, params

    search: Search = settings.load(file)
    database = storage.connect(storage.url(layout, None), layout)
    prepare(layout, search)
    study = CellStudy(search, search.cells[0], database)
    with Controller(search, layout, [study], slots=1, share=1.0, began=0.0) as controller:
        for _ in controller.follow(_Nobody()):
            pass
    return float(params(study.best()[0], study.cell)["dropout"])
