"""Batch normalisation by the statistics of a batch whose images lie on several ranks.

torch.nn.SyncBatchNorm does the same on GPUs but refuses tensors on the CPU.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from icbench.nets.moments import moments

_OVER_IMAGES = (0, 2, 3)


class Peers(Protocol):
    """The ranks that hold the batch."""

    def gather(self, tensor: Tensor) -> Tensor:
        """(ranks, *shape): every rank's tensor, the same on all."""

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of every rank's tensor, the same on all."""


class SyncBatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d over the images of all `peers`, which may hold unequal numbers; without peers it is just that."""

    peers: Peers | None = None

    def forward(self, input: Tensor) -> Tensor:
        if self.peers is None or not self.training:
            return super().forward(input)
        normalised, mean, variance, count = _Normalise.apply(input, self.weight, self.bias, self.eps, self.peers)
        with torch.no_grad():
            self._keep(mean, variance * (count / (count - 1)))
        result: Tensor = normalised
        return result

    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


class _Normalise(torch.autograd.Function):
    """Statistics are in the type of `weight` and are merged in float64; one exchange forward, one backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, peers: Peers
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The normalised images; then mean, biased variance and count over all ranks, in float64."""
        exact = x.to(weight.dtype)
        mean, variance, count = _statistics(exact, peers)
        center, scale = (_by_channel(value.to(weight.dtype)) for value in (mean, torch.rsqrt(variance + epsilon)))
        ctx.save_for_backward(x, weight, center, scale, count)
        ctx.peers = peers
        ctx.mark_non_differentiable(mean, variance, count)
        normalised = (exact - center).mul_(scale * _by_channel(weight)).add_(_by_channel(bias))
        return normalised.to(x.dtype), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, center, scale, count = ctx.saved_tensors
        exact = gradient.to(weight.dtype)
        standard = (x.to(weight.dtype) - center).mul_(scale)
        # The weight's and the bias' gradients are of the own images, as those of all other parameters are.
        sums = torch.stack([(exact * standard).sum(_OVER_IMAGES), exact.sum(_OVER_IMAGES)])
        slope, offset = (ctx.peers.total(sums) / count).to(weight.dtype)
        inner = exact - standard.mul_(_by_channel(slope)) - _by_channel(offset)
        return (inner.mul_(scale * _by_channel(weight))).to(x.dtype), sums[0], sums[1], None, None


def _statistics(x: Tensor, peers: Peers) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, biased variance and count over all ranks, merged from each rank's own without cancellation."""
    channels = x.shape[1]
    mean, variance = moments(x, _OVER_IMAGES)
    count = mean.new_full((1,), x.numel() // channels, dtype=torch.float64)
    own = torch.cat([mean.double(), variance.double(), count])
    means, variances, counts = torch.split(peers.gather(own), [channels, channels, 1], dim=1)
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    variance = (counts * (variances + (means - mean).square())).sum(0) / total
    return mean, variance, total


def _by_channel(values: Tensor) -> Tensor:
    """(C,) -> (C, 1, 1), which images (N, C, H, W) are multiplied by."""
    return values[:, None, None]
