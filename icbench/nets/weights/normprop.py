"""Normalisation propagation: unit filters keep a normalised input so (Arpit et al. 2016, arXiv 1603.01431).

Formula: z = scale w.x / |w| + b for each filter; in place of ReLU (ReLU(z) - sqrt(1/(2 pi))) / sqrt((1 - 1/pi) / 2).

Needs: inputs of mean 0 and variance 1 that are nearly independent. The classifier stays plain.

From independent standard Gaussians, and with scale 1 and b 0, convolution and activation have mean 0 and variance 1.
Zero padding, correlated inputs and the additions of a residual net break the premise; nothing estimates it again.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from icbench.nets.replacement import Replacement
from icbench.values import PositiveFloat

# Of max(0, z) for a standard normal z.
_MEAN = math.sqrt(1 / (2 * math.pi))
_DEVIATION = math.sqrt((1 - 1 / math.pi) / 2)


def build(convolution: nn.Conv2d, *, scale: PositiveFloat = 1.0) -> nn.Module:
    """`scale` is the initial value of the learnable scales, one a filter.

    The paper discusses 1/1.21 too: with 1 it finds singular values of a layer's Jacobian of about 1.21.
    """
    return UnitConvolution(convolution, scale)


def activation() -> nn.Module:
    """What a net of these convolutions has in place of each ReLU."""
    return StandardizedReLU()


class UnitConvolution(Replacement):
    """A convolution whose filters have unit length, times a learnable scale of each filter: (out,)."""

    def __init__(self, convolution: nn.Conv2d, scale: float):
        super().__init__(convolution)
        self.scale = nn.Parameter(self.weight.new_full((self.out_channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        unit = self.weight / torch.linalg.vector_norm(self.weight, dim=(1, 2, 3), keepdim=True)
        y: Tensor = self._conv_forward(x, unit * self.scale.view(-1, 1, 1, 1), self.bias)
        return y


class StandardizedReLU(nn.Module):
    """ReLU, shifted and scaled so that a standard normal input gives mean 0 and variance 1; elementwise."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = (relu(x) - _MEAN) / _DEVIATION
        return y
