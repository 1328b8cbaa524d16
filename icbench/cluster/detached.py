"""A command of icbench as a job of its own: a search's controller that outlives whoever typed it."""

import contextlib
import math
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from icbench import ledger
from icbench.cluster import frozen, slurm
from icbench.cluster.requeueing import LAST_SHARE, SIGNAL_SKEW_SECONDS, SIGNALS, STOP_SHARE, put_back
from icbench.cluster.submissions import Live
from icbench.cluster.submit import Executor
from icbench.files import say_in_log
from icbench.layout import Layout
from icbench.profile import Slurm

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

_POLL_SECONDS = 0.5
# Times in a row that it is killed, each soon after it began, until that is no accident.
_MOST_DEATHS = 3
_SOON_SECONDS = 60.0
# Options of sbatch that are about what runs need, not a controller.
_OF_RUNS = ("gpus", "gres", "mem", "exclusive", "cpus", "ntasks", "nodes")


@dataclass(frozen=True)
class Detached:
    """What submitit calls in the job, and asks for its successor when the job is to be requeued.

    folder: submitit's. signal_seconds: what there is between SLURM's signal and the end.
    """

    words: list[str]
    folder: Path
    signal_seconds: int

    def __call__(self) -> None:
        code = _Keeper(self).look_after()
        if code:
            sys.exit(code)

    def checkpoint(self) -> "DelayedSubmission":
        """The same again: all that a controller knows lies in its study and in the results."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class _Keeper:
    """Keeps `icbench WORDS` at work, as a process of its own, which is begun anew if it is killed."""

    def __init__(self, detached: Detached):
        self._detached = detached
        self._child: subprocess.Popen[bytes] | None = None
        self._asked = False
        self._deadline = math.inf

    def look_after(self) -> int:
        """Return when the command has ended by itself, or the job has to; the exit code."""
        submitit_handler = signal.getsignal(signal.SIGUSR2)
        for number in SIGNALS:
            signal.signal(number, self._pass_on)
        code, deaths = 0, 0
        while not self._asked and deaths < _MOST_DEATHS:
            began = time.monotonic()
            code = self._run()
            if code in (130, *(-number for number in SIGNALS)):  # its signal may have come before ours
                self._wait_for_signal()
            if code >= 0:
                break
            deaths = deaths + 1 if time.monotonic() - began < _SOON_SECONDS else 1
            say_in_log(f"icbench: the controller was killed by {signal.Signals(-code).name}")
        if not self._asked:
            return abs(code)
        assert callable(submitit_handler)
        until = self._deadline + (LAST_SHARE - STOP_SHARE) * self._detached.signal_seconds
        return put_back(submitit_handler, self._detached.folder, until)

    def _pass_on(self, *_: object) -> None:
        """SLURM wants the node back."""
        if not self._asked:
            self._deadline = time.monotonic() + STOP_SHARE * self._detached.signal_seconds
        self._asked = True
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()

    def _wait_for_signal(self) -> None:
        until = time.monotonic() + SIGNAL_SKEW_SECONDS
        while not self._asked and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)

    def _run(self) -> int:
        """Start the command and wait for it; its exit code, negative if a signal ended it."""
        self._child = subprocess.Popen([sys.executable, "-P", "-m", "icbench", *self._detached.words])
        if self._asked:  # in between
            self._child.terminate()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._child.wait(_POLL_SECONDS)
            if time.monotonic() > self._deadline:
                self._child.kill()


def find(live: list[Live], name: str) -> str | None:
    """The live job that is the controller of a search, if there is one."""
    jobs = [job.job_id for each in live if each.entry.detached and each.entry.sweep == name for job in each.jobs]
    return jobs[0] if jobs else None


def submit(layout: Layout, name: str, profile: Slurm, words: list[str]) -> str:
    """Submit `icbench WORDS` as a job of one core, in the working directory of this process; its id.

    The caller holds the lock `layout.submitting`. profile: whose partition, account and limits it has; of its GPUs and
    memory it has none. Raises SlurmError.
    """
    own = replace(
        profile,
        nodes=1,
        gpus_per_node=0,
        gpu_type=None,
        mem_per_gpu=None,
        runs_per_gpu=1,
        gpus_per_run=1,
        runs_per_node=1,
        threads=1,
        device="cpu",
        mps=False,
        sbatch=tuple((key, value) for key, value in profile.sbatch if not key.startswith(_OF_RUNS)),
    )
    entry = replace(ledger.Entry.new(name, own, [], slurm.cluster().name), detached=True)
    folder = layout.sweep(name).submission(entry.submission).submitit.absolute()
    folder.mkdir(parents=True)
    ledger.write(layout, entry)
    executor = Executor(folder, frozen.freeze(layout).absolute(), entry.job_name, own)
    job = executor.submit_one(Detached(words, folder, own.signal_seconds))
    ledger.write(layout, entry.with_jobs([str(job.job_id)]))
    return str(job.job_id)
