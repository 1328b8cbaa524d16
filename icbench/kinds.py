"""How a run can come to nothing, by name; `icbench status` shows them, `--retry-failed=KIND` takes them."""

import errno
import re

HOST_OOM = "host-oom"
GPU_OOM = "gpu-oom"
TIME_OUT = "time-out"
PREEMPTED = "preempted"
NODE_FAILURE = "node-failure"
CANCELLED = "cancelled"
DISK = "disk"
NO_PROGRESS = "no-progress"
SETUP = "setup"
DIED = "died"
ERROR = "error"

# In words, for people.
KINDS = {
    HOST_OOM: "the node's memory, or what the job was given of it, did not suffice",
    GPU_OOM: "the GPU's memory did not suffice; images_at_once in the profile does batches in parts",
    TIME_OUT: "the job's time was over",
    PREEMPTED: "the job had to make room for another",
    NODE_FAILURE: "the node failed",
    CANCELLED: "somebody cancelled it",
    DISK: "results could not be written",
    NO_PROGRESS: "its jobs had their nodes again and again and got nowhere; a longer time_limit may help",
    SETUP: "a line of the profile's setup failed",
    DIED: "its worker was killed, nobody knows by whom",
    ERROR: "it raised an error",
}

_OF_STATE = {
    "OUT_OF_MEMORY": HOST_OOM,
    "TIMEOUT": TIME_OUT,
    "DEADLINE": TIME_OUT,
    "PREEMPTED": PREEMPTED,
    "NODE_FAIL": NODE_FAILURE,
    "BOOT_FAIL": NODE_FAILURE,
    "CANCELLED": CANCELLED,
}


def of_job(state: str, exit_code: int, said: str = "") -> str:
    """The kind of what happened to the runs of a SLURM job that ended in `state`; said: the end of its output.

    Where SLURM itself watches over memory, without control groups, only its words tell.
    """
    kind = _OF_EXIT_CODE.get(exit_code) or _OF_STATE.get(state, DIED)
    return HOST_OOM if kind == DIED and re.search("memory limit|oom.kill", said, re.IGNORECASE) else kind


def of_error(error: Exception) -> str:
    """The kind of an exception that a training raised."""
    if type(error).__name__ == "OutOfMemoryError":  # torch's, for every accelerator
        return GPU_OOM
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_HOST_MEMORY):
        return HOST_OOM
    return ERROR


# What torch says when malloc, mmap or cudaHostAlloc refuse; it has no type of its own for that.
_NO_HOST_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory")

# What ends a worker and not a run: the disk is full, read-only or away.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM)

# Exit codes of a job that could not write its results, of one that gets nowhere, of one whose setup fails: sacct knows
# them even where no file can be written any more.
EXIT_DISK = 74
EXIT_IDLE = 75
EXIT_SETUP = 76
_OF_EXIT_CODE = {EXIT_DISK: DISK, EXIT_IDLE: NO_PROGRESS, EXIT_SETUP: SETUP}
