"""The IC layer (Chen et al. 2019, section 3, figure 1): {BatchNorm, Dropout}, placed right before a weight layer."""

from torch import Tensor, nn


class IC(nn.Sequential):
    """Make the inputs of the next weight layer more independent: normalise them, then gate each with dropout.

    x: (N, C, H, W) -> the same shape. The gates are elementwise: a gate shared by a whole channel can raise the mutual
    information between its elements, so it would be no IC layer.
    """

    def __init__(self, norm: nn.Module, dropout: nn.Module):
        super().__init__()
        self.norm = norm
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = self.dropout(self.norm(x))
        return gated
