"""The rectifier, with ordinary dropout and He's initial variance (He et al. 2015, arXiv 1502.01852).

Formula: y = max(0, x). Initial weights have variance 2 / fan_in, since half of a symmetric input's power is cut off.

Needs: nothing.
"""

from torch import nn


def build() -> nn.Module:
    """x: any shape -> the same shape."""
    return nn.ReLU()


def dropout(rate: float) -> nn.Module:
    """Inverted dropout: zeros at `rate`, the rest divided by 1 - rate."""
    return nn.Dropout(rate)
