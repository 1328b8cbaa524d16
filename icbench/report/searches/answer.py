"""The answer to a search's question in sentences: does what was found beat the paper's rate, is its optimum flat."""

import math
from collections import Counter
from collections.abc import Sequence

from icbench.console import plural
from icbench.report.answer import points
from icbench.report.searches.confirmed import Confirmation, Confirmations, Difference, Verdict
from icbench.report.searches.found import Found
from icbench.report.searches.rates import Curve
from icbench.report.stats import Estimate
from icbench.search.confirm import PAPERS_DROPOUT
from icbench.search.objective import Objective

_PAPERS = f"the paper's {PAPERS_DROPOUT:g}"
_MOST_TOLD = 3
_JUDGED = (Verdict.BETTER, Verdict.WORSE, Verdict.UNTOLD, Verdict.SAME)


def amount(estimate: Estimate, objective: Objective, *, signed: bool = True) -> str:
    """A difference or a figure of an objective with its interval and its unit."""
    if objective.is_fraction:
        return f"{points(estimate, signed=signed)} points"
    return f"{epochs(estimate, signed=signed)} epochs"


def epochs(estimate: Estimate, *, signed: bool = False) -> str:
    """A number of epochs with its interval: 4.3 [2.1, 6.5]."""
    if math.isnan(estimate.value):
        return "–"
    value, low, high = (round(each, 1) + 0.0 for each in estimate)
    bounds = "" if math.isnan(low) else f" [{low:.1f}, {high:.1f}]"
    return (f"{value:+.1f}{bounds}" if signed else f"{value:.1f}{bounds}").replace("-", "−")


def verdict(found: Found, confirmations: Sequence[Confirmation], curves: Sequence[Curve]) -> str:
    """Of one cell, in a sentence. confirmations: of its best trials, by the first objective; curves: of that."""
    if not found.best:
        return f"{found.name}: {_nothing(found)}."
    if len(confirmations) > 1:
        return f"{found.name}: {_front(confirmations)}."
    (one,) = confirmations
    flat = "".join(f"; on held-out images, along {_named(curve)}, {curve.in_words}" for curve in curves)
    return f"{found.name}: {_sentence(one)}{flat}."


def _nothing(found: Found) -> str:
    """Why there is no best trial."""
    if found.failed:
        reason = found.failed[-1].reason.strip().splitlines()[-1].rstrip(".")
        every = "all" if len(found.failed) == len(found.trials) else str(len(found.failed))
        return f"{every} of {plural(len(found.trials), 'trial')} failed, the last since {reason}"
    return "no trial is complete yet"


def _named(curve: Curve) -> str:
    return "the dropout rate" if len(curve.found.rates) == 1 else curve.dimension.name


def _sentence(one: Confirmation) -> str:
    values = one.trial.in_words
    beside = _beside_baseline(one)
    match one.verdict:
        case Verdict.SAME:
            return f"the best rate found is {_PAPERS} itself{beside}"
        case Verdict.UNCONFIRMED:
            return f"{values or 'as it is'}, not confirmed on test images yet"
        case Verdict.ALONE:
            said = f": {amount(one.best, one.objective, signed=False)}" if one.best else ""
            return f"{values or 'nothing was searched'}; there is nothing to compare it with{said}"
    assert one.difference is not None
    difference, against = one.difference, _PAPERS if one.against_papers else "the baseline"
    beside = beside if one.against_papers else ""
    return f"{values} {_how(one, difference, against)}{_so_far(one)}{beside}"


def _how(one: Confirmation, difference: Difference, against: str) -> str:
    estimate = difference.tested.estimate
    if one.verdict is Verdict.FEW:
        return f"has too few seeds to be told from {against}: {amount(estimate, one.objective)}"
    if one.verdict is Verdict.UNTOLD:
        return f"is not told from {against}: {amount(estimate, one.objective)}"
    size = estimate if estimate.value > 0 else Estimate(-estimate.value, -estimate.high, -estimate.low)
    does = "beats" if one.verdict is Verdict.BETTER else "does worse than"
    return f"{does} {against} by {amount(size, one.objective, signed=False)}"


def _so_far(one: Confirmation) -> str:
    have, wanted = one.seeds
    return f" ({have} of {wanted} seeds so far)" if have < wanted else ""


def _beside_baseline(one: Confirmation) -> str:
    if one.less_baseline is None:
        return ""
    return f", and comes to {amount(one.less_baseline.tested.estimate, one.objective)} of the baseline"


def _front(confirmations: Sequence[Confirmation]) -> str:
    """Of several best trials, none of which beats another in all objectives."""
    name = confirmations[0].objective.name
    counts = Counter(each.verdict for each in confirmations)
    told = ", ".join(f"{count} {kind.value}" for kind, count in counts.items())
    return f"{len(confirmations)} trials that no other beats in all objectives; on test images, by {name}: {told}"


def answer(every: Sequence[Found], confirmations: Confirmations, curves: Sequence[Curve], command: str) -> str:
    """The answer of a whole search. command: what has it confirmed; empty where that cannot be said yet."""
    firsts = [each for found in every for each in confirmations.of(found) if found.rates or found.dimensions]
    judged = [each for each in firsts if each.verdict in _JUDGED]
    if not firsts:
        return "No trial is complete yet."
    if not judged:
        return _unjudged(firsts, every, curves, command)
    if len(firsts) == 1:
        found = firsts[0].found
        own = [c for c in curves if c.found is found and c.objective is firsts[0].objective]
        return verdict(found, confirmations.of(found), own)
    return f"{_counted(judged)}{_waiting(firsts, judged)}{_told(judged)}{_average(confirmations, judged)}."


def _unjudged(firsts: Sequence[Confirmation], every: Sequence[Found], curves: Sequence[Curve], command: str) -> str:
    if all(each.verdict is Verdict.ALONE for each in firsts):
        return "There is neither a dropout rate nor a baseline to compare what was found with."
    if any(each.verdict is Verdict.FEW for each in firsts):
        return "There are too few seeds on test images to say whether what was found is better."
    how = f": {command}" if command else ", since the search has not ended"
    flat = [f"{c.found.name}: {c.in_words}" for c in curves if c.objective is every[0].search.objective]
    told = f" On held-out images {'; '.join(flat)}." if flat and len(flat) <= _MOST_TOLD else ""
    return f"Not confirmed on test images yet{how}.{told}"


def _counted(judged: Sequence[Confirmation]) -> str:
    counts = Counter(each.verdict for each in judged)
    against = _PAPERS if all(each.found.rates for each in judged) else "what it is compared with"
    clauses = [
        (counts[Verdict.BETTER], f"beats {against}"),
        (counts[Verdict.WORSE], "does worse"),
        (counts[Verdict.UNTOLD], f"is not told from {'it' if counts[Verdict.BETTER] else against}"),
        (counts[Verdict.SAME], f"is {_PAPERS} itself"),
    ]
    told = ", ".join(f"in {count} it {words}" for count, words in clauses if count)
    what = "values" if any(len(each.found.best) > 1 for each in judged) else "cells"
    return f"Of {plural(len(judged), what[:-1])}, on test images, what was found: {told}"


def _waiting(firsts: Sequence[Confirmation], judged: Sequence[Confirmation]) -> str:
    rest = len(firsts) - len(judged)
    return f"; {plural(rest, 'more')[: -1 if rest != 1 else None]} not judged yet" if rest else ""


def _told(judged: Sequence[Confirmation]) -> str:
    if len(judged) > _MOST_TOLD:
        return ""
    return ". " + "; ".join(f"{each.found.name}: {_sentence(each)}" for each in judged)


def _average(confirmations: Confirmations, judged: Sequence[Confirmation]) -> str:
    if math.isnan(confirmations.on_average.low) or sum(each.less_papers is not None for each in judged) < 2:
        return ""
    estimate = confirmations.on_average.estimate
    return f". On average over them {amount(estimate, judged[0].objective)} beside {_PAPERS}"
