"""The batch grows where the recipe's learning rate would fall (Smith et al. 2018, arXiv 1711.00489).

Formula: where the recipe's steps scale the rate by f, the batch has min(B / f, largest) images and the rate is scaled
by f times that over B: their ratio, the scale of the gradient's noise, is as with the recipe.

Once the batch can grow no further (`largest`, or all training images) the rate falls after all.

Needs: a recipe with learning-rate steps. In data parallel every rank needs an image of the last batch of every epoch.
"""

from icbench.config import Recipe
from icbench.procedure import Moment, Procedure
from icbench.train.schedule import decay
from icbench.values import PositiveInt


def build(*, largest: PositiveInt = 5120) -> Procedure:
    """The paper grows CIFAR-10's batches from 128 over 640 and 3,200 images, by 5 where its rate falls to a fifth, and
    stops at 5,120 in another schedule.
    """
    return _BiggerBatch(largest)


class _BiggerBatch(Procedure):
    def __init__(self, largest: int):
        self.largest = largest

    def changes(self, recipe: Recipe) -> bool:
        factors = [factor for _, factor in recipe.learning_rate_steps]
        return bool(factors) and (self.largest > recipe.batch_size or max(factors) > 1)

    def batch_size(self, size: int, moment: Moment) -> int:
        wanted = round(size / decay(moment.recipe, moment.epoch))
        return max(1, min(wanted, max(self.largest, size), moment.images))

    def learning_rate(self, rate: float, moment: Moment) -> float:
        size = moment.recipe.batch_size
        return rate * self.batch_size(size, moment) / size
