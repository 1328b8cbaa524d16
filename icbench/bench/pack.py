"""What a run in a pack costs beyond its training: a worker's wall time for some runs, beside these trainings alone."""

import pickle
import tempfile
import time
from pathlib import Path

import torch

from icbench import plan
from icbench.bench import ours
from icbench.data import store
from icbench.layout import Layout
from icbench.locks import Lock
from icbench.plan import Run
from icbench.work.assignment import Assignment
from icbench.work.worker import work


class Pack:
    """Runs on the digits, in a process that is measured (see children.py). Times are seconds a run."""

    def __init__(self, runs: list[Run]):
        torch.set_num_threads(1)
        self._runs = runs
        config = runs[0][1]
        arrays = store.split(store.load(config.dataset, None), config.split)
        self._data = ours.device_data(config, arrays, torch.device("cpu"))
        self.in_pack()  # which imports what it takes, once

    def alone(self) -> float:
        """Steps and evaluations, nothing else: no checkpoint, no heartbeat, no log, no Parquet."""
        began = time.perf_counter()
        for _, config in self._runs:
            ours.Ours(config, self._data).train_to_the_end()
        return (time.perf_counter() - began) / len(self._runs)

    def in_pack(self) -> float:
        """By a worker, as a sweep has it."""
        with tempfile.TemporaryDirectory() as folder:
            layout = Layout(Path(folder))
            files = layout.sweep("bench").submission("one")
            files.folder.mkdir(parents=True)
            files.packs.write_bytes(pickle.dumps(plan.packs(self._runs, 1)))
            lifeline = Lock.take(files.lifeline)
            assert lifeline is not None, "nobody else knows of it"
            with lifeline:
                began = time.perf_counter()
                work(Assignment(layout.root, "bench", "one", 0, None, 1, "cpu", None, 10, 1, "one"))
                return (time.perf_counter() - began) / len(self._runs)
