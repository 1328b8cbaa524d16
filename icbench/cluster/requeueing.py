"""How a job that SLURM wants to end is put back into the queue, by its first process, through submitit."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from icbench.cluster import slurm
from icbench.files import say_in_log
from icbench.provenance import slurm_job_id

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
# SLURM's signal reaches the processes of a job one after another.
SIGNAL_SKEW_SECONDS = 10.0
# Of the time between SLURM's signal and the end: what processes have to stop, and until when requeueing is tried.
STOP_SHARE = 0.6
LAST_SHARE = 0.9
_AGAIN_SECONDS = 2.0


def put_back(submitit_handler: Callable[..., object], folder: Path, until: float) -> int:
    """Have submitit put the job back into the queue, which ends this process; the exit code if it has not to be.

    A job that is not RUNNING any more was cancelled, or SLURM itself has requeued it; one that hears SIGTERM and
    still is has been given notice of preemption.
    """
    job_id = slurm_job_id() or ""
    while True:
        try:
            if slurm.state(job_id) != "RUNNING":
                return 0
            for leftover in folder.glob(f"{job_id}_*.save_tmp"):
                leftover.unlink()  # of a job that ended while submitit wrote it, which it would stumble over
            submitit_handler(signal.SIGUSR2, None)
        except (slurm.SlurmError, subprocess.SubprocessError, OSError) as error:
            say_in_log(f"icbench: not put back into the queue yet: {error}")
            if time.monotonic() > until:
                return 1
            time.sleep(_AGAIN_SECONDS)
