"""What runs on test images, with seeds that chose nothing, say of the values that a search found best."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from icbench.metrics import Floats
from icbench.report import stats
from icbench.report.comparison import UNTESTED, Pairing, by_seed, find_pairing
from icbench.report.evidence import Evidence
from icbench.report.searches.found import Found, Trial
from icbench.report.stats import Estimate, Tested
from icbench.report.treatments import Contrast
from icbench.search.objective import ACCURACY, AREA, Objective

_LEVEL = 0.05


class Verdict(Enum):
    """How the best values do beside what they are compared with."""

    BETTER = "better"
    WORSE = "worse"
    UNTOLD = "not told apart"
    SAME = "the paper's own"
    UNTESTED = "cannot be tested"
    ALONE = "nothing to compare with"
    UNCONFIRMED = "not confirmed"


@dataclass(frozen=True)
class Difference:
    """The best values' figure less another's. p_holm: adjusted for all cells, and for several best trials."""

    tested: Tested
    p_holm: float = math.nan


@dataclass(frozen=True)
class Confirmation:
    """The best values of a cell on test images, by one objective. best, papers, baseline: the figures over seeds of
    runs with the best values, the same with the paper's dropout rate, and of the baseline; None where there is none.

    less_papers, less_baseline: None where there are no runs on both sides, or the best values are the paper's.
    seeds: so many have finished, of so many.
    """

    found: Found
    trial: Trial
    objective: Objective
    seeds: tuple[int, int]
    best: Estimate | None = None
    papers: Estimate | None = None
    baseline: Estimate | None = None
    less_papers: Difference | None = None
    less_baseline: Difference | None = None

    @property
    def is_papers(self) -> bool:
        """Whether each of its rates is the paper's own."""
        values = self.trial.parameters
        return self.found.with_papers_rate(values) == self.found.config(values)

    @property
    def against_papers(self) -> bool:
        """Whether it is the paper's rate that it is judged against; else the baseline."""
        return self.found.with_papers_rate(self.trial.parameters) is not None and not self.is_papers

    @property
    def difference(self) -> Difference | None:
        """To what it is judged against."""
        return self.less_papers if self.against_papers else self.less_baseline

    @property
    def verdict(self) -> Verdict:
        if self.is_papers:
            return Verdict.SAME
        if not self.seeds[0]:
            return Verdict.UNCONFIRMED
        if self.difference is None:
            return Verdict.UNCONFIRMED if self.against_papers else Verdict.ALONE
        if math.isnan(self.difference.p_holm):
            return Verdict.UNTESTED
        if self.difference.p_holm >= _LEVEL:
            return Verdict.UNTOLD
        is_higher = self.difference.tested.value > 0
        return Verdict.BETTER if is_higher == (self.objective.direction == "maximize") else Verdict.WORSE


@dataclass(frozen=True)
class Confirmations:
    """All of a search, one for each best trial and objective.

    By the first objective: papers, baseline: whether runs are compared by seeds; on_average: the mean difference to the
    paper's rate.
    """

    every: tuple[Confirmation, ...]
    papers: Pairing
    baseline: Pairing
    on_average: Tested

    def of(self, found: Found, objective: int = 0) -> list[Confirmation]:
        """Of one cell's best trials, by one objective."""
        wanted = found.search.objectives[objective]
        return [each for each in self.every if each.found is found and each.objective == wanted]


_UNPAIRED = Pairing(math.nan, math.nan, used=False)


@dataclass(frozen=True)
class _Arms:
    """Of a best trial the ids of the cells that are to confirm it; empty where there is none."""

    found: Found
    trial: Trial
    best: str
    papers: str
    baseline: str

    def contrast(self, evidence: Evidence, other: str) -> Contrast | None:
        """The best values against another arm, where both have runs."""
        if not other or other == self.best or not (evidence.rows.get(self.best) and evidence.rows.get(other)):
            return None
        return Contrast(evidence.cells[self.best], evidence.cells[other], self.trial.in_words, self.found.name)


def confirmations(every: Sequence[Found], evidence: Evidence | None) -> Confirmations:
    """What the confirming runs say of each cell's best trials."""
    arms = [_arms(found, trial, evidence) for found in every for trial in found.best]
    if evidence is None:
        rows = [Confirmation(a.found, a.trial, o, (0, 0)) for a in arms for o in a.found.search.objectives]
        return Confirmations(tuple(rows), _UNPAIRED, _UNPAIRED, UNTESTED)
    by_objective, pairings, averages = [], [], []
    for objective in every[0].search.objectives:
        measure = measured(evidence, objective)
        papers, of_papers, average = _differences([(a, a.papers) for a in arms], measure, evidence)
        baseline, of_baseline, _ = _differences([(a, a.baseline) for a in arms], measure, evidence)
        by_objective.append(
            [
                replace(_figures(each, objective, measure, evidence), less_papers=one, less_baseline=other)
                for each, one, other in zip(arms, papers, baseline, strict=True)
            ]
        )
        pairings.append((of_papers, of_baseline))
        averages.append(average)
    by_trial = tuple(each for group in zip(*by_objective, strict=True) for each in group)
    return Confirmations(by_trial, *pairings[0], averages[0])


def _arms(found: Found, trial: Trial, evidence: Evidence | None) -> _Arms:
    """The cells by their configurations: the confirming sweep's grid has not the search's words for them."""
    best = found.config(trial.parameters).cell_id
    papers = found.with_papers_rate(trial.parameters)
    known = evidence.cells if evidence else {}
    baseline = evidence.sweep.baselines.get(best, "") if evidence else ""
    of_papers = papers.cell_id if papers else ""
    return _Arms(found, trial, best if best in known else "", of_papers if of_papers in known else "", baseline)


def measured(evidence: Evidence, objective: Objective) -> Floats:
    """(runs,): what the search was judged by, on test images. A diverged run counts with the accuracy that it ended
    with; of epochs, as in the search, with twice those that it has.
    """
    if objective.name in (ACCURACY, AREA):
        return evidence.measures["final" if objective.name == ACCURACY else "area"]
    values = np.full(len(evidence.final), np.nan)
    for cell_id, rows in evidence.rows.items():
        recipe = evidence.cells[cell_id].config.recipe
        for row in rows:
            curve = evidence.accuracy[row][: evidence.runs["epochs"][row]]
            ended = evidence.runs["diverged"][row]
            values[row] = objective.worst(recipe) if ended else objective.value(curve, recipe)
    return values


def _figures(arms: _Arms, objective: Objective, measure: Floats, evidence: Evidence) -> Confirmation:
    def mean(cell_id: str) -> Estimate | None:
        rows = evidence.rows.get(cell_id)
        return stats.mean(measure[rows]) if rows else None

    wanted = len(evidence.cells[arms.best].seeds) if arms.best else 0
    return Confirmation(
        arms.found,
        arms.trial,
        objective,
        seeds=(len(evidence.rows.get(arms.best, [])), wanted),
        best=mean(arms.best),
        papers=mean(arms.papers),
        baseline=mean(arms.baseline),
    )


def _differences(
    pairs: Sequence[tuple[_Arms, str]], measure: Floats, evidence: Evidence
) -> tuple[list[Difference | None], Pairing, Tested]:
    """Of each pair of arms the difference; whether they were compared by seeds; and the mean over all."""
    contrasts = [arms.contrast(evidence, other) for arms, other in pairs]
    done = [contrast for contrast in contrasts if contrast is not None]
    if not done:
        return [None] * len(pairs), _UNPAIRED, UNTESTED
    pairing = find_pairing(evidence, done, measure)

    def tested(some: Sequence[Contrast]) -> Tested:
        if pairing.used:
            return stats.paired_difference(by_seed(some, evidence, measure))
        sides = [(measure[evidence.rows[c.cell.cell_id]], measure[evidence.rows[c.baseline.cell_id]]) for c in some]
        return stats.difference(sides)

    each = [tested([contrast]) for contrast in done]
    adjusted = stats.holm([one.p for one in each])
    differences = iter([Difference(one, float(p)) for one, p in zip(each, adjusted, strict=True)])
    return [None if contrast is None else next(differences) for contrast in contrasts], pairing, tested(done)
