"""How a net does on the test images."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from icbench.data.device import DeviceData
from icbench.procedure import Procedure
from icbench.train.numerics import autocast, dtype
from icbench.train.ranks import ALONE, Ranks

_BATCH = 1000
_NONE = Procedure()


class Stopped(Exception):
    """A training, or an evaluation, was asked to stop. Of a training, the checkpoint is stored."""


class Evaluation(NamedTuple):
    """Mean cross-entropy in nats and accuracy over the test images; correct: (images,) uint8, 1 for right ones."""

    loss: float
    accuracy: float
    correct: Tensor


@torch.inference_mode()
def evaluate(
    net: nn.Module,
    data: DeviceData,
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
        for start, stop in batches(_BATCH):
            images, _ = data.test_batch(start, stop, dtype(precision))
            with autocast(precision, data.device):
                net(images)
            yield

    net.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=data.device)
    correct = torch.zeros(count, dtype=torch.uint8, device=data.device)
    with procedures.evaluating(net, forwards):
        for start, stop in batches(_BATCH * ranks.size):
            own = ranks.share(start, stop)
            images, labels = data.test_batch(*own, dtype(precision))
            if len(labels) == 0:
                continue
            with autocast(precision, data.device):
                logits = net(images)
                loss = cross_entropy(logits, labels)
            sums += batch_sums(loss, logits, labels)
            correct[slice(*own)] = logits.argmax(dim=1) == labels
    loss_mean, accuracy = (ranks.total(sums) / count).tolist()
    return Evaluation(loss_mean, accuracy, ranks.total(correct).cpu())


def batch_sums(loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """(2,) float64 on the device: the batch's loss summed over its images, and its correct answers."""
    return torch.stack([loss.double() * len(labels), (logits.argmax(dim=1) == labels).sum().double()])
