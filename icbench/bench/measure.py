"""Measuring in turn, A B A B, so that what slows the machine down for a while slows all sides down; and ratios."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """The median, the least and the most of `n` repeats."""

    median: float
    least: float
    most: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        import statistics  # a fifth of what `icbench --help` takes to import

        return cls(statistics.median(values), min(values), max(values), len(values))


def in_turn(actions: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """What each action returned, by its name: all of them once, then all of them again, `repeats` times in all."""
    found: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            found[name].append(action())
    return found


class Comparison(NamedTuple):
    """icbench's way beside another, measured in turn. ratio: of the pairs; above 1 where icbench's way is better."""

    what: str
    unit: str
    ours: Spread
    other: Spread
    ratio: Spread

    @classmethod
    def of_rates(cls, what: str, unit: str, ours: Sequence[float], other: Sequence[float]) -> "Comparison":
        """More is better. The k-th of `ours` was measured just before or after the k-th of `other`."""
        return cls(what, unit, Spread.of(ours), Spread.of(other), _ratios(ours, other))

    @classmethod
    def of_costs(cls, what: str, unit: str, ours: Sequence[float], other: Sequence[float]) -> "Comparison":
        """Less is better."""
        return cls(what, unit, Spread.of(ours), Spread.of(other), _ratios(other, ours))


def _ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    return Spread.of([a / b if b else math.inf for a, b in zip(above, below, strict=True)])
