"""Evidence with learning curves of the test's own making."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from icbench import grid, results
from icbench.config import RunConfig
from icbench.monitor import Failure
from icbench.report import evidence
from icbench.report.document import Report
from icbench.report.evidence import Evidence
from icbench.train.schedule import learning_rate

CONDITIONS: dict[str, Any] = {
    "icbench_version": "0.1.0",
    "git_commit": "0123456789abcdef",
    "git_dirty": False,
    "torch_version": "2.15.0",
    "device": "cpu (model)",
    "hostname": "here",
    "threads": 1,
    "world_size": 1,
}
Curve = Callable[[RunConfig], Sequence[float] | None]


def make(
    folder: Path,
    text: str,
    curve: Curve,
    *,
    name: str = "made",
    failures: Mapping[str, Failure] | None = None,
    target: float | None = None,
    conditions: Callable[[RunConfig], Mapping[str, Any]] = lambda _: {},
) -> Evidence:
    """The evidence of a grid whose runs have the accuracies that `curve` gives; None: not finished.

    A curve that is shorter than the recipe's epochs is a diverged run's.
    """
    file = folder / f"{name}.yaml"
    file.write_text(text)
    sweep = grid.load(file)
    runs, epochs = [], []
    for run_id, config in sweep.runs():
        accuracies = curve(config)
        if accuracies is None:
            continue
        run, rows = made_run(run_id, config, accuracies)
        runs.append(run | conditions(config))
        epochs += rows
    runs.sort(key=lambda row: row["run_id"])
    epochs.sort(key=lambda row: (row["run_id"], row["epoch"]))
    tables = [
        pa.Table.from_pylist(rows, schema=results.schema(name)) for name, rows in (("runs", runs), ("epochs", epochs))
    ]
    return evidence.gather(sweep, *tables, failures or {}, target)


def made_run(
    run_id: str, config: RunConfig, accuracies: Sequence[float]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The rows of a run in both tables: an epoch takes a second, of 1,000 images."""
    count = len(accuracies)
    run = CONDITIONS | {
        **results.configured(run_id, config),
        "epochs": count,
        "test_accuracy": accuracies[-1],
        "test_accuracy_last10": float(np.mean(accuracies[-10:])),
        "diverged": count < config.recipe.epochs,
        "train_seconds": float(count),
        "images_per_second": 1000.0,
    }
    rows = [
        {
            "run_id": run_id,
            "epoch": epoch,
            "learning_rate": learning_rate(config.recipe, epoch),
            "test_accuracy": accuracy,
            "seconds": 1.0,
        }
        for epoch, accuracy in enumerate(accuracies, start=1)
    ]
    return run, rows


def make_report(folder: Path, text: str, curve: Curve, **more: Any) -> Report:
    return Report(make(folder, text, curve, **more))


def rising(final: float, epochs: int = 10, noise: float = 0.0, seed: int = 0) -> list[float]:
    """A curve that comes to `final`, with normal noise."""
    curve = final * (1 - 0.6 ** np.arange(1, epochs + 1)) / (1 - 0.6**epochs)
    bumps = np.random.default_rng(seed).normal(0, noise, epochs)
    return list(map(float, np.clip(curve + bumps, 0, 1)))
