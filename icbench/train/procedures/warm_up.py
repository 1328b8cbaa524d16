"""A learning rate that rises linearly over the first epochs (Goyal et al. 2017, arXiv 1706.02677, section 2.2).

Formula: rate(t) = rate (start + (1 - start) t / T), t steps of the optimiser from 0, T those of the first `epochs`.

Needs: nothing. It changes the rate only, at every step.
"""

from icbench.procedure import Moment, Procedure
from icbench.values import PositiveFloat, Rate


def build(*, epochs: PositiveFloat = 5.0, start: Rate = 0.1) -> Procedure:
    """`start` is the fraction of the recipe's rate to begin with. 5 epochs as in the paper, which ends at k times the
    small batch's rate and begins with 1/k of it; He et al. 2015 began with a tenth.
    """
    return _WarmUp(epochs, start)


class _WarmUp(Procedure):
    def __init__(self, epochs: float, start: float):
        self.epochs = epochs
        self.start = start

    def learning_rate(self, rate: float, moment: Moment) -> float:
        warm = moment.done * moment.recipe.epochs / self.epochs
        return rate * (self.start + (1 - self.start) * min(warm, 1.0))
