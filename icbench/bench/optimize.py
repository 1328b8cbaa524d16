"""A search as people write it first: `study.optimize` with a thread for each core, each trial trained in this process.

By the plain loop it is the program that somebody without icbench would have; by icbench's own training code, what
differs is only who asks, who trains where, and who keeps what.
"""

import pickle
import sys

import torch

from icbench.bench import single
from icbench.layout import Layout
from icbench.search import storage
from icbench.search.settings import Search
from icbench.search.study import CellStudy


def main() -> None:
    """On standard input, pickled: a search of one cell and one parameter, a results directory, how many threads, and by
    what each trial is trained, as icbench/bench/task.py calls it.
    """
    search, layout, threads, engine = pickle.load(sys.stdin.buffer)
    torch.set_num_threads(1)  # with more, the threads of two trials would be in each other's way
    optimize(search, layout, threads, engine)


def optimize(search: Search, layout: Layout, threads: int, engine: str) -> None:
    """All trials, with the sampler and the kind of storage that `icbench search` has."""
    import optuna

    (cell,) = search.cells
    (rate,) = cell.space.dimensions
    study = CellStudy(search, cell, storage.connect(storage.url(layout, None), layout)).study

    def objective(trial: optuna.Trial) -> float:
        value = trial.suggest_float(rate.name, rate.low, rate.high, step=rate.step)
        ((_, config),) = cell.runs({rate.name: value}, search.seeds)
        return single.train(engine, config)[-1]

    with storage.unwarned():
        study.optimize(objective, n_trials=search.trials, n_jobs=threads)
