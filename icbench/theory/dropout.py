"""What dropout does to entropy, mutual information, correlation and expectation, in closed form.

Chen et al. 2019, section 3 and appendix, and beyond: zeros, means, shared gates, scaling. `keep` is the probability p
that a gate is open, 1 less the dropout rate. Gates are independent of the variables, and of each other unless shared.
Arguments may be arrays that broadcast; entropies and information are in nats. Scaling by 1 / keep, as PyTorch does,
changes expectations alone.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def binary_entropy(probability: ArrayLike) -> Floats:
    """h(p), of a coin that shows 1 with that probability; 0 at 0 and 1."""
    p = np.asarray(probability, dtype=float)
    inside = (p > 0) & (p < 1)
    q = np.where(inside, p, 0.5)
    return np.asarray(np.where(inside, -q * np.log(q) - (1 - q) * np.log1p(-q), 0.0))


def gated_entropy(entropy: ArrayLike, keep: ArrayLike, zero_share: ArrayLike = 0.0) -> Floats:
    """p H + h(p) - s h((1 - p) / s) with s = 1 - p + p q, the share of zeros behind the gate; q = P(x = 0).

    The last term is what a zero hides of the gate; without zeros it vanishes, and the rest is the paper's.
    """
    p, q = np.asarray(keep, dtype=float), np.asarray(zero_share, dtype=float)
    zeros = 1 - p + p * q
    closed_given_zero = (1 - p) / np.where(zeros > 0, zeros, 1)
    hidden = zeros * binary_entropy(closed_given_zero)
    return np.asarray(p * np.asarray(entropy, dtype=float) + binary_entropy(p) - hidden)


def gated_mutual_information(information: ArrayLike, keep: ArrayLike, *, shared: bool = False) -> Floats:
    """p^2 I, or p I + h(p) with a shared gate, which can be more than I.

    Premise: neither variable is ever 0. Where one is, this is an upper bound, since the value no longer tells its gate:
    it is the information between the values together with their gates.
    """
    i, p = np.asarray(information, dtype=float), np.asarray(keep, dtype=float)
    return np.asarray(p * i + binary_entropy(p) if shared else p**2 * i)


def gated_correlation(
    correlation: ArrayLike, keep: ArrayLike, first: ArrayLike = 0.0, second: ArrayLike = 0.0, *, shared: bool = False
) -> Floats:
    """p r / d, or (r + (1 - p) m n) / d with a shared gate, where d^2 = (1 + (1 - p) m^2)(1 + (1 - p) n^2).

    first, second: m and n, the variables' means over their standard deviations. At means of 0: p r, and r.
    """
    r, p = np.asarray(correlation, dtype=float), np.asarray(keep, dtype=float)
    m, n = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    together = r + (1 - p) * m * n if shared else p * r
    return np.asarray(together / np.sqrt((1 + (1 - p) * m**2) * (1 + (1 - p) * n**2)))


def gated_expectation(expectation: ArrayLike, keep: ArrayLike, *, inverted: bool = False) -> Floats:
    """p E x, or with inverted scaling E x."""
    mean, p = np.broadcast_arrays(np.asarray(expectation, dtype=float), np.asarray(keep, dtype=float))
    return np.asarray(mean if inverted else mean * p)


def gated_correlation_matrix(correlations: ArrayLike, keep: float) -> Floats:
    """p R + (1 - p) 1, of centred variables. correlations: R, (variables, variables)."""
    r = np.asarray(correlations, dtype=float)
    return keep * r + (1 - keep) * np.eye(r.shape[0])


def gated_condition_number(smallest: ArrayLike, largest: ArrayLike, keep: ArrayLike) -> Floats:
    """(p l_max + 1 - p) / (p l_min + 1 - p), of the centred variables' correlation matrix behind the gates.

    smallest, largest: eigenvalues of the matrix before them, whose eigenvectors are the same.
    """
    p, low, high = (np.asarray(each, dtype=float) for each in (keep, smallest, largest))
    return np.asarray((p * high + 1 - p) / (p * low + 1 - p))


def condition_number_bound(largest: ArrayLike, keep: ArrayLike) -> Floats:
    """(p l_max + 1 - p) / (1 - p): what it is at most, however nearly singular the matrix was. keep: below 1."""
    return gated_condition_number(0.0, largest, keep)
