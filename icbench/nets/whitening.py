"""Whitening of groups of channels, as ZCA (nets/norms/zca.py) and IterNorm (nets/norms/iternorm.py) do it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from icbench.nets.running import RunningStatistics, by_channel


class Whitening(RunningStatistics):
    """x: (N, C, H, W) -> scale W (x - mean) + shift, W = inverse_root(covariance + epsilon I) of each group.

    inverse_root: (G, D, D) symmetric -> (G, D, D), an inverse square root, for G groups of D consecutive channels.
    running_whitening is the average of W over batches.
    """

    running_whitening: Tensor

    def __init__(
        self,
        channels: int,
        group_size: int,
        epsilon: float,
        momentum: float,
        inverse_root: Callable[[Tensor], Tensor],
    ):
        super().__init__(channels, momentum)
        if channels % group_size:
            raise ValueError(f"groups of {group_size} channels cannot divide {channels}")
        self.epsilon = epsilon
        self.groups = channels // group_size
        self.inverse_root = inverse_root
        self.register_buffer("running_whitening", torch.eye(group_size).repeat(self.groups, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        with _without_autocast(x):
            exact = self.exact(x)
            if self.training:
                mean = exact.mean((0, 2, 3))
                centred = exact - by_channel(mean)
                whitening = self.inverse_root(self._covariance(centred))
                self.follow(running_mean=mean, running_whitening=whitening)
            else:
                centred = exact - by_channel(self.running_mean)
                whitening = self.running_whitening
            # As a convolution, grouping needs no copy of the maps, whatever their layout in memory.
            kernels = by_channel(whitening.flatten(0, 1) * self.weight[:, None])
            return conv2d(centred, kernels, self.bias, groups=self.groups).to(x.dtype)

    def _covariance(self, centred: Tensor) -> Tensor:
        """(N, C, H, W) with mean 0 -> (G, D, D), with epsilon on the diagonal."""
        size = centred.shape[1] // self.groups
        # A view, where maps are channels-last in memory.
        pixels = centred.permute(0, 2, 3, 1).reshape(-1, self.groups, size).transpose(0, 1)
        diagonal = self.epsilon * torch.eye(size, dtype=centred.dtype, device=centred.device)
        return torch.baddbmm(diagonal, pixels.mT, pixels, alpha=1 / pixels.shape[1])


def _without_autocast(x: Tensor) -> AbstractContextManager[object]:
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
