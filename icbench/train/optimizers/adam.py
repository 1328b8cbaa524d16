"""Adam with coupled weight decay, fused (Kingma and Ba 2015, arXiv 1412.6980)."""

from typing import Any

from torch import optim

from icbench.train.uncompiled import uncompiled
from icbench.values import PositiveFloat, Rate


def build(
    groups: list[dict[str, Any]],
    learning_rate: float,
    *,
    beta1: Rate = 0.9,
    beta2: Rate = 0.999,
    epsilon: PositiveFloat = 1e-8,
) -> optim.Optimizer:
    """`epsilon` is added to the root of the second moment: 1e-8 in torch, 1e-7 in Keras."""
    made: optim.Optimizer = uncompiled(optim.Adam)(
        groups, lr=learning_rate, betas=(beta1, beta2), eps=epsilon, fused=True
    )
    return made
