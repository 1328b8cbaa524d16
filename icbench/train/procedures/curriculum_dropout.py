"""Curriculum dropout: a dropout rate that rises fast at first and levels off (Morerio et al. 2017, arXiv 1703.06229).

Formula: p(t) = p (1 - exp(-steepness t)), t the fraction of the training that is done, p the run's dropout rate,
or the stage's.

Needs: an ordering with dropout.
"""

import math

from icbench.procedure import Moment, Procedure
from icbench.values import PositiveFloat


def build(*, steepness: PositiveFloat = 10.0) -> Procedure:
    """The paper's gamma, times its number of training steps T; it chose gamma = 10 / T."""
    return _Curriculum(steepness)


class _Curriculum(Procedure):
    needs_dropout = True
    is_schedule = True

    def __init__(self, steepness: float):
        self.steepness = steepness

    def dropout(self, rate: float, moment: Moment) -> float:
        return -rate * math.expm1(-self.steepness * moment.done)
