"""Batch normalisation with statistics of each time step (Cooijmans et al. 2017, arXiv 1603.09025, section 3).

Formula: y = scale (x - mean_t) / sqrt(var_t + epsilon) + shift; mean_t and var_t over the images, at each time step t;
scale and shift are shared over time.

Evaluation: running statistics of each step. The paper averages those of the training set after training.

Data parallel: statistics are of each rank's own images, whether or not the recipe has sync_batch_norm.

Needs: two images or more in a batch. One alone is its own mean: its output in training is the shift, and the running
statistics stay as they are, since one value has no unbiased variance. And images that differ from the first rows on:
each step before which all are alike multiplies rounding errors in the gradients by up to gamma / sqrt(epsilon), 32 by
default, so that four such rows can spoil training in float32. The paper adds noise to the first hidden state (section
5.1); epsilon = gamma^2 is a remedy too.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from icbench.values import PositiveFloat, Rate


def recurrent(
    features: int,
    steps: int,
    shift: bool = True,
    *,
    epsilon: PositiveFloat = 1e-5,
    momentum: Rate = 0.1,
    gamma: PositiveFloat = 0.1,
) -> nn.Module:
    """`momentum` is the weight of the new batch in the running statistics; `gamma` is the scale to begin with.

    The paper recommends 0.1: of variance 1, the arguments of tanh saturate it, and gradients vanish over time.
    """
    return _RecurrentBatchNorm(features, steps, shift, epsilon, momentum, gamma)


class _RecurrentBatchNorm(nn.Module):
    """x: (N, features) at a step from 0 up -> the same shape."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, features: int, steps: int, shift: bool, epsilon: float, momentum: float, gamma: float):
        super().__init__()
        self.epsilon = epsilon
        self.momentum = momentum
        self.weight = nn.Parameter(torch.full((features,), gamma))
        self.bias = nn.Parameter(torch.zeros(features)) if shift else None
        self.register_buffer("running_mean", torch.zeros(steps, features))
        self.register_buffer("running_var", torch.ones(steps, features))

    def forward(self, x: Tensor, step: int) -> Tensor:
        if self.training and len(x) == 1:
            scaled = (x - x) * self.weight
            return scaled if self.bias is None else scaled + self.bias
        return functional.batch_norm(
            x,
            self.running_mean[step],
            self.running_var[step],
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.epsilon,
        )
