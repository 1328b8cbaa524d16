"""Large batches trained as many steps, at a rate scaled by their root (Hoffer et al. 2017, arXiv 1705.08741).

Formula: with batch size B, the recipe's rate times sqrt(B / reference), its epochs and learning-rate steps times
B / reference: the number of the optimiser's steps is that of the reference batch.

Needs: a recipe whose batch_size is overridden, as in {name: digits, batch_size: 256}; for any other nothing changes
but by the factor of its own batch size to the reference.
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

    def adapt(self, recipe: Recipe) -> Recipe:
        factor = recipe.batch_size / self.reference
        epochs = _rounded(recipe.epochs * factor)
        steps = ((_rounded(after * factor), change) for after, change in recipe.learning_rate_steps)
        return replace(
            recipe,
            learning_rate=recipe.learning_rate * math.sqrt(factor),
            epochs=epochs,
            learning_rate_steps=tuple((after, change) for after, change in steps if after < epochs),
        )


def _rounded(epochs: float) -> int:
    return max(1, math.floor(epochs + 0.5))
