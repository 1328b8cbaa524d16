"""The answer to a sweep's question in a sentence, with its uncertainty: the same words for effects and for none."""

import math
from collections.abc import Sequence

from icbench.report.comparison import Comparison, Comparisons
from icbench.report.stats import Estimate

# What speed is measured by, unless a target is given.
BASELINE_S = "the baseline's final accuracy"
_MOST_TOLD = 3
_LEVEL = 0.05


def answer(found: Comparisons, *, has_baselines: bool, target: str = BASELINE_S) -> str:
    """What the treatments do to the final accuracy and to the epochs to the target, each with its 95 % interval.

    target: what speed is measured by, in words.
    """
    if not has_baselines:
        return "The grid names no baseline, so accuracies are shown and not compared."
    if not found.pooled:
        return "No treatment has finished runs beside a baseline with finished runs yet."
    told = _each(found.pooled, target) if len(found.pooled) <= _MOST_TOLD else _range(found.pooled, target)
    sizes = {size(comparison) for comparison in found.pooled}
    return f"{_verdict(found.pooled)}: {told}" + (f" ({sizes.pop()})." if len(sizes) == 1 else ".")


def _verdict(pooled: Sequence[Comparison]) -> str:
    """Which treatments are shown to end at another accuracy than the baseline, corrected for their number."""
    who = pooled[0].treatment if len(pooled) == 1 else f"any of {len(pooled)} treatments"
    if all(math.isnan(c.p_holm) for c in pooled):
        return f"There are too few seeds to test whether {who} ends at another accuracy than the baseline"
    shown = [c for c in pooled if c.p_holm < _LEVEL]
    better = sum(c.final.value > 0 for c in shown)
    worse = len(shown) - better
    if len(pooled) == 1:
        verdict = "shown to end better" if better else "shown to end worse" if worse else "not shown to end otherwise"
        return f"{who} is {verdict} than the baseline"
    if not shown:
        return f"None of {len(pooled)} treatments is shown to end at another accuracy than the baseline"
    first, *rest = [(count, words) for count, words in ((better, "better"), (worse, "worse")) if count]
    told = f"{first[0]} {'is' if first[0] == 1 else 'are'} shown to end {first[1]}"
    told += "".join(f" and {count} {words}" for count, words in rest)
    return f"Of {len(pooled)} treatments, {told} than the baseline"


def _each(pooled: Sequence[Comparison], target: str) -> str:
    clauses = [
        f"{'it' if len(pooled) == 1 else c.treatment} ends {points(c.final.estimate)} points from it and "
        f"{_reaches(c.epochs_ratio, target)}"
        for c in pooled
    ]
    return "; ".join(clauses)


def _reaches(ratio: Estimate, target: str) -> str:
    if math.isnan(ratio.value):
        return f"nothing can be said of the epochs to {target}"
    if math.isinf(ratio.value):
        return f"mostly does not reach {target} ({times(ratio)} the baseline's epochs)"
    return f"reaches {target} in {times(ratio)} the baseline's epochs"


def _range(pooled: Sequence[Comparison], target: str) -> str:
    """The lowest and the highest, in accuracy and in speed."""
    low, *_, high = sorted(pooled, key=lambda c: c.final.value)
    differences = (
        f"the differences run from {points(low.final.estimate)} points ({low.treatment}) to "
        f"{points(high.final.estimate)} ({high.treatment})"
    )
    timed = [c for c in pooled if not math.isnan(c.epochs_ratio.value)]
    if not timed:
        return differences
    fast, slow = (choose(timed, key=lambda c: c.epochs_ratio.value) for choose in (min, max))
    return (
        f"{differences}, and the epochs to {target}, in the baseline's, from "
        f"{times(fast.epochs_ratio)} ({fast.treatment}) to {times(slow.epochs_ratio)} ({slow.treatment})"
    )


def target_in_words(target: float | None) -> str:
    """What speed is measured by: an accuracy that was given, else the baseline's."""
    return BASELINE_S if target is None else f"{100 * target:g} %"


def size(comparison: Comparison) -> str:
    """Over how many cells and seeds: 8 cells x 5 seeds."""
    few, many = comparison.seeds
    seeds = f"{many} seed{'s' if many > 1 else ''}" if few == many else f"{few} to {many} seeds"
    count = len(comparison.pairs)
    return f"{count} cell{'s' if count > 1 else ''} × {seeds}"


def points(estimate: Estimate, *, signed: bool = True) -> str:
    """A fraction as percentage points with its interval: +0.46 [0.12, 0.80]."""
    value, low, high = (100 * each for each in estimate)
    if math.isnan(value):
        return "–"
    # Added zeros: what rounds to zero has no sign.
    value, low, high = (round(each, 2) + 0.0 for each in (value, low, high))
    bounds = "" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    return (f"{value:+.2f}{bounds}" if signed else f"{value:.2f}{bounds}").replace("-", "−")


def times(estimate: Estimate) -> str:
    """A ratio with its interval: 0.61× [0.52, 0.71]; never where the target is never reached."""
    low, high = ("∞" if math.isinf(each) else f"{each:.2f}" if each else "0" for each in estimate[1:])
    if math.isnan(estimate.value):
        return "–"
    return f"{'never' if math.isinf(estimate.value) else f'{estimate.value:.2f}×'} [{low}, {high}]"
