"""A training's course: the batches of each epoch, and where a step lies in the whole."""

from icbench.config import RunConfig
from icbench.plan import require_shares
from icbench.procedure import Moment, batch_sizes


class Course:
    """The batches of `config` on so many images. Epochs count from 1, steps of the optimiser within an epoch from 0."""

    def __init__(self, config: RunConfig, images: int):
        self._recipe = config.recipe
        self._images = images
        self._sizes = batch_sizes(config.recipe, config.procedures, images)

    def require_shares(self, ranks: int) -> None:
        """Raise UserError unless each of so many ranks has an image of every batch."""
        for size in set(self._sizes):
            require_shares(self._images, size, ranks)

    def steps(self, epoch: int) -> int:
        return -(-self._images // self._sizes[epoch - 1])

    def steps_before(self, epoch: int) -> int:
        """All steps of the epochs before."""
        return sum(map(self.steps, range(1, epoch)))

    def batch(self, epoch: int, step: int) -> tuple[int, int]:
        """The rows of the epoch's order that a step trains on: from the first to before the second."""
        size = self._sizes[epoch - 1]
        return step * size, min((step + 1) * size, self._images)

    def moment(self, epoch: int, step: int) -> Moment:
        done = (epoch - 1 + step / self.steps(epoch)) / self._recipe.epochs
        return Moment(self._recipe, epoch, done, self._images)
