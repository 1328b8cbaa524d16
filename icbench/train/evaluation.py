"""How a net does on the test images."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from icbench.data.source import Source
from icbench.nets.folded import folded
from icbench.procedure import Procedure
from icbench.train.numerics import autocast, dtype
from icbench.train.ranks import ALONE, Ranks

# Of ten classes, five hold the right one half of the time by chance.
_CLASSES_FOR_TOP5 = 100
# Images at a time on a CPU: more of them leave its caches, and take twice as long.
_CACHED = 64
_NONE = Procedure()


class Stopped(Exception):
    """A training, or an evaluation, was asked to stop. Of a training, the checkpoint is stored."""


class Evaluation(NamedTuple):
    """Mean cross-entropy in nats and accuracy over the test images; correct: (images,) uint8, 1 for right ones.

    top5_accuracy: the fraction of images whose class has one of the five largest logits; None of less than 100 classes.
    """

    loss: float
    accuracy: float
    correct: Tensor
    top5_accuracy: float | None


@torch.inference_mode()
def evaluate(
    net: nn.Module,
    data: Source,
    precision: str,
    should_stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
    procedures: Procedure = _NONE,
) -> Evaluation:
    """Run the net on the test images, in evaluation mode. Raises Stopped where it should stop."""
    count = len(data.test_labels)

    def batches(size: int) -> Iterator[tuple[int, int]]:
        for start in range(0, count, size):
            (stop,) = ranks.agree(should_stop())
            if stop:
                raise Stopped
            yield start, min(start + size, count)

    def forwards() -> Iterator[None]:
        """Every rank runs all images."""
        for start, stop in batches(data.evaluation_batch):
            images, _ = data.test_batch(start, stop, dtype(precision))
            with autocast(precision, data.device):
                net(images)
            yield

    net.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=data.device)
    # Images with their class among five, and all of which that was asked: a rank without images does not know.
    top5 = torch.zeros_like(sums)
    correct = torch.zeros(count, dtype=torch.uint8, device=data.device)
    with procedures.evaluating(net, forwards):
        run = net if data.device.type == "cuda" else folded(net)
        size = data.evaluation_batch * ranks.size
        data.expect([ranks.share(start, min(start + size, count)) for start in range(0, count, size)])
        for start, stop in batches(size):
            own = ranks.share(start, stop)
            images, labels = data.test_batch(*own, dtype(precision))
            if len(labels) == 0:
                continue
            with autocast(precision, data.device):
                logits = _logits(run, images)
                loss = cross_entropy(logits, labels)
            sums += batch_sums(loss, logits, labels)
            correct[slice(*own)] = answered(logits, labels)
            if logits.shape[1] >= _CLASSES_FOR_TOP5:
                top5[0] += among_five(logits, labels).sum()
                top5[1] += len(labels)
    loss_mean, accuracy = (ranks.total(sums) / count).tolist()
    hits, asked = ranks.total(top5).tolist()
    return Evaluation(loss_mean, accuracy, ranks.total(correct).cpu(), hits / asked if asked else None)


def _logits(net: nn.Module, images: Tensor) -> Tensor:
    return net(images) if images.is_cuda else torch.cat([net(part) for part in torch.split(images, _CACHED)])


def answered(logits: Tensor, labels: Tensor) -> Tensor:
    """(images,) bool: whether an image's class has its largest logit; never where that is NaN, which torch takes for
    the largest, or infinite. Of equal ones it is the first.
    """
    largest, where = logits.max(dim=1)
    return (where == labels) & largest.isfinite()


def among_five(logits: Tensor, labels: Tensor) -> Tensor:
    """(images,) bool: whether an image's class has one of its five largest logits; never where one is NaN, which torch
    takes for the largest, or the largest is infinite. Of equal ones at the fifth place, torch.topk chooses.
    """
    largest, where = logits.topk(5, dim=1)
    return (where == labels[:, None]).any(dim=1) & largest[:, 0].isfinite()


def batch_sums(loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """(2,) float64 on the device: the batch's loss summed over its images, and its correct answers."""
    return torch.stack([loss.double() * len(labels), answered(logits, labels).sum().double()])
