"""icbench's own training, step by step, as `train/loop.py` does it."""

from collections.abc import Iterator
from pathlib import Path

import torch

from icbench import catalog
from icbench.bench.images import Arrays
from icbench.bench.task import Task
from icbench.config import RunConfig
from icbench.data.device import DeviceData
from icbench.machine import keep_freed_memory
from icbench.train import seeds
from icbench.train.course import Course
from icbench.train.engines import choose, start
from icbench.train.evaluation import Evaluation, evaluate
from icbench.train.numerics import set_numerics
from icbench.train.ranks import ALONE
from icbench.train.state import State
from icbench.train.upkeep import Upkeep


def prepare(task: Task, images: Arrays) -> "Ours":
    """A training before its first step."""
    keep_freed_memory()
    engine = "auto" if task.engine == "icbench" else task.engine
    return Ours(task.config, device_data(task.config, images, torch.device(task.device)), engine)


def batches(task: Task, images: Arrays) -> Iterator[int]:
    """Batches of epochs without end: how many images each has."""
    config = task.config
    data = device_data(config, images, torch.device("cpu"))
    size = config.recipe.batch_size
    while True:
        plan = data.plan_epoch(torch.Generator())
        for first in range(0, data.train_count, size):
            yield len(data.train_batch(plan, first, min(first + size, data.train_count))[1])


def device_data(config: RunConfig, arrays: Arrays, device: torch.device) -> DeviceData:
    return DeviceData(
        arrays,
        pixel_maximum=catalog.load("datasets", config.dataset).PIXEL_MAXIMUM,
        subtract_mean=config.recipe.subtract_pixel_mean,
        augmentation=config.recipe.augmentation,
        device=device,
    )


class Ours:
    """A training that goes on step by step, by an engine of icbench; beyond the recipe's epochs, as in the last."""

    def __init__(self, config: RunConfig, data: DeviceData, engine: str = "auto"):
        set_numerics(config.precision)
        self._config = config
        self._data = data
        self._course = Course(config, data.train_count)
        self._state = State.fresh(config, data.device)
        self._upkeep = Upkeep(config, self._state.net, self._state.optimizer)
        self._engine = choose(engine, config, data, ALONE, None)
        self._train_on = start(self._engine, config, self._state, data, ALONE)
        self._steps = 0
        self.net, self.optimizer = self._state.net, self._state.optimizer

    def step(self) -> int:
        """One step of the optimiser, and at an epoch's beginning its plan; how many images it trained on."""
        config, state = self._config, self._state
        done, step = divmod(self._steps, self._course.steps(1))
        epoch = min(done + 1, config.recipe.epochs)
        if step == 0:
            self._train_on.begin_epoch(self._data.plan_epoch(seeds.generator(config.seed, "epoch", done + 1)))
        state.net.train()
        self._upkeep.before_step(self._course.moment(epoch, step))
        first, last = self._course.batch(1, step)
        self._train_on(first, last)
        self._steps += 1
        self._upkeep.after_step(self._steps, ALONE)
        return last - first

    def losses(self) -> float:
        """The sum of all images' losses since the last time."""
        total = float(self._state.sums[0])
        self._state.sums.zero_()
        return total

    def evaluate(self) -> Evaluation:
        with self._engine.evaluating():
            return evaluate(self._state.net, self._data, self._config.precision)

    def train_to_the_end(self) -> list[float]:
        """The test accuracy after each of the recipe's epochs."""
        accuracies = []
        for _ in range(self._config.recipe.epochs):
            for _ in range(self._course.steps(1)):
                self.step()
            accuracies.append(self.evaluate().accuracy)
        return accuracies

    def store(self, folder: Path) -> None:
        """What the end of an epoch writes."""
        self._state.save(folder / "checkpoint.pt")
