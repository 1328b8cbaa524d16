"""What norms share whose evaluation uses running averages over the batches of training."""

import torch
from torch import Tensor, nn


class RunningStatistics(nn.Module):
    """A norm's scale and shift, both (C,), and its running averages: buffers, the mean (C,) among them.

    In training, each forward mixes the batch's statistics into the buffers once, by `follow`. `momentum` is the weight
    of the new batch: set to 1 / (k + 1) before batch k = 0, 1, ..., the buffers become plain averages over batches.
    Statistics are in the type of the buffers, the result in that of the input.

    used_in_training: whether training, too, depends on the running averages, which ranks then have to share.
    """

    used_in_training = False

    running_mean: Tensor

    def __init__(self, channels: int, momentum: float, *, affine: bool = True):
        super().__init__()
        self.momentum = momentum
        if affine:
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))

    def exact(self, x: Tensor) -> Tensor:
        """x in the type of the statistics."""
        return x.to(self.running_mean.dtype)

    def follow(self, **statistics: Tensor) -> None:
        """Mix a batch's statistics into the buffers of the same names."""
        with torch.no_grad():
            for name, value in statistics.items():
                self.get_buffer(name).lerp_(value, self.momentum)


def by_channel(values: Tensor) -> Tensor:
    """(C,) or (N, C) -> (C, 1, 1) or (N, C, 1, 1), which goes with maps (N, C, H, W)."""
    return values[..., None, None]


def standardised(x: Tensor, mean: Tensor, factor: Tensor, bias: Tensor) -> Tensor:
    """(x - mean) factor + bias in one pass over the maps x (N, C, H, W); the others are (C,) or (N, C)."""
    return torch.addcmul(by_channel(bias - mean * factor), x, by_channel(factor))
