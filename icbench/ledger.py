"""The ledger: every submission of every sweep in a results directory, who made it, with which jobs, for which runs.

An entry is written before anything is submitted, and again with the jobs' ids. A SLURM submission's jobs have a name of
their own (`quickstart.1a2b3c4d`), so that they are found in the queue even if whoever submitted them was killed before
it could note their ids.
"""

import getpass
import os
import secrets
import socket
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from icbench.files import read_json, write_json, write_whole
from icbench.grid import Sweep
from icbench.layout import Layout
from icbench.locks import is_free
from icbench.plan import Pack
from icbench.profile import Profile


@dataclass(frozen=True)
class Entry:
    """One submission. jobs: submitit's ids of them. packs: the run ids that each worker or slot was given; while it is
    open, those that are handed out just now.

    slots: how many packs a job has. cluster: SLURM's name of it; empty for a local sweep. over: none of its jobs is
    live any more, for good. estimate: what its runs were expected to take (commands/estimating.py); None in older ones.
    detached: its job does no runs, but is a search's controller.
    """

    submission: str
    sweep: str
    submitted_at: str
    hostname: str
    user: str
    cluster: str
    pid: int
    executor: str
    profile: dict[str, Any]
    packs: tuple[tuple[str, ...], ...]
    slots: int = 1
    jobs: tuple[str, ...] = ()
    over: bool = False
    estimate: dict[str, Any] | None = None
    detached: bool = False
    run_ids: frozenset[str] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "run_ids", frozenset(run_id for pack in self.packs for run_id in pack))

    @classmethod
    def new(
        cls,
        sweep: str,
        profile: Profile,
        packs: Iterable[Pack],
        cluster: str = "",
        estimate: dict[str, Any] | None = None,
    ) -> "Entry":
        """An entry for what is about to be submitted from here."""
        now = datetime.now(UTC)
        return cls(
            submission=f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}",
            sweep=sweep,
            submitted_at=now.isoformat(),
            hostname=socket.gethostname(),
            user=getpass.getuser(),
            cluster=cluster,
            pid=os.getpid(),
            executor=profile.executor,
            profile=asdict(profile),
            packs=tuple(tuple(run_id for run_id, _ in pack) for pack in packs),
            slots=getattr(profile, "slots", 1),
            estimate=estimate,
        )

    @property
    def job_name(self) -> str:
        """What its SLURM jobs are called: the sweep and what makes the submission unique."""
        return f"{self.sweep}.{self.submission.rpartition('-')[2]}"

    def with_jobs(self, jobs: Iterable[str]) -> "Entry":
        return replace(self, jobs=tuple(jobs))

    def dealt(self, packs: Iterable[Iterable[str]]) -> "Entry":
        return replace(self, packs=tuple(map(tuple, packs)))

    def ended(self) -> "Entry":
        return replace(self, over=True)


def write(layout: Layout, entry: Entry) -> None:
    """Enter a submission, or what is new of it."""
    content = {name: value for name, value in asdict(entry).items() if name != "run_ids"}
    folder = layout.sweep(entry.sweep).ledger
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{entry.submission}.json", content)


def entries(layout: Layout) -> Iterator[Entry]:
    """All submissions of all sweeps, the oldest of each sweep first."""
    for file in sorted(layout.sweeps.glob("*/ledger/*.json")):
        content = read_json(file)
        if content and "executor" in content:  # else made by an icbench that had no clusters
            entry = Entry(**content | {"packs": (), "jobs": tuple(content["jobs"])})
            handed_out = read_json(layout.sweep(entry.sweep).submission(entry.submission).open)
            yield entry.dealt(content["packs"] if handed_out is None else [handed_out])


def is_under_way(layout: Layout, entry: Entry) -> bool:
    """Whether the `icbench sweep` of a local submission still runs, on whatever machine."""
    return not entry.over and not is_free(layout.sweep(entry.sweep).submission(entry.submission).lifeline)


def record_sweep(layout: Layout, sweep: Sweep) -> bool:
    """Write the grid as submitted, and which runs it names, under `sweeps/NAME/`.

    Returns whether that name was another grid's: one that shares no run with this.
    """
    files = layout.sweep(sweep.name)
    before = (read_json(files.manifest) or {}).get("run_ids", [])
    files.folder.mkdir(parents=True, exist_ok=True)
    write_whole(files.grid, lambda file: file.write(sweep.text.encode()))
    record_runs(layout, sweep.name, sweep.question, sweep.run_ids)
    return bool(before) and set(before).isdisjoint(sweep.run_ids)


def record_runs(layout: Layout, name: str, question: str, run_ids: list[str]) -> None:
    """Write which runs a sweep, or a search so far, is of."""
    write_json(layout.sweep(name).manifest, {"name": name, "question": question, "run_ids": run_ids})
