"""A results directory of thousands of made-up runs, as one sweep of a real grid would leave it, to measure tables on.

    python -m icbench.bench.many_runs DIRECTORY [--cells 1000] [--seeds 20] [--epochs 200] [--compacted]

Run ids, configurations and schemas are real; learning curves are drawn. Equal arguments give equal numbers.
"""

import argparse
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from icbench import grid, ledger, results
from icbench.architecture import shape
from icbench.config import RunConfig
from icbench.files import write_json
from icbench.layout import Layout
from icbench.train.schedule import learning_rate

Floats = NDArray[np.float64]
Run = tuple[str, RunConfig]

DATASETS = ("cifar10", "cifar100")
DEPTHS = (20, 32, 44, 56, 110)
NORMS = ("batch", "layer", "group", "instance")
ORDERINGS = ("relu-ic-conv", "ic-conv-relu", "conv-relu-ic")
DROPOUTS = (0.05, 0.1, 0.02, 0.2, 0.01, 0.3, 0.4, 0.5)
TEST_IMAGES = 10_000

# Effects on the final accuracy, and on how many epochs an approach to it takes.
ACCURACY = {"cifar10": 0.915, "cifar100": 0.68, "relu-ic-conv": 0.004, "ic-conv-relu": 0.002, "conv-relu-ic": -0.003}
ACCURACY |= {"layer": -0.015, "group": -0.01, "instance": -0.02}
EPOCHS = {"relu-ic-conv": -2.0, "ic-conv-relu": -1.0, "conv-relu-ic": 0.5, "layer": 1.0, "group": 1.0, "instance": 2.0}
SEED_DEVIATION = {"cifar10": 0.0018, "cifar100": 0.003}
CLASSES = {"cifar10": 10, "cifar100": 100}
DIVERGED = {"batch": 0.002, "layer": 0.005, "group": 0.005, "instance": 0.02}


class Curves(NamedTuple):
    """The epochs' columns, each (runs, epochs), and how many epochs each run trained: (runs,)."""

    trained: NDArray[np.int64]
    columns: dict[str, Floats]


def generate(
    root: Path, cells: int = 1000, seeds: int = 20, epochs: int = 200, small_files: bool = True, randomness: int = 0
) -> grid.Sweep:
    """Make the results directory `root` of a finished sweep; return the sweep.

    With `small_files`, each run has its files and nothing is compacted; without, there are the compacted tables alone.
    """
    layout = Layout(root)
    root.mkdir(parents=True, exist_ok=True)
    grid_file = root / "many-runs.yaml"
    grid_file.write_text(grid_text(cells, seeds, epochs))
    sweep = grid.load(grid_file)
    grid_file.unlink()
    assert len(sweep.cells) == cells
    ledger.record_sweep(layout, sweep)
    random = np.random.default_rng(randomness)
    runs = sorted(sweep.runs(), key=lambda run: run[0])
    curves = draw_curves(runs, random)
    tables = {"epochs": epochs_table(runs, curves), "runs": runs_table(runs, curves, random)}
    (write_small_files if small_files else write_compacted)(layout, runs, curves, tables)
    return sweep


def grid_text(cells: int, seeds: int, epochs: int) -> str:
    """A grid of so many cells: 1000, 500, 100, 40, 16, 8, 4 and others. Raises ValueError where there is none."""
    for rates, norms, depths, datasets in product(range(len(DROPOUTS), 0, -1), (4, 3, 2, 1), (5, 4, 3, 2, 1), (2, 1)):
        if datasets * depths * norms * (1 + len(ORDERINGS) * rates) == cells:
            break
    else:
        raise ValueError(f"there is no grid of {cells} cells; 1000 or 100 would do.")
    changed = {"name": "chen2019", "epochs": epochs, "learning_rate_steps": [[0.4, 0.1], [0.6, 0.1], [0.8, 0.1]]}
    axes = {
        "dataset": DATASETS[:datasets],
        "depth": DEPTHS[:depths],
        "ordering": ("baseline", *ORDERINGS),
        "dropout": sorted(DROPOUTS[:rates]),
        "norm": NORMS[:norms],
    }
    return "\n".join(
        [
            "question: Where is the best place and the best rate for dropout, under each norm?",
            f"recipe: {'chen2019' if epochs == 200 else json.dumps(changed)}",
            "grid:",
            *(f"  {field}: {json.dumps(values)}" for field, values in axes.items()),
            f"seeds: {seeds}",
            "baseline: {ordering: baseline}",
            "",
        ]
    )


def draw_curves(runs: list[Run], random: np.random.Generator) -> Curves:
    """Learning curves: an exponential approach within each learning rate's epochs, noisier the higher the rate is."""
    configs = [config for _, config in runs]
    recipe = configs[0].recipe
    count, epochs = len(runs), recipe.epochs
    rates = np.array([learning_rate(recipe, epoch) for epoch in range(1, epochs + 1)])
    drops = np.searchsorted([after for after, _ in recipe.learning_rate_steps], np.arange(epochs), side="right")
    classes = np.array([CLASSES[config.dataset] for config in configs])[:, None]
    final = _final_accuracies(configs, random)
    # Drops of the rate bring a run from some points below its final accuracy to it.
    levels = final[:, None] - np.array([0.08, 0.012, 0.002, 0.0])[drops]
    since_drop = np.arange(epochs) - np.searchsorted(drops, drops)
    slowness = 8.0 + _effect(EPOCHS, configs) + 4.0 * _dropouts(configs)
    below = np.where(drops == 0, levels - 1 / classes, 0.02 / (1 + drops)) * np.exp(
        -(1 + since_drop) / np.where(drops == 0, slowness[:, None], 1.5)
    )
    noise = np.array([0.018, 0.0025, 0.0012, 0.001])[drops]
    accuracy = np.clip(levels - below + noise * random.standard_normal((count, epochs)), 0.5 / classes, 0.999)
    accuracy = np.round(accuracy * TEST_IMAGES) / TEST_IMAGES
    gap = np.array([0.0, 0.04, 0.06, 0.065])[drops] - 0.1 * _dropouts(configs)[:, None]
    train_accuracy = np.clip(accuracy + gap + 0.1 * noise * random.standard_normal((count, epochs)), 0.0, 1.0)
    columns = {
        "learning_rate": np.broadcast_to(rates, (count, epochs)),
        "train_loss": np.log(classes) * (1.02 - train_accuracy) ** 1.2,
        "train_accuracy": train_accuracy,
        "test_loss": np.log(classes) * (1.05 - accuracy),
        "test_accuracy": accuracy,
        "seconds": _seconds(configs, epochs, random),
    }
    return _diverge(Curves(np.full(count, epochs), columns), configs, random)


def _final_accuracies(configs: list[RunConfig], random: np.random.Generator) -> Floats:
    """(runs,): effects of data set, depth, norm, ordering and dropout rate, best near 0.05, and of the seed."""
    depths = np.array([config.depth for config in configs])
    rates = _dropouts(configs)
    by_rate = np.where(rates > 0, -0.004 * np.log2(np.maximum(rates, 0.001) / 0.05) ** 2, 0.0)
    deviation = np.array([SEED_DEVIATION[config.dataset] for config in configs])
    return np.asarray(
        _effect(ACCURACY, configs)
        + 0.012 * np.log2(depths / 20)
        + by_rate
        + deviation * random.standard_normal(len(configs))
    )


def _effect(effects: dict[str, float], configs: list[RunConfig]) -> Floats:
    """(runs,): the sum of what data set, ordering and norm bring."""
    return np.array([sum(effects.get(x, 0.0) for x in (c.dataset, c.ordering, c.norm.name)) for c in configs])


def _dropouts(configs: list[RunConfig]) -> Floats:
    return np.array([config.dropout or 0.0 for config in configs])


def _seconds(configs: list[RunConfig], epochs: int, random: np.random.Generator) -> Floats:
    """(runs, epochs): by depth and norm, some per cent more or less."""
    typical = np.array([0.2 * c.depth * (1.0 if c.norm.name == "batch" else 1.15) for c in configs])
    return np.asarray(typical[:, None] * random.gamma(900.0, 1 / 900, size=(len(configs), epochs)))


def _diverge(curves: Curves, configs: list[RunConfig], random: np.random.Generator) -> Curves:
    """The same, but that some runs end at an early epoch with losses that are not numbers, guessing one class."""
    epochs = curves.columns["seconds"].shape[1]
    likely = np.array([DIVERGED[config.norm.name] for config in configs])
    diverged = np.flatnonzero(random.random(len(configs)) < likely)
    ends = random.integers(0, max(epochs // 2, 1), size=len(diverged))
    for name, value in (("train_loss", np.nan), ("test_loss", np.nan)):
        curves.columns[name][diverged, ends] = value
    guess = np.array([1 / CLASSES[configs[index].dataset] for index in diverged])
    curves.columns["test_accuracy"][diverged, ends] = guess
    curves.trained[diverged] = ends + 1
    return curves


def epochs_table(runs: list[Run], curves: Curves) -> pa.Table:
    """The table of epochs, run after run, each run's in order."""
    count, epochs = curves.columns["seconds"].shape
    happened = np.arange(epochs) < curves.trained[:, None]
    numbers = np.broadcast_to(np.arange(1, epochs + 1, dtype=np.int32), (count, epochs))
    ids = pa.array([run_id for run_id, _ in runs]).take(pa.array(np.repeat(np.arange(count), curves.trained)))
    columns = {"run_id": ids, "epoch": numbers[happened]}
    columns |= {name: values[happened] for name, values in curves.columns.items()}
    columns["test_top5_accuracy"] = pa.nulls(len(ids))  # as in runs before it was measured
    return pa.table(columns, schema=results.schema("epochs"))


def runs_table(runs: list[Run], curves: Curves, random: np.random.Generator) -> pa.Table:
    """The table of runs, in their order."""
    last = curves.trained - 1
    accuracies = curves.columns["test_accuracy"]
    final = accuracies[np.arange(len(runs)), last]
    diverged = np.isnan(curves.columns["test_loss"][np.arange(len(runs)), last])
    tail = np.where(diverged, final, accuracies[:, -10:].mean(axis=1))
    happened = np.arange(accuracies.shape[1]) <= last[:, None]
    seconds = (curves.columns["seconds"] * happened).sum(axis=1)
    own = {
        "epochs": curves.trained,
        "test_accuracy": final,
        "test_accuracy_last10": tail,
        "diverged": diverged,
        "train_seconds": seconds,
        "images_per_second": 50_000 * curves.trained / seconds,
        "test_correct": _correct(final, random),
        "finished_at": [MOMENT + timedelta(seconds=x) for x in np.cumsum(seconds) / 64],
    }
    own["started_at"] = [end - timedelta(seconds=x) for end, x in zip(own["finished_at"], seconds, strict=True)]
    rows = pa.Table.from_pylist([_described(*run) for run in runs], schema=results.schema("runs"))
    for name, values in own.items():
        position = rows.schema.get_field_index(name)
        rows = rows.set_column(position, rows.schema.field(name), pa.array(values, rows.schema.field(name).type))
    return rows


MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def _described(run_id: str, config: RunConfig) -> dict[str, Any]:
    """A row of `runs` as far as it follows from the configuration, or is the same for all."""
    return results.configured(run_id, config) | {
        "parameters": _parameters(config),
        "attempts": 1,
        "icbench_version": "0.1.0",
        "git_commit": "0" * 40,
        "git_dirty": False,
        "torch_version": "2.15.0",
        "device": "NVIDIA H100",
        "hostname": f"node{config.seed % 8}",
        "node": f"node{config.seed % 8}",
        "gpu": str(config.seed % 4),
        "threads": 1,
        "world_size": 1,
        "slurm_job_id": f"4711_{config.seed}",
    }


def _parameters(config: RunConfig) -> int:
    """About as many as the net has: the weights of its convolutions."""
    net = shape(config.dataset, config.block, config.depth, config.width)
    convolutions = [net.stem]
    for unit in net.units():
        convolutions += unit.branch
    return sum(each.channels * each.out * each.kernel**2 for each in convolutions)


def _correct(accuracies: Floats, random: np.random.Generator) -> list[bytes]:
    """The packed bits of each run: as many ones as its accuracy says, mostly on the images that are easy for all."""
    difficulty = random.standard_normal(TEST_IMAGES, dtype=np.float32)
    packed = []
    for accuracy in accuracies:
        right = round(accuracy * TEST_IMAGES)
        scores = difficulty + 0.7 * random.standard_normal(TEST_IMAGES, dtype=np.float32)
        bits = np.zeros(TEST_IMAGES, dtype=np.uint8)
        bits[np.argpartition(scores, right)[:right] if right < TEST_IMAGES else slice(None)] = 1
        packed.append(np.packbits(bits).tobytes())
    return packed


def write_small_files(layout: Layout, runs: list[Run], curves: Curves, tables: dict[str, pa.Table]) -> None:
    """A file a run and table, as `icbench.results.write_run` writes them, but not flushed to the disk one by one."""
    for table, lengths in (("epochs", curves.trained), ("runs", np.ones(len(runs), dtype=np.int64))):
        layout.table(table).mkdir(exist_ok=True)
        for (run_id, _), rows in zip(runs, _slices(tables[table], lengths), strict=True):
            pq.write_table(rows, layout.row(table, run_id), **results.SMALL_FILE)


def _slices(table: pa.Table, lengths: NDArray[np.int64]) -> Iterator[pa.Table]:
    for start, length in zip(np.cumsum(lengths) - lengths, lengths, strict=True):
        yield table.slice(start, length)


def write_compacted(layout: Layout, runs: list[Run], curves: Curves, tables: dict[str, pa.Table]) -> None:
    """The compacted tables and their manifest, as `icbench.results.compact` would leave them."""
    layout.compacted.mkdir(exist_ok=True)
    for table, rows in tables.items():
        pq.write_table(rows, layout.compacted_table(table))
    write_json(layout.manifest, {"run_ids": [run_id for run_id, _ in runs]})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a results directory of made-up runs.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--compacted", action="store_true", help="the compacted tables alone, no small files")
    arguments = parser.parse_args()
    generate(
        arguments.directory, arguments.cells, arguments.seeds, arguments.epochs, small_files=not arguments.compacted
    )
