"""Tables of many runs: compacting them, a summary of all their curves beside plain pandas, the numbers of a report.

The runs are made up (many_runs.py). Each part is a process of its own; its seconds are those of the work with its
imports, its memory is the process's peak.
"""

import argparse
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from icbench import imports
from icbench.bench import memory
from icbench.bench.findings import Column, Findings, Table, Tell, digits, spread
from icbench.bench.measure import Comparison, Spread, in_turn
from icbench.errors import IcbenchError, UserError

TARGET = 0.85
BEFORE_DROP = 80
_COMMAND = [sys.executable, "-P", "-c", "from icbench.bench.analysis import main; main()"]
_CURVES, _PANDAS = "summary, compacted tables", "summary, pandas on small files"


@dataclass(frozen=True)
class Settings:
    """Made-up runs: `cells` of `seeds` and `epochs`, in `directory`, made where it is not there yet."""

    directory: Path | None = None
    cells: int = 100
    seeds: int = 20
    epochs: int = 200
    repeats: int = 3


SHORT = Settings(cells=40, seeds=10, repeats=2)
QUICK = Settings(cells=8, seeds=2, epochs=100, repeats=1)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cells", metavar="N", type=int, help="8, 40, 100 (default), 500 or 1000, among others")
    parser.add_argument("--seeds", metavar="N", type=int, help="runs of each cell (default: 20)")
    parser.add_argument("--epochs", metavar="N", type=int, help="of each run (default: 200)")
    parser.add_argument("--repeats", metavar="N", type=int, help="how often each part is done (default: 3)")
    parser.add_argument("--directory", metavar="DIR", type=Path, help="keep the runs there, or use those that are")


def check(settings: Settings) -> None:
    """Raise UserError unless there is a grid of so many cells."""
    from icbench.bench.many_runs import grid_text

    for option in ("seeds", "epochs", "repeats"):
        if getattr(settings, option) <= 0:
            raise UserError(f"--{option} {getattr(settings, option)} should be from 1 up.")
    try:
        grid_text(settings.cells, settings.seeds, settings.epochs)
    except ValueError as error:
        raise UserError(f"--cells: {error}") from None
    if settings.directory and not settings.directory.absolute().parent.is_dir():
        raise UserError("there is no such directory.", file=settings.directory.absolute().parent)


def expected_seconds(settings: Settings) -> float:
    """By what 20,000 runs take: 45 s to make them, 33 s for all parts once."""
    share = settings.cells * settings.seeds / 20_000
    return 45 * share + settings.repeats * (8 + 33 * share)


def measure(settings: Settings, tell: Tell) -> Findings:
    """How much quicker a summary is by the compacted tables, then what each part takes."""
    with ExitStack() as stack:
        root = settings.directory
        if root is None:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "results"
        if not root.exists():
            tell(f"analysis: making {settings.cells * settings.seeds:,} runs of {settings.epochs} epochs")
            _child("make", root, settings.cells, settings.seeds, settings.epochs)
        tell("analysis: measuring")
        done: dict[str, list[_Done]] = {part: [] for part in PARTS}

        def turn(part: str) -> float:
            if part == _COMPACT:
                shutil.rmtree(root / "compacted", ignore_errors=True)
            done[part].append(_child("measure", part, root))
            return done[part][-1].seconds

        seconds = in_turn({part: partial(turn, part) for part in PARTS}, settings.repeats)
    (runs,), ours, theirs = (done[part][0].figures for part in (_COMPACT, _CURVES, _PANDAS))
    if not all(abs(a - b) <= 1e-9 * abs(b) for a, b in zip(ours, theirs, strict=True)):
        raise IcbenchError(f"the two summaries are not the same: {ours}, {theirs}.")
    what = f"final, last 10, epochs to a target, area, by cell: {runs:,.0f} runs"
    rows = [
        {"part": part, "seconds": Spread.of(seconds[part]), "peak_memory": max(each.peak for each in done[part])}
        for part in PARTS
    ]
    columns = (
        Column("part", "part"),
        Column("seconds", "seconds", spread),
        Column("peak_memory", "memory MB", lambda size: digits(size / 1e6)),
    )
    return Findings(
        [Comparison.of_costs(what, "s", seconds[_CURVES], seconds[_PANDAS])],
        [Table("parts", f"tables of {runs:,.0f} runs", columns, rows)],
        ["Both summaries are equal to 1e-9. The report's figures are computed, not drawn."],
    )


class _Done(NamedTuple):
    """What a part took and returned. peak: bytes."""

    seconds: float
    peak: int
    figures: list[float]


def _child(task: str, *arguments: object) -> "_Done":
    request = pickle.dumps((task, arguments))
    done = subprocess.run(_COMMAND, input=request, capture_output=True, check=False)
    if done.returncode:
        raise IcbenchError(f"a process that was measured ended:\n{done.stderr.decode(errors='replace')}")
    return _Done(*json.loads(done.stdout))


def main() -> None:
    """The child: a part's seconds, the process's peak of memory and what the part returned, as JSON."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    imports.arrow_alone()  # as the commands whose work it is do
    task, arguments = pickle.load(sys.stdin.buffer)
    began = time.perf_counter()
    figures = make(*arguments) if task == "make" else PARTS[arguments[0]](*arguments[1:])
    print(json.dumps([time.perf_counter() - began, memory.peak(), figures]), file=answers, flush=True)


def make(root: Path, cells: int, seeds: int, epochs: int) -> list[float]:
    """The number of runs, after making them up."""
    from icbench.bench.many_runs import generate

    return [len(generate(root, cells, seeds, epochs).run_ids)]


def compact(root: Path) -> list[float]:
    """The number of runs, after compacting their small files."""
    from icbench import results
    from icbench.layout import Layout

    return [results.compact(Layout(root))]


def summarise(root: Path) -> list[float]:
    """By `results.read` and NumPy; the sums over cells of the four figures' means."""
    import numpy as np

    from icbench import results
    from icbench.layout import Layout

    columns = ["epoch", "learning_rate", "test_accuracy", "seconds"]
    table = results.read(Layout(root), "epochs", columns=columns)
    epoch, values = table["epoch"].to_numpy(), table["test_accuracy"].to_numpy()
    run = np.cumsum(epoch == 1) - 1
    trained = np.bincount(run)
    curves = np.full((len(trained), trained.max()), np.nan)
    curves[run, epoch - 1] = values
    reached = curves >= TARGET
    number = np.arange(1, curves.shape[1] + 1)
    figures = [
        curves[np.arange(len(trained)), trained - 1],
        np.nanmean(np.where(number > trained[:, None] - 10, curves, np.nan), axis=1),
        np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, np.nan),
        np.nanmean(curves[:, :BEFORE_DROP], axis=1),
    ]
    cells = results.read(Layout(root), "runs", columns=["cell_id"])["cell_id"].to_numpy()
    of_cell = np.unique(cells, return_inverse=True)[1]
    sums = []
    for figure in figures:
        known = np.isfinite(figure)
        totals, counts = np.bincount(of_cell[known], figure[known]), np.bincount(of_cell[known])
        sums.append(float((totals[counts > 0] / counts[counts > 0]).sum()))
    return sums


def summarise_with_pandas(root: Path) -> list[float]:
    """The same from the small files, as one would write it down."""
    import pandas as pd

    columns = ["run_id", "epoch", "learning_rate", "test_accuracy", "seconds"]
    epochs = pd.read_parquet(root / "epochs", columns=columns).sort_values(["run_id", "epoch"])
    cells = pd.read_parquet(root / "runs", columns=["run_id", "cell_id"]).set_index("run_id")["cell_id"]
    runs = epochs.groupby("run_id")
    figures = pd.DataFrame(
        {
            "final": runs["test_accuracy"].last(),
            "last_10": runs.tail(10).groupby("run_id")["test_accuracy"].mean(),
            "reached": epochs[epochs["test_accuracy"] >= TARGET].groupby("run_id")["epoch"].min(),
            "area": epochs[epochs["epoch"] <= BEFORE_DROP].groupby("run_id")["test_accuracy"].mean(),
        }
    )
    return [float(total) for total in figures.groupby(cells).mean().sum()]


def report(root: Path) -> list[float]:
    """The number of cells, after computing all that a report's tables and figures show; nothing is drawn."""
    from icbench import report

    found = report.load(root)
    shown = {name: table.texts() for name, table in found.tables.items()}
    return [float(len(shown["cells"]))]


_COMPACT = "first compact"
PARTS: dict[str, Callable[[Path], list[float]]] = {
    _COMPACT: compact,
    _CURVES: summarise,
    _PANDAS: summarise_with_pandas,
    "the report's figures, computed": report,
}
