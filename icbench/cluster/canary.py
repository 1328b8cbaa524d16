"""Canaries on a cluster: a short job that has nets trained for a few steps, and what they told."""

import os
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from icbench.cluster import frozen, slurm
from icbench.cluster.submit import Executor
from icbench.config import RunConfig
from icbench.errors import IcbenchError
from icbench.files import last_words, say_in_log
from icbench.layout import Layout
from icbench.machine import assigned_gpus
from icbench.profile import Slurm
from icbench.work import canaries
from icbench.work.canaries import Answer, Company

_POLL_SECONDS = 1.0
# submitit's file of what a job returned may come later than the news that it ended.
_LATE_SECONDS = 30.0
_MINUTES, _MINUTES_A_NET = 5, 0.5


def measure(
    nets: list[RunConfig], profile: Slurm, layout: Layout, data: Path, told: Callable[[str], object]
) -> tuple[list[Answer], str]:
    """Have nets measured by a job of one GPU, or of one node without any, as busy as the profile's; and on which host.
    data: where the data sets' files are.

    Waits for the job, which an interruption cancels; `told` hears its id and its states. Raises SlurmError,
    IcbenchError.
    """
    token = secrets.token_hex(4)
    folder = layout.canaries.absolute() / f"job-{token}"
    code = frozen.freeze(layout).absolute()
    folder.mkdir(parents=True)
    own = _own(profile, len(nets))
    processes = profile.runs_per_gpu if profile.gpus_per_node else profile.runs_per_node
    company = Company(
        processes,
        profile.threads,
        profile.device,
        engine=profile.engine,
        images_at_once=profile.images_at_once,
        ranks=profile.ranks,
        data=data,
        cores=profile.cpus_per_task,
    )
    job = Executor(folder, code, f"icbench-canary.{token}", own).submit_one(_in_job, nets, company)
    try:
        told(f"submitted job {job.job_id}, which measures {len(nets)} nets; Ctrl-C cancels it")
        answers, host = _result(job, told)
    except BaseException:
        slurm.cancel([job.job_id])
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return answers, host


def _own(profile: Slurm, nets: int) -> Slurm:
    """The profile of the job: a node, of its GPUs one, with the cores of that one's runs."""
    limit = min(profile.time_limit, round(_MINUTES + _MINUTES_A_NET * nets))
    own = replace(profile, nodes=1, gpus_per_run=1, runs_per_gpu=1, time_limit=limit, signal_seconds=30, jobs=None)
    if profile.gpus_per_node:
        return replace(own, gpus_per_node=1)
    return replace(own, runs_per_node=1, threads=profile.threads * profile.runs_per_node)


def _in_job(nets: list[RunConfig], company: Company) -> tuple[list[Answer], str]:
    """What the job does."""
    try:
        gpus = assigned_gpus() if company.device == "cuda" else ()
        return canaries.measure(nets, replace(company, gpus=gpus)), os.uname().nodename
    except IcbenchError as error:
        say_in_log(f"icbench: {error}")
        raise


def _result(job: Any, told: Callable[[str], object]) -> tuple[list[Answer], str]:
    state = ""
    until = None
    while not job.paths.result_pickle.exists():
        now = slurm.state(job.job_id)
        if now != state:
            state = now
            told(f"job {job.job_id}: {state.lower() or 'ended'}")
        if not state:
            until = until or time.monotonic() + _LATE_SECONDS
            if time.monotonic() > until:
                words = last_words(job.paths.stderr)
                raise slurm.SlurmError(f"the job {job.job_id} of the canaries ended early. The last it said:\n{words}")
        time.sleep(_POLL_SECONDS)
    from submitit.core.utils import pickle_load

    outcome, value = pickle_load(job.paths.result_pickle)
    if outcome == "error":
        raise IcbenchError(f"the job {job.job_id} of the canaries failed. The last it said:\n{value}")
    answers: tuple[list[Answer], str] = value
    return answers
