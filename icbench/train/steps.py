"""What a training does with one batch of an epoch: how its images become a change of the weights."""

from collections.abc import Iterator
from typing import Any, Protocol

from torch.nn.functional import cross_entropy

from icbench.config import RunConfig
from icbench.data.source import Source
from icbench.train.evaluation import batch_sums
from icbench.train.numerics import autocast, dtype
from icbench.train.ranks import ALONE, Ranks
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
        for start, stop in parts(first, last, self._at_once, self._ranks):
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


def parts(first: int, last: int, at_once: int | None, ranks: Ranks = ALONE) -> Iterator[tuple[int, int]]:
    """A rank's share of first..last in ranges whose lengths differ by one at most: as few as leave no rank's longer
    than `at_once`, and as many on every rank, since statistics over all ranks have them meet in each.

    Where `at_once` is 1 and one rank's share is longer than another's, it has a range of two.
    """
    start, stop = ranks.share(first, last)
    count, least = stop - start, (last - first) // ranks.size
    most = -(-(last - first) // ranks.size)
    ranges = min(least, -(-most // at_once)) if at_once else 1
    for index in range(ranges):
        yield start + index * count // ranges, start + (index + 1) * count // ranges
