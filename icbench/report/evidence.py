"""What a results directory holds of one sweep: each finished run with its measures, and what is missing and why."""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median_low
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from icbench import grid, metrics, monitor, results
from icbench.config import Cell, Recipe
from icbench.errors import IcbenchError, UserError, suggest
from icbench.grid import Sweep
from icbench.layout import Layout
from icbench.metrics import Floats
from icbench.monitor import Failure
from icbench.train.schedule import learning_rate

# Of a run: what its conditions were, beside the figures.
_RUN_COLUMNS = (
    "seed", "epochs", "test_accuracy", "test_accuracy_last10", "diverged", "train_seconds", "images_per_second",
    "icbench_version", "git_commit", "git_dirty", "torch_version", "device", "hostname", "threads", "world_size",
    "precision", "split", "finished_at", "test_correct", "images_at_once", "test_top5_accuracy",
)  # fmt: skip
_EPOCH_COLUMNS = ("epoch", "test_accuracy", "seconds")


@dataclass(frozen=True)
class Evidence:
    """The finished runs of a sweep, sorted by run id, as columns; (runs,) and (runs, epochs) arrays.

    accuracy, seconds: after and of each epoch, NaN from a run's end on. target: a final accuracy fixed beforehand, for
    all cells; None: each baseline's own, the lower middle one of its seeds' final accuracies, so that at least half of
    them reach it. failures: of those runs that failed.
    """

    sweep: Sweep
    runs: dict[str, list[Any]]
    accuracy: Floats
    seconds: Floats
    failures: Mapping[str, Failure]
    target: float | None = None

    @cached_property
    def position(self) -> dict[str, int]:
        """run id -> its row."""
        return {run_id: row for row, run_id in enumerate(self.runs["run_id"])}

    @cached_property
    def rows(self) -> dict[str, list[int]]:
        """cell id -> the rows of its finished runs, in the order of its seeds."""
        at = self.position
        return {cell.cell_id: [at[i] for i in cell.run_ids if i in at] for cell in self.sweep.cells}

    @cached_property
    def cells(self) -> dict[str, Cell]:
        return {cell.cell_id: cell for cell in self.sweep.cells}

    @cached_property
    def final(self) -> Floats:
        """(runs,): the accuracy after the last epoch, also of a diverged run."""
        return np.array(self.runs["test_accuracy"], dtype=float)

    @cached_property
    def targets(self) -> dict[str, float]:
        """cell id -> the accuracy that its runs' speed is measured by; NaN where no baseline has finished."""
        if self.target is not None:
            return dict.fromkeys(self.rows, self.target)
        own = {i: median_low(self.final[self.rows[i]].tolist()) for i in self.baseline_cells if self.rows[i]}
        return {i: own.get(self.baseline_of(i) or "", math.nan) for i in self.rows}

    @cached_property
    def baseline_cells(self) -> set[str]:
        return set(self.sweep.baselines.values())

    def baseline_of(self, cell_id: str) -> str | None:
        """The cell's baseline; a baseline is its own; None where there is none."""
        return self.sweep.baselines.get(cell_id, cell_id if cell_id in self.baseline_cells else None)

    @cached_property
    def before_drop(self) -> dict[str, int]:
        """cell id -> its recipe's epochs before the learning rate first drops."""
        return {cell_id: epochs_before_drop(cell.config.recipe) for cell_id, cell in self.cells.items()}

    @cached_property
    def measures(self) -> dict[str, Floats]:
        """(runs,) each: what docs/statistics.md defines, by name."""
        found = {
            "final": self.final,
            "last10": np.array(self.runs["test_accuracy_last10"], dtype=float),
            "diverged": np.array(self.runs["diverged"], dtype=float),
            # NaN of data sets of few classes, and of runs before it was measured.
            "top5": np.array(self.runs["test_top5_accuracy"], dtype=float),
        }
        found |= {name: np.full(len(self.final), np.nan) for name in ("area", "deviation", "drawdown", "spikes")}
        groups: dict[int, list[int]] = {}
        for cell_id, rows in self.rows.items():
            groups.setdefault(self.before_drop[cell_id], []).extend(rows)
        for epochs, rows in groups.items():
            curves = self.accuracy[rows, :epochs]
            late = curves[:, epochs // 2 :]
            found["area"][rows] = metrics.area(curves)
            found["deviation"][rows] = metrics.detrended_deviation(late)
            found["drawdown"][rows] = metrics.maximum_drawdown(late)
            found["spikes"][rows] = metrics.spike_fraction(late)
        target = np.full(len(self.final), np.nan)
        for cell_id, rows in self.rows.items():
            target[rows] = self.targets[cell_id]
        epochs_to = metrics.epochs_to(target, self.accuracy)
        found["epochs_to_target"] = epochs_to
        found["seconds_to_target"] = metrics.seconds_to(epochs_to, self.seconds)
        found["images_to_target"] = epochs_to * self.images_per_epoch
        return found

    @cached_property
    def images_per_epoch(self) -> Floats:
        """(runs,): the training images of an epoch."""
        speed, seconds, epochs = (
            np.array(self.runs[column], dtype=float) for column in ("images_per_second", "train_seconds", "epochs")
        )
        return np.asarray((speed * seconds / epochs).round())

    def of(self, cell_id: str, measure: str) -> Floats:
        """(finished seeds,): a measure of a cell's runs, in the order of its seeds."""
        return np.asarray(self.measures[measure][self._indices[cell_id]])

    @cached_property
    def _indices(self) -> dict[str, NDArray[np.int64]]:
        """The rows as arrays, which a report of a thousand cells asks for forty thousand times."""
        return {cell_id: np.array(rows, dtype=np.int64) for cell_id, rows in self.rows.items()}

    def correct(self, cell_id: str) -> NDArray[np.float32] | None:
        """(test images,): the fraction of a cell's runs that get each right; None where one run has not kept them."""
        known = [self.runs["test_correct"][row] for row in self.rows[cell_id]]
        if not known or any(each is None for each in known):
            return None
        bits = np.stack([np.unpackbits(np.frombuffer(each, np.uint8)) for each in known])
        right, accuracies = bits.sum(), self.of(cell_id, "final").sum()
        # Of all bits the last few may stand for no image; the accuracies tell how many do.
        count = round(float(right / accuracies)) if right else bits.shape[1]
        return np.asarray(bits[:, :count].mean(axis=0, dtype=np.float32))

    def counts(self) -> dict[str, int]:
        """How many of the sweep's runs are finished, diverged (which are finished too), failed and missing."""
        wanted = len(self.sweep.run_ids)
        finished, failed = len(self.final), len(self.failures)
        diverged = int(sum(self.runs["diverged"]))
        return {
            "wanted": wanted,
            "finished": finished,
            "diverged": diverged,
            "failed": failed,
            "missing": wanted - finished - failed,
        }

    def failed_by_kind(self) -> Counter[str]:
        return Counter(failure.kind for failure in self.failures.values())


def gather(
    sweep: Sweep, runs: pa.Table, epochs: pa.Table, failures: Mapping[str, Failure], target: float | None = None
) -> Evidence:
    """The evidence in tables as `icbench.results.read` gives them, both of the same runs and sorted alike.

    Raises IcbenchError where they are not of the same runs: some of the results' files are lost.
    """
    counts = np.array(runs["epochs"].to_numpy(), dtype=int)
    if counts.sum() != len(epochs):
        raise IcbenchError(
            f"the runs of sweep {sweep.name} have {counts.sum()} epochs together, the table of epochs has "
            f"{len(epochs)}: some files under epochs/ are lost or damaged. Restore them, or move the runs' files away "
            "and sweep again."
        )
    shape = (len(counts), int(counts.max(initial=0)))
    rows, columns = np.repeat(np.arange(len(counts)), counts), epochs["epoch"].to_numpy() - 1

    def spread(column: str) -> Floats:
        values = np.full(shape, np.nan)
        values[rows, columns] = epochs[column].to_numpy()
        return values

    given = {name: runs[name].to_pylist() for name in ("run_id", *_RUN_COLUMNS)}
    return Evidence(sweep, given, spread("test_accuracy"), spread("seconds"), failures, target)


def load(layout: Layout, sweep: Sweep, target: float | None = None) -> Evidence:
    """The evidence that a results directory holds of a sweep."""
    runs = results.read(layout, "runs", sweep.run_ids, _RUN_COLUMNS)
    found = set(runs["run_id"].to_pylist())
    epochs = results.read(layout, "epochs", found, _EPOCH_COLUMNS)
    return gather(sweep, runs, epochs, monitor.failures(layout, set(sweep.run_ids) - found), target)


def columns(layout: Layout, run_ids: Collection[str]) -> dict[str, list[Any]]:
    """Of those of some runs that are finished, their conditions and figures, sorted by run id."""
    table = results.read(layout, "runs", run_ids, _RUN_COLUMNS)
    return {name: table[name].to_pylist() for name in ("run_id", *_RUN_COLUMNS)}


def sweep_names(layout: Layout) -> list[str]:
    """The sweeps that a results directory has a grid of."""
    return sorted(file.parent.name for file in layout.sweeps.glob("*/grid.yaml"))


def find_sweep(layout: Layout, name: str) -> Sweep:
    """The sweep of that name, by the grid as last submitted, or by a grid's own file. Raises UserError."""
    if name.endswith((".yaml", ".yml")):
        return grid.load(Path(name))
    known = sweep_names(layout)
    if name not in known:
        raise UserError(f"there is no sweep {name!r} in {layout.root}/.", suggest(name, known))
    return grid.load(layout.sweep(name).grid, name)


def epochs_before_drop(recipe: Recipe) -> int:
    """How many epochs a recipe has before its learning rate first drops; all, if it never does."""
    rates = [learning_rate(recipe, epoch) for epoch in range(1, recipe.epochs + 1)]
    return int(metrics.epochs_before_drop(rates))
