"""Adaptive instance normalisation to the batch's average style (Huang and Belongie 2017, arXiv 1703.06868).

Formula: y = D (x - mean) / deviation + M; mean and deviation = sqrt(var + epsilon) over H, W of each image and channel;
M and D are their averages over the images of the batch. There is no learnt scale or shift.

In the paper, M and D are the mean and deviation of a style image. Classification has none, so here the batch's images
are the style: every image is given the average image's mean and contrast. The gradient passes M and D, too. A batch of
one image is its own style, and comes out as it went in.

Evaluation: running averages of M and D, which begin at 0 and 1.

Data parallel: the style is the average of each rank's own images.

Needs: maps of more than one pixel, since of one pixel nothing but M is left; and something that is not linear between
it and an average over pixels: right before the global average pooling (the last IC layer of relu-ic-conv and
ic-conv-relu) it gives every image the same mean of each map, and there is nothing left to classify by.
"""

import torch
from torch import Tensor, nn

from icbench.nets.moments import moments
from icbench.nets.running import RunningStatistics, standardised
from icbench.values import PositiveFloat, Rate


def build(channels: int, *, epsilon: PositiveFloat = 1e-5, momentum: Rate = 0.1) -> nn.Module:
    """`momentum` is the weight of the new batch in the running averages."""
    return AdaptiveInstanceNorm(channels, epsilon, momentum)


class AdaptiveInstanceNorm(RunningStatistics):
    """x: (N, C, H, W) -> the same shape."""

    running_deviation: Tensor

    def __init__(self, channels: int, epsilon: float, momentum: float):
        super().__init__(channels, momentum, affine=False)
        self.epsilon = epsilon
        self.register_buffer("running_deviation", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        exact = self.exact(x)
        mean, deviation = style(exact, self.epsilon)
        if self.training:
            style_mean, style_deviation = mean.mean(0), deviation.mean(0)
            self.follow(running_mean=style_mean, running_deviation=style_deviation)
        else:
            style_mean, style_deviation = self.running_mean, self.running_deviation
        return standardised(exact, mean, style_deviation / deviation, style_mean).to(x.dtype)


def style(images: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """(N, C, H, W) -> each image's means and deviations, both (N, C)."""
    mean, var = moments(images, (2, 3))
    return mean, torch.sqrt(var + epsilon)


def adain(content: Tensor, mean: Tensor, deviation: Tensor, epsilon: float = 1e-5) -> Tensor:
    """The paper's AdaIN: images (N, C, H, W) given the style `mean` and `deviation`, (C,) or (N, C)."""
    own_mean, own_deviation = style(content, epsilon)
    return standardised(content, own_mean, deviation / own_deviation, mean)
