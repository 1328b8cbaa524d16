"""Decorrelated batch normalisation: ZCA whitening of groups of 16 channels (Huang et al. 2018, arXiv 1804.08450).

Formula: y = scale S^(-1/2) (x - mean) + shift; mean over N, H, W, S = covariance + epsilon I of each group of
consecutive channels; scale and shift by channel.

S^(-1/2) is taken by eigendecomposition, in the type of the parameters whatever the precision; its gradient has no
difference of eigenvalues in a denominator, so equal ones do no harm. A batch that is not finite gives NaN.

Evaluation: running averages of the mean and of the matrices S^(-1/2), as in the paper.

Data parallel: statistics are of each rank's own images.

Needs: group_size divides the net's width; many more values a channel than channels a group, or epsilon decides.
On GPUs, each layer's eigendecomposition makes the host wait for the device.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from icbench.nets.whitening import Whitening
from icbench.values import ChannelDivisor, PositiveFloat, Rate

# The decomposition looks at its result, which the GPU has to be waited for: no CUDA graph can hold it.
CAPTURABLE = False


def build(
    channels: int, *, epsilon: PositiveFloat = 1e-5, momentum: Rate = 0.1, group_size: ChannelDivisor = 16
) -> nn.Module:
    """`group_size`: the channels of a group; `momentum`: the weight of the new batch in the running statistics."""
    return Whitening(channels, group_size, epsilon, momentum, inverse_root)


def inverse_root(matrices: Tensor) -> Tensor:
    """(G, D, D) symmetric positive definite -> their inverse square roots; NaN for those that are not finite."""
    root: Tensor = _InverseRoot.apply(matrices)
    return root


class _InverseRoot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> Tensor:
        # eigh raises on what is not finite: a diverged training should come to its loss instead, which tells.
        finite = matrices.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
        identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
        values, vectors = torch.linalg.eigh(torch.where(finite, matrices, identity))
        # Rounding of very unequal eigenvalues may leave the least ones negative.
        least = values[..., -1:] * torch.finfo(values.dtype).eps
        roots = values.maximum(least).sqrt()
        ctx.save_for_backward(roots, vectors)
        return torch.where(finite, (vectors / roots[..., None, :]) @ vectors.mT, torch.nan)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Daleckii and Krein: entries in the eigenbasis times divided differences of l^(-1/2), l the eigenvalues."""
        roots, vectors = ctx.saved_tensors
        rows, columns = roots[..., :, None], roots[..., None, :]
        inner = vectors.mT @ gradient @ vectors
        outer: Tensor = vectors @ (-inner / (rows * columns * (rows + columns))) @ vectors.mT
        return outer
