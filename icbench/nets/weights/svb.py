"""Singular value bounding: orthogonal weights are kept nearly so during training (Jia et al. 2017, arXiv 1611.06013).

Formula: W = U diag(s) V' -> U diag(min(max(s, 1/factor), factor)) V', now and then; W is the (out, in k k) matrix.

Data parallel: every rank bounds its own copy of the same weights.

Needs: a training loop that calls `after_steps` whenever `every` divides the steps done. The classifier stays plain.

The initial weights are orthogonal (orthonormal rows or columns), drawn from torch's global generator, whatever the
recipe's initialisation is. The paper's bounded batch normalisation, which goes with it, is not part of this.
"""

import torch
from torch import nn

from icbench.nets.replacement import Replacement
from icbench.nets.singular_values import bound
from icbench.values import AboveOne, PositiveInt


def build(convolution: nn.Conv2d, *, every: PositiveInt = 391, factor: AboveOne = 1.5) -> nn.Module:
    """After each `every` optimiser steps singular values are clipped to [1/factor, factor].

    391 steps are an epoch of CIFAR at a batch size of 128.
    """
    return BoundedConvolution(convolution, every, factor)


class BoundedConvolution(Replacement):
    """A plain convolution but for its initial weight and for `after_steps`."""

    def __init__(self, convolution: nn.Conv2d, every: int, factor: float):
        super().__init__(convolution)
        self.every = every
        self.factor = factor
        nn.init.orthogonal_(self.weight)

    @torch.no_grad()
    def after_steps(self) -> None:
        """Clip the singular values of the weight; called by the training loop, after `every` steps."""
        self.weight.copy_(bound(self.weight.flatten(1), self.factor).view_as(self.weight))
