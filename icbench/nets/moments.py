"""Mean and variance over some axes, with a gradient."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def moments(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of x over `dims`, which are gone from the results' shapes.

    As torch.var_mean with correction 0, whose pass over maps that lie channels_last takes ten times as long on the CPU.
    """
    mean, variance = _Moments.apply(x, dims) if x.device.type == "cpu" else _by_torch(x, dims)
    return mean, variance


def _by_torch(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x, dim=dims, correction=0)
    return mean, variance


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        mean = x.mean(dims, keepdim=True)
        variance = (x - mean).square_().mean(dims)  # two passes, which round as well as any one
        ctx.save_for_backward(x, mean)
        ctx.dims = dims
        return mean.reshape(variance.shape), variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_mean: Tensor, of_variance: Tensor) -> tuple[Tensor, None]:
        x, mean = ctx.saved_tensors
        count = x.numel() // mean.numel()
        by_variance = of_variance.reshape(mean.shape) * (2 / count)
        return torch.addcmul(of_mean.reshape(mean.shape) / count, x - mean, by_variance), None
