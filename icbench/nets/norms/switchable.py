"""Switchable normalisation: a learnt mix of instance, layer and batch moments (Luo et al. 2018, arXiv 1806.10779).

Formula: y = scale (x - mean) / sqrt(var + epsilon) + shift; mean = softmax(a) . (mean_in, mean_ln, mean_bn) and
var = softmax(b) . (var_in, var_ln, var_bn). The logits a and b, three each and all 1 at first, are learnt with the net.

The moments are those of the authors' code: var_in divides by H W - 1 (it is 0 in maps of one pixel), and with
q = var_in + mean_in^2, var_ln is the mean of q over channels less mean_ln^2, var_bn the mean of q over images less
mean_bn^2. Computed here as mean of var_in plus variance of mean_in, which is the same and cannot become negative.

Evaluation: instance and layer moments of the image itself; running averages of mean_bn and var_bn, which begin at 0 and
1. The authors also take plain averages over training batches with the final weights instead.

Data parallel: batch moments are of each rank's own images.

Needs: nothing; of one image, batch and instance moments are the same.
"""

import torch
from torch import Tensor, nn

from icbench.nets.moments import moments
from icbench.nets.running import RunningStatistics, standardised
from icbench.values import PositiveFloat, Rate


def build(channels: int, *, epsilon: PositiveFloat = 1e-5, momentum: Rate = 0.1) -> nn.Module:
    """`momentum` is the weight of the new batch in the running statistics (the paper's 0.9 is 1 - momentum)."""
    return SwitchableNorm(channels, epsilon, momentum)


class SwitchableNorm(RunningStatistics):
    """x: (N, C, H, W) -> the same shape. The logits' order: instance, layer, batch."""

    running_var: Tensor

    def __init__(self, channels: int, epsilon: float, momentum: float):
        super().__init__(channels, momentum)
        self.epsilon = epsilon
        self.mean_logits = nn.Parameter(torch.ones(3))
        self.var_logits = nn.Parameter(torch.ones(3))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        exact = self.exact(x)
        instance_mean, biased = moments(exact, (2, 3))
        pixels = x.shape[2] * x.shape[3]
        instance_var = biased * (pixels / max(1, pixels - 1))
        layer_var, layer_mean = _pooled(instance_var, instance_mean, 1)
        if self.training:
            batch_var, batch_mean = _pooled(instance_var, instance_mean, 0)
            self.follow(running_mean=batch_mean[0], running_var=batch_var[0])
        else:
            batch_var, batch_mean = self.running_var, self.running_mean
        mean = _mixed(self.mean_logits, instance_mean, layer_mean, batch_mean)
        var = _mixed(self.var_logits, instance_var, layer_var, batch_var)
        return standardised(exact, mean, torch.rsqrt(var + self.epsilon) * self.weight, self.bias).to(x.dtype)


def _pooled(var: Tensor, mean: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Variance and mean of what the (N, C) parts along `dim` are together."""
    between, pooled = torch.var_mean(mean, dim=dim, correction=0, keepdim=True)
    return var.mean(dim, keepdim=True) + between, pooled


def _mixed(logits: Tensor, instance: Tensor, layer: Tensor, batch: Tensor) -> Tensor:
    weights = torch.softmax(logits, 0)
    return weights[0] * instance + weights[1] * layer + weights[2] * batch
