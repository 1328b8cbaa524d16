"""A search's tables: what was found best, how wide the optimum is, what test images say, what matters, every trial."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from icbench.report.answer import points
from icbench.report.comparison import NONE
from icbench.report.searches.answer import epochs
from icbench.report.searches.confirmed import Confirmation, Confirmations, Difference
from icbench.report.searches.found import Found, Trial, losses_of
from icbench.report.searches.importance import Importance
from icbench.report.searches.rates import FEWEST_RATES, Curve
from icbench.report.stats import Estimate
from icbench.report.tables import COUNT, TEXT, Column, Kind, P, Table, optional, plain_interval
from icbench.search.confirm import PAPERS_DROPOUT
from icbench.search.objective import Objective
from icbench.search.settings import Search


@dataclass(frozen=True)
class _Judged:
    """A figure by an objective, which says in what unit it is shown."""

    objective: Objective
    estimate: Estimate
    is_difference: bool = False

    def __str__(self) -> str:
        if self.objective.is_fraction:
            return points(self.estimate, signed=self.is_difference)
        return epochs(self.estimate, signed=self.is_difference)


_FIGURE = Kind(str, lambda each: each.estimate.value, lambda each: plain_interval(each.estimate))
_FRACTION = Kind(lambda value: "–" if math.isnan(value) else f"{100 * value:.2f}")
_EPOCHS = Kind(lambda value: "–" if math.isnan(value) else f"{value:.1f}")
_RATE = Kind(lambda e: f"{e.value:.3g} [{e.low:.3g}, {e.high:.3g}]", lambda e: e.value, plain_interval)
_SHARE = Kind(lambda value: f"{100 * value:.0f}")


def _value_columns(search: Search, title: str, of: str = "values") -> tuple[Column, ...]:
    """A column for each objective of a trial's values."""

    def column(index: int, objective: Objective) -> Column:
        unit = ", %" if objective.is_fraction else ""
        kind = _FRACTION if objective.is_fraction else _EPOCHS
        name = (
            f"{objective.name}-{index + 1}"
            if len({o.name for o in search.objectives}) < len(search.objectives)
            else objective.name
        )
        return Column(name, f"{title}{objective.title}{unit}", kind, lambda row: _at(getattr(row, of), index))

    return tuple(column(index, objective) for index, objective in enumerate(search.objectives))


def _at(values: Sequence[float], index: int) -> float:
    return values[index] if index < len(values) else math.nan


@dataclass(frozen=True)
class _Best:
    found: Found
    trial: Trial | None

    @property
    def values(self) -> tuple[float, ...]:
        return self.trial.values if self.trial else ()

    @property
    def as_good(self) -> int | None:
        """How many different trials have just these values."""
        if self.trial is None:
            return None
        objectives = self.found.search.objectives
        own = losses_of(self.trial, objectives)
        return sum(losses_of(trial, objectives) == own for trial in self.found.different)


def best(search: Search, every: Sequence[Found]) -> Table:
    """One row a cell; of several objectives one for each of its best trials."""
    rows = [_Best(found, trial) for found in every for trial in found.best or (None,)]
    return Table(
        name="best",
        title="What was found, on held-out images",
        note="These figures are of held-out training images and of the best of many trials: they are too good by "
        "as much as luck had a part. Only the figures on test images are fair. As good: different trials "
        "with just this value, of which the first is taken. Complete, pruned, failed: trials; again: those "
        "that repeated the values of an earlier one, which says nothing new; diverged: runs.",
        columns=(
            Column("cell", "cell", TEXT, lambda r: r.found.name),
            Column("wanted", "trials wanted", COUNT, lambda r: r.found.wanted),
            Column("complete", "complete", COUNT, lambda r: len(r.found.complete)),
            Column("pruned", "pruned", COUNT, lambda r: len(r.found.of_state("pruned"))),
            Column("failed", "failed", COUNT, lambda r: len(r.found.failed)),
            Column("repeated", "again", COUNT, lambda r: r.found.repeated),
            Column("diverged", "diverged", COUNT, lambda r: r.found.diverged),
            Column("parameters", "best values", TEXT, lambda r: r.trial.in_words if r.trial else "–"),
            *_value_columns(search, "best of many: "),
            Column("as_good", "as good", optional(COUNT, ""), lambda r: r.as_good),
            Column("trial", "trial", optional(COUNT, ""), lambda r: r.trial.number if r.trial else None),
        ),
        rows=rows,
    )


def confirmed(found: Confirmations, search: Search) -> Table:
    """One row for each best trial and objective: runs on test images, with fresh seeds."""
    several = len(search.objectives) > 1
    by_objective = (Column("objective", "objective", TEXT, lambda c: c.objective.name),) if several else ()
    how = "by Student's t of the differences between runs of one seed" if found.papers.used else "by Welch's t"
    return Table(
        name="confirmed",
        title="What was found, on test images",
        note="Trained anew with seeds that chose nothing. Means over seeds with t-intervals; differences: the "
        f"best values' figure less the same with a dropout rate of {PAPERS_DROPOUT:g} (Chen et al. 2019), "
        f"and less the baseline's, {how}; intervals are of 95 % each; p also corrected by Holm's procedure "
        "over all rows of an objective. Accuracies in per cent, their differences in percentage points, "
        "epochs in epochs.",
        columns=(
            Column("cell", "cell", TEXT, lambda c: c.found.name),
            Column("parameters", "best values", TEXT, lambda c: c.trial.in_words or "–"),
            *by_objective,
            Column("seeds", "seeds", COUNT, lambda c: c.seeds[0]),
            Column("seeds_wanted", "of", COUNT, lambda c: c.seeds[1]),
            Column("best", "best", _FIGURE, lambda c: _figure(c, c.best)),
            Column("papers", f"at {PAPERS_DROPOUT:g}", _FIGURE, lambda c: _figure(c, c.papers)),
            Column("baseline", "baseline", _FIGURE, lambda c: _figure(c, c.baseline)),
            *_difference_columns("papers", f"best less at {PAPERS_DROPOUT:g}"),
            *_difference_columns("baseline", "best less baseline"),
            Column("verdict", "verdict", TEXT, lambda c: c.verdict.value),
        ),
        rows=found.every,
    )


def _figure(confirmation: Confirmation, estimate: Estimate | None) -> _Judged:
    return _Judged(confirmation.objective, estimate or NONE)


def _difference_columns(name: str, title: str) -> tuple[Column, ...]:
    def difference(confirmation: Confirmation) -> Difference | None:
        found: Difference | None = getattr(confirmation, f"less_{name}")
        return found

    def estimate(confirmation: Confirmation) -> _Judged:
        found = difference(confirmation)
        return _Judged(confirmation.objective, found.tested.estimate if found else NONE, is_difference=True)

    return (
        Column(f"less_{name}", title, _FIGURE, estimate),
        Column(f"less_{name}_p", "p", P, lambda c: d.tested.p if (d := difference(c)) else math.nan),
        Column(f"less_{name}_p_holm", "p (Holm)", P, lambda c: d.p_holm if (d := difference(c)) else math.nan),
    )


def rates(curves: Sequence[Curve]) -> Table:
    """One row for each curve: of a cell, along a dropout rate, of an objective."""
    return Table(
        name="rates",
        title="How wide the optimum is",
        note="A smooth curve (a Gaussian process) through the complete trials on held-out images, where all else is as "
        f"in the best trial, for cells with {FEWEST_RATES} different rates or more. Best of curve: the rate at which "
        "it is best, with the 95 % interval of that rate. Not told from it: the rates of which the 95 % interval of "
        "the difference to that reaches 0; falls by: how much worse the curve is there, at most, in percentage points "
        f"or epochs; flat: they are a fifth of all rates or more; {PAPERS_DROPOUT:g}: whether it is one of them; to "
        "within: how much worse than the best they may be, at most, by the 95 % intervals. Few or noisy trials tell "
        "little apart, and leave room for much.",
        columns=(
            Column("cell", "cell", TEXT, lambda c: c.found.name),
            Column("rate", "rate", TEXT, lambda c: c.dimension.name),
            Column("objective", "objective", TEXT, lambda c: c.objective.name),
            Column("trials", "trials", COUNT, lambda c: len(c.trials)),
            Column("rates", "different rates", COUNT, lambda c: c.rates),
            Column("best", "best of curve", _RATE, lambda c: c.best),
            Column("untold", "not told from it", TEXT, lambda c: ", ".join(c.spans)),
            Column("fall", "falls by", _FIGURE, lambda c: _Judged(c.objective, Estimate(c.fall, math.nan, math.nan))),
            Column("flat", "flat", TEXT, lambda c: _YES[c.is_flat]),
            Column("papers", f"{PAPERS_DROPOUT:g}", TEXT, lambda c: _YES[c.has_papers]),
            Column(
                "within", "to within", _FIGURE, lambda c: _Judged(c.objective, Estimate(c.within, math.nan, math.nan))
            ),
        ),
        rows=curves,
    )


_YES = {True: "yes", False: "no", None: "–"}


def importance(rows: Sequence[Importance]) -> Table:
    """One row for each cell and parameter."""
    return Table(
        name="importance",
        title="What matters",
        note="Of the variance of the first objective among complete trials, the part that each parameter "
        "explains by itself, of what all of them do (fANOVA, Hutter et al. 2014, by Optuna). It tells of "
        "the ranges that were searched, and of few trials little.",
        columns=(
            Column("cell", "cell", TEXT, lambda i: i.found.name),
            Column("parameter", "parameter", TEXT, lambda i: i.parameter),
            Column("importance", "importance, %", _SHARE, lambda i: i.value),
            Column("trials", "trials", COUNT, lambda i: i.trials),
        ),
        rows=rows,
    )


@dataclass(frozen=True)
class _Row:
    found: Found
    trial: Trial

    @property
    def values(self) -> tuple[float, ...]:
        return self.trial.values


def trials(search: Search, every: Sequence[Found]) -> Table:
    """One row a trial."""
    return Table(
        name="trials",
        title="All trials",
        note="Means over the seeds on held-out images; of a pruned trial, what it was pruned at. Again: the "
        "earlier trial with the same values. Seconds: of training, for this trial alone.",
        columns=(
            Column("cell", "cell", TEXT, lambda r: r.found.name),
            Column("trial", "trial", COUNT, lambda r: r.trial.number),
            Column("state", "state", TEXT, lambda r: r.trial.state),
            *_value_columns(search, ""),
            *_parameter_columns(every),
            Column("diverged", "diverged", COUNT, lambda r: r.trial.diverged),
            Column("repeats", "again", optional(COUNT, ""), lambda r: r.trial.repeats),
            Column("seconds", "seconds", Kind(lambda value: f"{value:,.0f}"), lambda r: r.trial.seconds),
            Column(
                "run_ids", "runs", Kind(" ".join, " ".join, lambda ids: {"": " ".join(ids)}), lambda r: r.trial.run_ids
            ),
            Column("reason", "reason", TEXT, lambda r: (r.trial.reason.strip().splitlines() or [""])[-1]),
        ),
        rows=[_Row(found, trial) for found in every for trial in found.trials],
    )


def _parameter_columns(every: Sequence[Found]) -> tuple[Column, ...]:
    """A column for each parameter of any cell."""
    dimensions = {dimension.name: dimension for found in every for dimension in found.dimensions}
    number, choice = optional(Kind(lambda value: f"{value:.4g}"), ""), Kind(lambda value: value or "–")

    def column(name: str, is_choice: bool) -> Column:
        return Column(name, name, choice if is_choice else number, lambda row: row.trial.parameters.get(name))

    return tuple(column(name, bool(dimension.choices)) for name, dimension in dimensions.items())
