"""Batch norm in evaluation as part of the convolution before it: the same function in fewer passes over the maps.

With running statistics batch norm is a factor and a shift of each channel, which the convolution's weight and bias can
have in them. Behind a convolution only: before one, its shift would have to reach into the zeros of the padding.
"""

import copy
from collections.abc import Iterator
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from icbench.nets.ic import IC


def folded(net: nn.Module) -> nn.Module:
    """A net that gives what `net` gives in evaluation mode, but for rounding, with its weights as they are now.

    It is `net` itself where there is nothing to fold.
    """
    if next(_norms(net), None) is None:
        return net
    net = copy.deepcopy(net)
    for convolution, owner, name in list(_norms(net)):
        norm = getattr(owner, name)
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        setattr(owner, name, nn.Identity())
    return net


def _norms(net: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.Module, str]]:
    """Each convolution right before a batch norm, the module that has the norm, and its name there."""
    for module in net.modules():
        if type(module) is nn.Sequential:
            children = list(module.named_children())
            for (_, before), (name, behind) in pairwise(children):
                convolution = before[-1] if type(before) is nn.Sequential and len(before) else before
                owner, name, norm = (behind, "norm", behind.norm) if isinstance(behind, IC) else (module, name, behind)
                if type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
                    yield convolution, owner, name
