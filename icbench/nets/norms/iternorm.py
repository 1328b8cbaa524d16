"""Iterative normalisation: groups of 16 channels whitened by Newton's method (Huang et al. 2019, arXiv 1904.03441).

Formula: y = scale W (x - mean) + shift; S = covariance + epsilon I of each group of consecutive channels, N = S / tr S,
P_0 = I, P_k+1 = (3 P_k - P_k^3 N) / 2, W = P_T / sqrt(tr S) with T = `iterations`. W approaches S^(-1/2); after few
iterations, directions of little variance are whitened only in part.

Evaluation: running averages of the mean and of the matrices W.

Data parallel: statistics are of each rank's own images.

Needs: group_size divides the net's width (the paper's 64 cannot divide 16). Iterations beyond convergence amplify
rounding errors, and may end in NaN.
"""

from functools import partial

import torch
from torch import Tensor, nn

from icbench.nets.whitening import Whitening
from icbench.values import ChannelDivisor, PositiveFloat, PositiveInt, Rate


def build(
    channels: int,
    *,
    epsilon: PositiveFloat = 1e-5,
    momentum: Rate = 0.1,
    group_size: ChannelDivisor = 16,
    iterations: PositiveInt = 5,
) -> nn.Module:
    """`group_size`: the channels of a group; `momentum`: the weight of the new batch in the running statistics."""
    return Whitening(channels, group_size, epsilon, momentum, partial(newton_inverse_root, iterations=iterations))


def newton_inverse_root(matrices: Tensor, *, iterations: int) -> Tensor:
    """(G, D, D) symmetric positive definite -> approximately their inverse square roots."""
    traces = matrices.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    normal = matrices / traces
    # P_1 in closed form, since P_0 is the identity.
    root = 1.5 * torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device) - 0.5 * normal
    for _ in range(iterations - 1):
        root = torch.baddbmm(root, root @ root @ root, normal, beta=1.5, alpha=-0.5)
    return root * torch.rsqrt(traces)
