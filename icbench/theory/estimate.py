"""Entropy, mutual information and correlation from samples, with their standard errors.

Variables are binned first: zeros have a bin of their own, since dropout makes them, and the rest lie in bins of equal
frequency. Entropies are corrected for their bias after Miller 1955 and Madow. Standard errors are those of the delta
method: an estimate is to first order a mean over samples of what each adds to it, its influence, and so are means,
products and ratios of estimates from the same samples.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

# Codes of bins: zero, the most frequent other value, and the first of those of equal frequency.
_ZERO, _ATOM, _FIRST = 0, 1, 2


@dataclass(frozen=True)
class Estimate:
    """Values (...) and the influence (N, ...) of each of N samples on them, of mean 0.

    beyond: (...), what the influence's variance over N should be corrected by, where it is estimated too.
    """

    value: Floats
    influence: Floats
    beyond: Floats

    @property
    def standard_error(self) -> Floats:
        """(...): of the values."""
        variance = (self.influence**2).mean(axis=0) / len(self.influence) + self.beyond
        return np.asarray(np.sqrt(np.maximum(variance, 0)))

    def mean(self) -> "Estimate":
        """Over the last axis, of pairs say: what a sample does to several of them is in the error."""
        count = self.value.shape[-1]
        return Estimate(
            np.asarray(self.value.mean(axis=-1)), self.influence.mean(axis=-1), self.beyond.mean(axis=-1) / count
        )

    def over(self, base: "Estimate") -> "Estimate":
        """The ratio of two estimates from the same samples, as before and after a gate; NaN where the base is 0."""
        divisor = np.where(base.value == 0, np.nan, base.value)
        ratio = self.value / divisor
        return Estimate(
            ratio,
            (self.influence - ratio * base.influence) / divisor,
            # Errors of second order in the base are in the other too, which has some of its own.
            (self.beyond - ratio**2 * base.beyond) / divisor**2,
        )


def estimate_mean(x: ArrayLike) -> Estimate:
    """The expectation of each column. x: (N, ...)."""
    samples = np.asarray(x, dtype=float)
    value = np.asarray(samples.mean(axis=0))
    return Estimate(value, samples - value, np.zeros_like(value))


def codes(x: ArrayLike, bins: float = 16, groups: ArrayLike | None = None, like: Integers | None = None) -> Integers:
    """Which bin each sample is in, column by column: 0 for exact zeros, 1 for the atom, and from 2 on for the rest.

    x: (N, C) -> (N, C). Bins of the rest have about N / bins samples each, but that equal values lie in one of them. So
    any two variables' bins have N / bins^2 samples together if they are independent, however many zeros there are. To
    compare variables with what gates make of them give them p times the bins, and their codes, `like` which each column
    is then to have as many bins of the rest, to what is behind the gates.

    The atom is the most frequent value but 0 in each of the `groups` of samples (N numbers; default: one group), where
    altogether a bin's worth of samples or more has it: batch norm makes of ReLU's zeros a constant that is another in
    each batch, by which bins would tell the batches apart.
    """
    samples = np.asarray(x, dtype=float)
    zero = samples == 0
    atom = _atoms(samples, np.zeros(len(samples)) if groups is None else np.asarray(groups), 1 / bins)
    rest = ~(zero | atom)
    order = np.argsort(np.where(rest, samples, np.inf), axis=0)
    rank = np.arange(len(samples))[:, None]
    ordered = np.take_along_axis(samples, order, axis=0)
    fresh = np.ones_like(rest)
    fresh[1:] = ordered[1:] != ordered[:-1]
    rank_of_equals = np.maximum.accumulate(np.where(fresh, rank, 0), axis=0)
    among = np.maximum(rest.sum(axis=0), 1)
    wanted = np.rint(bins * among / len(samples)).astype(np.int64) if like is None else like.max(axis=0) - _FIRST + 1
    parts = np.maximum(wanted, 1)
    bin_of_rank = rank_of_equals * parts // among
    found = np.empty(samples.shape, np.int64)
    np.put_along_axis(found, order, bin_of_rank + _FIRST, axis=0)
    return np.where(zero, _ZERO, np.where(atom, _ATOM, found))


def _atoms(samples: Floats, groups: NDArray[np.generic], least: float) -> Booleans:
    """(N, C): whether it is the most frequent value but 0 of its group, in columns where that share of all are such."""
    atom = np.zeros(samples.shape, bool)
    for group in np.unique(groups):
        members = groups == group
        ordered = np.sort(np.where(samples[members] == 0, np.nan, samples[members]), axis=0)
        rank = np.arange(len(ordered))[:, None]
        fresh = np.ones(ordered.shape, bool)
        fresh[1:] = ordered[1:] != ordered[:-1]  # as NaN is with itself
        run = rank - np.maximum.accumulate(np.where(fresh, rank, 0), axis=0)
        longest = np.take_along_axis(ordered, run.argmax(axis=0)[None], axis=0)
        atom[members] = (samples[members] == longest) & (run.max(axis=0) > 0)
    return np.asarray(atom & (atom.mean(axis=0) >= least))


def estimate_entropy(binned: Integers) -> Estimate:
    """(C,): of each column of codes, in nats. binned: (N, C)."""
    count, columns = binned.shape
    kinds = int(binned.max(initial=0)) + 1
    cells = binned + kinds * np.arange(columns)
    counts = np.bincount(cells.ravel(), minlength=kinds * columns)
    surprise = -np.log(counts[cells] / count)
    plain = surprise.mean(axis=0)
    occupied = (counts.reshape(columns, kinds) > 0).sum(axis=1)
    return Estimate(plain + (occupied - 1) / (2 * count), surprise - plain, np.zeros(columns))


def estimate_mutual_information(binned: Integers, pairs: ArrayLike, opened: Booleans | None = None) -> Estimate:
    """(P,): between pairs of columns of codes, in nats. binned: (N, C); pairs: (P, 2), indices of columns.

    opened: (N, C), whether the gate of each was open: then it is the information between the values together with their
    gates, to which samples add nothing unless both are open. By that gating it is p^2 times what it was, exactly,
    zeros or not, and at least what the values alone have.
    """
    first, second = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
    both = np.ones((len(binned), len(first)), bool) if opened is None else opened[:, first] & opened[:, second]
    among, density, degrees = _information(binned[:, first], binned[:, second], both)
    seen = np.maximum(among, 1)
    plain = density.sum(axis=0) / seen
    corrected = plain - degrees / (2 * seen)
    share = among / len(binned)
    influence = np.where(both, density - plain, 0) + corrected * (both - share)
    # Of independent variables 2 n times the information is chi-square, so that its variance is degrees / 2 n^2. The
    # estimated density's is degrees / n^2 there, where the true density does not vary at all.
    return Estimate(share * corrected, influence, -(share**2) * degrees / (2.0 * seen**2))


def _information(x: Integers, y: Integers, among: Booleans) -> tuple[Integers, Floats, Integers]:
    """For P pairs of columns (N, P): the samples among those (P,), log p(x, y) / p(x) p(y) of each, 0 where it is not
    (N, P), and the degrees of freedom (P,).
    """
    width = int(max(x.max(initial=0), y.max(initial=0))) + 1
    pair = np.arange(x.shape[1])
    cells = (pair * width + x) * width + y
    joint = np.bincount(cells[among], minlength=len(pair) * width**2).reshape(len(pair), width, width)
    by_x, by_y, total = joint.sum(axis=2), joint.sum(axis=1), joint.sum(axis=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        table = np.log(joint * total[:, None, None] / (by_x[:, :, None] * by_y[:, None, :]))
    density = np.where(among, table.ravel()[cells], 0.0)
    degrees = (joint > 0).sum(axis=(1, 2)) - (by_x > 0).sum(axis=1) - (by_y > 0).sum(axis=1) + 1
    return total, density, np.where(total > 0, degrees, 0)


def estimate_correlation(x: ArrayLike, pairs: ArrayLike) -> Estimate:
    """(P,): Pearson's, between pairs of columns; NaN where one is constant. x: (N, C); pairs: (P, 2)."""
    samples = np.asarray(x, dtype=float)
    first, second = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
    deviation = np.where(np.ptp(samples, axis=0) > 0, samples.std(axis=0), np.nan)
    z = (samples - samples.mean(axis=0)) / deviation
    products = z[:, first] * z[:, second]
    value = products.mean(axis=0)
    influence = products - value * (z[:, first] ** 2 + z[:, second] ** 2) / 2
    return Estimate(value, influence, np.zeros_like(value))


def root_mean_square(values: Estimate) -> Estimate:
    """Over the last axis, less what sampling alone adds to the squares; NaN where nothing is left.

    values: (P,), such as correlations, whose squares are on the average too large by their variance.
    """
    square = (values.value**2 - values.standard_error**2).mean()
    root = np.sqrt(square) if square > 0 else np.nan
    return Estimate(np.asarray(root), (values.value * values.influence).mean(axis=-1) / root, np.zeros(()))
