"""Divisive normalisation by a local window over all channels (Ren et al. 2017, arXiv 1611.04520).

Formula: y = scale v / sqrt(s^2 + E v^2 + epsilon) + shift; v = x - E x. Both means are over all channels of the pixels
in a square window about the pixel; s is one learnt number a layer, scale and shift are by channel.

Only pixels within the map count. The authors' code divides the sum by the whole window at the border as well, as if the
map were continued by zeros. epsilon, which the paper does not have, keeps the result finite where s becomes 0.

Each image by itself: training and evaluation are the same. A window that sees the whole map everywhere makes it layer
norm with epsilon + s^2.

Needs: nothing. The paper starts with s = 0.5 for CIFAR-10 and 2 for CIFAR-100.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from icbench.nets.running import by_channel
from icbench.values import NonNegativeFloat, OddInt, PositiveFloat


def build(channels: int, *, epsilon: PositiveFloat = 1e-5, window: OddInt = 5, s0: NonNegativeFloat = 0.5) -> nn.Module:
    """`window`: its width and height in pixels; `s0`: s at first (0 stays 0, since the slope of s^2 is 0 there)."""
    return DivisiveNorm(channels, epsilon, window, s0)


class DivisiveNorm(nn.Module):
    """x: (N, C, H, W) -> the same shape."""

    def __init__(self, channels: int, epsilon: float, window: int, s0: float):
        super().__init__()
        self.epsilon = epsilon
        self.window = window
        self.s = nn.Parameter(torch.tensor(s0))
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        exact = x.to(self.weight.dtype)
        # Over channels first, so that windows slide over single maps only.
        v = exact - self._local(exact.mean(1, keepdim=True))
        energy = self._local(v.square().mean(1, keepdim=True))
        y = v * torch.rsqrt(self.s.square() + energy + self.epsilon)
        return torch.addcmul(by_channel(self.bias), y, by_channel(self.weight)).to(x.dtype)

    def _local(self, values: Tensor) -> Tensor:
        """(N, 1, H, W) -> the same shape: means over the windows."""
        return avg_pool2d(values, self.window, stride=1, padding=self.window // 2, count_include_pad=False)
