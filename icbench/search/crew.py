"""The workers of a search: runs are handed out to them while they work, on this machine or on a cluster."""

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from icbench import ledger
from icbench.cluster import slurm, submissions, submit
from icbench.cluster.following import Workers
from icbench.errors import IcbenchError
from icbench.events import Event
from icbench.launch import LocalJobs
from icbench.layout import Layout
from icbench.locks import Lock
from icbench.plan import Run
from icbench.profile import Local, Slurm
from icbench.work.handout import Handout

# A run on digits takes a second: what a free worker waits for its next is felt.
_LOCAL_POLL_SECONDS = 0.01
_CLUSTER_POLL_SECONDS = 0.5
_QUEUE_SECONDS = 15.0
# Times in a row that jobs end although there is something to do, and nothing has come of them.
_MOST_FRUITLESS = 3


class Interrupted(Exception):
    """Somebody cancelled the search's jobs."""


class Crew(Protocol):
    """As a context: the workers are there within it."""

    def __enter__(self) -> "Crew": ...
    def __exit__(self, *_: object) -> None: ...

    def give(self, runs: Collection[Run], further: int) -> None:
        """These are the runs to be done from now on, the first first; of those given before, all that are to stay.

        further: how many others may come while there are workers for them.
        """

    def stop(self, run_id: str) -> None:
        """End a run with the epoch that it is in, or do not begin it."""

    def close(self) -> None:
        """No more will come: workers end when they have done what there is."""

    def events(self) -> Iterator[Event | None]:
        """What workers begin and end, as it happens; None whenever a moment has passed. Ends when all have ended."""


class LocalCrew:
    """Workers on this machine; leaving the context stops them."""

    def __init__(self, layout: Layout, name: str, machine: Local, data: Path | None, workers: int):
        self._jobs = LocalJobs(layout, name, [()], machine, data, workers=workers)

    def __enter__(self) -> "LocalCrew":
        close_orphans(self._jobs.layout, self._jobs.sweep)
        self._jobs.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs.stop()
        self.close()

    def give(self, runs: Collection[Run], further: int) -> None:
        _give(self._jobs.handout, runs)

    def stop(self, run_id: str) -> None:
        self._jobs.handout.stop(run_id)

    def close(self) -> None:
        self._jobs.handout.close()

    def events(self) -> Iterator[Event | None]:
        yield from self._jobs.events(_LOCAL_POLL_SECONDS)


@dataclass(frozen=True)
class _Held:
    """A submission that runs are handed out to: nobody else does while we have its lifeline."""

    handout: Handout
    lifeline: Lock
    workers: Workers = field(default_factory=Workers)

    def told(self) -> Iterator[Event]:
        return self.workers.read(self.handout.files)

    def queued(self) -> tuple[slurm.QueuedJob, ...]:
        """Its jobs that have not ended. Raises SlurmError."""
        return tuple(slurm.queue([self.handout.entry.job_name]))


@dataclass
class ClusterCrew:
    """Slots of jobs on a cluster, those of a controller that is gone if there are any. Leaving the context lets them
    go on with what they have, and wait, to be taken over.

    told: hears what is submitted.
    """

    layout: Layout
    name: str
    machine: Slurm
    data: Path
    told: Callable[[str], None]
    _held: _Held | None = None
    _queued: tuple[slurm.QueuedJob, ...] = ()
    _released: set[int] = field(default_factory=set)
    _runs: tuple[Run, ...] = ()
    _further: int = 0
    _closed: bool = False
    _fruitless: int = 0
    _refusal: str = ""

    def __enter__(self) -> "ClusterCrew":
        with self._submitting():
            live = {each.entry.submission: each.jobs for each in submissions.settle(self.layout, slurm.cluster().name)}
            for entry, lifeline in orphans(self.layout, self.name):
                if self._held is None and entry.submission in live:
                    self._held, self._queued = _Held(Handout(self.layout, entry), lifeline), live[entry.submission]
                else:
                    Handout(self.layout, entry).close(entry.run_ids)
                    lifeline.release()
        if self._held is not None:
            self.told(f"took over {' '.join(slurm.in_short(job.job_id for job in self._queued))}")
            for event in self._held.told():  # long ago
                del event
        return self

    def __exit__(self, *_: object) -> None:
        if self._held is not None:
            self._held.lifeline.release()

    def _submitting(self) -> Lock:
        waiting = "waiting for another command that is submitting jobs"
        return Lock.wait(self.layout.submitting, told=lambda: self.told(waiting))

    def give(self, runs: Collection[Run], further: int) -> None:
        self._runs, self._further = tuple(runs), further
        if self._held is not None:
            _give(self._held.handout, runs)

    def stop(self, run_id: str) -> None:
        if self._held is not None:
            self._held.handout.stop(run_id)

    def close(self) -> None:
        self._closed = True
        if self._held is not None:
            self._held.handout.close()
            with contextlib.suppress(slurm.SlurmError):  # then they end as soon as they have begun
                slurm.cancel(self._held.handout.entry.jobs, pending=True)

    def events(self) -> Iterator[Event | None]:
        """Raises Interrupted where somebody cancelled the jobs, IcbenchError where they come to nothing."""
        asked = -math.inf
        while not self._closed:  # jobs that are closed end without us
            if time.monotonic() - asked > _QUEUE_SECONDS:
                asked = time.monotonic()
                self._look()
            if self._held is not None:
                yield from self._hear(self._held)
            yield None
            time.sleep(_CLUSTER_POLL_SECONDS)

    def _look(self) -> None:
        """See that there are jobs as long as there is something to do. That SLURM refuses once does not end it."""
        try:
            if self._held is not None:
                queued = self._held.queued()
                if self._runs and not queued:
                    self._lose(self._held)
                self._queued = queued
            if self._runs and self._held is None:
                self._submit()
            self._refusal = ""
        except slurm.SlurmError as error:
            if self._held is None and not self._fruitless:  # nothing has ever been submitted
                raise
            if str(error) != self._refusal:
                self.told(f"{error} It will be tried again.")
            self._refusal = str(error)

    def _hear(self, held: _Held) -> Iterator[Event]:
        """What workers say; those that are not needed any more are let go."""
        if not held.handout.is_open:
            raise Interrupted(f"The jobs of {self.name} were cancelled.")
        for event in held.told():
            if event["event"] in ("finish", "pruned") or event.get("advanced"):
                self._fruitless = 0
            yield event
        spare = self._spare(held)
        if spare != self._released:
            self._released = spare
            held.handout.release(spare)

    def _spare(self, held: _Held) -> set[int]:
        """The workers that nothing is left for: all but those at work if no more runs will come, else those of the
        jobs without which there are enough, since a job keeps its GPUs until its last worker has ended.
        """
        entry, busy = held.handout.entry, held.workers.current
        if not self._further and {run_id for run_id, _ in self._runs} <= set(busy.values()):
            return set(range(len(entry.jobs) * entry.slots))
        at_work = Counter(held.handout.files.worker(file) // entry.slots for file in busy)
        pending = {job.job_id for job in self._queued if job.is_pending}
        live = {job.job_id for job in self._queued}
        jobs = [range(place * entry.slots, (place + 1) * entry.slots) for place in range(len(entry.jobs))]
        # One that was let go may have ended in part: it comes last.
        order = sorted(
            (place for place, job in enumerate(entry.jobs) if job in live),
            key=lambda place: (jobs[place][0] in self._released, entry.jobs[place] in pending, -at_work[place]),
        )
        enough = -(-(len(self._runs) + self._further) // entry.slots)
        return {index for place in order[enough:] for index in jobs[place]}

    def _lose(self, held: _Held) -> None:
        """All jobs have ended though there is something to do. Raises IcbenchError, Interrupted, SlurmError."""
        ours = {job.job_id for job in self._queued}
        ended = slurm.queue([held.handout.entry.job_name], ended=True)
        for event in self._hear(held):  # what they said last
            del event
        held.handout.close()
        held.lifeline.release()
        self._held = None
        states = {job.state for job in ended if job.job_id in ours}
        if states == {"CANCELLED"}:
            raise Interrupted(f"The jobs of {self.name} were cancelled.")
        self._fruitless += 1
        if self._fruitless >= _MOST_FRUITLESS:
            raise IcbenchError(
                f"the jobs of {self.name} end again and again without having trained anything. "
                "`icbench status` says how they ended."
            )

    def _submit(self) -> None:
        """Submit jobs. Raises SlurmError."""
        with self._submitting():
            cluster = slurm.cluster()
            live = submissions.settle(self.layout, cluster.name)
            at_once = len(self._runs) + self._further
            submitted = submit.submit_open(
                self.layout, self.name, self._runs, at_once, self.machine, self.data, cluster, live
            )
            handout = Handout(self.layout, submitted.entry)
            lifeline = Lock.take(handout.files.lifeline)  # before others look for what nobody holds
        assert lifeline is not None, "a submission's folder is its own"
        self._held, self._released = _Held(handout, lifeline), set()
        if submitted.remark:
            self.told(submitted.remark)
        self.told(f"submitted {' '.join(slurm.in_short(submitted.entry.jobs))}")
        self._queued = self._held.queued()


def orphans(layout: Layout, name: str) -> Iterator[tuple[ledger.Entry, Lock]]:
    """The search's open submissions whose controller is gone; each with its lifeline, which we hold from now on."""
    for entry in ledger.entries(layout):
        handout = Handout(layout, entry)
        if entry.sweep == name and handout.is_open and (lifeline := Lock.take(handout.files.lifeline)):
            yield entry, lifeline


def close_orphans(layout: Layout, name: str) -> None:
    """Have the workers that a controller has left end when they have done what they were given."""
    for entry, lifeline in orphans(layout, name):
        Handout(layout, entry).close(entry.run_ids)
        lifeline.release()


def _give(handout: Handout, runs: Collection[Run]) -> None:
    for run_id, _ in runs:
        handout.allow(run_id)
    handout.give(runs)
