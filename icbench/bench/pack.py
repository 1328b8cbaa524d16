"""What a run in a pack costs beyond its training: a worker's wall time for some runs, beside these trainings alone."""

import tempfile
import time
from pathlib import Path

import torch

from icbench.bench import ours
from icbench.bench.assigned import assigned
from icbench.data import store
from icbench.layout import Layout
from icbench.plan import Run
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
        with (
            tempfile.TemporaryDirectory() as folder,
            assigned(self._runs, Layout(Path(folder)), "bench", "one", heartbeat_seconds=1) as assignment,
        ):
            began = time.perf_counter()
            work(assignment)
            return (time.perf_counter() - began) / len(self._runs)
