"""What SLURM starts for each slot of a job, once a rank: gives a worker its device, and looks after it.

The worker is a process of its own, so that one that is killed, as the kernel does where memory runs out, can be
replaced while the job has its nodes. The job's first process stays until all slots have ended, because submitit lets
only that one put the job back into the queue.
"""

import contextlib
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icbench import kinds, mps
from icbench.cluster.requeueing import LAST_SHARE, SIGNAL_SKEW_SECONDS, SIGNALS, STOP_SHARE, put_back
from icbench.errors import IcbenchError
from icbench.events import Follower
from icbench.files import say_in_log
from icbench.layout import Layout, SubmissionFiles
from icbench.locks import Lock, is_free
from icbench.machine import assigned_gpus, oom_kills
from icbench.provenance import slurm_job_id
from icbench.results import finished
from icbench.work.assignment import Assignment, Outcome, Terms
from icbench.work.attempts import MAX_IN_ONE_INCARNATION

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

_POLL_SECONDS = 0.5
# Workers in a row that end before they begin a run, having raised or having been killed: something is wrong with the
# node, not with a run.
_MAX_STILLBORN = {"raised": 2, "killed": 10}
_A_WHILE_SECONDS = 60.0
# Processes of a job that have not come by then have never started.
_COMING_SECONDS = 120.0
# On a network file system somebody who merely looks at a lock holds it for a while.
_LOCK_SECONDS = 10.0


@dataclass(frozen=True)
class Share:
    """A job's share of a submission: the packs from `first` on, one for each of its `slots` slots.

    idle: how many of this job's stays on its nodes in a row made no progress.
    """

    terms: Terms
    first: int
    slots: int
    gpus_per_node: int
    runs_per_gpu: int
    mps: bool
    signal_seconds: int
    idle: int = 0

    @property
    def files(self) -> SubmissionFiles:
        return self.terms.files


class Job:
    """What submitit calls in each process of a job, and asks for its successor when the job is to be requeued."""

    def __call__(self, share: Share) -> None:
        code = _Slot(share).look_after()
        if code:
            sys.exit(code)

    def checkpoint(self, share: Share) -> "DelayedSubmission":
        """The same share, to go on with in the queue."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, replace(share, idle=_idle(share)))


def _idle(share: Share) -> int:
    """How many stays of the job on its nodes in a row, this one included, made no progress."""
    return 0 if _advanced(share) else share.idle + 1


def _advanced(share: Share) -> bool:
    """Whether any slot of this stay of the job on its nodes got further: ended a run, or stored a checkpoint."""
    ours = _incarnation(share)
    for index in range(share.first, share.first + share.slots):
        incarnation = None
        for event in Follower(share.files.events(index)).read():
            incarnation = event["incarnation"] if event["event"] == "start" else incarnation
            progress = event["event"] in ("finish", "fail", "pruned") or event.get("advanced")
            if incarnation == ours and progress:
                return True
    return False


def _incarnation(share: Share) -> str:
    """Names this stay of the job on its nodes: another one after each requeueing."""
    return f"{share.terms.submission}/{slurm_job_id()}/{os.environ.get('SLURM_RESTART_COUNT', '0')}"


class _Slot:
    """One process of the job."""

    def __init__(self, share: Share):
        self.share = share
        self.process = int(os.environ["SLURM_PROCID"])
        self.index = share.first + self.process // share.terms.ranks
        self.rank = self.process % share.terms.ranks
        self.asked = False
        self.child: subprocess.Popen[bytes] | None = None
        self._began = time.monotonic()
        self._deadline = math.inf
        self._before = (kinds.DIED, "killed?")
        self._environment: dict[str, str] = {}

    def look_after(self) -> int:
        """Keep a worker at work until nothing is left to do or SLURM wants the nodes back; the exit code."""
        submitit_handler = signal.getsignal(signal.SIGUSR2)
        for number in SIGNALS:
            signal.signal(number, self._pass_on)
        try:
            with self._shared_gpus() as self._environment, self._announced():
                code = self._work()
        except (IcbenchError, OSError) as error:
            say_in_log(f"icbench: {error}")
            code = kinds.EXIT_DISK if getattr(error, "errno", None) in kinds.DISK_ERRORS else 1
        if self.process == 0:
            self._wait_for_slots()
            if self.asked and self._is_anything_left():
                code = self._requeue(submitit_handler) or code
        return code

    @contextlib.contextmanager
    def _announced(self) -> Iterator[None]:
        """The slot's first process holds the slot's file, and says there in which stay of the job it does."""
        if self.rank > 0:
            yield
            return
        file = self.share.files.slot(self.index)
        lock = Lock.take(file, patience=_LOCK_SECONDS)
        if lock is None:
            raise IcbenchError(f"another process holds {file}: is this job running twice?")
        with lock:
            file.write_text(_incarnation(self.share), encoding="utf-8")
            yield

    @contextlib.contextmanager
    def _shared_gpus(self) -> Iterator[dict[str, str]]:
        """What workers need to run on one GPU at the same time; a node's first process looks after that."""
        if not self.share.mps:
            yield {}
            return
        # On the node, of this stay on it, and short: it holds sockets, whose paths have 107 characters at most.
        folder = Path("/tmp", f"icbench-mps-{slurm_job_id()}-{os.environ.get('SLURM_RESTART_COUNT', '0')}")
        if os.environ["SLURM_LOCALID"] != "0":
            yield mps.wait_for(folder)
            return
        with mps.serving(folder) as environment:
            try:
                yield environment
            finally:
                self._wait_for_slots()

    def _pass_on(self, *_: object) -> None:
        """SLURM wants the nodes back: so shall the worker hear."""
        if not self.asked:
            self._deadline = time.monotonic() + STOP_SHARE * self.share.signal_seconds
        self.asked = True
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)

    def _work(self) -> int:
        """Have workers, one after another should they die, do what there is; the exit code."""
        stillborn: Counter[str] = Counter()
        events = self.share.files.events(self.index)
        while not self.asked:
            follower = Follower(events, events.stat().st_size if events.exists() else 0)
            kills, began = oom_kills(), time.monotonic()
            code = self._run_worker()
            if code == Outcome.STOPPED.value:  # its signal may have come before ours, or another rank's before both
                self._wait_for_signal()
            if code == Outcome.DONE.value or self.asked or self._is_left():
                return 0
            if code == Outcome.HALTED.value:
                return code
            self._before = _cause(code, oom_kills() > kills)
            say_in_log(f"icbench: the worker ended ({self._before[1]})")
            if code == Outcome.PARTED.value and self.rank > 0:  # they had met; the first rank counts
                continue
            # What a later rank does it tells nobody; a while at work is as good as a run begun.
            long = self.rank > 0 and code != Outcome.UNMET.value and time.monotonic() - began > _A_WHILE_SECONDS
            begun = long or any(event["event"] == "begin" for event in follower.read())
            how = "killed" if code < 0 else "raised"
            stillborn = Counter() if begun else stillborn + Counter([how])
            if stillborn[how] >= _MAX_STILLBORN[how]:
                raise IcbenchError(f"{stillborn[how]} workers ended before they began a run; what they said is above.")
        return 0

    def _wait_for_signal(self) -> None:
        until = time.monotonic() + SIGNAL_SKEW_SECONDS
        while not self.asked and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)

    def _run_worker(self) -> int:
        """Start a worker and wait for it; its exit code, negative if a signal ended it."""
        terms = self.share.terms
        assignment = Assignment(
            **vars(terms),
            index=self.index,
            gpu=self._gpu(),
            incarnation=_incarnation(self.share),
            parent=os.getpid(),
            rank=self.rank,
            before=self._before,
        )
        # Kept back in the worker until it can answer them; here, until there is a worker to pass them on to.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            command = [sys.executable, "-P", "-c", "from icbench.work.worker import main; main()"]
            # Set before torch is imported, which else makes a thread for each core of the node.
            environment = os.environ | {"OMP_NUM_THREADS": str(terms.threads)} | self._environment
            self.child = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
        except OSError as error:  # no memory for another process, say
            say_in_log(f"icbench: no worker can be started: {error}")
            return 1
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if self.asked:  # in between
            self.child.send_signal(signal.SIGTERM)
        assert self.child.stdin is not None
        with contextlib.suppress(BrokenPipeError), self.child.stdin as stream:  # it may be dead already
            stream.write(pickle.dumps(assignment))
        while True:
            try:
                return self.child.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                # One that waits for other ranks, or for a file system, cannot answer.
                if self._is_left() or time.monotonic() > self._deadline:
                    self.child.kill()

    def _is_left(self) -> bool:
        """Whether this is a later rank whose first has been there and is gone."""
        return self.rank > 0 and self._has_ended(self.share.files.slot(self.index))

    def _has_ended(self, slot: Path) -> bool:
        """Whether the first process of a slot has been there, in this stay of the job, and is gone."""
        with contextlib.suppress(OSError):  # not there yet, or a file system that stumbles
            return is_free(slot) and slot.read_text(encoding="utf-8") == _incarnation(self.share)
        return False

    def _gpu(self) -> str | None:
        """The GPU of this process, by the name that CUDA_VISIBLE_DEVICES gives it."""
        share, given = self.share, assigned_gpus()
        if not share.gpus_per_node:
            return None
        if len(given) == 1:  # the cluster binds each process to its own
            return given[0]
        if len(given) != share.gpus_per_node:
            raise IcbenchError(f"SLURM gave this job {len(given)} GPUs on a node; it asked for {share.gpus_per_node}.")
        return given[int(os.environ["SLURM_LOCALID"]) // share.runs_per_gpu]

    def _wait_for_slots(self) -> None:
        """Return once all slots of the job have ended; once it was asked to stop, after the time they have for it."""
        files = [self.share.files.slot(self.share.first + slot) for slot in range(self.share.slots)]
        while time.monotonic() < self._deadline:
            late = time.monotonic() - self._began > _COMING_SECONDS
            if all(self._has_ended(file) or (late and not self._has_come(file)) for file in files):
                return
            time.sleep(_POLL_SECONDS)

    def _has_come(self, slot: Path) -> bool:
        """Whether the first process of a slot has been there in this stay of the job."""
        with contextlib.suppress(OSError):
            return slot.read_text(encoding="utf-8") == _incarnation(self.share)
        return False

    def _requeue(self, submitit_handler: object) -> int:
        """Have submitit put the job back into the queue, which ends this process; the exit code if it has not to be."""
        assert callable(submitit_handler)
        idle = _idle(self.share)
        if idle >= MAX_IN_ONE_INCARNATION:
            say_in_log(f"icbench: not put back into the queue: {idle} stays in a row on its nodes made no progress")
            return kinds.EXIT_IDLE
        until = self._deadline + (LAST_SHARE - STOP_SHARE) * self.share.signal_seconds
        return put_back(submitit_handler, self.share.files.submitit, until)

    def _is_anything_left(self) -> bool:
        if self.share.files.open.exists():
            return True
        layout = Layout(self.share.terms.results)
        packs: list[Any] = pickle.loads(self.share.files.packs.read_bytes())
        run_ids = {run_id for pack in packs for run_id, _ in pack} - finished(layout)
        return any(not layout.run(run_id).failure.exists() for run_id in run_ids)


def _cause(code: int, oom: bool) -> tuple[str, str]:
    """Why a worker died, as a kind and in words."""
    if oom:
        return kinds.HOST_OOM, "the kernel killed it for want of memory"
    if code == Outcome.PARTED.value:
        return kinds.DIED, "another rank of it died"
    if code == Outcome.UNMET.value:
        return kinds.DIED, "the other ranks did not come"
    if code == Outcome.STOPPED.value:
        return kinds.DIED, "asked to stop, but not by SLURM"
    if code < 0:
        return kinds.DIED, f"killed by {signal.Signals(-code).name}"
    return kinds.DIED, f"exit code {code}"
