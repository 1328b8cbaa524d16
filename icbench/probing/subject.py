"""A training at the end of an epoch, as a probe sees it: a copy, which it may train on, hook and spoil.

So probes leave the training bit for bit as it is, and find the same while it runs as afterwards from a checkpoint.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from icbench.config import RunConfig
from icbench.data.source import Source
from icbench.nets.fast_ic import part
from icbench.train import seeds
from icbench.train.course import Course
from icbench.train.numerics import autocast, dtype
from icbench.train.ranks import ALONE
from icbench.train.state import State
from icbench.train.steps import Eager
from icbench.train.upkeep import Upkeep


class Subject:
    """A copy of `state`, which a training is in after so many `epoch`s; 0 is before the first step.

    net: in training mode, its operations apart, so that every module's input and output can be seen. generator: on
    the CPU, of this run's seed, this epoch and this probe's name; torch's global ones are seeded likewise while
    the probe is at work.

    images_at_once: no pass has more of them, as in a training in parts or by several ranks, whose statistics are of
    such parts; None: a whole batch.
    """

    def __init__(self, config: RunConfig, data: Source, state: State, name: str, images_at_once: int | None = None):
        self.config, self.data, self.epoch = config, data, state.epoch - 1
        self._at_once = images_at_once
        self._purpose = ("probe", name, self.epoch)
        self.generator = seeds.generator(config.seed, *self._purpose)
        self._copy = State.fresh(config, data.device, in_place=False)
        self._copy.take(state)
        part(self._copy.net)
        self._upkeep = Upkeep(config, self._copy.net, self._copy.optimizer)
        self._course = Course(config, data.train_count)
        torch.manual_seed(seeds.derive(config.seed, *self._purpose))
        # The dropout rates and the learning rate of the moment, where a procedure schedules them.
        self._upkeep.before_step(self._course.moment(self._next_epoch, 0))
        self.net.train()

    @property
    def net(self) -> nn.Module:
        return self._copy.net

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self._copy.optimizer

    @property
    def _next_epoch(self) -> int:
        """After the last epoch, that one once more."""
        return min(self.epoch + 1, self.config.recipe.epochs)

    @cached_property
    def _unchanged(self) -> Any:
        return self.data.plan_unchanged(seeds.generator(self.config.seed, "probe"))

    def images(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Training images start..stop, not augmented, and their labels: the same ones at each epoch and for each probe.

        images: (B, C, H, W) on the device in the run's precision. There are data.train_count of them, in an order
        drawn from the run's seed.
        """
        return self.data.train_batch(self._unchanged, start, stop, dtype(self.config.precision))

    def batch_ranges(self, images: int, size: int = 0) -> Iterator[tuple[int, int]]:
        """The first `images` of them, or all where there are fewer, in batches of `size` (default: the recipe's, or
        what of it the training has at once) or, to keep all alike for batch statistics, up to 1 less: none has fewer
        than size / 2 unless there is but one.
        """
        size = size or min(self.config.recipe.batch_size, self._at_once or self.config.recipe.batch_size)
        count = min(images, self.data.train_count)
        parts = max(1, round(count / size))
        for index in range(parts):
            yield index * count // parts, (index + 1) * count // parts

    def batches(self, images: int, size: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The images and labels of `batch_ranges`."""
        for start, stop in self.batch_ranges(images, size):
            yield self.images(start, stop)

    def logits(self, images: Tensor) -> Tensor:
        """(B, classes) in float32 at least, in the net's present mode, with their graph."""
        with autocast(self.config.precision, self.data.device):
            return exact(self.net(images))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy, in nats, in the net's present mode: a scalar with its graph."""
        return cross_entropy(self.logits(images), labels)

    def steps(self, count: int) -> Iterator[int]:
        """Train on: yield before the first step and after each of `count`, or of as many as an epoch has, the number of
        steps done.

        They are those that the training takes next (after its last epoch: that epoch's once more), augmentation,
        learning rate and procedures included, but for dropout's gates, which are drawn anew.
        """
        epoch = self._next_epoch
        eager = Eager(self.config, self._copy, self.data, ALONE, self._at_once)
        eager.begin_epoch(self.data.plan_epoch(seeds.generator(self.config.seed, "epoch", epoch)))
        before = self._course.steps_before(epoch)
        yield 0
        for step in range(min(count, self._course.steps(epoch))):
            self._upkeep.before_step(self._course.moment(epoch, step))
            eager(*self._course.batch(epoch, step))
            self._upkeep.after_step(before + step + 1, ALONE)
            yield step + 1


def exact(values: Tensor) -> Tensor:
    """In float32 at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Give torch's global random generators back as they were."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        yield
