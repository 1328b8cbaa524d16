"""The table of a sweep: one row a cell, against its baseline."""

import math
from dataclasses import asdict, dataclass
from statistics import median_low
from typing import Any

import numpy as np
import pyarrow as pa

from icbench.config import RunConfig
from icbench.grid import Sweep
from icbench.report.metrics import epochs_to
from icbench.report.stats import Estimate, difference, mean


@dataclass(frozen=True)
class CellRow:
    """A cell's figures over its finished seeds. Accuracies are fractions, after the last epoch.

    A diverged run counts with the accuracy that it ended with. difference: to the baseline cell; None for a baseline,
    or without one. target: the median final accuracy of the baseline's seeds (of an even number, the lower middle one,
    so that at least half of them reach it). epochs_to_target: the median over seeds
    of the epoch that first reaches it, infinite if half of them never do; reached: how many do.
    """

    cell_id: str
    config: RunConfig
    seeds: int
    seeds_wanted: int
    accuracy: Estimate | None
    difference: Estimate | None
    target: float | None
    epochs_to_target: float | None
    reached: int
    diverged: int

    def record(self) -> dict[str, Any]:
        """The row as plain JSON values; infinity and NaN are null."""
        config = self.config
        fields = {name: getattr(config, name) for name in ("dataset", "block", "depth", "width", "ordering", "dropout")}
        fields |= {"norm": config.norm.canonical(), "recipe": config.recipe.label}
        fields |= {"precision": config.precision, "split": config.split}
        own = {key: value for key, value in asdict(self).items() if key != "config"}
        own["accuracy"] = _interval(self.accuracy)
        own["difference"] = _interval(self.difference)
        own["epochs_to_target"] = _plain(self.epochs_to_target)
        return {"cell_id": own.pop("cell_id"), **fields, **own}


def sweep_table(sweep: Sweep, runs: pa.Table, epochs: pa.Table) -> list[CellRow]:
    """One row for each cell of the sweep, in the grid's order, from those of its runs that are finished.

    runs and epochs: as `icbench.results.read` gives them.
    """
    finals = {row["run_id"]: row for row in runs.select(["run_id", "test_accuracy", "diverged"]).to_pylist()}
    curves = _curves(epochs)
    finished = {cell.cell_id: [run_id for run_id in cell.run_ids if run_id in finals] for cell in sweep.cells}
    baseline_cells = set(sweep.baselines.values())
    rows = []
    for cell in sweep.cells:
        done = finished[cell.cell_id]
        accuracies = [finals[run_id]["test_accuracy"] for run_id in done]
        baseline_id = sweep.baselines.get(cell.cell_id, cell.cell_id if cell.cell_id in baseline_cells else None)
        reference = [finals[run_id]["test_accuracy"] for run_id in finished[baseline_id]] if baseline_id else []
        target = median_low(reference) if reference else None
        times = [] if target is None else [float(epochs_to(target, curves[run_id])) for run_id in done]
        contrast = baseline_id != cell.cell_id and reference and accuracies
        rows.append(
            CellRow(
                cell_id=cell.cell_id,
                config=cell.config,
                seeds=len(accuracies),
                seeds_wanted=len(cell.seeds),
                accuracy=mean(accuracies) if accuracies else None,
                difference=difference([(accuracies, reference)]).estimate if contrast else None,
                target=target,
                epochs_to_target=_median(times),
                reached=sum(map(math.isfinite, times)),
                diverged=sum(finals[run_id]["diverged"] for run_id in done),
            )
        )
    return rows


def _curves(epochs: pa.Table) -> dict[str, np.ndarray[Any, Any]]:
    """run id -> (epochs,) test accuracies, from rows sorted by run id and epoch."""
    accuracies = epochs["test_accuracy"].to_numpy()
    run_ids, starts = np.unique(epochs["run_id"].to_numpy(), return_index=True)
    return dict(zip(run_ids, np.split(accuracies, starts[1:]), strict=True)) if len(run_ids) else {}


def _median(times: list[float]) -> float | None:
    """The median, where infinity is larger than all: infinite if the upper of two middle ones is."""
    if not times:
        return None
    ordered = sorted(times)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return (low + high) / 2


def _plain(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _interval(estimate: Estimate | None) -> dict[str, float | None] | None:
    return None if estimate is None else {key: _plain(value) for key, value in estimate._asdict().items()}
