"""One row a cell: what its seeds came to, against its baseline. What a sweep ends with, and a report's first table."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from icbench.config import RunConfig
from icbench.report import stats
from icbench.report.comparison import middle
from icbench.report.evidence import Evidence
from icbench.report.stats import Estimate


@dataclass(frozen=True)
class CellRow:
    """A cell's figures over its finished seeds. Accuracies are fractions.

    accuracy: after the last epoch; last10: mean over the last ten. A diverged run counts with the accuracy that it
    ended with. top5: of the five likeliest classes after the last epoch; None where a run has none, be it of less than
    100 classes or old. difference: to the baseline cell; None for a baseline, or without one. target: see Evidence.
    epochs_to_target: the median over seeds of the epoch that first reaches it, infinite if half of them never do; also
    in training images and in seconds of training; reached: how many do.
    """

    cell_id: str
    config: RunConfig
    seeds: int
    seeds_wanted: int
    failed: int
    accuracy: Estimate | None
    last10: Estimate | None
    top5: Estimate | None
    difference: Estimate | None
    target: float | None
    epochs_to_target: float | None
    images_to_target: float | None
    seconds_to_target: float | None
    reached: int
    diverged: int

    def record(self) -> dict[str, Any]:
        """The row as plain JSON values; infinity and NaN are null."""
        config = self.config
        fields = {name: getattr(config, name) for name in ("dataset", "block", "depth", "width", "ordering", "dropout")}
        fields |= {name: getattr(config, name).canonical() for name in ("norm", "weight", "activation")}
        fields |= {"procedures": [each.canonical() for each in config.procedures], "recipe": config.recipe.label}
        fields |= {"precision": config.precision, "split": config.split}
        own = {key: value for key, value in asdict(self).items() if key != "config"}
        for name in ("accuracy", "last10", "top5", "difference"):
            own[name] = _interval(getattr(self, name))
        own |= {name: _plain(own[name]) for name in ("epochs_to_target", "images_to_target", "seconds_to_target")}
        return {"cell_id": own.pop("cell_id"), **fields, **own}


def cell_rows(evidence: Evidence) -> list[CellRow]:
    """One row for each cell of the sweep, in the grid's order, from those of its runs that are finished."""
    return [_row(cell_id, evidence) for cell_id in evidence.cells]


def _row(cell_id: str, evidence: Evidence) -> CellRow:
    cell, done = evidence.cells[cell_id], evidence.rows[cell_id]
    baseline = evidence.sweep.baselines.get(cell_id)
    accuracies, target = evidence.of(cell_id, "final"), evidence.targets[cell_id]
    top5 = evidence.of(cell_id, "top5")
    compared = bool(done and baseline and evidence.rows[baseline])

    def median(unit: str) -> float | None:
        return middle(evidence.of(cell_id, f"{unit}_to_target")) if done and math.isfinite(target) else None

    return CellRow(
        cell_id=cell_id,
        config=cell.config,
        seeds=len(done),
        seeds_wanted=len(cell.seeds),
        failed=sum(run_id in evidence.failures for run_id in cell.run_ids),
        accuracy=stats.mean(accuracies) if done else None,
        last10=stats.mean(evidence.of(cell_id, "last10")) if done else None,
        top5=stats.mean(top5) if done and not np.isnan(top5).any() else None,
        difference=stats.difference([(accuracies, evidence.of(baseline, "final"))]).estimate
        if compared and baseline
        else None,
        target=target if math.isfinite(target) else None,
        epochs_to_target=median("epochs"),
        images_to_target=median("images"),
        seconds_to_target=median("seconds"),
        reached=int(np.isfinite(evidence.of(cell_id, "epochs_to_target")).sum()),
        diverged=int(evidence.of(cell_id, "diverged").sum()),
    )


def _plain(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _interval(estimate: Estimate | None) -> dict[str, float | None] | None:
    return None if estimate is None else {key: _plain(value) for key, value in estimate._asdict().items()}
