"""What theory predicts of dropout beside what was measured before and after it (icbench/theory/dropout.py)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icbench.config import Cell
from icbench.metrics import Floats
from icbench.report import stats
from icbench.report.stats import Estimate
from icbench.report.theory.measured import Measured

_PROBE = "dependence"
INFORMATION, CORRELATION = "mutual_information_factor", "correlation_factor"


@dataclass(frozen=True)
class Prediction:
    """measured, predicted: statistics of the probe dependence. title: for people."""

    measured: str
    predicted: str
    title: str


PREDICTIONS = (
    Prediction(INFORMATION, "predicted_mutual_information_factor", "mutual information, factor"),
    Prediction(
        "mutual_information_gate_aware_factor",
        "predicted_mutual_information_factor",
        "mutual information given the gates, factor",
    ),
    Prediction(CORRELATION, "predicted_correlation_factor", "correlation, factor"),
    Prediction("entropy_after", "predicted_entropy_after", "entropy after (nats)"),
    Prediction("expectation_after", "predicted_expectation_after", "expectation after"),
)


@dataclass(frozen=True)
class Factor:
    """A prediction held against a cell at an epoch: means over dropout layers by their precision, then over seeds.

    difference: measured less predicted, with its t-interval over seeds, or over layers, by their precision too, where
    there is one seed. zeros: P(x = 0) before dropout, whose being 0 is the premise of the theorems on mutual
    information.
    """

    cell: Cell
    name: str
    place: str
    epoch: int
    prediction: Prediction
    predicted: float
    measured: float
    difference: Estimate
    over: str
    zeros: float

    @property
    def is_bound(self) -> bool:
        """Whether what is predicted is no value but an upper bound."""
        return self.prediction.measured == INFORMATION and self.zeros > 0

    @property
    def is_within(self) -> bool | None:
        """Whether the interval holds the prediction; None without an interval, and of a bound."""
        if self.is_bound or math.isnan(self.difference.low):
            return None
        return self.difference.low <= 0 <= self.difference.high


@dataclass(frozen=True)
class Profile:
    """A factor by dropout layer at an epoch, means over seeds. error: of drawing other images; positions: from 1."""

    epoch: int
    positions: list[int]
    measured: Floats
    error: Floats
    predicted: Floats


def factors(measured: Measured) -> list[Factor]:
    """One for each cell with dropout, epoch and prediction, as far as they were measured."""
    return [
        factor
        for cell in measured.cells
        if cell.config.dropout
        for prediction in PREDICTIONS
        for epoch in measured.epochs((_PROBE, prediction.measured), cell)
        for factor in _factor(measured, cell, epoch, prediction)
    ]


def _factor(measured: Measured, cell: Cell, epoch: int, prediction: Prediction) -> Iterator[Factor]:
    found, errors, wanted = _beside(measured, cell, epoch, prediction)
    differences = found - wanted
    known = np.isfinite(differences)
    if not known.any():
        return
    weights = _weights(errors, known)
    of_seeds = _by_seed(differences, weights)
    if len(of_seeds) > 1:
        difference, over = stats.mean(of_seeds), f"{len(of_seeds)} seeds"
    else:
        difference = stats.weighted_mean(differences[known], weights[known])
        over = f"{known.sum()} layers"
    zeros, _ = measured.of_cell((_PROBE, "zero_share_before"), cell, epoch)
    yield Factor(
        cell,
        measured.name(cell),
        measured.place(cell),
        epoch,
        prediction,
        predicted=float(np.mean(_by_seed(wanted, weights))),
        measured=float(np.mean(_by_seed(found, weights))),
        difference=difference,
        over=over,
        zeros=float(np.nanmean(zeros)) if zeros.size else math.nan,
    )


def _beside(measured: Measured, cell: Cell, epoch: int, prediction: Prediction) -> tuple[Floats, Floats, Floats]:
    """Measured values, their standard errors and what was predicted, (seeds, layers) each."""
    key = (_PROBE, prediction.measured)
    layers = measured.layers(key, cell, epoch)
    predicted, _ = measured.of_cell((_PROBE, prediction.predicted), cell, epoch, layers)
    return *measured.of_cell(key, cell, epoch, layers), predicted


def _weights(errors: Floats, known: NDArray[np.bool_]) -> Floats:
    """(seeds, layers): what a layer counts: by its precision, as a factor of hardly any dependence tells nothing; where
    errors are not known, all count the same.
    """
    if not np.all(errors[known] > 0):
        return known.astype(float)
    return np.where(known, 1 / np.where(known, errors, 1) ** 2, 0.0)


def _by_seed(values: Floats, weights: Floats) -> list[float]:
    """Each seed's mean over layers."""
    filled = np.where(weights > 0, values, 0)
    return [float(row @ each / each.sum()) for row, each in zip(filled, weights, strict=True) if each.any()]


def profiles(measured: Measured, cell: Cell, statistic: str) -> list[Profile]:
    """A factor by layer, at each epoch."""
    prediction = next(each for each in PREDICTIONS if each.measured == statistic)
    key = (_PROBE, prediction.measured)
    found = []
    for epoch in measured.epochs(key, cell):
        values, errors, predicted = _beside(measured, cell, epoch, prediction)
        count = np.isfinite(errors).sum(axis=0)
        error = np.sqrt(np.nansum(errors**2, axis=0)) / np.where(count, count, np.nan)
        means = [np.ma.masked_invalid(each).mean(axis=0).filled(np.nan) for each in (values, predicted)]
        found.append(Profile(epoch, measured.positions(key, cell, epoch), means[0], error, means[1]))
    return found
