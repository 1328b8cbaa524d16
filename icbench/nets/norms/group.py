"""Group normalisation over H, W and the channels of a group (Wu and He 2018, arXiv 1803.08494).

Formula: y = scale (x - mean) / sqrt(var + epsilon) + shift; mean and var over H, W and the consecutive channels of a
group, of each image.

Each image by itself: training and evaluation are the same.

Needs: groups divides the net's width.
"""

from torch import nn

from icbench.values import ChannelDivisor, PositiveFloat


def build(channels: int, *, epsilon: PositiveFloat = 1e-5, groups: ChannelDivisor = 8) -> nn.Module:
    """`groups` divides the net's width; the paper's 32 is impossible with 16 channels, hence 8."""
    return nn.GroupNorm(groups, channels, eps=epsilon)
