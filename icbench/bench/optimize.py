"""A search as people write it first: `study.optimize` with a thread for each core, each trial trained in this process.

Trained by icbench's own code, so that what differs is who asks, who trains where, and who keeps what.
"""

import pickle
import sys

import torch

from icbench.bench import ours
from icbench.data import store
from icbench.layout import Layout
from icbench.search import storage
from icbench.search.settings import HELDOUT, Search
from icbench.search.study import CellStudy


def main() -> None:
    """On standard input, pickled: a search of one cell and one parameter, a results directory, and how many threads."""
    search, layout, threads = pickle.load(sys.stdin.buffer)
    torch.set_num_threads(1)  # with more, the threads of two trials would be in each other's way
    optimize(search, layout, threads)


def optimize(search: Search, layout: Layout, threads: int) -> None:
    """All trials, with the sampler and the kind of storage that `icbench search` has."""
    import optuna

    (cell,) = search.cells
    (rate,) = cell.space.dimensions
    config = cell.config
    study = CellStudy(search, cell, storage.connect(storage.url(layout, None), layout)).study
    images = store.split(store.load(config.dataset, None), HELDOUT)

    def objective(trial: optuna.Trial) -> float:
        value = trial.suggest_float(rate.name, rate.low, rate.high, step=rate.step)
        ((_, config),) = cell.runs({rate.name: value}, search.seeds)
        data = ours.device_data(config, images, torch.device("cpu"))
        return ours.Ours(config, data).train_to_the_end()[-1]

    with storage.unwarned():
        study.optimize(objective, n_trials=search.trials, n_jobs=threads)
