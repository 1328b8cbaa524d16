"""The answer to a sweep's question in a sentence, with its uncertainty: the same words for effects and for none."""

import math
from collections.abc import Sequence

from icbench.report.comparison import Comparison, Comparisons
from icbench.report.stats import Estimate

_MOST_TOLD = 3
_LEVEL = 0.05


def answer(found: Comparisons, *, has_baselines: bool) -> str:
    """What the treatments do to the final accuracy and to the epochs that it takes, each with its 95 % interval."""
    if not has_baselines:
        return "The grid names no baseline, so accuracies are shown and not compared."
    if not found.pooled:
        return "No treatment has finished runs beside a baseline with finished runs yet."
    told = _each(found.pooled) if len(found.pooled) <= _MOST_TOLD else _range(found.pooled)
    sizes = {size(comparison) for comparison in found.pooled}
    return f"{_verdict(found.pooled)}: {told}" + (f" ({sizes.pop()})." if len(sizes) == 1 else ".")


def _verdict(pooled: Sequence[Comparison]) -> str:
    """Which treatments are shown to end at another accuracy than the baseline, corrected for their number."""
    shown = [c for c in pooled if c.p_holm < _LEVEL]
    better = sum(c.final.value > 0 for c in shown)
    parts = [f"{n} better" for n in (better,) if n] + [f"{n} worse" for n in (len(shown) - better,) if n]
    if len(pooled) == 1:
        found = f"a {'better' if better else 'worse'}" if shown else "no other"
        return f"{pooled[0].treatment} is shown to end at {found} accuracy than the baseline"
    if not shown:
        return f"None of {len(pooled)} treatments is shown to end at another accuracy than the baseline"
    verb = "is" if len(shown) == 1 else "are"
    return f"Of {len(pooled)} treatments {len(shown)} {verb} shown to end at another accuracy, {' and '.join(parts)}"


def _each(pooled: Sequence[Comparison]) -> str:
    clauses = [
        f"{c.treatment} ends {points(c.final.estimate)} points from the baseline and {_reaches(c.epochs_ratio)}"
        for c in pooled
    ]
    return "; ".join(clauses)


def _reaches(ratio: Estimate) -> str:
    if math.isinf(ratio.value):
        return f"mostly never reaches its final accuracy ({times(ratio)})"
    return f"reaches its final accuracy in {times(ratio)} the epochs"


def _range(pooled: Sequence[Comparison]) -> str:
    """The lowest and the highest, in accuracy and in speed."""
    low, *_, high = sorted(pooled, key=lambda c: c.final.value)
    fast, *_, slow = sorted(pooled, key=lambda c: c.epochs_ratio.value)
    return (
        f"the differences run from {points(low.final.estimate)} points ({low.treatment}) to "
        f"{points(high.final.estimate)} ({high.treatment}), and the ratio of epochs to the baseline's final accuracy "
        f"from {times(fast.epochs_ratio)} ({fast.treatment}) to {times(slow.epochs_ratio)} ({slow.treatment})"
    )


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
