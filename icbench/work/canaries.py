"""Has nets trained for a few steps by processes like workers, as many at once as a profile has; torch stays there."""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from icbench.config import RunConfig
from icbench.errors import IcbenchError

_COMMAND = [sys.executable, "-P", "-c", "from icbench.work.canary import main; main()"]


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
        crew = [stack.enter_context(_Process(company, index)) for index in range(company.processes)]
        for each in crew:
            each.wait_until_ready()
        rounds = -(-len(nets) // len(crew))
        numbers = [number % len(nets) for number in range(rounds * len(crew))]
        shares = [numbers[index :: len(crew)] for index in range(len(crew))]
        for each, share in zip(crew, shares, strict=True):
            each.send([nets[number] for number in share])
        answers: list[list[dict[str, Any] | str]] = [[] for _ in nets]
        for turn in range(rounds):
            for each, share in zip(crew, shares, strict=True):
                answers[share[turn]].append(each.answer())
            told(sum(map(bool, answers)))
    return [_joined(each) for each in answers]


def _joined(answers: list[dict[str, Any] | str]) -> Answer:
    measured = [each for each in answers if not isinstance(each, str)]
    return measured or str(answers[0])


class _Process:
    """One of the processes. As a context: leaving it ends the process."""

    def __init__(self, company: Company, index: int):
        self._company = company
        self._gpu = company.gpus[index % len(company.gpus)] if company.gpus else ""

    def __enter__(self) -> "_Process":
        self._said: IO[bytes] = tempfile.TemporaryFile()
        self._child = subprocess.Popen(
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=os.environ | {"OMP_NUM_THREADS": str(self._company.threads), "CUDA_VISIBLE_DEVICES": self._gpu},
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout, self._said):
            assert stream is not None
            stream.close()

    def wait_until_ready(self) -> None:
        self._line()

    def send(self, nets: list[RunConfig]) -> None:
        assert self._child.stdin is not None
        try:
            pickle.dump((self._company, nets), self._child.stdin)
            self._child.stdin.flush()
        except BrokenPipeError:
            raise IcbenchError(self._death()) from None

    def answer(self) -> dict[str, Any] | str:
        answer: dict[str, Any] | str = json.loads(self._line())
        return answer

    def _line(self) -> bytes:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line.endswith(b"\n"):
            raise IcbenchError(self._death())
        return line

    def _death(self) -> str:
        code = self._child.wait()
        self._said.seek(0)
        words = self._said.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(words) if line.strip()), "(nothing)")
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"a process that trains nets for a few steps {how}. The last it said: {last}"
