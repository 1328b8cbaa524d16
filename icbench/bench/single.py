"""One run in a process of its own, as a program for one run does it: train, evaluate after each epoch, write figures.

It has no checkpoint, log, heartbeat or Parquet. Trained by icbench's code, its numbers are those of the same run in a
sweep; by the plain loop, the learning rate stays as it was.
"""

import json
import pickle
import sys
from pathlib import Path

import torch

from icbench.bench.task import PLAIN, Task
from icbench.config import RunConfig
from icbench.data import store


def main() -> None:
    """On standard input, pickled, by whom it is trained, a configuration and the file for its test accuracies."""
    engine, config, file = pickle.load(sys.stdin.buffer)
    torch.set_num_threads(1)
    Path(file).write_text(json.dumps(train(engine, config)), encoding="utf-8")


def train(engine: str, config: RunConfig) -> list[float]:
    """The test accuracy after each epoch, on this machine's CPU, of a data set that ships with icbench."""
    images = store.split(store.load(config.dataset, None), config.split)
    if engine == PLAIN:
        from icbench.bench import plain

        return plain.prepare(Task(PLAIN, config, None, "cpu", len(images[1]), len(images[3])), images).train_to_the_end(
            config.recipe.epochs
        )
    from icbench.bench import ours

    return ours.Ours(config, ours.device_data(config, images, torch.device("cpu"))).train_to_the_end()
