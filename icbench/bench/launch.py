"""Starting: the command, workers and runs; a grid by long-lived workers beside a process for each run; large plans.

Everything runs on the digits and on this machine's CPU; with --cluster, also on the cluster of SLURM_CONF.
"""

import argparse
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from icbench.bench.findings import Column, Findings, Row, Table, Tell, digits, spread
from icbench.bench.measure import Comparison, Spread, in_turn
from icbench.bench.task import PLAIN
from icbench.console import plural
from icbench.errors import IcbenchError, UserError
from icbench.machine import cores

if TYPE_CHECKING:
    from icbench.plan import Run

# That of sweeps/quickstart.yaml: 7 cells, if it has all orderings.
_QUICKSTART = """
recipe: {{name: digits, epochs: {epochs}}}
fixed: {{dataset: digits, block: basic, depth: 8, width: 16}}
grid:
  ordering: [{orderings}]
  dropout: [0.05, 0.1]
seeds: {seeds}
baseline: {{ordering: baseline}}
"""
_PACK = """
recipe: {{name: digits, epochs: 2}}
fixed: {{dataset: digits, depth: 8, ordering: relu-ic-conv}}
seeds: {runs}
"""
_ONE = """
recipe: {name: digits, epochs: 1}
fixed: {dataset: digits, depth: 8, ordering: relu-ic-conv}
"""
_LARGE = """
recipe: chen2019
fixed: {{block: basic}}
grid:
  dataset: [cifar10, cifar100]
  depth: [20, 32, 44, 56, 110]
  ordering: [baseline, relu-ic-conv, ic-conv-relu, conv-relu-ic]
  dropout: [{rates}]
  norm: [batch, layer, instance, group, none]
  width: [8, 16, 24, 32]
seeds: {seeds}
baseline: {{ordering: baseline}}
"""
_ICBENCH = [sys.executable, "-P", "-m", "icbench"]
_SINGLE = [sys.executable, "-P", "-c", "from icbench.bench.single import main; main()"]


@dataclass(frozen=True)
class Settings:
    """epochs, seeds, orderings: of the quickstart's grid. pack: runs in a pack. plans: of 100,000 runs. first_step: of
    a process of its own, which `icbench bench train` times too, as its start.
    """

    repeats: int = 3
    epochs: int = 10
    seeds: int = 3
    pack: int = 20
    plans: bool = True
    first_step: bool = True
    cluster: bool = False
    cluster_runs: int = 200
    orderings: tuple[str, ...] = ("baseline", "relu-ic-conv", "ic-conv-relu", "conv-relu-ic")

    @property
    def grid_runs(self) -> int:
        """How many the grid has, which has two dropout rates: a baseline has none."""
        return self.seeds * (2 * len(self.orderings) - ("baseline" in self.orderings))


SHORT = Settings(repeats=2, epochs=10, seeds=2, pack=10)
QUICK = Settings(repeats=1, epochs=1, seeds=1, pack=1, plans=False, first_step=False, orderings=("baseline",))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", metavar="N", type=int, help="turns of each side (default: 3)")
    parser.add_argument("--epochs", metavar="N", type=int, help="of each run of the grid (default: 10)")
    parser.add_argument("--seeds", metavar="N", type=int, help="of the grid, 7 runs each (default: 3)")
    parser.add_argument("--pack", metavar="N", type=int, help="runs to find a pack's overhead by (default: 20)")
    parser.add_argument("--no-plans", dest="plans", action="store_false", help="without the plans of 100,000 runs")
    parser.add_argument(
        "--cluster", action="store_true", help="also on the cluster of SLURM_CONF, beside a submitit job a run"
    )
    parser.add_argument("--cluster-runs", metavar="N", type=int, help="how many there (default: 200)")


def check(settings: Settings) -> None:
    """Raise UserError unless the numbers are from 1 up, and the cluster is there if it is wanted."""
    for option in ("repeats", "epochs", "seeds", "pack", "cluster_runs"):
        if getattr(settings, option) < 1:
            raise UserError(f"--{option.replace('_', '-')} {getattr(settings, option)} should be from 1 up.")
    if settings.cluster and not (os.environ.get("SLURM_CONF") and shutil.which("sbatch")):
        raise UserError("--cluster: there is no SLURM_CONF, or no sbatch.", "Start one with: slurm/devcluster up")


def expected_seconds(settings: Settings) -> float:
    runs = settings.grid_runs
    sweep = 5 + runs * settings.epochs * 0.27 / cores()
    processes = runs * (3.5 + settings.epochs * 0.27) / cores()
    plain = runs * (5.5 + settings.epochs * 0.5) / cores()
    each = 1 + 6 + settings.pack + sweep + processes + plain + (10 if settings.plans else 0)
    return 10 + settings.repeats * each + (settings.cluster_runs * 3 if settings.cluster else 0)


def measure(settings: Settings, tell: Tell) -> Findings:
    """The grid both ways, the cluster both ways if wanted, then what each beginning takes."""
    found = Findings()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tell("launch: a grid by icbench's workers, and by a process a run")
        found.comparisons += _grid_each_way(settings, folder)
        if settings.cluster:
            tell("launch: the cluster")
            found += _cluster_both_ways(settings.cluster_runs)
        tell("launch: beginnings")
        parts: dict[str, Callable[[], float]] = {
            "icbench --help": partial(_command, "--help"),
            "a worker, until its run begins": partial(_worker_start, folder),
        }
        if settings.first_step:
            parts["a process, until its first step is done"] = _first_step
        if settings.plans:
            parts |= _plans(folder)
        rows += [
            {"what": what, "seconds": Spread.of(seconds)} for what, seconds in in_turn(parts, settings.repeats).items()
        ]
        tell("launch: the overhead of a run in a pack")
        rows += _overhead(settings, folder)
    columns = (Column("what", "what"), Column("seconds", "seconds", spread))
    found.tables.append(Table("beginnings", "beginnings", columns, rows))
    return found


def _command(*arguments: str, cwd: Path | None = None) -> float:
    """Seconds that `icbench ARGUMENTS` takes. Raises IcbenchError if it fails."""
    began = time.perf_counter()
    done = subprocess.run([*_ICBENCH, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise IcbenchError(f"icbench {' '.join(arguments)} ended with exit code {done.returncode}:\n{done.stderr}")
    return seconds


def _grid_each_way(settings: Settings, folder: Path) -> list[Comparison]:
    """By a sweep, beside a process a run of the plain loop, and beside one of icbench's own training code."""
    text = _QUICKSTART.format(epochs=settings.epochs, seeds=settings.seeds, orderings=", ".join(settings.orderings))
    (folder / "grid.yaml").write_text(text, encoding="utf-8")
    (folder / "cpu.yaml").write_text(f"device: cpu\nworkers: {cores()}\nthreads: 1\n", encoding="utf-8")
    others = {f"a process a run, {by}": engine for by, engine in (("plain loop", PLAIN), ("icbench's code", "icbench"))}
    ways = {"sweep": partial(_by_sweep, folder)}
    ways |= {name: partial(_by_processes, folder, engine) for name, engine in others.items()}
    seconds = in_turn(ways, settings.repeats)
    runs = f"{plural(settings.grid_runs, 'run')} of {plural(settings.epochs, 'epoch')} on digits, {cores()} at a time"
    return [Comparison.of_costs(f"{runs}; other: {name}", "s", seconds["sweep"], seconds[name]) for name in others]


def _by_sweep(folder: Path) -> float:
    """`icbench sweep`, from typing to the table, into a new results directory. It fails if any run does."""
    seconds = _command("sweep", "grid.yaml", "--profile", "cpu.yaml", "--results", "swept", cwd=folder)
    shutil.rmtree(folder / "swept")
    return seconds


def _by_processes(folder: Path, engine: str) -> float:
    """The same runs, a process for each, as many at a time as there are cores."""
    from concurrent.futures import ThreadPoolExecutor

    from icbench import grid

    began = time.perf_counter()
    runs = grid.load(folder / "grid.yaml").runs()
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(partial(_train_one, engine, folder), runs))
    return time.perf_counter() - began


def _train_one(engine: str, folder: Path, run: "Run") -> None:
    """A process that imports torch, trains one run, writes its figures and ends."""
    run_id, config = run
    file = folder / f"{run_id}.json"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    request = pickle.dumps((engine, config, str(file)))
    done = subprocess.run(_SINGLE, input=request, capture_output=True, env=environment, check=False)
    if done.returncode or not file.is_file():
        raise IcbenchError(f"a process that trains one run failed:\n{done.stderr.decode(errors='replace')}")
    file.unlink()


def _worker_start(folder: Path) -> float:
    """Seconds from when a local sweep starts a worker until that says that its first run begins."""
    from icbench import grid, launch, plan, profile
    from icbench.layout import Layout

    (folder / "one.yaml").write_text(_ONE, encoding="utf-8")
    (folder / "cpu.yaml").write_text("device: cpu\nworkers: 1\nthreads: 1\n", encoding="utf-8")
    machine = profile.load(str(folder / "cpu.yaml"))
    assert isinstance(machine, profile.Local)
    root = folder / "started"
    packs = plan.packs(grid.load(folder / "one.yaml").runs(), 1)
    began = time.perf_counter()
    seconds = None
    with launch.LocalJobs(Layout(root), "one", packs, machine, None) as jobs:
        for event in jobs.events():
            if event and event["event"] == "begin":
                seconds = time.perf_counter() - began
    shutil.rmtree(root)
    if seconds is None:
        raise IcbenchError("a worker never began its run.")
    return seconds


def _first_step() -> float:
    """Seconds from nothing until a process has done the first step of a training by icbench."""
    from icbench.bench.children import Group
    from icbench.bench.task import Task, configuration

    config = configuration(dataset="digits", depth=8, ordering="relu-ic-conv", recipe="digits")
    began = time.perf_counter()
    with Group(1, 1, "icbench.bench.engines.Measured", Task("icbench", config, None, "cpu", 1438, 1)) as group:
        group.ask("first_step")
        return time.perf_counter() - began


def _overhead(settings: Settings, folder: Path) -> list[Row]:
    """Of a run in a pack, over its training alone."""
    from icbench import grid
    from icbench.bench.children import Group

    (folder / "pack.yaml").write_text(_PACK.format(runs=settings.pack), encoding="utf-8")
    with Group(1, 1, "icbench.bench.pack.Pack", grid.load(folder / "pack.yaml").runs()) as group:
        ways = {way: (lambda way=way: group.ask(way)[0]) for way in ("alone", "in_pack")}
        seconds = in_turn(ways, settings.repeats)
    over = [packed - alone for packed, alone in zip(seconds["in_pack"], seconds["alone"], strict=True)]
    return [
        {"what": "a run of 2 epochs, its training alone", "seconds": Spread.of(seconds["alone"])},
        {"what": "the same in a pack", "seconds": Spread.of(seconds["in_pack"])},
        {"what": "the overhead of a run in a pack", "seconds": Spread.of(over)},
    ]


def _plans(folder: Path) -> dict[str, Callable[[], float]]:
    """`icbench plan --no-build` of two grids: many seeds of some cells, and as many cells as runs."""
    few = "0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5"
    many = ", ".join(f"{0.005 * step:.3f}" for step in range(1, 168))
    found: dict[str, Callable[[], float]] = {}
    for name, rates, seeds, what in (
        ("seeds.yaml", few, 20, "100,000 runs in 5,000 cells"),
        ("cells.yaml", many, 1, "100,400 runs in as many cells"),
    ):
        (folder / name).write_text(_LARGE.format(rates=rates, seeds=seeds), encoding="utf-8")
        found[f"icbench plan --no-build, {what}"] = partial(_command, "plan", "--no-build", name, cwd=folder)
    return found


def _cluster_both_ways(runs: int) -> Findings:
    from icbench.bench import cluster

    ways = {"icbench": cluster.by_sweep(runs), "a job a run": cluster.by_jobs(runs)}
    ours, other = ways.values()
    what = f"{runs} one-epoch runs on the cluster, two at a time; other: a submitit job a run"
    rows: list[Row] = [
        {"by": by, "seconds": way.seconds, "calls": sum(way.calls.values()), "of": way.calls}
        for by, way in ways.items()
    ]
    columns = (
        Column("by", "by"),
        Column("seconds", "seconds", digits),
        Column("calls", "SLURM's commands called"),
        Column("of", "of these", lambda calls: ", ".join(f"{count} {name}" for name, count in calls.items())),
    )
    return Findings(
        [Comparison.of_costs(what, "s", [ours.seconds], [other.seconds])],
        [Table("cluster", "a cluster", columns, rows)],
    )
