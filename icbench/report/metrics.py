"""What a learning curve says: how soon a run reaches a target."""

import math

import numpy as np
from numpy.typing import ArrayLike


def epochs_to(target: float, accuracies: ArrayLike) -> float:
    """The first epoch, from 1, whose accuracy is at least `target`; infinity when none is: such a run is never dropped.

    accuracies: (epochs,), of consecutive epochs from the first on.
    """
    reached = np.flatnonzero(np.asarray(accuracies, dtype=float) >= target)
    return float(reached[0] + 1) if len(reached) else math.inf
