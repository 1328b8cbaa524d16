"""The exact side: what dropout does to dependence, in closed form, on finite joints, and estimated from samples."""

from icbench.theory.dropout import (
    binary_entropy,
    condition_number_bound,
    gated_condition_number,
    gated_correlation,
    gated_correlation_matrix,
    gated_entropy,
    gated_expectation,
    gated_mutual_information,
)
from icbench.theory.estimate import (
    Estimate,
    codes,
    estimate_correlation,
    estimate_entropy,
    estimate_mean,
    estimate_mutual_information,
    root_mean_square,
)
from icbench.theory.joint import Joint, gated

__all__ = [
    "Estimate",
    "Joint",
    "binary_entropy",
    "codes",
    "condition_number_bound",
    "estimate_correlation",
    "estimate_entropy",
    "estimate_mean",
    "estimate_mutual_information",
    "gated",
    "gated_condition_number",
    "gated_correlation",
    "gated_correlation_matrix",
    "gated_entropy",
    "gated_expectation",
    "gated_mutual_information",
    "root_mean_square",
]
