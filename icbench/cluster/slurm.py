"""SLURM's commands, and what they answer. The only module that calls them, but for sbatch, which is submitit's."""

import getpass
import re
import subprocess
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from icbench.errors import IcbenchError

# States of squeue in which a job will still do something, or be put back into the queue.
PENDING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_PATIENCE_SECONDS = 60


class SlurmError(IcbenchError):
    """A command of SLURM's is not there, does not answer, or refuses."""


@dataclass(frozen=True)
class QueuedJob:
    """A job, or an element of an array, in the queue. job_id: as in `12` or `12_3`; nodes: those that it runs on."""

    job_id: str
    name: str
    state: str
    reason: str
    nodes: str

    @property
    def is_pending(self) -> bool:
        return self.state in PENDING


@dataclass(frozen=True)
class Ending:
    """How a job ended: SLURM's state (`TIMEOUT`), its exit code and the signal that ended it, if one did."""

    state: str
    exit_code: int
    signal: int


def queue(names: Collection[str]) -> list[QueuedJob]:
    """The jobs of these names in the queue, of whoever submitted them; one call of squeue. Raises SlurmError."""
    if not names:
        return []
    listing = call("squeue", "--noheader", "--array", "--format=%i|%j|%T|%r|%N", f"--name={','.join(sorted(names))}")
    return [QueuedJob(*line.split("|", 4)) for line in listing.splitlines()]


def endings(job_ids: Collection[str]) -> dict[str, Ending]:
    """How those jobs ended last that the accounting knows to have ended; one call of sacct. Raises SlurmError.

    A job that was requeued has several endings, of which the last counts.
    """
    if not job_ids:
        return {}
    arrays = sorted({job_id.partition("_")[0] for job_id in job_ids})
    columns = "--format=JobID,State,ExitCode"
    listing = call(
        "sacct", "--noheader", "--parsable2", "--allocations", "--duplicates", columns, f"--jobs={','.join(arrays)}"
    )
    found = {}
    for line in listing.splitlines():
        job_id, state, code = line.split("|")
        word = state.partition(" ")[0]  # "CANCELLED by 1000"
        if word not in ("RUNNING", "REQUEUED", *PENDING):
            exit_code, _, number = code.partition(":")
            found[job_id] = Ending(word, int(exit_code or 0), int(number or 0))
    return found


def state(job_id: str) -> str:
    """The state of one job in the queue, such as RUNNING; empty when it is not there. Raises SlurmError."""
    lines = call("squeue", "--noheader", "--format=%T", f"--jobs={job_id}").splitlines()
    return lines[0] if lines else ""


def cancel(job_ids: Collection[str]) -> None:
    """Cancel jobs; one call of scancel. Those that have ended are no mistake. Raises SlurmError."""
    if job_ids:
        call("scancel", *sorted(job_ids))


def configuration() -> dict[str, str]:
    """The cluster's configuration, as `scontrol show config` prints it. Raises SlurmError."""
    pairs = (line.split("=", 1) for line in call("scontrol", "show", "config").splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def max_array_size() -> int:
    """How many elements a job array may have: their index is below MaxArraySize. Raises SlurmError."""
    value = configuration().get("MaxArraySize", "")
    if not value.isdigit():
        raise SlurmError("scontrol show config does not say what MaxArraySize is.")
    return int(value)


def submit_limit(account: str | None, qos: str | None) -> int | None:
    """How many more jobs this user may submit, by the limits of user and QOS; None where there is none.

    Asks sacctmgr for MaxSubmitJobs and MaxSubmitJobsPerUser, and squeue for what is queued already, each element of
    an array counted. Raises SlurmError, also where there is no accounting.
    """
    user = getpass.getuser()
    ours = call("sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={user}",
                "format=Account,DefaultQOS,MaxSubmitJobs")  # fmt: skip
    limits = []
    default_qos = set()
    for line in ours.splitlines():
        its_account, its_qos, most = line.split("|")
        if account in (None, its_account):
            default_qos.add(its_qos)
            limits += [int(most)] if most.isdigit() else []
    wanted = {qos} if qos else default_qos - {""}
    for line in call(
        "sacctmgr", "--noheader", "--parsable2", "show", "qos", "format=Name,MaxSubmitJobsPerUser"
    ).splitlines():
        name, most = line.split("|")
        if name in wanted and most.isdigit():
            limits.append(int(most))
    if not limits:
        return None
    queued = len(call("squeue", "--noheader", "--array", f"--user={user}", "--format=%i").splitlines())
    return max(0, min(limits) - queued)


def call(*command: str) -> str:
    """What a command prints. Raises SlurmError with what it says on standard error."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False)
    except FileNotFoundError:
        raise SlurmError(f"there is no {command[0]} here. Log in to a machine from which jobs are submitted.") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(
            f"{command[0]} did not answer within {_PATIENCE_SECONDS} s; the cluster is busy or down."
        ) from None
    if done.returncode:
        said = " ".join(re.sub(rf"^{command[0]}: (error: )?", "", line) for line in done.stderr.splitlines())
        raise SlurmError(f"{command[0]} failed: {said or f'exit code {done.returncode}'}")
    return done.stdout


def in_short(job_ids: Iterable[str]) -> list[str]:
    """Job ids in few words: elements of an array as `12_[0-3]`."""
    arrays: dict[str, list[int]] = {}
    for job_id in job_ids:
        array, _, index = job_id.partition("_")
        arrays.setdefault(array, []).extend([int(index)] if index else [])
    return [array if not indices else f"{array}_[{_ranges(sorted(indices))}]" for array, indices in arrays.items()]


def _ranges(numbers: list[int]) -> str:
    """Sorted numbers in few words: 0-3,7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)
