"""Virtual batch normalisation by a fixed reference batch and the image itself (Salimans et al. 2016, arXiv 1606.03498).

Formula: y = scale (x - mean) / sqrt(var + epsilon) + shift. The first R images of a batch are the reference; they are
normalised by their own moments over N, H, W. Each other image is normalised by moments in which it weighs 1 / (R + 1)
and the reference R / (R + 1): means of x and of x^2 are mixed so, as in the authors' code; var = E x^2 - mean^2.

Training and evaluation are the same, and no image's result depends on another's: there are no running statistics. The
gradient passes the reference, too. A batch of R images or fewer is all reference.

Data parallel: every rank has the same reference. Where there is dropout each gates it in its own way, as it does its
own images.

Needs: the reference in front of every batch, which `icbench.nets.reference.ReferenceBatch` puts there; a step costs as
much as one of R more images.
"""

import torch
from torch import Tensor, nn

from icbench.nets.moments import moments
from icbench.nets.running import standardised
from icbench.values import PositiveFloat, PositiveInt


def build(channels: int, *, epsilon: PositiveFloat = 1e-5, images: PositiveInt = 32) -> nn.Module:
    """`images`: R, how many images the reference batch has."""
    return VirtualBatchNorm(channels, epsilon, images)


class VirtualBatchNorm(nn.Module):
    """x: (R + N, C, H, W), the reference first -> the same shape."""

    def __init__(self, channels: int, epsilon: float, images: int):
        super().__init__()
        self.epsilon = epsilon
        self.reference_images = images
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        exact = x.to(self.weight.dtype)
        mean, var = moments(exact, (2, 3))
        var_r, mean_r = _pooled(var[: self.reference_images], mean[: self.reference_images])
        var, mean = self._mixed(var[self.reference_images :], mean[self.reference_images :], var_r, mean_r)
        # Of the reference, all images have the same moments.
        count = len(x) - len(mean)
        var, mean = (torch.cat([r.expand(count, -1), own]) for r, own in ((var_r, var), (mean_r, mean)))
        return standardised(exact, mean, torch.rsqrt(var + self.epsilon) * self.weight, self.bias).to(x.dtype)

    def _mixed(self, var: Tensor, mean: Tensor, var_r: Tensor, mean_r: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C) moments of each image together with the reference; E x^2 - mean^2 without its cancellation."""
        own = 1 / (self.reference_images + 1)
        between = own * (1 - own) * (mean - mean_r).square()
        return torch.lerp(var_r, var, own) + between, torch.lerp(mean_r, mean, own)


def _pooled(var: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """(R, C) moments of images -> (C,) moments of all together."""
    between, pooled = torch.var_mean(mean, dim=0, correction=0)
    return var.mean(0) + between, pooled
