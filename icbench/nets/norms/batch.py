"""Batch normalisation over N, H, W of each channel (Ioffe and Szegedy 2015, arXiv 1502.03167)."""

from torch import nn

from icbench.values import PositiveFloat, Rate


def build(channels: int, *, epsilon: PositiveFloat = 1e-5, momentum: Rate = 0.1) -> nn.Module:
    """`momentum` is the weight of the new batch in the running statistics (torch's sense; Keras has 1 - momentum)."""
    return nn.BatchNorm2d(channels, eps=epsilon, momentum=momentum)
