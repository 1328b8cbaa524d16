"""The plain loop of peer.py, step by step."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.optim import Adam, Optimizer

from icbench.bench import peer
from icbench.bench.images import Arrays
from icbench.bench.task import Task
from icbench.nets.build import build
from icbench.train import parameters, seeds
from icbench.train.numerics import set_numerics

Statistics = tuple[Any, Any]

# Images whose mean is near enough that of all.
_ENOUGH = 2000


def prepare(task: Task, images: Arrays) -> "Plain":
    """A training before its first step."""
    return Plain(task, images)


def batches(task: Task, images: Arrays) -> Iterator[int]:
    """Batches of epochs without end: how many images each has."""
    recipe = task.config.recipe
    loader, _ = peer.loaders(
        images, recipe.augmentation, statistics(images), recipe.batch_size, task.loader_workers, pin=False
    )
    while True:
        for _, targets in loader:
            yield targets.size(0)


def statistics(images: Arrays) -> Statistics:
    """Mean and deviation of each channel of the training images, from 0 to 1, which trainers have as constants."""
    pixels = images[0][:_ENOUGH].reshape(-1, images[0].shape[-1]) / 255
    return pixels.mean(axis=0), pixels.std(axis=0)


class Plain:
    """The plain loop of peer.py, as it goes through epochs without end."""

    def __init__(self, task: Task, images: Arrays, normalization: Statistics | None = None):
        config, recipe, device = task.config, task.config.recipe, torch.device(task.device)
        set_numerics(config.precision)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = True, False  # as everybody has it
        torch.manual_seed(seeds.derive(config.seed, "initialization"))
        self.net = build(config).to(device)
        options = dict(recipe.optimizer.options)
        self.optimizer: Optimizer = Adam(
            parameters.groups(self.net, recipe.weight_decay),
            lr=recipe.learning_rate,
            betas=(float(options["beta1"]), float(options["beta2"])),
            eps=float(options["epsilon"]),
        )
        self._device, self._amp = device, config.precision == "bfloat16"
        self._train, self._test = peer.loaders(
            images,
            recipe.augmentation,
            normalization or statistics(images),
            recipe.batch_size,
            task.loader_workers,
            pin=device.type == "cuda",
        )
        self._count, self._batch = len(images[1]), recipe.batch_size
        self.losses: Iterator[float] = self._epochs()
        self._done = 0

    def _epochs(self) -> Iterator[float]:
        while True:
            self._done = 0
            yield from peer.train(self.net, self._train, self.optimizer, self._device, amp=self._amp)

    def step(self) -> int:
        next(self.losses)
        before, self._done = self._done, min(self._done + self._batch, self._count)
        return self._done - before

    def evaluate(self) -> float:
        """The test accuracy."""
        return peer.evaluate(self.net, self._test, self._device, amp=self._amp)[1]

    def train_to_the_end(self, epochs: int) -> list[float]:
        """The test accuracy after each epoch."""
        accuracies = []
        for _ in range(epochs):
            for _ in peer.train(self.net, self._train, self.optimizer, self._device, amp=self._amp):
                pass
            accuracies.append(self.evaluate())
        return accuracies

    def store(self, folder: Path) -> None:
        """Nothing: it has no checkpoint."""
