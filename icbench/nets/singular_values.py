"""Bounds on the singular values of weights (Jia et al. 2017, arXiv 1611.06013)."""

import torch
from torch import Tensor


def bound(matrix: Tensor, factor: float) -> Tensor:
    """The matrix (rows, columns) with its singular values clipped to [1/factor, factor]; the vectors stay.

    Within the bounds already, it is returned bit for bit. So is one with values that are not finite: it has no singular
    values, and a training that diverges shall end as one that did. No gradients flow; `factor` is above 1.
    """
    values = matrix.detach()
    finite = torch.isfinite(values).all()
    # In float64, since TF32 and bfloat16 products would miss the bounds.
    left, singular, right = torch.linalg.svd(torch.where(finite, values, 0).double(), full_matrices=False)
    correction = (left * (singular.clamp(1 / factor, factor) - singular)) @ right
    return torch.where(finite, values + correction, values).to(matrix.dtype)
