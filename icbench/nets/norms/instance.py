"""Instance normalisation over H, W of each image and channel (Ulyanov et al. 2016, arXiv 1607.08022).

Formula: y = scale (x - mean) / sqrt(var + epsilon) + shift; mean and var over H, W of each image and channel.

Each image by itself: training and evaluation are the same.

Needs: maps of more than one pixel, and something that is not linear between it and an average over pixels:
right before the global average pooling (the last IC layer of relu-ic-conv and ic-conv-relu) it gives every image the
same mean of each map, and there is nothing left to classify by.
"""

from torch import nn

from icbench.values import PositiveFloat


def build(channels: int, *, epsilon: PositiveFloat = 1e-5) -> nn.Module:
    """With a learnable scale and shift, as batch norm has; no running statistics."""
    return nn.InstanceNorm2d(channels, eps=epsilon, affine=True)
