"""Several trainings in one process, for `icbench bench gpu`: as streams of the GPU, or as one net."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from icbench.bench.fused import Fused
from icbench.bench.images import Arrays
from icbench.bench.ours import Ours, device_data
from icbench.bench.task import Task
from icbench.train import seeds
from icbench.train.course import Course
from icbench.train.numerics import set_numerics


class _Several:
    """What is measured of them is their steps."""

    net: nn.Module = nn.Identity()
    optimizer: Optimizer

    def evaluate(self) -> None:
        raise NotImplementedError

    def store(self, folder: Path) -> None:
        raise NotImplementedError


class Streams(_Several):
    """Each training's recorded steps are replayed on a stream of its own."""

    def __init__(self, task: Task, images: Arrays):
        device = torch.device(task.device)
        data = device_data(task.config, images, device)
        configs = [replace(task.config, seed=seed) for seed in range(task.together)]
        self._trainings = [Ours(config, data, "graph") for config in configs]
        self._streams = [torch.cuda.Stream(device) for _ in configs]  # type: ignore[no-untyped-call]

    def step(self) -> int:
        images = 0
        for training, stream in zip(self._trainings, self._streams, strict=True):
            with torch.cuda.stream(stream):
                images += training.step()
        return images


class Stacked(_Several):
    """All trainings are one net. Its step is not recorded as a graph, so that Python's time is in it."""

    def __init__(self, task: Task, images: Arrays):
        set_numerics(task.config.precision)
        self._data = device_data(task.config, images, torch.device(task.device))
        self._fused = Fused(task.config, self._data, range(task.together))
        self._course = Course(task.config, self._data.train_count)
        self._together = task.together
        self._steps = 0
        self.optimizer = self._fused.optimizer

    def step(self) -> int:
        epochs, step = divmod(self._steps, self._course.steps(1))
        if step == 0:
            generators = [seeds.generator(seed, "epoch", epochs + 1) for seed in range(self._together)]
            self._plans = [self._data.plan_epoch(generator) for generator in generators]
        first, last = self._course.batch(1, step)
        self._fused.step([plan.rows(first, last) for plan in self._plans])
        self._steps += 1
        return self._together * (last - first)
