"""The learning rate of an epoch."""

import math

from icbench.config import Recipe


def decay(recipe: Recipe, epoch: int) -> float:
    """What the recipe's steps have scaled the rate by during `epoch`, counted from 1."""
    return math.prod(factor for after, factor in recipe.learning_rate_steps if epoch > after)


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """The rate during `epoch`, counted from 1: a step at 80 ends 80 epochs of the full rate."""
    rate = recipe.learning_rate
    for after, factor in recipe.learning_rate_steps:
        if epoch > after:
            rate *= factor
    return rate
