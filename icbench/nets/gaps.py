"""Dropout drawn by the gaps between the dropped elements: the same distribution, a fraction of the random numbers.

Of independent Bernoulli(p) gates the numbers of ones between two zeros are independent and geometric: P(gap = k) =
(1 - p)^k p (Devroye 1986, Non-Uniform Random Variate Generation, section X.2). So a rate of 0.05 costs a twentieth of
the random numbers, and neither pass needs a mask: a multiplication, then zeros at a few places.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import dropout

_MOST = 0.5  # above, there are more zeros than ones


class GapDropout(nn.Dropout):
    """nn.Dropout, faster on the CPU at rates up to 1/2; else it is nn.Dropout. x: any shape -> the same shape.

    The gates are exactly Bernoulli, up to the 53 bits of a double, but not those that nn.Dropout draws from a seed.
    """

    def draws_gaps(self, x: Tensor) -> bool:
        """Whether it is not nn.Dropout for x."""
        return self.training and x.device.type == "cpu" and 0 < self.p <= _MOST

    def forward(self, input: Tensor) -> Tensor:
        if self.draws_gaps(input):
            gated: Tensor = _Gate.apply(input, self.p)
            return gated
        return dropout(input, self.p, self.training)


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        ctx.zeros, ctx.scale, ctx.layout = successes(x.numel(), rate), 1 / (1 - rate), layout(x)
        return _gated(x, ctx.zeros, ctx.scale, ctx.layout)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _gated(gradient, ctx.zeros, ctx.scale, ctx.layout), None


def layout(x: Tensor) -> torch.memory_format:
    """How a dense x lies in memory."""
    channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format


def _gated(x: Tensor, zeros: Tensor, scale: float, lying: torch.memory_format) -> Tensor:
    """scale x, 0 at `zeros`, which count elements as they lie in memory in that layout."""
    gated = x.contiguous(memory_format=lying) * scale
    zero(gated, zeros)
    return gated


def zero(x: Tensor, places: Tensor) -> None:
    """Zero the elements of a dense x at `places`, which count them as they lie in memory."""
    x.as_strided((x.numel(),), (1,)).index_fill_(0, places, 0.0)


def successes(count: int, rate: float) -> Tensor:
    """Which of `count` independent trials succeed, each with probability `rate`, in rising order: (successes,) int64.

    Draws from torch's CPU generator: as many numbers as will do, but for one case in a billion, which draws again.
    """
    log_failure = math.log1p(-rate)
    expected = count * rate
    enough = min(count, math.ceil(expected + 6 * math.sqrt(expected) + 6))
    found: list[Tensor] = []
    last = -1.0
    while last < count:
        # 1 - U is in (0, 1], so that its logarithm is finite; in place, since each pass is as long as the drawing.
        gaps = torch.rand(enough, dtype=torch.float64).neg_().log1p_().div_(log_failure).floor_().add_(1)
        found.append(gaps.cumsum_(0).add_(last))
        last = found[-1][-1].item()
    places = torch.cat(found) if len(found) > 1 else found[0]
    return places[: int(torch.searchsorted(places, count))].long()
