"""Layer normalisation over C, H, W of each image, scale and shift by channel (Ba et al. 2016, arXiv 1607.06450).

Formula: y = scale (x - mean) / sqrt(var + epsilon) + shift; mean and var over C, H, W of each image. In the paper,
scale and shift are of each element.

Each image by itself: training and evaluation are the same.

Needs: two channels or pixels or more.
"""

from torch import Tensor, nn

from icbench.values import PositiveFloat


def build(channels: int, *, epsilon: PositiveFloat = 1e-5) -> nn.Module:
    """Group normalisation with one group: the moments of layer norm over (C, H, W), learnable scale by channel."""
    return nn.GroupNorm(1, channels, eps=epsilon)


def recurrent(features: int, steps: int, shift: bool = True, *, epsilon: PositiveFloat = 1e-5) -> nn.Module:
    """Over the features of each image and step; scale and shift by feature, shared over time."""
    return _AtEveryStep(nn.LayerNorm(features, eps=epsilon, bias=shift))


class _AtEveryStep(nn.Module):
    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor, step: int) -> Tensor:
        normalised: Tensor = self.norm(x)
        return normalised
