"""What every process that trains has: a device, a pulse, the data sets of its runs."""

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from icbench import catalog
from icbench.config import RunConfig
from icbench.data import store
from icbench.data.device import DeviceData
from icbench.data.source import Source
from icbench.layout import Layout
from icbench.locks import is_free
from icbench.machine import cores, keep_freed_memory
from icbench.work.assignment import Assignment
from icbench.work.pulse import Pulse

if TYPE_CHECKING:
    from icbench.data.streamed import StreamedData


class Equipment:
    """Set up for one assignment. From here on SIGTERM, and SLURM's SIGUSR2, make the pulse say stop."""

    def __init__(self, assignment: Assignment):
        self.assignment = assignment
        self.layout = Layout(assignment.results)
        self.submission = self.layout.sweep(assignment.sweep).submission(assignment.submission)
        self.device = torch.device(assignment.device)
        self.pulse = Pulse(self._is_alone, assignment.heartbeat_seconds, assignment.checkpoint_minutes)
        self._data: dict[Any, Source] = {}
        keep_freed_memory()
        torch.set_num_threads(assignment.threads)
        torch.zeros(1, device=self.device)  # a GPU that does not work is no run's failure
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, self._asked_to_stop)
        # Whoever started this process may have kept them back until now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGUSR2})

    def _asked_to_stop(self, *_: object) -> None:
        self.pulse.stop = True

    def _is_alone(self) -> bool:
        """Whether who looks after this process is gone."""
        if self.assignment.parent is not None:
            return os.getppid() != self.assignment.parent
        return is_free(self.submission.lifeline)

    def data(self, config: RunConfig) -> Source:
        """The run's data; those of the last run are kept, since neighbours in a pack share them."""
        recipe = config.recipe
        key = (
            config.dataset,
            config.split,
            recipe.augmentation,
            recipe.subtract_pixel_mean,
            recipe.standardize_channels,
        )
        if key not in self._data:
            self._data.clear()
            self._data[key] = source(config, self.assignment.data, self.device, self.assignment.threads)
        return self._data[key]


def source(config: RunConfig, data: Path | None, device: torch.device, threads: int) -> Source:
    """The data of a run, on the device or from shards, for a process with so many CPU threads."""
    if store.is_sharded(config.dataset):
        return streamed(config, data, device, threads, cores())
    return DeviceData(
        store.split(store.load(config.dataset, data), config.split),
        pixel_maximum=catalog.load("datasets", config.dataset).PIXEL_MAXIMUM,
        subtract_mean=config.recipe.subtract_pixel_mean,
        standardize_channels=config.recipe.standardize_channels,
        augmentation=config.recipe.augmentation,
        device=device,
    )


def streamed(config: RunConfig, data: Path | None, device: torch.device, threads: int, cores: int) -> "StreamedData":
    """The data of a run that are read from shards, as a process has them with so many CPU threads and cores."""
    from icbench.data.streamed import StreamedData  # torchvision takes as long to import as torch

    dataset = catalog.load("datasets", config.dataset)
    standardize = config.recipe.standardize_channels
    return StreamedData(
        *store.locate(config.dataset, data, config.split),
        shape=dataset.SHAPE,
        means=dataset.CHANNEL_MEANS if standardize else (),
        deviations=dataset.CHANNEL_DEVIATIONS if standardize else (),
        augmentation=config.recipe.augmentation,
        device=device,
        # The net's own are idle while a GPU computes, and so are the cores that nobody else was given.
        threads=threads if device.type == "cpu" else max(threads, cores),
    )
