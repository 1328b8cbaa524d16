"""Self-normalising networks: SELU and alpha dropout, no norm (Klambauer et al. 2017, arXiv 1706.02515).

Formula: y = lambda x for x > 0, else lambda alpha (exp(x) - 1); lambda is 1.0507, alpha 1.6733.
Initial weights have variance 1 / fan_in.

Evaluation: alpha dropout is off, as dropout is.

Needs: weights as drawn by LeCun (gain 1), for which mean 0 and variance 1 are an attracting fixed point.

Alpha dropout sets elements to SELU's lowest value, -lambda alpha, then rescales and shifts all of them, so that mean 0
and variance 1 stay. The paper's nets are plain chains: in a residual one each addition sums two variances, which only
the activations damp.
"""

from torch import nn

GAIN: float = 1.0
INITIALIZATION = "he-normal"  # whatever the recipe's; with this gain it is LeCun's


def build() -> nn.Module:
    """x: any shape -> the same shape."""
    return nn.SELU()


def dropout(rate: float) -> nn.Module:
    """Alpha dropout: elementwise, at `rate`."""
    return nn.AlphaDropout(rate)
