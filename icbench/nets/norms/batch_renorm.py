"""Batch renormalisation: batch norm, corrected towards the running statistics (Ioffe 2017, arXiv 1702.03275).

Formula: y = scale ((x - mean_B) / sigma_B r + d) + shift; sigma_B = sqrt(var_B + epsilon), r = sigma_B / sigma clipped
to [1 / R, R], d = (mean_B - mean) / sigma clipped to [-D, D]. mean and sigma are the running ones before this batch;
no gradient passes r and d.

R = 1 and D = 0, which is batch norm, for the first `warmup` training steps; then R grows linearly to `r_max` within
`r_steps` steps and D to `d_max` within `d_steps`: by the paper's defaults until steps 40,000 and 25,000. They count in
batches, so a shorter training should ramp sooner.

Evaluation: (x - mean) / sigma by the running averages of mean_B and of sigma_B (not of the variance), as in the paper.

Data parallel: a batch's statistics are of each rank's own images; the running ones are the first rank's.

Needs: more than one value a channel, as batch norm does; of a single one the deviation is sqrt(epsilon).
"""

import torch
from torch import Tensor, nn

from icbench.nets.moments import moments
from icbench.nets.running import RunningStatistics, standardised
from icbench.values import AtLeastOne, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Rate


def build(
    channels: int,
    *,
    epsilon: PositiveFloat = 1e-5,
    momentum: Rate = 0.01,
    r_max: AtLeastOne = 3.0,
    d_max: NonNegativeFloat = 5.0,
    warmup: NonNegativeInt = 5000,
    r_steps: PositiveInt = 35000,
    d_steps: PositiveInt = 20000,
) -> nn.Module:
    """`momentum` is the weight of the new batch (the paper's alpha).

    `warmup`: training steps as plain batch norm; `r_steps` and `d_steps`: how many it then takes the bounds on r and d
    to grow from 1 to `r_max` and from 0 to `d_max`.
    """
    return BatchRenorm(
        channels, epsilon, momentum, r_max=r_max, d_max=d_max, warmup=warmup, r_steps=r_steps, d_steps=d_steps
    )


class BatchRenorm(RunningStatistics):
    """x: (N, C, H, W) -> the same shape. `steps`: training batches so far."""

    used_in_training = True
    running_sigma: Tensor
    steps: Tensor

    def __init__(
        self,
        channels: int,
        epsilon: float,
        momentum: float,
        *,
        r_max: float,
        d_max: float,
        warmup: int,
        r_steps: int,
        d_steps: int,
    ):
        super().__init__(channels, momentum)
        self.epsilon = epsilon
        self.r_max, self.d_max = r_max, d_max
        self.warmup, self.r_steps, self.d_steps = warmup, r_steps, d_steps
        self.register_buffer("running_sigma", torch.ones(channels))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        exact = self.exact(x)
        if not self.training:
            factor = self.weight / self.running_sigma
            return standardised(exact, self.running_mean, factor, self.bias).to(x.dtype)
        mean, var = moments(exact, (0, 2, 3))
        sigma = torch.sqrt(var + self.epsilon)
        r, d = self._corrections(mean, sigma)
        self.follow(running_mean=mean, running_sigma=sigma)
        return standardised(exact, mean, self.weight * r / sigma, self.bias + self.weight * d).to(x.dtype)

    @torch.no_grad()
    def _corrections(self, mean: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """r and d, both (C,), within the bounds of this step, which is counted."""
        ramped = (self.steps - self.warmup).to(mean.dtype)
        largest_r = 1 + (self.r_max - 1) * (ramped / self.r_steps).clamp(0, 1)
        largest_d = self.d_max * (ramped / self.d_steps).clamp(0, 1)
        self.steps.add_(1)
        r = (sigma / self.running_sigma).clamp(1 / largest_r, largest_r)
        d = ((mean - self.running_mean) / self.running_sigma).clamp(-largest_d, largest_d)
        return r, d
