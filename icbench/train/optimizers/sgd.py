"""Stochastic gradient descent with momentum and coupled weight decay, fused (Sutskever et al. 2013)."""

from typing import Any

from torch import optim

from icbench.train.uncompiled import uncompiled
from icbench.values import Rate


def build(groups: list[dict[str, Any]], learning_rate: float, *, momentum: Rate = 0.9) -> optim.Optimizer:
    """Heavy-ball momentum in torch's form: the velocity is not scaled by the learning rate."""
    made: optim.Optimizer = uncompiled(optim.SGD)(groups, lr=learning_rate, momentum=momentum, fused=True)
    return made
