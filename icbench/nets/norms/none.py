"""No normalisation: the identity. An IC layer is then dropout alone (Srivastava et al. 2014, JMLR 15).

Formula: y = x. Deep nets may diverge without other measures; that is a result, too.

Needs: nothing.
"""

from torch import Tensor, nn


def build(channels: int) -> nn.Module:
    """The identity, whatever the number of channels."""
    return nn.Identity()


def recurrent(features: int, steps: int, shift: bool = True) -> nn.Module:
    """The identity at every step, without a shift even where one is asked for."""
    return _Identity()


class _Identity(nn.Module):
    def forward(self, x: Tensor, step: int) -> Tensor:
        return x
