"""Weight normalisation: filters' length and direction are learned apart (Salimans and Kingma 2016, arXiv 1602.07868).

Formula: w = g v / |v| for each filter, |v| over its input channels, rows and columns; g begins as |v|.

Needs: filters that are not zero from the start. The classifier stays plain.

The paper also initialises g and b from a batch of data; here the initial function is the plain convolution's.
"""

from torch import nn
from torch.nn.utils import parametrizations


def build(convolution: nn.Conv2d) -> nn.Module:
    """The same convolution; its parameters are now g, v (`parametrizations.weight.original0`, `original1`) and b."""
    normalised: nn.Module = parametrizations.weight_norm(convolution, dim=0)
    return normalised
