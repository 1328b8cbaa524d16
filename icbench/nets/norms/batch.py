"""Batch normalisation over N, H, W of each channel (Ioffe and Szegedy 2015, arXiv 1502.03167).

Formula: y = scale (x - mean) / sqrt(var + epsilon) + shift; mean and var over N, H, W of each channel.

Evaluation: running averages of the mean and of the unbiased variance.

Data parallel: statistics are of each rank's own images, or of all ranks' with the recipe's `sync_batch_norm`.

Needs: two values a channel or more in a batch.
"""

from torch import nn

from icbench.values import PositiveFloat, Rate


def build(channels: int, *, epsilon: PositiveFloat = 1e-5, momentum: Rate = 0.1) -> nn.Module:
    """`momentum` is the weight of the new batch in the running statistics (torch's sense; Keras has 1 - momentum)."""
    return nn.BatchNorm2d(channels, eps=epsilon, momentum=momentum)
