"""Cosine normalisation: each output is the cosine of filter and patch (Luo et al. 2017, arXiv 1702.05870).

Formula: y = w.x / (|w| |x|), where x is the patch under the filter; a patch of zeros gives 0.

Needs: no bias, since a cosine has none: the convolution's is dropped. The classifier stays plain.

Zero padding counts as zeros of the patch. The paper also has a centred form (Pearson's correlation), which this is not.
For random filters y has a standard deviation of about 1 / sqrt(elements of a filter), whatever the size of x.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from icbench.nets.replacement import Replacement

# Patches that are shorter count as zeros: in float32 the gradient of 1 / |x| through the sum of squares would overflow.
_SHORTEST = 1e-12


def build(convolution: nn.Conv2d) -> nn.Module:
    """A convolution of the same shape and weight, without bias. It has one group and no dilation, as all of ours."""
    return CosineConvolution(convolution)


class CosineConvolution(Replacement):
    """x: (N, C, H, W) -> cosines (N, out, H', W') in the type in which a plain convolution would give its outputs."""

    def __init__(self, convolution: nn.Conv2d):
        super().__init__(convolution)
        assert self.groups == 1
        assert self.dilation == (1, 1)
        assert self.padding_mode == "zeros"
        self.bias = None

    def forward(self, x: Tensor) -> Tensor:
        directions = self.weight / torch.linalg.vector_norm(self.weight, dim=(1, 2, 3), keepdim=True)
        products = self._conv_forward(x, directions, None)
        cosines: Tensor = products * self.inverse_lengths(x)
        return cosines.to(products.dtype)

    def inverse_lengths(self, x: Tensor) -> Tensor:
        """1 / |patch|, or 0 for a patch of zeros: (N, 1, H', W'), float32 at least."""
        squares = x.to(torch.promote_types(x.dtype, torch.float32)).square().sum(dim=1, keepdim=True)
        # A sum over windows, as a convolution with ones is, but never in bfloat16 or TF32 and never below 0.
        sums = avg_pool2d(squares, self.kernel_size, self.stride, self.padding, divisor_override=1)  # type: ignore[arg-type]
        seen = sums > _SHORTEST**2
        return torch.where(seen, torch.where(seen, sums, 1).rsqrt(), 0)
