"""Layers that overwrite what nobody needs any more: the same bits in fewer passes over memory.

But for nets one channel wide, whose sums may then lie otherwise in memory and are added up in another order.

For training and evaluation only. Who looks into a net, at what a convolution gave, should look at one without.
"""

from itertools import pairwise

from torch import nn

from icbench.nets.gaps import GapDropout
from icbench.nets.ic import IC
from icbench.nets.resnet import Unit


def work_in_place(net: nn.Module) -> None:
    """Change a net that was just built: ReLUs overwrite their input, and units add to their branch, where they may.

    They may where the layer before made that tensor for them alone and does not need it for its gradient.
    """
    for module in net.modules():
        if type(module) is nn.Sequential:
            for before, layer in pairwise(module):
                if type(layer) is nn.ReLU and _gives_away(before):
                    layer.inplace = True
        elif isinstance(module, Unit):
            module.in_place = _gives_away(module.branch)
            first = next(iter(module.after.children()), None)
            if type(first) is nn.ReLU:  # of a sum that is nobody else's
                first.inplace = True


def _gives_away(layer: nn.Module) -> bool:
    """Whether the layer's output is a new tensor that its gradient does not take. Only layers that are known to."""
    match layer:
        case IC():  # dropout, too, takes its gates and not its output; at rate 0 it gives the norm's
            return _gives_away(layer.norm) and type(layer.dropout) in (nn.Dropout, GapDropout)
        case nn.Sequential():
            return len(layer) > 0 and _gives_away(layer[-1])
    return type(layer) in (nn.Conv2d, nn.BatchNorm2d)
