"""Bounded batch normalisation: batch norm whose scales stay near one another (Jia et al. 2017, arXiv 1611.06013).

Formula: y = scale (x - mean) / sqrt(var + epsilon) + shift. After every 391 optimiser steps, scales are bounded: with
sigma = sqrt(running var + epsilon), s = scale / sigma and a the mean of s over channels, each s / a is clipped to
[1 / factor, factor], and scale = s sigma.

The authors' code bounds together with the weights' singular values (each may be had alone here), not in the last epoch,
and not within an epoch's last 100 steps.

Evaluation: running statistics, as in batch norm.

Data parallel: statistics are of each rank's own images. Ranks must be given the same running statistics before
`after_steps`, or their scales part.

Needs: two values a channel or more in a batch.
"""

import torch
from torch import nn

from icbench.values import AboveOne, PositiveFloat, PositiveInt, Rate


def build(
    channels: int,
    *,
    epsilon: PositiveFloat = 1e-5,
    momentum: Rate = 0.1,
    factor: AboveOne = 2.0,
    every: PositiveInt = 391,
) -> nn.Module:
    """`every`: optimiser steps from one bounding to the next; 391 are an epoch of 50,000 images in batches of 128."""
    return BoundedBatchNorm(channels, epsilon, momentum, factor, every)


class BoundedBatchNorm(nn.BatchNorm2d):
    """x: (N, C, H, W) -> the same shape. Whoever trains calls `after_steps` after every `every` optimiser steps."""

    def __init__(self, channels: int, epsilon: float, momentum: float, factor: float, every: int):
        super().__init__(channels, eps=epsilon, momentum=momentum)
        self.factor = factor
        self.every = every

    @torch.no_grad()
    def after_steps(self) -> None:
        """Bound the scales. Those within the bounds keep their bits."""
        assert self.running_var is not None
        sigma = torch.sqrt(self.running_var + self.eps)
        ends = torch.stack([sigma / self.factor, sigma * self.factor]) * (self.weight / sigma).mean()
        # Of a negative mean, the ends are the other way round.
        self.weight.clamp_(ends.amin(0), ends.amax(0))
