"""Finite joint distributions, and what dropout's gates make of them, by exact enumeration."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Joint:
    """Random variables with finitely many values.

    values: for each variable the numbers that it takes, each once. probabilities: one axis a variable, in that order.
    """

    values: tuple[Floats, ...]
    probabilities: Floats

    @classmethod
    def of(cls, values: Sequence[ArrayLike], probabilities: ArrayLike) -> "Joint":
        """Raise ValueError where they are no distribution: shapes, repeated values, negative or not summing to 1."""
        axes = tuple(np.asarray(each, dtype=float) for each in values)
        weights = np.asarray(probabilities, dtype=float)
        if weights.shape != tuple(axis.size for axis in axes):
            raise ValueError(f"probabilities of shape {weights.shape} for {[axis.size for axis in axes]} values")
        if any(np.unique(axis).size < axis.size for axis in axes):
            raise ValueError("a variable has the same value twice")
        if weights.min() < 0 or abs(weights.sum() - 1) > 1e-9:
            raise ValueError("probabilities should be 0 or more and sum to 1")
        return cls(axes, weights / weights.sum())

    def marginal(self, *variables: int) -> "Joint":
        """That of the variables named by their index, each once, in rising order."""
        if len(set(variables)) < len(variables):
            raise ValueError(f"variable {variables[0]} with itself: {variables} should name each once")
        others = tuple(axis for axis in range(len(self.values)) if axis not in variables)
        return Joint(tuple(self.values[axis] for axis in sorted(variables)), self.probabilities.sum(axis=others))

    def entropy(self) -> float:
        """Of all variables together, in nats."""
        return entropy(self.probabilities)

    def mutual_information(self, first: int = 0, second: int = 1) -> float:
        """Between two of the variables, in nats."""
        both = self.marginal(first, second)
        return both.marginal(0).entropy() + both.marginal(1).entropy() - both.entropy()

    def expectation(self, variable: int = 0) -> float:
        """E x."""
        return float(self.marginal(variable).probabilities @ self.values[variable])

    def variance(self, variable: int = 0) -> float:
        """E (x - E x)^2."""
        centred = self.values[variable] - self.expectation(variable)
        return float(self.marginal(variable).probabilities @ centred**2)

    def correlation(self, first: int = 0, second: int = 1) -> float:
        """Pearson's, between two of the variables; NaN where one of them is constant."""
        pair = sorted((first, second))
        x, y = (self.values[axis] - self.expectation(axis) for axis in pair)
        covariance = x @ self.marginal(*pair).probabilities @ y
        scale = (self.variance(first) * self.variance(second)) ** 0.5
        return float(covariance / scale) if scale > 0 else float("nan")

    def zero_share(self, variable: int = 0) -> float:
        """P(x = 0)."""
        return float(self.marginal(variable).probabilities[self.values[variable] == 0].sum())


def entropy(probabilities: ArrayLike) -> float:
    """In nats, of probabilities of any shape that sum to 1; 0 log 0 is 0."""
    p = np.asarray(probabilities, dtype=float).ravel()
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def gated(joint: Joint, keep: float, *, inverted: bool = False, shared: bool = False) -> Joint:
    """The joint of g x for each variable x, where the gates g are 1 with probability `keep` and else 0.

    They are independent of the variables and of each other, or `shared`: one and the same. inverted: g x / keep, as
    PyTorch scales. A value of 0 and a closed gate are the same atom. ValueError unless 0 < keep <= 1.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"a keep probability of {keep} is not above 0 and up to 1")
    scale = 1 / keep if inverted else 1.0
    values = tuple(np.union1d(axis * scale, 0.0) for axis in joint.values)
    opened, closed = joint.probabilities, joint.probabilities
    probabilities = joint.probabilities
    for axis, (old, new) in enumerate(zip(joint.values, values, strict=True)):
        through = (old[:, None] * scale == new).astype(float)
        to_zero = np.broadcast_to(new == 0, through.shape).astype(float)
        probabilities = _along(axis, probabilities, keep * through + (1 - keep) * to_zero)
        opened, closed = _along(axis, opened, through), _along(axis, closed, to_zero)
    return Joint(values, keep * opened + (1 - keep) * closed if shared else probabilities)


def _along(axis: int, probabilities: Floats, transition: Floats) -> Floats:
    """One variable replaced by what a Markov kernel makes of it. transition: (old values, new values)."""
    return np.moveaxis(np.tensordot(probabilities, transition, axes=(axis, 0)), -1, axis)
