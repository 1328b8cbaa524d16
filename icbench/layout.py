"""Every path beneath a results directory, said once."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFiles:
    """The working files of one run, in a results directory under `work/RUNID/`."""

    folder: Path

    @property
    def lock(self) -> Path:
        """Held (flock) by the one worker that trains this run; the kernel lets go when that worker dies."""
        return self.folder / "lock"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def progress(self) -> Path:
        """The heartbeat: epochs done, seconds left, and the moment of this sign of life, as JSON."""
        return self.folder / "progress.json"

    @property
    def attempts(self) -> Path:
        """How often a worker began this run, and how often in a row they got nowhere, as JSON; see attempts.py."""
        return self.folder / "attempts.json"

    @property
    def failure(self) -> Path:
        """Why the run failed, as JSON; it is not tried again while this file stands."""
        return self.folder / "failure.json"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def curve(self) -> Path:
        """The epochs that a run under way, or one that was left, has behind it: one JSON object a line."""
        return self.folder / "curve.jsonl"

    @property
    def probes(self) -> Path:
        """What probes have measured so far: a JSON file an epoch and probe."""
        return self.folder / "probes"

    @property
    def pruned(self) -> Path:
        """Which search stopped the run before its end, and after which epoch, as JSON; its checkpoint is kept."""
        return self.folder / "pruned.json"


@dataclass(frozen=True)
class SweepFiles:
    """What belongs to one sweep, under `results/sweeps/NAME/`."""

    folder: Path

    @property
    def grid(self) -> Path:
        """The grid as last submitted."""
        return self.folder / "grid.yaml"

    @property
    def manifest(self) -> Path:
        """The run ids that the grid named when it was last submitted, as JSON."""
        return self.folder / "sweep.json"

    @property
    def search(self) -> Path:
        """Of a search, its file as last begun; it has no grid.yaml."""
        return self.folder / "search.yaml"

    @property
    def trials(self) -> Path:
        """Of a search, the table of all its studies' trials."""
        return self.folder / "trials.parquet"

    @property
    def confirmation(self) -> Path:
        """Of a search, the grid that confirms what it found."""
        return self.folder / "confirm.yaml"

    @property
    def spent(self) -> Path:
        """Of a search with a budget of wall time, how many seconds each of its controllers has lived, as JSON."""
        return self.folder / "spent.json"

    @property
    def controllers(self) -> Path:
        """Of a search, a file for each of its controllers, which holds it (flock) while it lives."""
        return self.folder / "controllers"

    @property
    def detached(self) -> Path:
        """Of a search, the files that its controller was given which is a job."""
        return self.folder / "detached"

    @property
    def adopting(self) -> Path:
        """Held (flock) while a search looks for what controllers that are gone have left."""
        return self.folder / ".adopting"

    @property
    def ledger(self) -> Path:
        """One JSON file for each submission: when, with which profile, submitit's jobs, their packs."""
        return self.folder / "ledger"

    def submission(self, submission_id: str) -> "SubmissionFiles":
        return SubmissionFiles(self.folder / "submissions" / submission_id)


@dataclass(frozen=True)
class SubmissionFiles:
    """What one `icbench sweep` and its workers share, under `results/sweeps/NAME/submissions/ID/`."""

    folder: Path

    @property
    def packs(self) -> Path:
        """The packs of runs, pickled: worker k does pack k first, then helps with the others."""
        return self.folder / "packs.pickle"

    @property
    def open(self) -> Path:
        """While it stands, more runs may come: workers that have done what the packs hold wait for them."""
        return self.folder / "open"

    def released(self, index: int) -> Path:
        """While it stands, worker `index` does not wait for more: other workers suffice for what may come."""
        return self.folder / "released" / str(index)

    def stop(self, run_id: str) -> Path:
        """Asks this submission's workers to end a run with its epoch, and not to begin it."""
        return self.folder / "stop" / run_id

    def slot(self, index: int) -> Path:
        """Held (flock) by the first process of a SLURM job's slot while it looks after its worker."""
        return self.folder / f"slot-{index}.lock"

    def rendezvous(self, index: int, incarnation: str) -> Path:
        """Where the ranks of slot `index` find each other, in one stay of their job on its nodes."""
        return self.folder / f"rendezvous-{index}-{incarnation.rpartition('/')[2]}.json"

    @property
    def lifeline(self) -> Path:
        """Held (flock) by the sweep; workers whose lifeline is let go of store a checkpoint and end."""
        return self.folder / "lifeline"

    @property
    def submitit(self) -> Path:
        return self.folder / "submitit"

    def events(self, worker: int) -> Path:
        """What worker `worker` began and ended, one JSON object a line; written by that worker alone."""
        return self.folder / f"worker-{worker}.jsonl"

    @staticmethod
    def worker(events: Path) -> int:
        """Whose file of events that is."""
        return int(events.stem.rpartition("-")[2])

    def all_events(self) -> list[Path]:
        """The files of those workers that have told something."""
        return sorted(self.folder.glob("worker-*.jsonl"))


@dataclass(frozen=True)
class Layout:
    """A results directory."""

    root: Path

    @property
    def compacted(self) -> Path:
        return self.root / "compacted"

    @property
    def sweeps(self) -> Path:
        return self.root / "sweeps"

    @property
    def code(self) -> Path:
        """icbench's code as it was at some submission, a folder for each state of it."""
        return self.root / "code"

    @property
    def kernels(self) -> Path:
        """What torch's compiler has made, for all workers that train with engine: compiled."""
        return self.root / "kernels"

    @property
    def canaries(self) -> Path:
        """What canaries measured: one JSON file for each net and place."""
        return self.root / "canaries"

    def kept(self, run_id: str) -> Path:
        """The folder of a run's checkpoints that are kept."""
        return self.root / "checkpoints" / run_id

    @property
    def studies(self) -> Path:
        """Optuna's studies of all searches, unless a database is named for them: an SQLite file."""
        return self.root / "studies.db"

    @property
    def submitting(self) -> Path:
        """Held (flock) while a sweep looks at what live jobs will do and submits the rest."""
        return self.sweeps / ".submitting"

    @property
    def work(self) -> Path:
        return self.root / "work"

    def table(self, name: str) -> Path:
        """The folder of a table's small files: `runs` or `epochs`."""
        return self.root / name

    def row(self, table: str, run_id: str) -> Path:
        """One run's file in a table. `runs/RUNID.parquet` is written last: where it stands, the run is finished."""
        return self.root / table / f"{run_id}.parquet"

    def compacted_table(self, name: str) -> Path:
        return self.compacted / f"{name}.parquet"

    @property
    def manifest(self) -> Path:
        return self.compacted / "manifest.json"

    @property
    def compaction_lock(self) -> Path:
        """Held (flock) while `compacted/` is being written."""
        return self.compacted / ".lock"

    def run(self, run_id: str) -> RunFiles:
        return RunFiles(self.work / run_id)

    def sweep(self, name: str) -> SweepFiles:
        return SweepFiles(self.sweeps / name)
