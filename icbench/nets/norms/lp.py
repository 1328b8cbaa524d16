"""Lp batch normalisation by means of |x - mean|^p (Hoffer et al. 2018, arXiv 1803.01814; Liao et al. 2016, 1610.06160).

Formula: y = scale (x - mean) / sqrt(d^2 + epsilon) + shift; d = (E|x - mean|^p)^(1/p), means over N, H, W.

So p = 2 is batch norm, and the divisor is at least sqrt(epsilon) for any p. By p = 1, a Gaussian's standard deviation
becomes sqrt(pi/2) = 1.2533: the constant by which Hoffer et al. multiply is left to the scale.

Evaluation: running averages of the mean and of the p-th power (biased, also where p = 2; torch's batch norm has the
unbiased variance there).

Streaming (`streaming: true`): training, too, normalises by the running averages, after this batch has been mixed into
them with weight `momentum`; so it is defined for batches of any size, and training and evaluation agree. The gradient
passes this batch's share of the averages alone. This departs from Liao et al., who also average the gradients with
respect to the statistics over past batches, with coefficients of their own, and may update weights once in several
batches. Powers are about the batch's own mean, so the spread of the batches' means is not in them.

Data parallel: statistics are of each rank's own images; the running ones of streaming are the first rank's.

Needs: p >= 1, below which it is no norm, and not so large that |x - mean|^p is beyond the type's range. Without
streaming, more than one value a channel.
"""

import torch
from torch import Tensor, nn

from icbench.nets.running import RunningStatistics, by_channel
from icbench.values import AtLeastOne, PositiveFloat, Rate


def build(
    channels: int,
    *,
    epsilon: PositiveFloat = 1e-5,
    momentum: Rate = 0.1,
    p: AtLeastOne = 1.0,
    streaming: bool = False,
) -> nn.Module:
    """`momentum` is the weight of the new batch in the running statistics; for `streaming` see above."""
    return LpNorm(channels, epsilon, momentum, p, streaming=streaming)


class LpNorm(RunningStatistics):
    """x: (N, C, H, W) -> the same shape. running_power: E|x - mean|^p."""

    running_power: Tensor

    def __init__(self, channels: int, epsilon: float, momentum: float, p: float, *, streaming: bool):
        super().__init__(channels, momentum)
        self.epsilon = epsilon
        self.p = p
        self.streaming = self.used_in_training = streaming
        self.register_buffer("running_power", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        exact = self.exact(x)
        if self.training:
            centred, deviation = self._by_the_batch(exact)
        else:
            centred, deviation = exact - by_channel(self.running_mean), self._root(self.running_power)
        factor = self.weight * torch.rsqrt(deviation.square() + self.epsilon)
        return torch.addcmul(by_channel(self.bias), centred, by_channel(factor)).to(x.dtype)

    def _by_the_batch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x less its mean, (N, C, H, W), and its deviation, (C,); the running averages follow."""
        mean = x.mean((0, 2, 3))
        centred = x - by_channel(mean)
        own_power = power = self._powers(centred).mean((0, 2, 3))
        if self.streaming:
            centred = x - by_channel(torch.lerp(self.running_mean, mean, self.momentum))
            power = torch.lerp(self.running_power, own_power, self.momentum)
        self.follow(running_mean=mean, running_power=own_power)
        return centred, self._root(power)

    def _powers(self, values: Tensor) -> Tensor:
        # The common ones in one pass. torch.linalg.vector_norm would take one for any p, but adds up less exactly.
        if self.p == 2:
            return values.square()
        return values.abs() if self.p == 1 else values.abs().pow(self.p)

    def _root(self, power: Tensor) -> Tensor:
        # Away from 0, where the root is infinitely steep.
        return power.clamp(min=torch.finfo(power.dtype).tiny).pow(1 / self.p)
