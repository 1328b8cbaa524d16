"""Has nets trained for a few steps by processes like workers, as many at once as a profile has; torch stays there."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icbench.child import Child
from icbench.config import RunConfig


@dataclass(frozen=True)
class Company:
    """The processes: so many at once, each with so many threads, on these GPUs in turn (their names) or the CPU; and
    what a profile says of how they train. ranks: of how many that train a run together each has one's share of a batch.
    data: where the data sets' files are, if not where they usually are. cores: how many a worker has; None: all of this
    process's.
    """

    processes: int
    threads: int
    device: str
    gpus: tuple[str, ...] = ()
    engine: str = "auto"
    images_at_once: int | None = None
    ranks: int = 1
    data: Path | None = None
    cores: int | None = None


# What was measured of a net, by each process that did; or why it could not be.
Answer = list[dict[str, Any]] | str


def measure(
    nets: Sequence[RunConfig], company: Company, told: Callable[[int], object] = lambda _: None
) -> list[Answer]:
    """Have each net measured; `told` hears how many are. Raises IcbenchError where processes end before they answer.

    All begin at once, and go on with their steps until all have answered: that others are at work slows a run, and so
    it shall slow a canary. Where there are fewer nets than processes, several measure the same.
    """
    with ExitStack() as stack:
        crew = [stack.enter_context(process(company, index)) for index in range(company.processes)]
        for each in crew:
            each.answer()  # it is ready
        rounds = -(-len(nets) // len(crew))
        numbers = [number % len(nets) for number in range(rounds * len(crew))]
        shares = [numbers[index :: len(crew)] for index in range(len(crew))]
        for each, share in zip(crew, shares, strict=True):
            each.send((company, [nets[number] for number in share]))
        answers: list[list[dict[str, Any] | str]] = [[] for _ in nets]
        for turn in range(rounds):
            for each, share in zip(crew, shares, strict=True):
                answers[share[turn]].append(each.answer())
            told(sum(map(bool, answers)))
    return [_joined(each) for each in answers]


def _joined(answers: list[dict[str, Any] | str]) -> Answer:
    measured = [each for each in answers if not isinstance(each, str)]
    return measured or str(answers[0])


def process(company: Company, index: int) -> Child:
    """One of the company's processes; see icbench.work.canary."""
    gpu = company.gpus[index % len(company.gpus)] if company.gpus else ""
    environment = {"OMP_NUM_THREADS": str(company.threads), "CUDA_VISIBLE_DEVICES": gpu}
    return Child("icbench.work.canary", environment, "a process that trains nets for a few steps")
