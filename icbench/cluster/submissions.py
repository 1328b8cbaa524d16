"""Which submissions are live: the ledger, joined with the queue."""

import getpass
import time
from collections import defaultdict
from dataclasses import dataclass

from icbench import ledger
from icbench.cluster import slurm
from icbench.layout import Layout
from icbench.ledger import Entry

_POLL_SECONDS = 1.0
# Jobs that were cancelled have KillWait, 30 s by default, to end.
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Live:
    """A submission of which something may still be done: by a local sweep, or by jobs in the queue."""

    entry: Entry
    jobs: tuple[slurm.QueuedJob, ...] = ()

    @property
    def is_ending(self) -> bool:
        """Whether SLURM is clearing up its last jobs."""
        return bool(self.jobs) and all(job.is_ending for job in self.jobs)

    @property
    def at_once(self) -> int:
        """How many of its jobs may run at the same time."""
        return min(len(self.jobs), int(self.entry.profile.get("max_jobs_at_once", 1)))


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


def settle(layout: Layout, cluster: str) -> list[Live]:
    """The submissions in the queue, once none of them hangs between ending and being requeued.

    Our own on this `cluster` that are over are marked so, for good; other people's may be hidden from us. The caller
    holds the lock on `layout.submitting`, since a submission under way is in the ledger before it is in the queue.
    Raises SlurmError.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    found = queued(layout)
    while any(each.is_ending for each in found) and time.monotonic() < deadline:  # after that they count as live
        time.sleep(_POLL_SECONDS)
        found = queued(layout)
    present = {each.entry.submission for each in found}
    for entry in ledger.entries(layout):
        ours = entry.executor == "slurm" and (entry.user, entry.cluster) == (getpass.getuser(), cluster)
        if ours and not entry.over and entry.submission not in present:
            ledger.write(layout, entry.ended())
    return found


def covered(submissions: list[Live]) -> set[str]:
    """The ids of the runs that live submissions will do."""
    return set().union(*(each.entry.run_ids for each in submissions))
