"""Cells compared with their baselines: one at a time, and each treatment pooled over all places where it was tried."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from icbench import metrics
from icbench.metrics import Floats
from icbench.report import stats
from icbench.report.evidence import Evidence
from icbench.report.stats import Estimate, Tested
from icbench.report.treatments import Contrast, contrasts

_ALPHA = 0.05
NONE = Estimate(math.nan, math.nan, math.nan)
UNTESTED = Tested(math.nan, math.nan, math.nan, math.nan)


class Count(NamedTuple):
    """So many of all, on the treated side and on the baseline's."""

    treated: int
    of_treated: int
    control: int
    of_control: int


@dataclass(frozen=True)
class Comparison:
    """A treatment against the baseline, in one stratum or averaged over several. Accuracies are fractions.

    final, last10, area, deviation, drawdown, spikes: differences of means. p: of `final`, Welch's in one stratum, by
    stratified permutation over several, by paired t where runs are compared seed by seed; p_holm: adjusted for all
    comparisons of that kind. epochs_ratio, seconds_ratio: of the times to the target. improvement: the probability that
    a treated run ends better. iqm: the mean of the middle half of the treated runs' final accuracies, less that of the
    baselines'. spread, spread_p: ratio of the standard
    deviations between seeds; seed_deviation: that of both sides, NaN if a side has one seed. images: the bounds of
    `final` if only the test images were others. seeds: of a cell, fewest and most.
    """

    treatment: str
    pairs: tuple[Contrast, ...]
    seeds: tuple[int, int]
    final: Tested
    p: float
    p_holm: float
    last10: Tested
    area: Tested
    deviation: Tested
    drawdown: Tested
    spikes: Tested
    epochs_ratio: Estimate
    seconds_ratio: Estimate
    improvement: Estimate
    iqm: Estimate
    spread: float
    spread_p: float
    seed_deviation: float
    diverged: Count
    never: Count
    images: Estimate = NONE


class Pairing(NamedTuple):
    """How runs of one seed go together, treated and baseline; used: whether they are compared pair by pair for it."""

    correlation: float
    p: float
    used: bool


@dataclass(frozen=True)
class Profiles:
    """Performance profiles over the strata where all contestants have runs. times: (contestants, workloads), epochs."""

    contestants: tuple[str, ...]
    workloads: tuple[str, ...]
    times: Floats

    @property
    def scores(self) -> Floats:
        return metrics.profile_score(self.times)


@dataclass(frozen=True)
class Comparisons:
    """All of a sweep. unfinished: contrasts that have no run on one side yet, or a baseline that all failed."""

    single: tuple[Comparison, ...]
    pooled: tuple[Comparison, ...]
    unfinished: tuple[Contrast, ...]
    pairing: Pairing
    profiles: Profiles | None


def compare(evidence: Evidence) -> Comparisons:
    """Every contrast of the sweep that has runs on both sides, and every treatment pooled over these."""
    every = contrasts(evidence.sweep)
    done = [c for c in every if evidence.rows[c.cell.cell_id] and evidence.rows[c.baseline.cell_id]]
    compared = {c.cell.cell_id for c in done}
    pairing = find_pairing(evidence, done, evidence.final)
    single = [_compare([contrast], evidence, pairing) for contrast in done]
    by_treatment: dict[str, list[Contrast]] = {}
    for contrast in done:
        by_treatment.setdefault(contrast.treatment, []).append(contrast)
    pooled = [_compare(pairs, evidence, pairing, pooled=True) for pairs in by_treatment.values()]
    bounds = _image_bounds(done, evidence)
    return Comparisons(
        single=tuple(replace(c, p_holm=p, images=b) for c, p, b in zip(single, _holm(single), bounds, strict=True)),
        pooled=tuple(replace(c, p_holm=p) for c, p in zip(pooled, _holm(pooled), strict=True)),
        unfinished=tuple(c for c in every if c.cell.cell_id not in compared),
        pairing=pairing,
        profiles=_profiles(by_treatment, evidence),
    )


def _compare(pairs: list[Contrast], evidence: Evidence, pairing: Pairing, *, pooled: bool = False) -> Comparison:
    def strata(measure: str) -> list[tuple[Floats, Floats]]:
        return [(evidence.of(c.cell.cell_id, measure), evidence.of(c.baseline.cell_id, measure)) for c in pairs]

    finals = strata("final")
    final = _difference(pairs, evidence, "final", pairing)
    spread, spread_p = stats.spread_ratio(finals)
    return Comparison(
        treatment=pairs[0].treatment,
        pairs=tuple(pairs),
        seeds=(min(map(len, sum(finals, ()))), max(map(len, sum(finals, ())))),
        final=final,
        p=stats.permutation_p(finals) if len(pairs) > 1 and not pairing.used else final.p,
        p_holm=math.nan,
        last10=_difference(pairs, evidence, "last10", pairing),
        area=_difference(pairs, evidence, "area", pairing),
        deviation=_of_those_that_lasted(strata("deviation")),
        drawdown=_of_those_that_lasted(strata("drawdown")),
        spikes=_of_those_that_lasted(strata("spikes")),
        epochs_ratio=stats.time_ratio(strata("epochs_to_target")),
        seconds_ratio=stats.time_ratio(strata("seconds_to_target")),
        improvement=stats.probability_of_improvement(finals),
        iqm=stats.interquartile_mean(finals) if pooled else NONE,
        spread=spread,
        spread_p=spread_p,
        seed_deviation=_seed_deviation(finals),
        diverged=_count(strata("diverged")),
        never=_count([(np.isinf(x), np.isinf(y)) for x, y in strata("epochs_to_target")]),
    )


def _difference(pairs: Sequence[Contrast], evidence: Evidence, measure: str, pairing: Pairing) -> Tested:
    if not pairing.used:
        sides = [(evidence.of(c.cell.cell_id, measure), evidence.of(c.baseline.cell_id, measure)) for c in pairs]
        return stats.difference(sides)
    return stats.paired_difference(by_seed(pairs, evidence, evidence.measures[measure]))


def by_seed(pairs: Sequence[Contrast], evidence: Evidence, measure: Floats) -> list[tuple[Floats, Floats]]:
    """Of each contrast that shares seeds the values of those, in the same order on both sides. measure: (runs,)."""
    aligned = []
    for contrast in pairs:
        sides = []
        for cell in (contrast.cell, contrast.baseline):
            rows = evidence.rows[cell.cell_id]
            values = measure[rows].tolist()
            sides.append(dict(zip((evidence.runs["seed"][row] for row in rows), values, strict=True)))
        shared = [seed for seed in sides[0] if seed in sides[1]]
        if shared:
            aligned.append((np.array([sides[0][s] for s in shared]), np.array([sides[1][s] for s in shared])))
    return aligned


def find_pairing(evidence: Evidence, done: Sequence[Contrast], measure: Floats) -> Pairing:
    """Pair by pair where all pairs are complete, and runs of one seed are shown to go together. measure: (runs,).

    Each baseline's runs count once: beside the means, by seed, of those contrasts with it that have all its seeds.
    """
    complete: dict[str, list[tuple[Floats, Floats]]] = {}
    for contrast in done:
        sizes = {len(evidence.rows[cell.cell_id]) for cell in (contrast.cell, contrast.baseline)}
        sides = by_seed([contrast], evidence, measure)
        if sides and sizes == {len(sides[0][0])}:
            complete.setdefault(contrast.baseline.cell_id, []).append(sides[0])
    if not complete:
        return Pairing(math.nan, math.nan, used=False)
    strata = [(np.mean([x for x, _ in pairs], axis=0), pairs[0][1]) for pairs in complete.values()]
    correlation, p = stats.seed_correlation(strata)
    everywhere = sum(map(len, complete.values())) == len(done)
    return Pairing(correlation, p, used=everywhere and p < _ALPHA)


def _seed_deviation(strata: Sequence[tuple[Floats, Floats]]) -> float:
    sides = [side for sides in strata for side in sides]
    return math.nan if min(map(len, sides)) < 2 else math.sqrt(np.mean([side.var(ddof=1) for side in sides]))


def _of_those_that_lasted(strata: Sequence[tuple[Floats, Floats]]) -> Tested:
    """The difference over the runs that have a figure: those that diverged before are counted elsewhere."""
    lasted = [(x[np.isfinite(x)], y[np.isfinite(y)]) for x, y in strata]
    kept = [(x, y) for x, y in lasted if len(x) and len(y)]
    return stats.difference(kept) if kept else UNTESTED


def _count(strata: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> Count:
    treated, control = (np.concatenate(sides) for sides in zip(*strata, strict=True))
    return Count(int(treated.sum()), len(treated), int(control.sum()), len(control))


def _holm(comparisons: Sequence[Comparison]) -> list[float]:
    return [float(p) for p in stats.holm([comparison.p for comparison in comparisons])]


def _image_bounds(done: Sequence[Contrast], evidence: Evidence) -> list[Estimate]:
    """The bounds of each contrast's difference over test images; contrasts of one data set share the drawn images."""
    differences: dict[tuple[str, str, int], list[tuple[int, NDArray[np.float32]]]] = {}
    baselines = {i: evidence.correct(i) for i in {c.baseline.cell_id for c in done}}
    for index, contrast in enumerate(done):
        config = contrast.cell.config
        treated = evidence.correct(contrast.cell.cell_id)
        control = baselines[contrast.baseline.cell_id]
        if treated is None or control is None or config.dataset != contrast.baseline.config.dataset:
            continue
        if len(treated) == len(control):
            differences.setdefault((config.dataset, config.split, len(treated)), []).append((index, treated - control))
    bounds = [NONE] * len(done)
    for group in differences.values():
        found = stats.image_intervals(np.stack([each for _, each in group]))
        for (index, each), (low, high) in zip(group, found, strict=True):
            bounds[index] = Estimate(float(each.mean()), float(low), float(high))
    return bounds


def _profiles(by_treatment: Mapping[str, Sequence[Contrast]], evidence: Evidence) -> Profiles | None:
    """The median epochs to the target of each treatment and of the baseline, where every treatment was tried."""
    places = [{c.baseline.cell_id: c for c in pairs} for pairs in by_treatment.values()]
    shared = [cell_id for cell_id in places[0] if all(cell_id in each for each in places)] if places else []
    if not shared:
        return None
    times = [[_median_epochs(evidence, each[cell_id].cell.cell_id) for cell_id in shared] for each in places]
    times.append([_median_epochs(evidence, cell_id) for cell_id in shared])
    workloads = tuple(places[0][cell_id].stratum for cell_id in shared)
    return Profiles((*by_treatment, "baseline"), workloads, np.array(times))


def _median_epochs(evidence: Evidence, cell_id: str) -> float:
    return middle(evidence.of(cell_id, "epochs_to_target"))


def middle(times: Floats) -> float:
    """The median, where infinity is larger than all: infinite if the upper of two middle ones is."""
    ordered = np.sort(times)
    return float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)
