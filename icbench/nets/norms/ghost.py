"""Ghost batch normalisation over sub-batches of at most 32 images (Hoffer et al. 2017, arXiv 1705.08741, section 4).

Formula: y = scale (x - mean_g) / sqrt(var_g + epsilon) + shift; mean_g and var_g over N, H, W of each sub-batch g.

Sub-batches are consecutive images; the last one of a batch may be smaller.

Evaluation: running statistics, which the sub-batches update one after another, so that `momentum` is the weight of a
sub-batch. As in torch's batch norm, they are the mean and the unbiased variance; the paper averages deviations.

Data parallel: each rank splits its own images.

Needs: two values a channel or more in every sub-batch.
"""

import torch
from torch import Tensor, nn

from icbench.values import PositiveFloat, PositiveInt, Rate


def build(channels: int, *, epsilon: PositiveFloat = 1e-5, momentum: Rate = 0.1, images: PositiveInt = 32) -> nn.Module:
    """`images`: the size of a sub-batch; `momentum`: the weight of each in the running statistics (torch's sense)."""
    return GhostBatchNorm(channels, epsilon, momentum, images)


class GhostBatchNorm(nn.BatchNorm2d):
    """x: (N, C, H, W) -> the same shape. With `whole_batch`, a training forward takes the batch as one."""

    whole_batch: bool = False

    def __init__(self, channels: int, epsilon: float, momentum: float, images: int):
        super().__init__(channels, eps=epsilon, momentum=momentum)
        self.images = images

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.whole_batch or len(input) <= self.images:
            return super().forward(input)
        return torch.cat([nn.BatchNorm2d.forward(self, part) for part in torch.split(input, self.images)])
