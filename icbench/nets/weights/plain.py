"""No parametrisation: what is learned are the elements of each filter (LeCun et al. 1989, Neural Computation 1).

Formula: y = w * x + b.

Needs: nothing.
"""

from torch import nn


def build(convolution: nn.Conv2d) -> nn.Module:
    """The convolution itself, unchanged."""
    return convolution
