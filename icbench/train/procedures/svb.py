"""Singular value bounding of the convolutions' kernels as training goes on (Jia et al. 2017, arXiv 1611.06013).

Formula: after every `every` steps, W = U S V' -> U clip(S, 1/factor, factor) V', W a kernel as an (out, in k k) matrix.

The weights start as the recipe says; the weight `svb` begins with orthogonal ones, as the paper does.

Needs: plain weights. One singular value decomposition of each kernel every so many steps.
"""

from typing import TYPE_CHECKING

from icbench.procedure import Procedure
from icbench.values import AboveOne, PositiveInt

if TYPE_CHECKING:
    from torch import nn


def build(*, every: PositiveInt = 391, factor: AboveOne = 1.5) -> Procedure:
    """391 steps are an epoch of CIFAR-10 in batches of 128."""
    return _Bound(every, factor)


class _Bound(Procedure):
    def __init__(self, every: int, factor: float):
        self.every = every
        self.factor = factor

    def attach(self, net: "nn.Module") -> None:
        if not _plain(net):
            raise ValueError("there is no convolution with plain weights, whose singular values could be bounded")

    def stepped(self, net: "nn.Module", steps: int) -> bool:
        import torch

        from icbench.nets.singular_values import bound

        if steps % self.every:
            return False
        with torch.no_grad():
            for convolution in _plain(net):
                weight = convolution.weight
                weight.copy_(bound(weight.flatten(1), self.factor).view_as(weight))
        return True


def _plain(net: "nn.Module") -> "list[nn.Conv2d]":
    from torch import nn

    return [module for module in net.modules() if type(module) is nn.Conv2d]
