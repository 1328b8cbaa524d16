"""The workers of a search: runs are handed out to them while they work, on this machine or on a cluster."""

import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from icbench import ledger
from icbench.cluster import slurm, submissions, submit
from icbench.errors import IcbenchError
from icbench.events import Event, Follower
from icbench.launch import LocalJobs
from icbench.layout import Layout
from icbench.locks import Lock
from icbench.plan import Run
from icbench.profile import Local, Slurm
from icbench.work.handout import Handout

# A run on digits takes a second: what a free worker waits for its next is felt.
_LOCAL_POLL_SECONDS = 0.02
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

    def give(self, runs: Collection[Run]) -> None:
        """These are the runs to be done from now on, the first first; of those given before, all that are to stay."""

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

    def give(self, runs: Collection[Run]) -> None:
        _give(self._jobs.handout, runs)

    def stop(self, run_id: str) -> None:
        self._jobs.handout.stop(run_id)

    def close(self) -> None:
        self._jobs.handout.close()

    def events(self) -> Iterator[Event | None]:
        yield from self._jobs.events(_LOCAL_POLL_SECONDS)


@dataclass
class ClusterCrew:
    """Slots of jobs on a cluster, those of a controller that is gone if there are any. Leaving the context lets them
    go on with what they have, and wait, to be taken over.

    at_once: how many runs there may be to do at the same time. told: hears what is submitted.
    """

    layout: Layout
    name: str
    machine: Slurm
    data: Path
    at_once: int
    told: Callable[[str], object]
    _handout: Handout | None = None
    _lifeline: Lock | None = None
    _runs: tuple[Run, ...] = ()
    _followers: dict[Path, Follower] = field(default_factory=dict)
    _fruitless: int = 0

    def __enter__(self) -> "ClusterCrew":
        queued = {each.entry.submission: each for each in submissions.queued(self.layout)}
        for entry, lifeline in orphans(self.layout, self.name):
            if self._handout is None and entry.submission in queued:
                self._handout, self._lifeline = Handout(self.layout, entry), lifeline
                jobs = [job.job_id for job in queued[entry.submission].jobs]
                self.told(f"took over {' '.join(slurm.in_short(jobs))}")
            else:
                Handout(self.layout, entry).close(entry.run_ids)
                lifeline.release()
        return self

    def __exit__(self, *_: object) -> None:
        if self._lifeline is not None:
            self._lifeline.release()

    def give(self, runs: Collection[Run]) -> None:
        self._runs = tuple(runs)
        if self._handout is not None:
            _give(self._handout, runs)

    def stop(self, run_id: str) -> None:
        if self._handout is not None:
            self._handout.stop(run_id)

    def close(self) -> None:
        if self._handout is not None:
            self._handout.close()

    def events(self) -> Iterator[Event | None]:
        asked = -math.inf
        while True:
            if time.monotonic() - asked > _QUEUE_SECONDS:
                with contextlib.suppress(slurm.SlurmError):  # it does not answer for a while
                    live = self._is_live()
                    asked = time.monotonic()
                    if not live and self._handout is not None and not self._handout.is_open:
                        return
                    if not live and self._runs:
                        self._replace()
            yield from self._told()
            yield None
            time.sleep(_CLUSTER_POLL_SECONDS)

    def _told(self) -> Iterator[Event]:
        if self._handout is None:
            return
        for file in self._handout.files.all_events():
            for event in self._followers.setdefault(file, Follower(file)).read():
                if event["event"] in ("finish", "pruned") or event.get("advanced"):
                    self._fruitless = 0
                yield event

    def _is_live(self) -> bool:
        """Whether any of our jobs is in the queue. Raises SlurmError."""
        if self._handout is None:
            return False
        ours = self._handout.entry.submission
        return any(each.entry.submission == ours for each in submissions.queued(self.layout))

    def _replace(self) -> None:
        """Submit jobs where there are none: the first, or since all have ended. Raises IcbenchError, Interrupted."""
        if self._handout is not None and self._lifeline is not None:
            for event in self._told():  # what they said last
                del event
            endings = slurm.endings(self._handout.entry.jobs)
            if endings and all(ending.state == "CANCELLED" for ending in endings.values()):
                raise Interrupted(f"the jobs of {self.name} were cancelled")
            self._fruitless += 1
            if self._fruitless >= _MOST_FRUITLESS:
                raise IcbenchError(
                    f"the jobs of {self.name} end again and again without having trained anything. "
                    "`icbench status` says how they ended."
                )
            self._handout.close()
            self._lifeline.release()
        self.layout.sweeps.mkdir(parents=True, exist_ok=True)
        with Lock.wait(self.layout.submitting, told=lambda: None):
            cluster = slurm.cluster()
            live = submissions.settle(self.layout, cluster.name)
            submitted = submit.submit_open(
                self.layout, self.name, self._runs, self.at_once, self.machine, self.data, cluster, live
            )
        self._handout = Handout(self.layout, submitted.entry)
        self._lifeline = Lock.take(self._handout.files.lifeline)
        if submitted.remark:
            self.told(submitted.remark)
        self.told(f"submitted {' '.join(slurm.in_short(submitted.entry.jobs))}")


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
