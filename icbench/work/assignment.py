"""What a worker is told, and what it answers with."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from icbench import kinds
from icbench.layout import Layout, SubmissionFiles
from icbench.profile import Profile
from icbench.recording import NOTHING, Recording


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What all workers of a submission are told alike. engine, images_at_once: see train/engines.py. ranks: the
    processes that train a run together. durable: whether checkpoints must outlast a crash of the machine. recording:
    what is measured and kept of each run on its way.
    """

    results: Path
    sweep: str
    submission: str
    data: Path | None
    threads: int
    device: str
    checkpoint_minutes: float
    heartbeat_seconds: float
    engine: str = "auto"
    images_at_once: int | None = None
    ranks: int = 1
    durable: bool = False
    recording: Recording = NOTHING

    @property
    def files(self) -> SubmissionFiles:
        return Layout(self.results).sweep(self.sweep).submission(self.submission)


def terms(
    profile: Profile,
    layout: Layout,
    sweep: str,
    submission: str,
    data: Path | None,
    *,
    heartbeat_seconds: float,
    durable: bool,
    recording: Recording,
) -> Terms:
    """Those of a submission under a profile. The paths should not hang on the working directory."""
    return Terms(
        results=layout.root,
        sweep=sweep,
        submission=submission,
        data=data,
        threads=profile.threads,
        device=profile.device,
        checkpoint_minutes=profile.checkpoint_minutes,
        heartbeat_seconds=heartbeat_seconds,
        engine=profile.engine,
        images_at_once=profile.images_at_once,
        ranks=profile.ranks,
        durable=durable,
        recording=recording,
    )


@dataclass(frozen=True, kw_only=True)
class Assignment(Terms):
    """All that a worker is told. index: its pack. gpu: the one it may use, as CUDA_VISIBLE_DEVICES has it.

    incarnation: what its attempts are counted under (see attempts.py). parent: the process that it must not
    outlive; without one, the sweep's lifeline. rank: which of the processes that train a run together; the first of
    them claims runs and writes. before: how the worker that it replaces died, a kind and words.
    """

    index: int
    gpu: str | None
    incarnation: str
    parent: int | None = None
    rank: int = 0
    before: tuple[str, str] = (kinds.DIED, "killed?")


# What the first rank says from time to time while there may be more to do, lest the others take it for lost.
WAITING = b"waiting"


class Outcome(Enum):
    """How a worker ended, as its exit code: nothing is left that it could do; it was asked to stop; the disk is full;
    a rank that it shared a run with is lost, or has lost it; the other ranks never came.
    """

    DONE = 0
    STOPPED = 3
    HALTED = kinds.EXIT_DISK
    PARTED = 5
    UNMET = 6
