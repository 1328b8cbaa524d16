"""Packs -> job arrays on a SLURM cluster, through submitit."""

import contextlib
import io
import os
import pickle
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from icbench import kinds, ledger, plan
from icbench.cluster import frozen, slurm
from icbench.cluster.slot import Job, Share
from icbench.cluster.submissions import Live
from icbench.config import RunConfig
from icbench.files import write_whole
from icbench.layout import Layout
from icbench.plan import Pack, Run
from icbench.profile import Slurm
from icbench.recording import NOTHING, Recording
from icbench.values import Scalar
from icbench.work.assignment import terms
from icbench.work.handout import Handout

# How a job whose time is over is treated is for icbench to decide (slot.Job.checkpoint): submitit would count every
# job of 10 minutes or less as timed out, and stop requeueing it after three times.
_NEVER = 10**6
# A shared file system should not have to bear a write a second from each of a thousand slots.
_HEARTBEAT_SECONDS = 10.0
_LIMIT_WORDS = ("SubmitJob", "job submit limit")


@dataclass(frozen=True)
class Chunk:
    """A job array. at_once: how many of its jobs may run at a time. after: the chunk that must have ended before."""

    jobs: int
    at_once: int
    after: int | None


@dataclass(frozen=True)
class Submitted:
    """What the cluster has taken: its entry in the ledger, and in words what it would not take, if anything."""

    entry: ledger.Entry
    remark: str


def chunks(jobs: int, largest: int, at_once: int) -> list[Chunk]:
    """Split `jobs` into arrays of at most `largest`, of which no more than `at_once` jobs ever run at a time.

    Each array has a throttle of its own. Where there are more arrays than jobs that may run at once, some wait for
    others to end.
    """
    sizes = [min(largest, jobs - start) for start in range(0, jobs, largest)]
    lanes = min(len(sizes), at_once)
    return [
        Chunk(
            size,
            at_once=min(size, at_once // lanes + (index % lanes < at_once % lanes)),
            after=index - lanes if index >= lanes else None,
        )
        for index, size in enumerate(sizes)
    ]


def options(profile: Slurm) -> dict[str, Scalar]:
    """sbatch's options for a job of this profile; True for those that take no value."""
    gpus = f"{profile.gpu_type}:{profile.gpus_per_node}" if profile.gpu_type else profile.gpus_per_node
    ours = {
        "time": profile.time_limit,
        "nodes": profile.nodes,
        "ntasks-per-node": profile.tasks_per_node,
        "cpus-per-task": profile.cpus_per_task,
        "gpus-per-node": gpus or None,
        "mem-per-gpu": profile.mem_per_gpu,
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "requeue": True,
    }
    return {key: value for key, value in ours.items() if value is not None} | dict(profile.sbatch)


def submit(
    layout: Layout,
    sweep: str,
    missing: tuple[Run, ...],
    profile: Slurm,
    data: Path,
    cluster: slurm.Cluster,
    live: list[Live],
    weigh: Callable[[RunConfig], float] = plan.cost,
    estimate: Callable[[list[Pack]], dict[str, Any]] | None = None,
    recording: Recording = NOTHING,
) -> Submitted:
    """Submit jobs for the missing runs and enter them in the ledger. The caller holds the lock `layout.submitting`.

    `live`, the submissions in the queue, count against `max_jobs_at_once` too. weigh, estimate: how long a run takes,
    and what the ledger notes of what was expected of the packs. recording: what is measured and kept of each run.

    Raises SlurmError when the cluster takes none. It may take some; these then do all runs between them.
    """
    wanted = profile.jobs_for(len(missing))
    jobs = _allowed(wanted, profile, cluster)
    packs = plan.packs(missing, min(jobs * profile.slots, len(missing)), weigh)
    entry = ledger.Entry.new(sweep, profile, packs, cluster.name, estimate(packs) if estimate else None)
    return _submit(layout, entry, packs, wanted, jobs, profile, data, cluster, live, recording=recording)


def submit_open(
    layout: Layout,
    sweep: str,
    runs: tuple[Run, ...],
    at_once: int,
    profile: Slurm,
    data: Path,
    cluster: slurm.Cluster,
    live: list[Live],
) -> Submitted:
    """Submit jobs that do these runs and then wait for more (work/handout.py), enough of them for so many runs at once.

    The caller holds the lock `layout.submitting`. Raises SlurmError when the cluster takes none.
    """
    wanted = profile.jobs_for(at_once)
    entry = ledger.Entry.new(sweep, profile, [runs], cluster.name)
    return _submit(
        layout, entry, [runs], wanted, _allowed(wanted, profile, cluster), profile, data, cluster, live, is_open=True
    )


def _submit(
    layout: Layout,
    entry: ledger.Entry,
    packs: list[Pack],
    wanted: int,
    jobs: int,
    profile: Slurm,
    data: Path,
    cluster: slurm.Cluster,
    live: list[Live],
    *,
    is_open: bool = False,
    recording: Recording = NOTHING,
) -> Submitted:
    # Not resolved: what is a link here may lead elsewhere on a node.
    code = frozen.freeze(layout).absolute()
    share = _share(profile, Layout(layout.root.absolute()), entry.sweep, entry.submission, data, recording)
    share.files.submitit.mkdir(parents=True)
    if is_open:
        Handout(layout, entry).give(packs[0])
    else:
        write_whole(share.files.packs, lambda file: pickle.dump(packs, file))
    ledger.write(layout, entry)
    executor = Executor(share.files.submitit, code, entry.job_name, profile)
    refusal = ""
    try:
        # A search's controller takes no run's place; what it submits must not wait for its end.
        others = [each for each in live if not each.entry.detached]
        for job_ids in _submit_chunks(executor, share, jobs, cluster.largest_array, others):
            entry = entry.with_jobs(job_ids)
            ledger.write(layout, entry)
    except slurm.SlurmError as error:
        if not entry.jobs:
            raise
        refusal = f" ({error})"
    if len(entry.jobs) == wanted:
        return Submitted(entry, "")
    taken = f"the cluster takes {len(entry.jobs)} of {wanted} jobs now{refusal}; they will do all runs between them"
    return Submitted(entry, taken)


def _share(profile: Slurm, layout: Layout, sweep: str, submission: str, data: Path, recording: Recording) -> Share:
    """The first job's; those of the others begin at other packs."""
    return Share(
        terms=terms(
            profile,
            layout,
            sweep,
            submission,
            data.absolute(),
            heartbeat_seconds=_HEARTBEAT_SECONDS,
            durable=True,
            recording=recording,
        ),
        first=0,
        slots=profile.slots,
        gpus_per_node=profile.gpus_per_node,
        runs_per_gpu=profile.runs_per_gpu,
        mps=profile.mps,
        signal_seconds=profile.signal_seconds,
    )


def _allowed(jobs: int, profile: Slurm, cluster: slurm.Cluster) -> int:
    """So many of `jobs` as the user's limit allows; at least one, so that sbatch itself says why not."""
    with contextlib.suppress(slurm.SlurmError):  # without accounting, sbatch will say what is too much
        limit = slurm.submit_limit(cluster.name, profile.account, profile.qos)
        if limit is not None:
            return max(1, min(jobs, limit))
    return jobs


def _submit_chunks(
    executor: "Executor", share: Share, jobs: int, largest: int, live: list[Live]
) -> Iterator[list[str]]:
    """Submit job arrays; after each, the ids of all jobs so far. Fewer than asked for if the user's limit says so."""
    job_ids: list[str] = []
    arrays: list[str] = []
    free = executor.at_once - sum(each.at_once for each in live)
    others = (
        ":".join(sorted({job.job_id.partition("_")[0] for each in live for job in each.jobs})) if free < 1 else None
    )
    for chunk in chunks(jobs, largest, free if free > 0 else executor.at_once):
        shares = [replace(share, first=share.slots * (len(job_ids) + number)) for number in range(chunk.jobs)]
        after = others if chunk.after is None else arrays[chunk.after]
        taken = executor.submit(shares, chunk.at_once, after, least=0 if job_ids else 1)
        job_ids += taken
        yield job_ids
        if len(taken) < chunk.jobs:
            return
        arrays.append(taken[0].partition("_")[0])


class Executor:
    """submitit's, with a profile's parameters."""

    def __init__(self, folder: Path, code: Path, name: str, profile: Slurm):
        self.at_once = profile.max_jobs_at_once
        self._folder = folder
        # -P: not the directory that sweep was typed in, which may hold another icbench.
        path = f'{shlex.quote(str(code))}"${{PYTHONPATH:+:$PYTHONPATH}}"'
        self._python = f"env PYTHONPATH={path} {shlex.quote(sys.executable)} -P"
        self._parameters: dict[str, Any] = {
            "job_name": name,
            "time": profile.time_limit,
            "nodes": profile.nodes,
            "ntasks_per_node": profile.tasks_per_node,
            "signal_delay_s": profile.signal_seconds,
            "setup": [_checked(line) for line in profile.setup],
            "wckey": None,
            # Ranks count through a node before the next, so that a run's ranks are neighbours; a process that ends,
            # well or badly, takes no other with it, whatever the cluster's defaults.
            # From Slurm 22.05 on srun no longer takes over how many cores sbatch gave each process.
            "srun_args": [
                "--distribution=block",
                "--kill-on-bad-exit=0",
                "--wait=0",
                f"--cpus-per-task={profile.cpus_per_task}",
            ],
            "additional_parameters": options(profile),
        }

    def submit_one(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Submit a job that calls a function; submitit's job. Raises SlurmError."""
        from submitit.core.utils import FailedJobError

        executor = self._submitit()
        executor.update_parameters(**self._parameters)
        try:
            with _undisturbed():
                return executor.submit(function, *arguments)
        except FailedJobError as error:
            raise slurm.SlurmError(f"sbatch refused: {_said(error)}.") from None

    def _submitit(self) -> Any:
        import submitit

        return submitit.SlurmExecutor(folder=self._folder, max_num_timeout=_NEVER, python=self._python)

    def submit(self, shares: list[Share], at_once: int, after: str | None, least: int) -> list[str]:
        """Submit one job for each share, as an array; their ids.

        Where a limit forbids so many, half of them, and so on down to `least`. Raises SlurmError.
        """
        from submitit.core.utils import FailedJobError

        executor = self._submitit()
        dependency = None if after is None else f"afterany:{after}"
        executor.update_parameters(**self._parameters, array_parallelism=at_once, dependency=dependency)
        count = len(shares)
        while True:
            try:
                with _undisturbed():
                    return [str(job.job_id) for job in executor.map_array(Job(), shares[:count])]
            except FailedJobError as error:
                said = _said(error)
                at_limit = any(words in said for words in _LIMIT_WORDS)
                if not at_limit or (count == 1 and least == 1):
                    remedy = " Wait for some of your jobs to end, or cancel some." if at_limit else ""
                    raise slurm.SlurmError(f"sbatch refused: {said}.{remedy}") from None
                if count == 1:
                    return []
                count //= 2


def _said(error: Exception) -> str:
    """What sbatch says."""
    return " ".join(line.removeprefix("sbatch: error: ") for line in str(error).splitlines())


def _checked(line: str) -> str:
    """A setup line that ends the job if it fails: without its module, a run might be another than was meant."""
    words = shlex.quote(f"icbench: this line of the profile's setup failed: {line}")
    return f"{{ {line}\n}} || {{ echo {words} >&2; exit {kinds.EXIT_SETUP}; }}"


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Submit as the profile says, whatever SLURM's variables say; and to the end, also if somebody presses Ctrl-C.

    submitit moves its files to the jobs that sbatch has named: jobs without their files would fail.
    """
    before = dict(os.environ)
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    for name in before.keys() - slurm.environment().keys():
        del os.environ[name]
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        os.environ.update(before)
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
