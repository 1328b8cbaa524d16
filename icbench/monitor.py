"""What is running, what waits, what failed and why: the results directory, joined with SLURM's queue and accounting."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icbench import kinds, ledger
from icbench.cluster import slurm, submissions
from icbench.cluster.submissions import Live
from icbench.errors import UserError
from icbench.files import is_full, last_words, read_json
from icbench.layout import Layout
from icbench.locks import is_free
from icbench.results import existing, finished, read
from icbench.work.attempts import Attempts

# Of a job's output, what may tell why it ended.
_LINES = 20


@dataclass(frozen=True)
class Beat:
    """A run's last sign of life: epochs done of all, seconds left by its pace, and where. job: SLURM's id, if one."""

    run_id: str
    done: float
    epochs: int
    seconds_left: float | None
    hostname: str
    job: str | None


@dataclass(frozen=True)
class Failure:
    """Why a run failed; kind: one of icbench/kinds.py."""

    run_id: str
    kind: str
    message: str
    traceback: str


@dataclass(frozen=True)
class Interruption:
    """A run that has begun, was left, and that no live submission will go on with.

    job: the SLURM job that was at it last; kind: how that ended, None where nobody knows.
    """

    run_id: str
    kind: str | None
    job: str | None


@dataclass(frozen=True)
class EndedJob:
    """A SLURM job of a sweep's last submission that has ended otherwise than well, while runs are left of it.

    state: SLURM's, with the exit code; kind: one of icbench/kinds.py; said: the last line of its output.
    """

    job: str
    state: str
    kind: str
    said: str


@dataclass(frozen=True)
class SweepStatus:
    """A sweep's runs by state. finished: also those that diverged. pruned: stopped by a search, and not gone on with
    since. queued: a live submission will do or go on with them. waiting: neither begun nor queued. jobs_pending,
    jobs_running: of all submissions of this sweep. pending_because: SLURM's reasons, each with the number of its jobs.
    jobs_ended: of the last submission, if no jobs are left and runs are.
    """

    name: str
    total: int
    finished: int
    diverged: int
    pruned: int
    running: tuple[Beat, ...]
    queued: int
    interrupted: tuple[Interruption, ...]
    waiting: int
    failures: tuple[Failure, ...]
    jobs_pending: int
    jobs_running: int
    pending_because: dict[str, int]
    jobs_ended: tuple[EndedJob, ...]

    @property
    def is_under_way(self) -> bool:
        return bool(self.running or self.queued or self.jobs_pending or self.jobs_running)


@dataclass(frozen=True)
class Overview:
    """The status of all sweeps of a results directory. notes: what could not be found out, and why."""

    sweeps: tuple[SweepStatus, ...]
    notes: tuple[str, ...]


def overview(results: Path) -> Overview:
    """Every sweep in a results directory, by name; one call of squeue and one of sacct where there are SLURM jobs.

    Raises UserError when there is no such directory.
    """
    layout = existing(results)
    done = finished(layout)
    manifests = [content for file in sorted(layout.sweeps.glob("*/sweep.json")) if (content := read_json(file))]
    live, notes = _live(layout)
    covered = submissions.covered(live)
    wanted = {run_id for content in manifests for run_id in content["run_ids"]}
    left = {run_id: Attempts.read(layout.run(run_id)) for run_id in begun(layout, wanted - done)}
    dropped = _dropped(layout, done | covered)
    jobs = {a.job for i, a in left.items() if a and a.job and i not in covered}
    ended, more_notes = _endings(jobs.union(*dropped.values()))
    full = (f"No space is left for {layout.root}/: workers cannot write.",) if is_full(layout.root) else ()
    seen = _Seen(layout, done, live, covered, left, ended, _diverged(layout, wanted & done), dropped)
    return Overview(tuple(seen.status(content) for content in manifests), (*full, *notes, *more_notes))


def _live(layout: Layout) -> tuple[list[Live], tuple[str, ...]]:
    """The live submissions; without SLURM's queue, all that may be."""
    try:
        return submissions.live(layout), ()
    except slurm.SlurmError as error:
        submitted = [e for e in ledger.entries(layout) if e.executor == "slurm" and not e.over]
        note = f"What was submitted to SLURM counts as queued here, since the queue is not known: {error}"
        return submissions.local(layout) + [Live(entry) for entry in submitted], (note,)


def _dropped(layout: Layout, looked_after: set[str]) -> dict[str, tuple[str, ...]]:
    """By sweep, the jobs of its last submission, if runs are left of it that nobody looks after; and the job of its
    last controller, if that has one, unless a later submission has done what there was to do.
    """
    last: dict[str, dict[bool, ledger.Entry]] = {}
    for entry in ledger.entries(layout):
        if entry.executor == "slurm":
            last.setdefault(entry.sweep, {})[entry.detached] = entry
    found = {}
    for sweep, entries in last.items():
        newest = max(entries.values(), key=lambda entry: entry.submitted_at)
        if newest.detached or not newest.run_ids <= looked_after:
            found[sweep] = tuple(job for entry in entries.values() for job in entry.jobs)
    return found


def _endings(jobs: Collection[str]) -> tuple[dict[str, slurm.Ending], tuple[str, ...]]:
    try:
        return slurm.endings(jobs), ()
    except slurm.SlurmError as error:
        return {}, (f"How jobs ended is not known: {error}",)


def _diverged(layout: Layout, run_ids: Collection[str]) -> set[str]:
    rows = read(layout, "runs", run_ids, ["diverged"]).to_pylist() if run_ids else []
    return {row["run_id"] for row in rows if row["diverged"]}


@dataclass(frozen=True)
class _Seen:
    """What was found out, once for all sweeps."""

    layout: Layout
    done: set[str]
    live: list[Live]
    covered: set[str]
    left: dict[str, Attempts | None]
    ended: dict[str, slurm.Ending]
    diverged: set[str]
    dropped: dict[str, tuple[str, ...]]

    def status(self, manifest: dict[str, Any]) -> SweepStatus:
        ids = manifest["run_ids"]
        open_ids = [run_id for run_id in ids if run_id not in self.done]
        failed = failures(self.layout, open_ids)
        held = [i for i in open_ids if i in self.left and i not in failed and is_running(self.layout, i)]
        running = tuple(sign for sign in (beat(self.layout, run_id) for run_id in held) if sign)
        idle = [run_id for run_id in open_ids if run_id not in failed and run_id not in held]
        stopped = {i for i in idle if i in self.left and i not in self.covered and self.layout.run(i).pruned.exists()}
        idle = [run_id for run_id in idle if run_id not in stopped]
        dropped = tuple(
            self._interruption(run_id, attempts)
            for run_id in idle
            if run_id not in self.covered and (attempts := self.left.get(run_id))
        )
        queued = sum(run_id in self.covered for run_id in idle)
        jobs = [job for each in self.live if each.entry.sweep == manifest["name"] for job in each.jobs]
        return SweepStatus(
            name=manifest["name"],
            total=len(ids),
            finished=len(ids) - len(open_ids),
            diverged=sum(run_id in self.diverged for run_id in ids),
            pruned=len(stopped),
            running=running,
            queued=queued + len(held) - len(running),
            interrupted=dropped,
            waiting=len(idle) - queued - len(dropped),
            failures=tuple(failed.values()),
            jobs_pending=sum(job.is_pending for job in jobs),
            jobs_running=sum(not job.is_pending and not job.is_ending for job in jobs),
            pending_because=dict(Counter(job.reason for job in jobs if job.is_pending)),
            jobs_ended=() if jobs else self._jobs_ended(manifest["name"]),
        )

    def _jobs_ended(self, name: str) -> tuple[EndedJob, ...]:
        return tuple(
            EndedJob(
                job, f"{ending.state} {ending.exit_code}:{ending.signal}", self._kind(job), _said(self.layout, job)
            )
            for job in self.dropped.get(name, ())
            if (ending := self.ended.get(job)) and ending.state != "COMPLETED"
        )

    def _kind(self, job: str) -> str:
        ending = self.ended[job]
        return kinds.of_job(ending.state, ending.exit_code, _said(self.layout, job, _LINES))

    def _interruption(self, run_id: str, attempts: Attempts) -> Interruption:
        job = attempts.job
        return Interruption(run_id, self._kind(job) if job and job in self.ended else None, job)


def _said(layout: Layout, job: str, lines: int = 1) -> str:
    """The last lines of what the processes of a job wrote to their standard error, without SLURM's and submitit's."""
    files = [file for file in job_output(layout, job) if file.suffix == ".err"]
    words = [line for file in files for line in last_words(file, _LINES).splitlines() if line.strip()]
    ours = [line for line in words if not line.startswith(("srun:", "submitit"))]
    return "\n".join((words if lines > 1 else ours)[-lines:])


def beat(layout: Layout, run_id: str) -> Beat | None:
    """The heartbeat of a run that has begun and not ended."""
    content = read_json(layout.run(run_id).progress)
    if not content:
        return None
    return Beat(
        run_id,
        content["done"],
        content["epochs"],
        content["seconds_left"],
        content["hostname"],
        content.get("job"),
    )


def is_running(layout: Layout, run_id: str) -> bool:
    """Whether a worker, somewhere, is at this run: it holds its lock."""
    return not is_free(layout.run(run_id).lock)


def state(layout: Layout, run_id: str) -> str:
    """The state of a run that is not finished: failed, running, queued, pruned, interrupted or waiting, as in
    SweepStatus.

    Where SLURM does not answer, what is queued there counts as interrupted or waiting.
    """
    if failure(layout, run_id):
        return "failed"
    if is_running(layout, run_id):
        return "running"
    if run_id in submissions.covered(_live(layout)[0]):
        return "queued"
    if layout.run(run_id).pruned.exists():
        return "pruned"
    return "interrupted" if layout.run(run_id).attempts.exists() else "waiting"


def failure(layout: Layout, run_id: str) -> Failure | None:
    """Why a run failed, if it did."""
    content = read_json(layout.run(run_id).failure)
    if not content:
        return None
    return Failure(run_id, content["kind"], content["message"], content["traceback"])


def begun(layout: Layout, run_ids: Iterable[str]) -> list[str]:
    """Of some runs, those that have a working directory: without one, a run was never begun."""
    known = {path.name for path in layout.work.iterdir()} if layout.work.is_dir() else set()
    return [run_id for run_id in run_ids if run_id in known]


def failures(layout: Layout, run_ids: Iterable[str]) -> dict[str, Failure]:
    """The failures among some runs, by run id."""
    found = ((run_id, failure(layout, run_id)) for run_id in begun(layout, run_ids))
    return {run_id: why for run_id, why in found if why}


def job_output(layout: Layout, job: str) -> list[Path]:
    """What a SLURM job's processes wrote to their standard output and standard error, where there is something."""
    files = sorted(layout.sweeps.glob(f"*/submissions/*/submitit/{job}_*_log.*"))
    return [file for file in files if file.stat().st_size]


def find(layout: Layout, prefix: str) -> str:
    """The id of the one run, finished, begun or submitted, that begins with `prefix`.

    Raises UserError: none or several.
    """
    known = finished(layout)
    known |= {path.name for path in layout.work.iterdir()} if layout.work.is_dir() else set()
    for file in layout.sweeps.glob("*/sweep.json"):
        known |= set((read_json(file) or {}).get("run_ids", ()))
    hits = sorted(run_id for run_id in known if run_id.startswith(prefix.lower()))
    if not hits:
        raise UserError(
            f"no run in {layout.root} has an id that begins with {prefix!r}.",
            "Ids stand in the column run_id of icbench.load_runs(), and in: icbench plan GRID --json",
        )
    if len(hits) > 1:
        raise UserError(
            f"{len(hits)} runs have an id that begins with {prefix!r}: {', '.join(hits[:10])}.", "Write more of it."
        )
    return hits[0]
