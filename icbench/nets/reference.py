"""The reference batch that virtual batch normalisation needs in front of every batch (see nets/norms/virtual.py)."""

import torch
from torch import Tensor, nn


class ReferenceBatch(nn.Module):
    """Runs `net` on a fixed reference batch and x together; returns the results of x alone.

    images: (R, C, H, W), part of the state: zeros until `take` fills it. x: (N, C, H, W). In training, dropout gates
    the reference as it does the batch, anew in each step.
    """

    images: Tensor

    def __init__(self, net: nn.Module, shape: tuple[int, int, int, int]):
        super().__init__()
        self.net = net
        self.register_buffer("images", torch.zeros(shape))

    @torch.no_grad()
    def take(self, images: Tensor) -> None:
        """Make `images`, of the reference's shape, the reference."""
        if images.shape != self.images.shape:
            raise ValueError(f"the reference is {tuple(self.images.shape)}, not {tuple(images.shape)}")
        self.images.copy_(images)

    def forward(self, x: Tensor) -> Tensor:
        results: Tensor = self.net(torch.cat([self.images.to(x.dtype), x]))
        return results[len(self.images) :]
