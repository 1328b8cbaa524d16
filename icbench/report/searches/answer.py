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
    """A difference in an objective, with its interval and its unit."""
    if objective.is_fraction:
        return f"{points(estimate, signed=signed)} points"
    return f"{epochs(estimate, signed=signed)} epochs"


def level(estimate: Estimate, objective: Objective) -> str:
    """A figure of an objective, with its interval and its unit."""
    return f"{points(estimate, signed=False)} %" if objective.is_fraction else f"{epochs(estimate)} epochs"


def epochs(estimate: Estimate, *, signed: bool = False) -> str:
    """A number of epochs with its interval: 4.3 [2.1, 6.5]."""
    if math.isnan(estimate.value):
        return "–"
    value, low, high = (each if math.isnan(each) else round(each, 1) + 0.0 for each in estimate)
    bounds = "" if math.isnan(low) else f" [{low:.1f}, {high:.1f}]"
    return (f"{value:+.1f}{bounds}" if signed else f"{value:.1f}{bounds}").replace("-", "−")


def verdict(found: Found, confirmations: Sequence[Confirmation], curves: Sequence[Curve]) -> str:
    """Of one cell, in a sentence. confirmations: of its best trials, by the first objective; curves: of that."""
    if not found.best:
        return f"{found.name}: {_nothing(found)}."
    if found.all_diverged:
        return f"{found.name}: every run of {plural(len(found.complete), 'complete trial')} diverged, so none is best."
    if len(confirmations) > 1:
        return f"{found.name}: {_front(confirmations)}."
    (one,) = confirmations
    flat = "".join(f"; on held-out images {_along(curve)}{curve.in_words}" for curve in curves)
    return f"{found.name}: {_sentence(one)}{flat}."


def _along(curve: Curve) -> str:
    """Which of several rates a curve is along."""
    return f"along {curve.dimension.name} " if len(curve.found.rates) > 1 else ""


def _nothing(found: Found) -> str:
    """Why there is no best trial."""
    if found.failed:
        reason = found.failed[-1].reason.strip().splitlines()[-1].rstrip(".")
        every = "all" if len(found.failed) == len(found.trials) else f"{len(found.failed)} of"
        return f"{every} {plural(len(found.trials), 'trial')} failed, the last one: {reason}"
    return "no trial is complete yet"


def _sentence(one: Confirmation) -> str:
    values = one.trial.in_words or "as it is, with nothing to search for"
    match one.verdict:
        case Verdict.SAME:
            return f"{values}, so the best rate found is {_PAPERS} itself{_beside_baseline(one)}"
        case Verdict.UNCONFIRMED:
            kind = "the baseline, " if one.found.is_baseline else ""
            return f"{values}; {kind}not confirmed on test images yet"
        case Verdict.ALONE:
            kind = "the baseline" if one.found.is_baseline else "there is nothing to compare it with"
            said = f", {level(one.best, one.objective)} on test images" if one.best else ""
            return f"{values}; {kind}{said}"
    assert one.difference is not None
    against = _PAPERS if one.against_papers else "the baseline"
    beside = _beside_baseline(one) if one.against_papers else ""
    return f"{values} {_how(one, one.difference, against)}{_so_far(one)}{beside}"


def _how(one: Confirmation, difference: Difference, against: str) -> str:
    estimate = difference.tested.estimate
    if one.verdict is Verdict.UNTESTED:
        why = "of too few seeds, or of seeds that do not differ"
        return f"cannot be tested against {against}, {why}: {amount(estimate, one.objective)}"
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
    return f", and is {amount(one.less_baseline.tested.estimate, one.objective)} from the baseline"


def _front(confirmations: Sequence[Confirmation]) -> str:
    """Of several best trials, none of which beats another in all objectives."""
    name = confirmations[0].objective.name
    told = ", ".join(f"{count} {kind.value}" for kind, count in Counter(e.verdict for e in confirmations).items())
    return f"{len(confirmations)} trials that no other beats in all objectives; on test images, by {name}: {told}"


def answer(every: Sequence[Found], confirmations: Confirmations, curves: Sequence[Curve], command: str) -> str:
    """The answer of a whole search. command: what has it confirmed; empty where that cannot be said yet."""
    best = [each for found in every for each in confirmations.of(found) if not found.is_baseline]
    compared = [each for each in best if each.verdict is not Verdict.ALONE]
    judged = [each for each in compared if each.verdict in _JUDGED]
    if not best:
        return "No trial is complete yet."
    if not compared:
        return "There is neither a dropout rate nor a baseline to compare what was found with."
    waiting = len(compared) - len(judged)
    if waiting and all(each.is_papers for each in judged):
        return _unjudged(compared, curves, command)
    if len(compared) == 1:
        (one,) = compared
        own = [curve for curve in curves if curve.found is one.found and curve.objective == one.objective]
        return verdict(one.found, compared, own)
    more = f"; {waiting} {'is' if waiting == 1 else 'are'} not judged yet" if waiting else ""
    return f"On test images, {_counted(judged)}{_told(judged)}{_average(confirmations, judged)}{more}."


def _unjudged(compared: Sequence[Confirmation], curves: Sequence[Curve], command: str) -> str:
    """What can be said before there are enough runs on test images."""
    if any(each.verdict is Verdict.UNTESTED for each in compared):
        return "Nothing can be tested on test images yet: there are too few seeds, or they do not differ."
    how = f": {command}" if command else ", since the search has not ended"
    flat = [f"{c.found.name}: {c.in_words}" for c in curves if c.objective == compared[0].objective]
    told = f" On held-out images, {'; '.join(flat)}." if flat and len(flat) <= _MOST_TOLD else ""
    return f"Not confirmed on test images yet{how}.{told}"


def _counted(judged: Sequence[Confirmation]) -> str:
    """In how many cells, or by how many best trials, what was found does how."""
    counts = Counter(each.verdict for each in judged)
    against = _PAPERS if all(each.found.rates for each in judged) else "what it is compared with"
    cells = len({each.found for each in judged}) == len(judged)
    words = {
        Verdict.BETTER: f"beats {against}",
        Verdict.WORSE: f"does worse than {against}",
        Verdict.UNTOLD: f"is not told from {against}",
        Verdict.SAME: f"is {_PAPERS} itself",
    }
    total = plural(len(judged), "cell" if cells else "best trial")
    shown = [(words[kind], counts[kind]) for kind in words if counts[kind]]
    if len(shown) == 1:
        every = "" if len(judged) == 1 else "any of " if counts[Verdict.UNTOLD] else "each of "
        return f"what was found {shown[0][0]} in {every}{total}"
    first, *rest = [f"{what} in {count}" for what, count in shown]
    return f"of {total}, what was found {first}{''.join(f', {each}' for each in rest[:-1])} and {rest[-1]}"


def _told(judged: Sequence[Confirmation]) -> str:
    """The differences, if they are few."""
    told = [
        f"{amount(each.difference.tested.estimate, each.objective)} ({each.found.name}, {each.trial.in_words})"
        for each in judged
        if each.difference is not None and not each.is_papers
    ]
    return f": {', '.join(told)}" if 0 < len(told) <= _MOST_TOLD else ""


def _average(confirmations: Confirmations, judged: Sequence[Confirmation]) -> str:
    estimate = confirmations.on_average.estimate
    if math.isnan(estimate.low) or sum(each.less_papers is not None for each in judged) < 2:
        return ""
    return f"; on average {amount(estimate, judged[0].objective)}"
