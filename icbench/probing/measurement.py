"""What a probe finds."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from icbench.probing.subject import Subject


class Measurement(NamedTuple):
    """One statistic. layer: a module's name in the net, "" for the net as a whole. standard_error: of the value, over
    the n observations that it is made of (images, steps, pairs: the probe says which); None where it is not known.
    """

    layer: str
    statistic: str
    value: float
    standard_error: float | None
    n: int


class Probe(Protocol):
    """What a probe's `build` returns, whose keyword-only arguments are its options.

    It may change the subject as it likes: it is a copy made for this probe. Values that are not finite, as those of a
    training that diverged, are left out by whoever stores them.
    """

    def __call__(self, subject: Subject) -> Iterable[Measurement]: ...


def mean_of(layer: str, statistic: str, values: Iterable[float]) -> Iterator[Measurement]:
    """The mean of independent observations with its standard error; nothing of none, no error of one."""
    each = list(values)
    if not each:
        return
    mean = sum(each) / len(each)
    variance = sum((value - mean) ** 2 for value in each) / (len(each) - 1) if len(each) > 1 else None
    error = None if variance is None else (variance / len(each)) ** 0.5
    yield Measurement(layer, statistic, mean, error, len(each))
