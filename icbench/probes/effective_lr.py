"""Effective learning rate: step size relative to the weights' length, layer by layer (van Laarhoven 2017).

A weight w in front of a normalisation has a direction only: the loss is the same for all multiples of w, and the
gradient is orthogonal to w and falls as 1 / |w|. Then the direction learns at the effective rate
effective_learning_rate = learning rate / |w|^2 (van Laarhoven 2017, arXiv 1706.05350, section 3, for gradient descent;
Zhang et al. 2019, arXiv 1810.12281). weight_norm is |w|, in l2 over the whole layer.

Which layers have that invariance, radial_gradient_cosine says: of the weight and the gradient of its loss; by Euler's
theorem it is 0 if and only if the loss does not change with the length of w. A bias before the norm or a residual
addition breaks it.

For Adam, whose steps do not scale with the gradient, what is measured counts: relative_update, |change of w| / |w| of
a step, and update_angle, the angle between w before and after it, in radians; over the training's next steps.

w is what the optimiser changes: of weight normalisation v, of weights cosine and normprop the filter before it is
normalised, for which the invariance is exact. n: steps, which follow one another and are not quite independent; of the
first two 1.

Cost: by default 20 steps: 1,280 images forward and backward in batches of 64.
"""

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor

from icbench.probing.layers import learned, weight_layers
from icbench.probing.measurement import Measurement, Probe, mean_of
from icbench.probing.subject import Subject
from icbench.values import PositiveInt


def build(*, steps: PositiveInt = 20) -> Probe:
    """`steps`: how many of the training's next ones are watched."""
    return _EffectiveRate(steps)


class _EffectiveRate:
    def __init__(self, steps: int):
        self.steps = steps

    def __call__(self, subject: Subject) -> Iterator[Measurement]:
        weights = {name: learned(layer) for name, layer in weight_layers(subject.net).items()}
        rate = float(subject.optimizer.param_groups[0]["lr"])  # all groups have the same
        for name, weight in weights.items():
            length = _length(weight)
            yield Measurement(name, "weight_norm", length, None, 1)
            if length:
                yield Measurement(name, "effective_learning_rate", rate / length**2, None, 1)
        observed: dict[tuple[str, str], list[float]] = defaultdict(list)
        before: dict[str, Tensor] = {}
        for step in subject.steps(self.steps):
            for name, weight in weights.items():
                if step:
                    for statistic, value in _of_a_step(before[name], weight).items():
                        observed[name, statistic].append(value)
                before[name] = weight.detach().clone()
        for (name, statistic), values in observed.items():
            yield from mean_of(name, statistic, values)


def _of_a_step(before: Tensor, after: Tensor) -> dict[str, float]:
    """`after` has the gradient at `before`."""
    start, end = before.double().flatten(), after.detach().double().flatten()
    change, length = torch.linalg.vector_norm(end - start), torch.linalg.vector_norm(start)
    unit_start, unit_end = start / length, end / torch.linalg.vector_norm(end)
    # Exact for small angles, where the cosine is not.
    half = torch.linalg.vector_norm(unit_end - unit_start) / 2
    found = {"relative_update": (change / length).item(), "update_angle": 2 * torch.asin(half.clamp(max=1)).item()}
    assert after.grad is not None
    gradient = after.grad.double().flatten()
    if gradient.any():
        found["radial_gradient_cosine"] = (unit_start @ gradient / torch.linalg.vector_norm(gradient)).item()
    return found


def _length(weight: Tensor) -> float:
    length: float = torch.linalg.vector_norm(weight.detach().double()).item()
    return length
