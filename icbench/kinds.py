"""How a run can come to nothing, by name; `icbench status` shows them, `--retry-failed=KIND` takes them."""

import errno

HOST_OOM = "host-oom"
GPU_OOM = "gpu-oom"
TIME_OUT = "time-out"
PREEMPTED = "preempted"
NODE_FAILURE = "node-failure"
CANCELLED = "cancelled"
DISK = "disk"
DIED = "died"
ERROR = "error"

# In words, for people.
KINDS = {
    HOST_OOM: "the node's memory, or what the job was given of it, did not suffice",
    GPU_OOM: "the GPU's memory did not suffice",
    TIME_OUT: "the job's time was over",
    PREEMPTED: "the job had to make room for another",
    NODE_FAILURE: "the node failed",
    CANCELLED: "somebody cancelled it",
    DISK: "results could not be written",
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


def of_job(state: str, exit_code: int) -> str:
    """The kind of what happened to the runs of a SLURM job that ended in `state`."""
    return DISK if exit_code == EXIT_DISK else _OF_STATE.get(state, DIED)


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

# The exit code of a job that could not write its results: sacct knows it even where no file can be written any more.
EXIT_DISK = 74
