"""What a precision means."""

from contextlib import AbstractContextManager

import torch


def dtype(precision: str) -> torch.dtype:
    """The type of the weights and the images."""
    return torch.float64 if precision == "float64" else torch.float32


def epsilon(precision: str) -> float:
    """The relative spacing of the numbers that matrix products and convolutions take and, but for tf32, give."""
    return 2.0**-10 if precision == "tf32" else torch.finfo(getattr(torch, precision)).eps


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """bfloat16: matrix products and convolutions in bfloat16, the rest and the weights in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def set_numerics(precision: str) -> None:
    """TF32 only by its name (cuDNN would use it unasked), and cuDNN's deterministic algorithms."""
    products = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = products
    torch.backends.cudnn.conv.fp32_precision = products  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
