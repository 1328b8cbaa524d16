"""Which submissions are live: the ledger, joined with the queue."""

import time
from collections import defaultdict
from dataclasses import dataclass

from icbench import ledger
from icbench.cluster import slurm
from icbench.errors import IcbenchError
from icbench.layout import Layout
from icbench.ledger import Entry

_POLL_SECONDS = 1.0
# Jobs that were cancelled have KillWait, 30 s by default, to end.
_PATIENCE_SECONDS = 180.0


@dataclass(frozen=True)
class Live:
    """A submission of which something may still be done: by a local sweep, or by jobs in the queue."""

    entry: Entry
    jobs: tuple[slurm.QueuedJob, ...] = ()

    @property
    def is_ending(self) -> bool:
        """Whether SLURM is clearing up its last jobs, which may be requeued or be gone after that."""
        return bool(self.jobs) and all(job.state == "COMPLETING" for job in self.jobs)


def live(layout: Layout) -> list[Live]:
    """The live submissions; asks squeue once if there may be any in the queue. Raises SlurmError."""
    return local(layout) + queued(layout)


def local(layout: Layout) -> list[Live]:
    """The local sweeps that are under way, on whatever machine."""
    entries = (entry for entry in ledger.entries(layout) if entry.executor == "local")
    return [Live(entry) for entry in entries if ledger.is_under_way(layout, entry)]


def queued(layout: Layout) -> list[Live]:
    """The submissions that have jobs in SLURM's queue, of one call of squeue. Raises SlurmError."""
    entries = [entry for entry in ledger.entries(layout) if entry.executor == "slurm" and not entry.over]
    by_name = defaultdict(list)
    for job in slurm.queue([entry.job_name for entry in entries]):
        by_name[job.name].append(job)
    return [Live(entry, tuple(by_name[entry.job_name])) for entry in entries if by_name[entry.job_name]]


def settle(layout: Layout) -> list[Live]:
    """The submissions in the queue, once none of them hangs between ending and being requeued.

    Those that are over are marked so, for good; the caller holds the lock on `layout.submitting`, since a submission
    under way is in the ledger before it is in the queue. Raises SlurmError; IcbenchError when SLURM cannot end jobs.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    found = queued(layout)
    while any(each.is_ending for each in found):
        if time.monotonic() > deadline:
            names = ", ".join(each.entry.job_name for each in found if each.is_ending)
            raise IcbenchError(
                f"SLURM has been ending the jobs {names} for {_PATIENCE_SECONDS:.0f} s. Try again later."
            )
        time.sleep(_POLL_SECONDS)
        found = queued(layout)
    present = {each.entry.submission for each in found}
    for entry in ledger.entries(layout):
        if entry.executor == "slurm" and not entry.over and entry.submission not in present:
            ledger.write(layout, entry.ended())
    return found


def covered(submissions: list[Live]) -> set[str]:
    """The ids of the runs that live submissions will do."""
    return set().union(*(each.entry.run_ids for each in submissions))
