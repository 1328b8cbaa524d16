"""What a training does with one batch of an epoch: how its images become a change of the weights."""

from collections.abc import Iterator
from typing import Any, Protocol

from torch.nn.functional import cross_entropy

from icbench.config import RunConfig
from icbench.data.source import Source
from icbench.train.evaluation import batch_sums
from icbench.train.numerics import autocast, dtype
from icbench.train.ranks import Ranks
from icbench.train.state import State


class Step(Protocol):
    """One way to do it."""

    def begin_epoch(self, plan: Any) -> None:
        """What follows is of this plan, made by the training's source of data."""

    def __call__(self, first: int, last: int) -> None:
        """Train on the plan's rows from `first` to before `last`, and add the batch's sums to the state's."""


class Eager:
    """One operation after another, as Python comes to them: possible everywhere, with any number of ranks.

    A share of a batch that has more than `images_at_once` images is done in equal parts, whose gradients are added up.
    What looks at a batch as a whole, such as batch normalisation, then looks at each part alone.
    """

    def __init__(self, config: RunConfig, state: State, data: Source, ranks: Ranks, images_at_once: int | None):
        self._precision = config.precision
        self._state = state
        self._data = data
        self._ranks = ranks
        self._at_once = images_at_once

    def begin_epoch(self, plan: Any) -> None:
        self._plan = plan

    def __call__(self, first: int, last: int) -> None:
        state, whole = self._state, last - first
        sums = []
        state.optimizer.zero_grad(set_to_none=True)
        for start, stop in parts(*self._ranks.share(first, last), self._at_once):
            images, labels = self._data.train_batch(self._plan, start, stop, dtype(self._precision))
            with autocast(self._precision, self._data.device):
                logits = state.net(images)
                loss = cross_entropy(logits, labels)
            share = (stop - start) / whole
            (loss if share == 1 else loss * share).backward()  # type: ignore[no-untyped-call]
            sums.append((loss.detach(), logits.detach(), labels))
        self._ranks.add_up_gradients()
        state.optimizer.step()
        for each in sums:
            state.sums += batch_sums(*each)


def parts(start: int, stop: int, at_once: int | None) -> Iterator[tuple[int, int]]:
    """start..stop in as few ranges of at most `at_once` as there can be, whose lengths differ by one at most."""
    count = stop - start
    ranges = -(-count // at_once) if at_once else 1
    for index in range(ranges):
        yield start + index * count // ranges, start + (index + 1) * count // ranges
