"""SLURM's commands, and what they answer. The only module that calls them, but for sbatch, which is submitit's."""

import getpass
import os
import re
import subprocess
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from icbench.errors import IcbenchError

# States of squeue in which a job will still do something, or be put back into the queue.
PENDING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_PATIENCE_SECONDS = 30
# The variables in which SLURM's commands look for options, and those of a job and of submitit's around it.
_OPTIONS = re.compile(r"(SLURM|SLURMD|SBATCH|SRUN|SQUEUE|SACCT|SACCTMGR|SINFO|SCANCEL|SCONTROL|SUBMITIT)_")


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

    @property
    def is_ending(self) -> bool:
        """Whether SLURM is clearing up after it; it may be requeued, or be gone after that."""
        return self.state == "COMPLETING"


@dataclass(frozen=True)
class Ending:
    """How a job ended: SLURM's state (`TIMEOUT`), its exit code and the signal that ended it, if one did."""

    state: str
    exit_code: int
    signal: int

    def in_words(self) -> str:
        return f"{self.state} {self.exit_code}:{self.signal}"


def queue(names: Collection[str], *, ended: bool = False) -> list[QueuedJob]:
    """The jobs of these names in the queue, of whoever submitted them; one call of squeue. Raises SlurmError.

    ended: also those that have ended within the last minutes (MinJobAge), which squeue still knows.
    """
    if not names:
        return []
    all_states = ("--states=all",) if ended else ()
    columns = "--format=%i|%j|%T|%r|%N"
    listing = call("squeue", "--noheader", "--array", *all_states, columns, f"--name={','.join(sorted(names))}")
    rows = (line.split("|") for line in listing.splitlines())
    return [QueuedJob(*row) for row in rows if len(row) == 5]  # else it is a warning that squeue prints there


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
    rows = (line.split("|") for line in listing.splitlines())
    for job_id, state, code in (row for row in rows if len(row) == 3):
        word = state.partition(" ")[0]  # "CANCELLED by 1000"
        if word not in ("RUNNING", "REQUEUED", *PENDING):
            exit_code, _, number = code.partition(":")
            found[job_id] = Ending(word, int(exit_code or 0), int(number or 0))
    return found


def state(job_id: str) -> str:
    """The state of one job in the queue, such as RUNNING; empty when it is not there. Raises SlurmError."""
    lines = call("squeue", "--noheader", "--format=%T", f"--jobs={job_id}").splitlines()
    return lines[0] if lines else ""


def cancel(job_ids: Collection[str], *, pending: bool = False) -> None:
    """Cancel jobs; one call of scancel. Those that have ended are no mistake. Raises SlurmError.

    pending: only those that have not begun.
    """
    if job_ids:
        call("scancel", *(("--state=PENDING",) if pending else ()), *sorted(job_ids))


def configuration() -> dict[str, str]:
    """The cluster's configuration, as `scontrol show config` prints it. Raises SlurmError."""
    pairs = (line.split("=", 1) for line in call("scontrol", "show", "config").splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


@dataclass(frozen=True)
class Cluster:
    """What a cluster says of itself: its name, and how many elements a job array may have."""

    name: str
    largest_array: int


def cluster() -> Cluster:
    """The cluster that jobs are submitted to. Raises SlurmError."""
    settings = configuration()
    size = settings.get("MaxArraySize", "")
    if not size.isdigit():
        raise SlurmError("scontrol show config does not say what MaxArraySize is.")
    tasks = re.search(r"\bmax_array_tasks=(\d+)", settings.get("SchedulerParameters", ""))
    # An index is below MaxArraySize; 0 and 1 mean that there are no arrays but of one job.
    return Cluster(settings.get("ClusterName", ""), max(1, min(int(size), int(tasks[1]) if tasks else int(size))))


def submit_limit(cluster: str, account: str | None, qos: str | None) -> int | None:
    """How many more jobs this user may submit, by the limits of user and QOS; None where there is none.

    Asks sacctmgr for MaxSubmitJobs and MaxSubmitJobsPerUser, of the default account and QOS unless they are given,
    and squeue for what is queued already, each element of an array counted. Raises SlurmError, also where there is no
    accounting.
    """
    user = getpass.getuser()
    account = account or _ask("user", user, "DefaultAccount").strip()
    ours = _ask("associations", f"user={user}", f"account={account}", f"cluster={cluster}", "DefaultQOS,MaxSubmitJobs")
    rows = [line.split("|") for line in ours.splitlines()]
    limits = [int(most) for _, most in rows if most.isdigit()]
    wanted = {qos} if qos else {default for default, _ in rows}
    for name, most in (line.split("|") for line in _ask("qos", "Name,MaxSubmitJobsPerUser").splitlines()):
        if name in wanted and most.isdigit():
            limits.append(int(most))
    if not limits:
        return None
    queued = len(call("squeue", "--noheader", "--array", f"--user={user}", "--format=%i").splitlines())
    return max(0, min(limits) - queued)


def _ask(what: str, *conditions_and_columns: str) -> str:
    """What sacctmgr shows of something: its columns (the last argument), separated by |."""
    *conditions, columns = conditions_and_columns
    return call("sacctmgr", "--noheader", "--parsable2", "show", what, *conditions, f"format={columns}")


def environment() -> dict[str, str]:
    """Ours, without the variables that would change what SLURM's commands do: a profile is all that decides that.

    Without those of a job, too, that icbench may itself be running in: they would be options of the new one.
    """
    kept = ("SLURM_CONF", "SLURM_JWT")
    return {name: value for name, value in os.environ.items() if name in kept or not _OPTIONS.match(name)}


def call(*command: str) -> str:
    """What a command prints. Raises SlurmError with what it says on standard error."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_SECONDS,
            check=False,
            env=environment(),
        )
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
