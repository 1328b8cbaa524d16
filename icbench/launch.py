"""Packs -> submitit jobs on this machine, and how their workers fare."""

import os
import pickle
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icbench import ledger
from icbench.errors import IcbenchError
from icbench.events import Event, Follower
from icbench.files import is_full, last_words, write_whole
from icbench.layout import Layout, SubmissionFiles
from icbench.locks import Lock
from icbench.plan import Pack
from icbench.profile import Local
from icbench.recording import NOTHING, Recording
from icbench.work.assignment import Assignment, terms
from icbench.work.handout import Handout
from icbench.work.worker import work

_POLL_SECONDS = 0.1
_HEARTBEAT_SECONDS = 1.0
# Long enough for a worker to end the step it is in and store a checkpoint.
_GRACE_SECONDS = 60.0
# submitit's own limit is for clusters; here the sweep decides.
_FOREVER_MINUTES = 60 * 24 * 366 * 10
# Workers in a row that end before they begin a run, having raised or having been killed: something is wrong with the
# machine, not with a run.
_MAX_STILLBORN = {"raised": 2, "killed": 10}


@dataclass
class _Worker:
    """A submitit job and its events."""

    job: Any
    events: Follower
    pid: int | None = None
    current: str | None = None
    began_any: bool = False
    over: bool = False


@dataclass
class LocalJobs:
    """The workers of one submission on this machine; each is a submitit job. As a context: leaving it stops them.

    estimate: what the ledger notes of what was expected of the packs. workers: how many there are of an open
    submission, whose runs are handed out as they work (work/handout.py); None: one for each pack. recording: what is
    measured and kept of each run on its way.
    """

    layout: Layout
    sweep: str
    packs: list[Pack]
    profile: Local
    data: Path | None
    estimate: dict[str, Any] | None = None
    workers: int | None = None
    recording: Recording = NOTHING
    _entry: ledger.Entry = field(init=False)
    _workers: dict[int, _Worker] = field(default_factory=dict)
    _jobs: list[str] = field(default_factory=list)
    _stillborn: Counter[str] = field(default_factory=Counter)

    def __enter__(self) -> "LocalJobs":
        self._entry = ledger.Entry.new(self.sweep, self.profile, self.packs, estimate=self.estimate)
        files = self._files
        files.submitit.mkdir(parents=True)
        if self.workers is None:
            write_whole(files.packs, lambda file: pickle.dump(self.packs, file))
        else:
            self.handout.give(())
        lifeline = Lock.take(files.lifeline)
        assert lifeline is not None, "a submission's folder is its own"
        self._lifeline = lifeline
        try:
            for index in range(self.workers or len(self.packs)):
                self._start(index)
            self._record()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> list[str]:
        """The ids of the runs under way."""
        return [worker.current for worker in self._workers.values() if worker.current and not worker.over]

    @property
    def handout(self) -> Handout:
        """By which runs are handed out to the workers of an open submission."""
        return Handout(self.layout, self._entry)

    def events(self, poll_seconds: float = _POLL_SECONDS) -> Iterator[Event | None]:
        """What the workers begin and end, as it happens; None whenever a moment has passed. Ends when all have ended.

        A worker that dies is replaced by one that goes on with its pack. Raises IcbenchError when workers cannot start,
        or halt because the disk is full.
        """
        while not all(worker.over for worker in self._workers.values()):
            for index, worker in list(self._workers.items()):
                gone = worker.job.done()  # asked before reading, so that nothing it wrote is missed
                for event in worker.events.read():
                    self._note(worker, event)
                    yield event
                if gone and not worker.over:
                    yield {"event": "death", "run_id": worker.current}
                    self._replace(index, worker)
            yield None
            time.sleep(poll_seconds)

    def stop(self) -> None:
        """Ask the workers to store a checkpoint and end; wait for them; kill what does not end in time."""
        self._lifeline.release()
        for worker in self._workers.values():
            if not worker.job.done():
                worker.job._process.terminate()  # submitit's controller passes it on to the worker
        deadline = time.monotonic() + _GRACE_SECONDS
        try:
            while time.monotonic() < deadline and not all(worker.job.done() for worker in self._workers.values()):
                time.sleep(_POLL_SECONDS / 4)
        finally:  # also when a person's second Ctrl-C ends the waiting
            for worker in self._workers.values():
                if not worker.job.done():
                    self._kill(worker)

    @property
    def _files(self) -> SubmissionFiles:
        return self.layout.sweep(self.sweep).submission(self._entry.submission)

    def _start(self, index: int) -> None:
        import submitit

        gpus = self.profile.gpus
        alike = terms(
            self.profile,
            Layout(self.layout.root.resolve()),
            self.sweep,
            self._entry.submission,
            None if self.data is None else self.data.resolve(),
            heartbeat_seconds=_HEARTBEAT_SECONDS,
            durable=False,
            recording=self.recording,
        )
        gpu = gpus[index % len(gpus)] if gpus else None
        assignment = Assignment(**vars(alike), index=index, gpu=gpu, incarnation=alike.submission)
        executor = submitit.LocalExecutor(folder=self._files.submitit.resolve())
        executor.update_parameters(timeout_min=_FOREVER_MINUTES)
        # A terminal sends Ctrl-C, and that it is closed, to all processes; both are for the sweep alone, which asks its
        # workers to stop. Blocked here, they stay blocked in them, and reach the sweep when they are unblocked.
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        try:
            events = self._files.events(index)
            position = events.stat().st_size if events.exists() else 0
            self._workers[index] = _Worker(executor.submit(work, assignment), Follower(events, position))
            self._jobs.append(str(self._workers[index].job.job_id))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)

    def _note(self, worker: _Worker, event: Event) -> None:
        match event["event"]:
            case "start":
                worker.pid = event["pid"]
            case "begin":
                worker.current = event["run_id"]
                worker.began_any = True
                self._stillborn.clear()
            case "finish" | "fail" | "left" | "pruned":
                worker.current = None
            case "end" | "stopped":
                worker.over = True
            case "halted":
                worker.over = True
                raise cannot_write(event["reason"])

    def _replace(self, index: int, worker: _Worker) -> None:
        if is_full(self.layout.root):  # then it could not even say so
            raise cannot_write(f"no space left on the device of {self.layout.root}")
        if not worker.began_any:
            how = "raised" if worker.job.paths.result_pickle.exists() else "killed"
            self._stillborn[how] += 1
        if any(self._stillborn[how] >= limit for how, limit in _MAX_STILLBORN.items()):
            worker.over = True
            raise IcbenchError(
                f"workers end before they begin a run. The last one said:\n{last_words(worker.job.paths.stderr)}"
            )
        self._start(index)
        self._record()

    def _kill(self, worker: _Worker) -> None:
        with suppress(ProcessLookupError):
            worker.job._process.kill()
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGKILL)

    def _record(self) -> None:
        """Enter the submission in the ledger; again whenever a job replaces one whose worker died."""
        ledger.write(self.layout, self._entry.with_jobs(self._jobs))


def cannot_write(reason: str) -> IcbenchError:
    """What to say when workers cannot write their results."""
    remedy = "Mend that, then type the same command again; nothing is lost."
    return IcbenchError(f"the workers cannot write results: {reason}. {remedy}")
