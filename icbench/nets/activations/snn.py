"""Self-normalising nets: SELU, alpha dropout, LeCun's weights, norm: none (Klambauer et al. 2017, arXiv 1706.02515).

Formula: y = lambda x for x > 0, else lambda alpha (exp(x) - 1); lambda is 1.0507, alpha 1.6733.
Initial weights have variance 1 / fan_in, whatever the recipe's initialisation is.

Evaluation: alpha dropout is off, as dropout is.

Needs: norm: none, which has to be written: with LeCun's weights, mean 0 and variance 1 are an attracting fixed point,
and a norm would take that over.

Alpha dropout sets elements to SELU's lowest value, -lambda alpha, then rescales and shifts all of them, so that mean 0
and variance 1 stay. The paper's nets are plain chains: in a residual one each addition sums two variances, which only
the activations damp.
"""

from torch import nn

INITIALIZATION = "lecun-normal"


def build() -> nn.Module:
    """x: any shape -> the same shape."""
    return nn.SELU()


def dropout(rate: float) -> nn.Module:
    """Alpha dropout: elementwise, at `rate`."""
    return nn.AlphaDropout(rate)
