"""Layer normalisation over C, H, W of each image, scale and shift by channel (Ba et al. 2016, arXiv 1607.06450)."""

from torch import nn

from icbench.values import PositiveFloat


def build(channels: int, *, epsilon: PositiveFloat = 1e-5) -> nn.Module:
    """Group normalisation with one group: the moments of layer norm over (C, H, W), learnable scale by channel."""
    return nn.GroupNorm(1, channels, eps=epsilon)
