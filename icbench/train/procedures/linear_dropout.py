"""A dropout rate that rises linearly during training (compared by Morerio et al. 2017, arXiv 1703.06229).

Formula: p(t) = p (start + (1 - start) t), t the fraction of the training that is done, p the run's dropout rate,
or the stage's.

Needs: an ordering with dropout.
"""

from icbench.procedure import Moment, Procedure
from icbench.values import Rate


def build(*, start: Rate = 0.0) -> Procedure:
    """`start` is the fraction of the dropout rate to begin with."""
    return _Linear(start)


class _Linear(Procedure):
    needs_dropout = True
    is_schedule = True

    def __init__(self, start: float):
        self.start = start

    def dropout(self, rate: float, moment: Moment) -> float:
        return rate * (self.start + (1 - self.start) * moment.done)
