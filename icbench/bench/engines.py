"""What runs in the processes that are measured (see children.py): an engine at work, input for nobody, large products.

An engine makes an object with `net`, `optimizer`, `step`, `evaluate` and `store`, as `Trainee` says; see task.py.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from icbench.bench import memory
from icbench.bench.children import named
from icbench.bench.images import arrays
from icbench.bench.phases import phases
from icbench.bench.task import ENGINES, INPUTS, Task
from icbench.train.numerics import set_numerics

_WARM_UP = 2
# Of matrices whose products are as quick as a machine gets.
_SIDES = {"cpu": 1536, "cuda": 8192}


class Trainee(Protocol):
    """A training that goes on step by step."""

    net: nn.Module
    optimizer: Optimizer

    def step(self) -> int:
        """Train on the next batch; how many images it had."""

    def evaluate(self) -> object:
        """Evaluate on the test images."""

    def store(self, folder: Path) -> None:
        """Write what the end of an epoch writes."""


class Measured:
    """An engine at work, in a process that is measured (see children.py): times in seconds, memory in bytes."""

    def __init__(self, task: Task):
        self._device = torch.device(task.device)
        images = arrays(task.config.dataset, task.data, task.train_images, task.test_images)
        self._trainee: Trainee = named(ENGINES[task.engine])(task, images)

    def first_step(self) -> None:
        self._trainee.step()
        self._wait()

    def train(self, seconds: float) -> tuple[int, float]:
        """Images trained on and seconds taken, of the steps that it takes to pass so many seconds."""
        self._trainee.step()
        self._wait()
        images, began = 0, time.perf_counter()
        while images == 0 or time.perf_counter() - began < seconds:
            images += self._trainee.step()
        self._wait()
        return images, time.perf_counter() - began

    def phases(self, steps: int) -> dict[str, float]:
        """Seconds of a step by phase; nothing of an engine that does not go through them one by one."""
        for _ in range(_WARM_UP):
            self._trainee.step()
        return phases(self._trainee.net, self._trainee.optimizer, self._trainee.step, steps, self._device)

    def evaluate(self) -> float:
        return self._seconds(self._trainee.evaluate)

    def store(self) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return self._seconds(lambda: self._trainee.store(Path(folder)))

    def memory(self) -> int:
        """The most so far: of the GPU's, or else of this process."""
        return torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else memory.peak()

    def _seconds(self, action: Callable[[], object]) -> float:
        self._wait()
        began = time.perf_counter()
        action()
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


class Input:
    """Batches of images, one after another, for nobody; in a process that is measured."""

    def __init__(self, task: Task):
        config = task.config
        images = arrays(config.dataset, task.data, task.train_images, task.test_images)
        self._batches: Iterator[int] = named(INPUTS[task.engine])(task, images)
        # What a DataLoader's workers have ready before anybody asks.
        self._ready = 2 * task.loader_workers

    def read(self, seconds: float) -> tuple[int, float]:
        """Images and seconds taken, of the batches that it takes to pass so many seconds."""
        for _ in range(self._ready + 1):
            next(self._batches)
        images, began = 0, time.perf_counter()
        while images == 0 or time.perf_counter() - began < seconds:
            images += next(self._batches)
        return images, time.perf_counter() - began


class Peak:
    """Products of large matrices: about the most arithmetic that a process gets out of the machine."""

    def __init__(self, device: str, precision: str):
        set_numerics(precision)
        dtype = {"float64": torch.float64, "bfloat16": torch.bfloat16}.get(precision, torch.float32)
        self._device = torch.device(device)
        self._side = _SIDES[self._device.type]
        self._a = torch.randn(self._side, self._side, device=device).to(dtype)
        self._product = self._a @ self._a

    def multiply(self, seconds: float) -> tuple[float, float]:
        """Floating-point operations done, and seconds taken."""
        products, began = 0, time.perf_counter()
        while products == 0 or time.perf_counter() - began < seconds:
            torch.mm(self._a, self._a, out=self._product)
            products += 1
            if self._device.type == "cuda" and products % 8 == 0:
                torch.cuda.synchronize()
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return 2.0 * self._side**3 * products, time.perf_counter() - began
