"""How many operations PyTorch's kernels do, counted while they run, by the rule that docs/methods.md states.

An operation is one addition, multiplication, comparison, root, exponential, ... of one number.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

# Memory and shapes, no arithmetic. Views are known by their signatures.
_MOVING = frozenset(
    {"_to_copy", "_unsafe_view", "arange", "cat", "clone", "contiguous", "copy_", "diagonal_backward", "empty"}
    | {"empty_like", "empty_strided", "eye", "fill", "fill_", "full", "full_like", "masked_fill_", "new_empty_strided"}
    | {"new_zeros", "ones", "ones_like", "promote_types", "repeat", "scalar_tensor", "select_backward"}
    | {"slice_backward", "stack", "zero_", "zeros", "zeros_like"}
)

# Operations for each element of an operator's first tensor.
_EACH_INPUT = {
    "sum": 1,
    "mean": 1,
    "all": 1,
    # Sum; then less the mean, squared, summed.
    "var_mean": 4,
    # Squared, summed.
    "linalg_vector_norm": 2,
    # The moments, as var_mean; then x a + b, with a and b by channel. Sums over what is normalised together count 1 an
    # element; what is done by channel, or by image and channel, counts nothing beside them.
    "native_batch_norm": 6,
    "native_group_norm": 6,
    # The sum of dy (1), that of dy (x - mean) (3), and dx = a dy + b x + c (4).
    "native_batch_norm_backward": 8,
    "native_group_norm_backward": 8,
    # Squared, summed, scaled; and back: the sum of dw v (2), and dv = a dw + b v (3).
    "_weight_norm_interface": 3,
    "_weight_norm_interface_backward": 5,
    # Less the largest, which is found, exponential, sum, quotient; and back: the sum of y dy (2), y dy - y sum (2).
    "_softmax": 5,
    "_softmax_backward_data": 4,
    # A pointwise one that torch does not mark so.
    "elu_backward": 1,
}


class Operations(TorchDispatchMode):
    """Within it, `count` is the number of operations so far, of backward passes too. Unknown operators are an error."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.count += _operations(func, args, kwargs or {}, result)
        return result


def _operations(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    name = func.overloadpacket.__name__
    if name in _MOVING or _is_view(func):
        return 0
    if func.overloadpacket in flop_registry:  # products of matrices, convolutions: 2 m n k
        return int(flop_registry[func.overloadpacket](*args, **kwargs, out_val=result))
    if name in _EACH_INPUT:
        return _EACH_INPUT[name] * int(args[0].numel())
    if name in _OTHERS:
        return _OTHERS[name](args, result)
    if torch.Tag.pointwise in func.tags:
        return int(result.numel())
    raise NotImplementedError(f"nobody has said how many operations {func} does: add it to {__file__}")


def _is_view(func: Any) -> bool:
    aliases = [returned.alias_info for returned in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _windows(args: tuple[Any, ...], results: Tensor) -> int:
    """Of average pooling: each result adds up its window."""
    return int(results.numel()) * math.prod(_both(args[1]))


def _windows_back(args: tuple[Any, ...], _: Tensor) -> int:
    """Each gradient is spread over its window."""
    return int(args[0].numel()) * math.prod(_both(args[2]))


def _both(size: list[int]) -> list[int]:
    return list(size) * (3 - len(size))


def _eigenvectors(args: tuple[Any, ...], _: object) -> int:
    """About 9 n^3 a matrix, by the symmetric QR algorithm (Golub and Van Loan, Matrix Computations, section 8.3)."""
    return int(args[0].numel()) * 9 * int(args[0].shape[-1])


_OTHERS: dict[str, Callable[[Any, Any], int]] = {
    "avg_pool2d": _windows,
    "avg_pool2d_backward": _windows_back,
    "_linalg_eigh": _eigenvectors,
}
