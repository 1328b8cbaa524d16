"""An IC layer of batch norm and fast dropout whose two parts are one operation on the CPU.

gate (scale x_hat + shift) / (1 - p) = gate (scale' x_hat + shift'), where scale' and shift' are divided by 1 - p
already: dropout is then zeros at a few places of the norm's output, and no pass of its own over the maps.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from icbench.nets.gaps import GapDropout, layout, successes, zero
from icbench.nets.ic import IC


class FastIC(IC):
    """As the IC that it takes the place of, with gates drawn as GapDropout draws them. x: (N, C, H, W) -> the same.

    gradient_is_own: what the layer behind makes is a gradient for this layer alone, which may be overwritten.
    """

    norm: nn.BatchNorm2d
    dropout: GapDropout

    def __init__(self, norm: nn.BatchNorm2d, dropout: GapDropout, *, gradient_is_own: bool):
        super().__init__(norm, dropout)
        self.gradient_is_own = gradient_is_own

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        # Of a single value a channel there is no variance, which torch's module says.
        if not (norm.training and self.dropout.draws_gaps(x) and x.numel() > x.shape[1]):
            return super().forward(x)
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        gated: Tensor = _NormAndGate.apply(x, norm.weight, norm.bias, norm, self.dropout.p, self.gradient_is_own)
        return gated


class _NormAndGate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d, rate: float, gradient_is_own: bool
    ) -> Tensor:
        scale = 1 / (1 - rate)
        weight, bias = weight * scale, bias * scale
        running = norm.running_mean, norm.running_var
        assert norm.momentum is not None
        gated, mean, inverse = torch.native_batch_norm(x, weight, bias, *running, True, norm.momentum, norm.eps)
        zeros = successes(gated.numel(), rate)
        zero(gated, zeros)
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.running, ctx.eps = running, norm.eps
        ctx.zeros, ctx.scale, ctx.lying, ctx.gradient_is_own = zeros, scale, layout(gated), gradient_is_own
        return gated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        if not (ctx.gradient_is_own and gradient.is_contiguous(memory_format=ctx.lying)):
            gradient = gradient.clone(memory_format=ctx.lying)
        zero(gradient, ctx.zeros)
        by_x, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, *ctx.running, mean, inverse, True, ctx.eps, [True, True, True]
        )
        return by_x, by_weight * ctx.scale, by_bias * ctx.scale, None, None, None


def part(net: nn.Module) -> None:
    """Make two operations of them again, whose outputs can be seen one by one."""
    for name, layer in list(net.named_modules()):
        if type(layer) is FastIC:
            net.set_submodule(name, IC(layer.norm, layer.dropout))


def join(net: nn.Module) -> None:
    """Make one operation of every batch norm and fast dropout that are an IC layer."""
    for parent in list(net.modules()):
        children = list(parent.named_children())
        for index, (name, layer) in enumerate(children):
            if type(layer) is IC and type(layer.norm) is nn.BatchNorm2d and type(layer.dropout) is GapDropout:
                # Convolutions in a row make gradients for what is right before them; at a branch's end the sum shares.
                behind = children[index + 1][1] if type(parent) is nn.Sequential and name != children[-1][0] else None
                own = type(behind) is nn.Conv2d
                parent.set_submodule(name, FastIC(layer.norm, layer.dropout, gradient_is_own=own))
