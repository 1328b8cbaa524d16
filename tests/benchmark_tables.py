"""What tables of many runs cost: the first compaction, a summary of all curves, the same by plain pandas, a report.

    python tests/benchmark_tables.py DIRECTORY [--cells 1000] [--seeds 20] [--epochs 200]

Makes the runs in DIRECTORY unless it is there, and compacts them anew. Each part is a process of its own; its seconds
are those of the work with its imports, its memory is the process's peak.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

TARGET = 0.85
BEFORE_DROP = 80
SUMMARY = "final, last 10, first epoch at the target, area to epoch 80"


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


PARTS: dict[str, Callable[[Path], list[float]]] = {
    "first compact": compact,
    "summary, compacted tables": summarise,
    "summary, pandas on small files": summarise_with_pandas,
    "the report's figures, computed": report,
}


def measure(part: str, root: Path) -> tuple[float, float, list[float]]:
    """Seconds, MB at the peak and what the part returned, of a process of its own."""
    command = [sys.executable, __file__, str(root), "--part", part]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, megabytes, figures = json.loads(done.stdout)
    return seconds, megabytes, figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what tables of many runs cost.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    root = arguments.directory
    if arguments.part:
        began = time.perf_counter()
        figures = PARTS[arguments.part](root)
        seconds = time.perf_counter() - began
        print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, figures]))
        return
    if not root.exists():
        # In a process of its own as well: children are born with their parent's peak of memory.
        sizes = [f"--{name}={getattr(arguments, name)}" for name in ("cells", "seeds", "epochs")]
        subprocess.run([sys.executable, Path(__file__).with_name("many_runs.py"), root, *sizes], check=True)
    shutil.rmtree(root / "compacted", ignore_errors=True)
    measured = {part: measure(part, root) for part in PARTS}
    ours, theirs = (measured[f"summary, {way}"][2] for way in ("compacted tables", "pandas on small files"))
    assert all(abs(a - b) <= 1e-9 * abs(b) for a, b in zip(ours, theirs, strict=True)), (ours, theirs)
    (runs,) = measured["first compact"][2]
    print(f"{runs} runs; a summary is {SUMMARY}, by cell")
    for part, (seconds, megabytes, _) in measured.items():
        print(f"{part:32} {seconds:7.2f} s {megabytes:6.0f} MB")
    quicker = measured["summary, pandas on small files"][0] / measured["summary, compacted tables"][0]
    print(f"the compacted tables are {quicker:.0f} times as quick as pandas on the small files")


if __name__ == "__main__":
    main()
