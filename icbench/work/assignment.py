"""What a worker is told, and what it answers with."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from icbench import kinds


@dataclass(frozen=True)
class Assignment:
    """All that a worker is told. index: its pack. gpu: the one it may use, as CUDA_VISIBLE_DEVICES has it.

    incarnation: what its attempts are counted under (see attempts.py). parent: the process that it must not
    outlive; without one, the sweep's lifeline. engine, images_at_once: see train/engines.py. rank, of ranks: which of
    the processes that train a run together; the first of them claims runs and writes. durable: whether checkpoints must
    outlast a crash of the machine. before: how the worker that it replaces died, a kind and words.
    """

    results: Path
    sweep: str
    submission: str
    index: int
    data: Path | None
    threads: int
    device: str
    gpu: str | None
    checkpoint_minutes: float
    heartbeat_seconds: float
    incarnation: str
    parent: int | None = None
    engine: str = "auto"
    images_at_once: int | None = None
    rank: int = 0
    ranks: int = 1
    durable: bool = False
    before: tuple[str, str] = (kinds.DIED, "killed?")


class Outcome(Enum):
    """How a worker ended, as its exit code: nothing is left that it could do; it was asked to stop; the disk is full;
    a rank that it shared a run with is lost, or has lost it; the other ranks never came.
    """

    DONE = 0
    STOPPED = 3
    HALTED = kinds.EXIT_DISK
    PARTED = 5
    UNMET = 6
