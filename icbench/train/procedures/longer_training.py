"""Large batches trained as many steps, at a rate scaled by their root (Hoffer et al. 2017, arXiv 1705.08741).

Formula: with batch size B, the recipe's rate times sqrt(B / reference), its epochs and learning-rate steps times
B / reference: the number of the optimiser's steps is that of the reference batch.

It changes the recipe and nothing else, so a run with it is the same as one by a recipe that is written so.

Needs: a recipe with another batch size than `reference`, as {name: digits, batch_size: 256} has. chen2019's 64 are
half the paper's 128: by itself it would halve that recipe's epochs.
"""

import math
from dataclasses import replace

from icbench.config import Recipe
from icbench.procedure import Procedure
from icbench.values import PositiveInt


def build(*, reference: PositiveInt = 128) -> Procedure:
    """`reference` is the batch size that the recipe's rate and epochs are meant for: the paper's 128."""
    return _LongerTraining(reference)


class _LongerTraining(Procedure):
    def __init__(self, reference: int):
        self.reference = reference

    def changes(self, recipe: Recipe) -> bool:
        return False  # but what the recipe says

    def adapt(self, recipe: Recipe) -> Recipe:
        if recipe.batch_size == self.reference:
            return recipe
        factor = recipe.batch_size / self.reference
        epochs = _rounded(recipe.epochs * factor)
        steps = ((_rounded(after * factor), change) for after, change in recipe.learning_rate_steps)
        rate = recipe.learning_rate * math.sqrt(factor)
        return replace(
            recipe,
            label=f"{recipe.label} longer-training epochs={epochs} learning_rate={rate:.3g}",
            learning_rate=rate,
            epochs=epochs,
            learning_rate_steps=tuple((after, change) for after, change in steps if after < epochs),
        )


def _rounded(epochs: float) -> int:
    return max(1, math.floor(epochs + 0.5))
