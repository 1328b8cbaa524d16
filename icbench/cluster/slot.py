"""What SLURM starts for each slot of a job, once a rank: gives a worker its device, and looks after it.

The worker is a process of its own, so that one that is killed, as the kernel does where memory runs out, can be
replaced while the job has its nodes. The job's first process stays until all slots have ended, because submitit lets
only that one put the job back into the queue.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from icbench import kinds
from icbench.cluster import slurm
from icbench.errors import IcbenchError
from icbench.events import Follower
from icbench.layout import Layout, SubmissionFiles
from icbench.locks import Lock, is_free
from icbench.machine import assigned_gpus, oom_kills
from icbench.provenance import slurm_job_id
from icbench.results import finished
from icbench.work.assignment import Assignment, Outcome
from icbench.work.attempts import MAX_IN_ONE_INCARNATION

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

_POLL_SECONDS = 0.5
# Workers in a row that end before they begin a run, having raised or having been killed: something is wrong with the
# node, not with a run.
_MAX_STILLBORN = {"raised": 2, "killed": 10}
_A_WHILE_SECONDS = 60.0
_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


@dataclass(frozen=True)
class Share:
    """A job's share of a submission: the packs from `first` on, one for each of its `slots` slots.

    ranks: processes of a slot. idle: how many of this job's stays on its nodes in a row made no progress.
    """

    results: Path
    sweep: str
    submission: str
    first: int
    slots: int
    ranks: int
    gpus_per_node: int
    runs_per_gpu: int
    data: Path | None
    threads: int
    device: str
    checkpoint_minutes: float
    heartbeat_seconds: float
    signal_seconds: int
    idle: int = 0

    @property
    def files(self) -> SubmissionFiles:
        return Layout(self.results).sweep(self.sweep).submission(self.submission)


class Job:
    """What submitit calls in each process of a job, and asks for its successor when the job is to be requeued."""

    def __call__(self, share: Share) -> None:
        code = _Slot(share).look_after()
        if code:
            sys.exit(code)

    def checkpoint(self, share: Share) -> "DelayedSubmission | None":
        """The share to go on with in the queue; None when job after job makes no progress."""
        from submitit.helpers import DelayedSubmission

        idle = 0 if _advanced(share) else share.idle + 1
        if idle >= MAX_IN_ONE_INCARNATION:
            _say(f"not put back into the queue: {idle} times in a row this job had its nodes and made no progress")
            return None
        return DelayedSubmission(self, replace(share, idle=idle))


def _advanced(share: Share) -> bool:
    """Whether any slot of this stay of the job on its nodes got further: ended a run, or stored a checkpoint."""
    ours = _incarnation(share)
    for index in range(share.first, share.first + share.slots):
        incarnation = None
        for event in Follower(share.files.events(index)).read():
            incarnation = event["incarnation"] if event["event"] == "start" else incarnation
            progress = event["event"] in ("finish", "fail") or event.get("advanced")
            if incarnation == ours and progress:
                return True
    return False


def _incarnation(share: Share) -> str:
    """Names this stay of the job on its nodes: another one after each requeueing."""
    return f"{share.submission}/{slurm_job_id()}/{os.environ.get('SLURM_RESTART_COUNT', '0')}"


class _Slot:
    """One process of the job."""

    def __init__(self, share: Share):
        self.share = share
        self.process = int(os.environ["SLURM_PROCID"])
        self.index = share.first + self.process // share.ranks
        self.rank = self.process % share.ranks
        self.asked: int | None = None
        self.child: subprocess.Popen[bytes] | None = None
        self._before = (kinds.DIED, "killed?")

    def look_after(self) -> int:
        """Keep a worker at work until nothing is left to do or SLURM wants the nodes back; the exit code."""
        submitit_handler = signal.getsignal(signal.SIGUSR2)
        for number in _SIGNALS:
            signal.signal(number, self._pass_on)
        files = self.share.files
        lock = Lock.take(files.slot(self.index)) if self.rank == 0 else None
        try:
            if lock is not None and self.share.ranks > 1:  # for the later ranks to know that this one has been there
                files.slot(self.index).write_text(_incarnation(self.share), encoding="utf-8")
            code = self._work()
        except (IcbenchError, OSError) as error:
            _say(str(error))
            code = Outcome.HALTED.value if getattr(error, "errno", None) in kinds.DISK_ERRORS else 1
        finally:
            if lock is not None:
                lock.release()
        if self.process == 0:
            self._wait_for_slots()
            if self._should_requeue():
                assert callable(submitit_handler)
                submitit_handler(signal.SIGUSR2, None)  # ends this process
        return code

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        """SLURM wants the nodes back: so shall the worker hear. USR2 says more than TERM: that we may requeue."""
        if self.asked != signal.SIGUSR2:
            self.asked = number
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)

    def _work(self) -> int:
        """Have workers, one after another should they die, do what there is; the exit code."""
        stillborn: Counter[str] = Counter()
        events = self.share.files.events(self.index)
        while self.asked is None:
            follower = Follower(events, events.stat().st_size if events.exists() else 0)
            kills, began = oom_kills(), time.monotonic()
            code = self._run_worker()
            if code in (Outcome.DONE.value, Outcome.STOPPED.value):
                return 0
            if code == Outcome.HALTED.value:
                return code
            if self.asked is not None or self._is_left():
                return 0
            if code != Outcome.PARTED.value:
                self._before = _cause(code, oom_kills() > kills)
                _say(f"the worker died ({self._before[1]})")
            elif self.rank > 0:  # another rank has died, or a run failed here
                continue
            # What a later rank does it tells nobody; a while at work is as good as a run begun.
            long = self.rank > 0 and time.monotonic() - began > _A_WHILE_SECONDS
            begun = long or any(event["event"] == "begin" for event in follower.read())
            how = "killed" if code < 0 else "raised"
            stillborn = Counter() if begun else stillborn + Counter([how])
            if stillborn[how] >= _MAX_STILLBORN[how]:
                raise IcbenchError(f"{stillborn[how]} workers ended before they began a run; what they said is above.")
        return 0

    def _run_worker(self) -> int:
        """Start a worker and wait for it; its exit code, negative if a signal ended it."""
        share = self.share
        assignment = Assignment(
            results=share.results,
            sweep=share.sweep,
            submission=share.submission,
            index=self.index,
            data=share.data,
            threads=share.threads,
            device=share.device,
            gpu=self._gpu(),
            checkpoint_minutes=share.checkpoint_minutes,
            heartbeat_seconds=share.heartbeat_seconds,
            incarnation=_incarnation(share),
            parent=os.getpid(),
            rank=self.rank,
            ranks=share.ranks,
            before=self._before,
        )
        # Kept back in the worker until it can answer them; here, until there is a worker to pass them on to.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            command = [sys.executable, "-P", "-c", "from icbench.work.worker import main; main()"]
            # Set before torch is imported, which else makes a thread for each core of the node.
            environment = os.environ | {"OMP_NUM_THREADS": str(share.threads)}
            self.child = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        if self.asked is not None:  # in between
            self.child.send_signal(signal.SIGTERM)
        assert self.child.stdin is not None
        with self.child.stdin as stream:
            stream.write(pickle.dumps(assignment))
        while True:
            try:
                return self.child.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if self._is_left():
                    self.child.kill()

    def _is_left(self) -> bool:
        """Whether this is a later rank whose first has been there and is gone."""
        slot = self.share.files.slot(self.index)
        if self.rank == 0 or not is_free(slot):
            return False
        with contextlib.suppress(FileNotFoundError):
            return slot.read_text(encoding="utf-8") == _incarnation(self.share)
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
        others = [self.share.files.slot(self.share.first + slot) for slot in range(self.share.slots)]
        deadline = None
        while not all(map(is_free, others)):
            if self.asked is not None:
                deadline = deadline or time.monotonic() + 0.6 * self.share.signal_seconds
                if time.monotonic() > deadline:
                    return
            time.sleep(_POLL_SECONDS)

    def _should_requeue(self) -> bool:
        """Whether the job has to go on later: it was asked to stop, not cancelled, and something is left to do."""
        if self.asked is None or not self._is_anything_left():
            return False
        if self.asked == signal.SIGUSR2:
            return True
        # SIGTERM alone comes before a preemption, but also with scancel; then the job is no longer RUNNING, and where
        # SLURM itself has requeued it there is nothing to do either.
        job_id = slurm_job_id()
        return _quietly(lambda: job_id is not None and slurm.state(job_id) == "RUNNING")

    def _is_anything_left(self) -> bool:
        layout = Layout(self.share.results)
        packs: list[Any] = pickle.loads(self.share.files.packs.read_bytes())
        run_ids = {run_id for pack in packs for run_id, _ in pack} - finished(layout)
        return any(not layout.run(run_id).failure.exists() for run_id in run_ids)


def _cause(code: int, oom: bool) -> tuple[str, str]:
    """Why a worker died, as a kind and in words."""
    if oom:
        return kinds.HOST_OOM, "the kernel killed it for want of memory"
    if code < 0:
        return kinds.DIED, f"killed by {signal.Signals(-code).name}"
    return kinds.DIED, f"exit code {code}"


def _quietly(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except slurm.SlurmError as error:
        _say(str(error))
        return False


def _say(words: str) -> None:
    print(f"icbench: {words}", file=sys.stderr, flush=True)
