"""The theory page's tables."""

import math
from collections.abc import Sequence

import numpy as np

from icbench.report.stats import Estimate
from icbench.report.tables import COUNT, TEXT, Column, Kind, P, Table, optional, plain_interval
from icbench.report.theory.factors import Factor
from icbench.report.theory.relation import FEWEST_CELLS, Relation


def _significant(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}".replace("-", "−")


def _decimals(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}".replace("-", "−")


def _bounded(estimate: Estimate, form: str) -> str:
    if math.isnan(estimate.value):
        return "–"
    told = f"{estimate.value:{form}}"
    if not math.isnan(estimate.low):
        told += f" [{estimate.low:{form}}, {estimate.high:{form}}]"
    return told.replace("-", "−")


VALUE = Kind(_significant)
_DECIMALS = Kind(_decimals)
_DIFFERENCE = Kind(lambda e: _bounded(e, "+.4f"), lambda e: e.value, plain_interval)
_RHO = Kind(lambda e: _bounded(e, "+.2f"), lambda e: e.value, plain_interval)
_YES = Kind(lambda said: "yes" if said else "no")
_WITHIN = optional(_YES, None)
_PREDICTED = Kind(
    lambda f: ("≤ " if f.is_bound else "") + _decimals(f.predicted), lambda f: f.predicted, lambda f: {"": f.predicted}
)
_AT_EQUAL_RATES = (
    Column("rho_equal_rates", "ρ at equal rates", _RHO, lambda r: r.rho_equal_rates.estimate),
    Column("p_equal_rates", "p", P, lambda r: r.rho_equal_rates.p),
    Column("p_holm_equal_rates", "p (Holm)", P, lambda r: r.p_holm_equal_rates),
)


def _where(rows: Sequence[Factor] | Sequence[Relation]) -> list[Column]:
    """Where they are of several data sets or nets, which."""
    return [Column("place", "where", TEXT, lambda row: row.place)] if len({row.place for row in rows}) > 1 else []


def factors(rows: Sequence[Factor]) -> Table:
    """One row for each cell with dropout, epoch and prediction."""
    return Table(
        name="theory-factors",
        title="Dropout, predicted against measured",
        note="Means over dropout layers by their precision, then over seeds. Measured less predicted: 95 % t-interval "
        "over seeds, or over layers where there is one seed. Where theory holds, 1 in 20 intervals leaves the "
        "prediction out by chance. The factor of mutual information is p², p = 1 − rate, where P(x = 0) before is 0 or "
        "the gates are known; else that is an upper bound (≤), which an interval neither holds nor leaves out. Epoch "
        "0: before the first step.",
        columns=(
            *_where(rows),
            Column("cell", "cell", TEXT, lambda f: f.name),
            Column("cell_id", "id", TEXT, lambda f: f.cell.cell_id),
            Column("epoch", "epoch", COUNT, lambda f: f.epoch),
            Column("quantity", "quantity", TEXT, lambda f: f.prediction.title),
            Column("predicted", "predicted", _PREDICTED, lambda f: f),
            Column("measured", "measured", _DECIMALS, lambda f: f.measured),
            Column("difference", "measured less predicted", _DIFFERENCE, lambda f: f.difference),
            Column("over", "interval over", TEXT, lambda f: f.over),
            Column("within", "prediction within", _WITHIN, lambda f: f.is_within),
            Column("is_bound", "is a bound", optional(_YES, None), lambda f: f.is_bound),
            Column("zeros", "P(x = 0) before", _DECIMALS, lambda f: f.zeros),
        ),
        rows=rows,
    )


def relations(rows: Sequence[Relation]) -> Table:
    """One row a statistic and place."""
    return Table(
        name="theory-relation",
        title="Early in training, and speed",
        note="Each cell is one point: a statistic at the first epoch from 1 on (0 where there is no other) of those at "
        "which most cells were measured, mean over layers, then over seeds; and the area under the accuracy curve, "
        "mean over the same seeds: of all epochs before the learning rate first drops, also those before the "
        "measurement. ρ: Spearman's, with Bonett and Wright's interval; p by permutation of cells, Holm over all rows. "
        f"ρ > 0: the cells with more of it train faster. Of fewer than {FEWEST_CELLS} cells it cannot be told. What "
        "the grid varies changes the statistic and the speed at once: ρ says whether they go together, not whether one "
        "is the other's cause. At equal rates: of ranks among the cells of one dropout rate, which changes both by "
        "itself; no dropout is a rate of 0.",
        columns=(
            *_where(rows),
            Column("probe", "probe", TEXT, lambda r: r.statistic.key[0]),
            Column("statistic", "statistic", TEXT, lambda r: r.statistic.title),
            Column("key", "in the probes table", TEXT, lambda r: r.statistic.key[1]),
            Column("epoch", "epoch", COUNT, lambda r: r.epoch),
            Column("cells", "cells", COUNT, lambda r: len(r.cells)),
            Column("lowest", "lowest", VALUE, lambda r: float(np.min(r.x))),
            Column("highest", "highest", VALUE, lambda r: float(np.max(r.x))),
            Column("rho", "ρ", _RHO, lambda r: r.rho.estimate),
            Column("p", "p", P, lambda r: r.rho.p),
            Column("p_holm", "p (Holm)", P, lambda r: r.p_holm),
            *(_AT_EQUAL_RATES if any(not math.isnan(row.rho_equal_rates.p) for row in rows) else ()),
        ),
        rows=rows,
    )
