"""Smoothness of the loss along its gradient, at moments of the training (Santurkar et al. 2018, section 3.1-3.2).

At each moment a batch's loss L and gradient g are taken at points x - s g / |g| along the gradient at x, as figure 4 of
arXiv 1805.11604 does. Over the points, without x: loss_minimum, loss_maximum and their difference loss_range, in nats;
gradient_change, max |g(x - d) - g(x)| in l2 (the paper's gradient predictiveness); beta_smoothness, the effective one,
max |g(x - d) - g(x)| / |d|. gradient_norm is |g(x)|, relative_gradient_change is gradient_change / |g(x)|.

The lengths s go from `shortest` to `longest` times that of the step that the optimiser has just made, so that they are
as long as those of the training, also for Adam, whose steps are no multiples of the gradient. The paper's are [1/2, 4]
times the learning rate times this gradient: of gradient descent without momentum the same, but for the batch that the
last step's gradient was of.

All points of a moment have the same images, in a batch of the recipe's size and not augmented, and the same dropout
gates; batch statistics are those of the point. In float32 at least. n: moments. Standard errors take them as
independent; moments follow each other within few steps, so between trainings the values scatter by more.

Cost: by default 25 steps and 5 x 9 points: 4,480 images forward and backward in batches of 64.
"""

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor

from icbench.probing.landscape import Landscape, flat
from icbench.probing.measurement import Measurement, Probe, mean_of
from icbench.probing.subject import Subject
from icbench.values import PositiveFloat, PositiveInt


def build(
    *,
    moments: PositiveInt = 5,
    spacing: PositiveInt = 5,
    points: PositiveInt = 8,
    shortest: PositiveFloat = 0.5,
    longest: PositiveFloat = 4.0,
) -> Probe:
    """`moments`: how many, each `spacing` steps after the last; `points`: how many of each, at equal distances."""
    return _Smoothness(moments, spacing, torch.linspace(shortest, longest, points).tolist())


class _Smoothness:
    def __init__(self, moments: int, spacing: int, factors: list[float]):
        self.moments, self.spacing, self.factors = moments, spacing, factors

    def __call__(self, subject: Subject) -> Iterator[Measurement]:
        found: dict[str, list[float]] = defaultdict(list)
        # All at once: data that are streamed are read by one plan at a time, and the steps have their own.
        batches = iter(list(subject.batches(self.moments * subject.config.recipe.batch_size)))
        before = torch.empty(0)
        for step in subject.steps(self.moments * self.spacing):
            now = flat(list(subject.net.parameters()))
            if step and step % self.spacing == 0:
                batch = next(batches, None)
                length = torch.linalg.vector_norm(now - before).item()
                if batch is None or length == 0:
                    break
                for statistic, value in _along(Landscape(subject.net, *batch), length, self.factors).items():
                    found[statistic].append(value)
            before = now
        for statistic, values in found.items():
            yield from mean_of("", statistic, values)


def _along(landscape: Landscape, length: float, factors: list[float]) -> dict[str, float]:
    """What one moment shows, at `factors` times `length` along the gradient; nothing where that is 0."""
    _, first = landscape.here()
    norm = _norm(first)
    if norm == 0:
        return {}
    losses, changes, smoothness = [], [], []
    for factor in factors:
        loss, gradient = landscape.at([each * (-factor * length / norm) for each in first])
        change = _norm(torch._foreach_sub(gradient, first))
        losses.append(loss)
        changes.append(change)
        smoothness.append(change / (factor * length))
    return {
        "loss_minimum": min(losses),
        "loss_maximum": max(losses),
        "loss_range": max(losses) - min(losses),
        "gradient_norm": norm,
        "gradient_change": max(changes),
        "relative_gradient_change": max(changes) / norm,
        "beta_smoothness": max(smoothness),
    }


def _norm(tensors: list[Tensor] | tuple[Tensor, ...]) -> float:
    norm: float = torch.linalg.vector_norm(flat(tensors)).item()
    return norm
