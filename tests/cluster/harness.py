"""What tests on the real cluster share: a folder with a grid and a profile, commands in it, and bad luck."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conftest import REPOSITORY, Finished, environment, wait_for

import icbench as package
from icbench.layout import Layout

# Long enough to be met with bad luck in the middle: some 4 s a run on a core of its own.
SLOW = """
recipe: {name: digits, epochs: 12, learning_rate: 1e-3}
fixed: {dataset: digits, depth: 8, width: 16, dropout: 0.2}
grid: {ordering: [conv-relu-ic, ic-conv-relu]}
seeds: 2
"""
PROFILE = """
executor: slurm
partition: main
time_limit: 10
gpus_per_node: 2
max_jobs_at_once: 1
device: cpu
checkpoint_minutes: 0.01
"""


@dataclass
class Cluster:
    """A user's folder on the cluster, with `grid.yaml` and `profile.yaml`."""

    conf: Path
    folder: Path
    tree: Path | None = None  # where another icbench than this one is
    path: Path | None = None  # where other commands are
    variables: Mapping[str, str] = field(default_factory=dict)  # of the user's environment

    @property
    def environment(self) -> dict[str, str]:
        python = {"PYTHONPATH": str(self.tree)} if self.tree else {}
        path = {"PATH": f"{self.path}:{os.environ['PATH']}"} if self.path else {}
        return environment(SLURM_CONF=str(self.conf), **python, **path, **self.variables)

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def write(self, grid: str = SLOW, profile: str = PROFILE) -> None:
        (self.folder / "grid.yaml").write_text(grid)
        (self.folder / "profile.yaml").write_text(profile)

    def icbench(self, *arguments: object, timeout: float = 300) -> Finished:
        command = [sys.executable, "-m", "icbench", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def sweep(self, *more: object, timeout: float = 300) -> Finished:
        return self.icbench("sweep", "grid.yaml", "--profile", "profile.yaml", *more, timeout=timeout)

    def submit(self) -> str:
        """Submit the grid; the id of its one job or array."""
        done = self.sweep("--json")
        assert done.code == 0, done.err
        ids = {job.partition("_")[0] for job in done.json()["jobs"]}
        (job,) = ids
        return job

    def slurm(self, *command: object) -> str:
        done = subprocess.run(
            list(map(str, command)), env=self.environment, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.strip()

    def devcluster(self, *command: str) -> None:
        script = REPOSITORY / "slurm" / "devcluster"
        subprocess.run([script, "--dir", self.conf.parent.parent, *command], check=True, timeout=60)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """While nothing starts in the partition `main`."""
        self.slurm("scontrol", "update", "PartitionName=main", "State=DOWN")
        try:
            yield
        finally:
            self.slurm("scontrol", "update", "PartitionName=main", "State=UP")

    def state(self, job: str) -> str:
        return self.slurm("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}")

    def restarts(self, job: str) -> int:
        """How often the elements of a job were put back into the queue. What a job says of it, its end may cut off."""
        counts = self.slurm("squeue", "--noheader", "--states=all", "--Format=RestartCnt", f"--jobs={job}")
        return sum(map(int, counts.split()))

    def finish(self, seconds: float = 300) -> None:
        """Wait until the queue is empty."""
        wait_for(lambda: not self.slurm("squeue", "--noheader"), seconds, every=0.5)

    def status(self) -> dict[str, Any]:
        (status,) = self.icbench("status", "--json").json()
        return dict(status)

    def events(self) -> list[dict[str, Any]]:
        """What all workers have told, a worker after the other."""
        files = sorted(Layout(self.results).sweeps.glob("*/submissions/*/worker-*.jsonl"))
        lines = [line for file in files for line in file.read_text().splitlines(keepends=True)]
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def checkpoints(self) -> list[Path]:
        return sorted(self.results.glob("work/*/checkpoint.pt"))

    def submissions(self) -> int:
        return len(list(self.results.glob("sweeps/*/ledger/*.json")))

    def logs(self) -> str:
        """All that the runs' logs and the jobs' output say."""
        files = [*self.results.glob("work/*/log.txt"), *self.results.glob("sweeps/*/submissions/*/submitit/*_log.*")]
        return "\n".join(file.read_text(errors="replace") for file in files)

    def processes(self, words: bytes) -> list[int]:
        """The processes of this folder's jobs whose command line has these words."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command, inherited = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
            except OSError:
                continue
            ours = f"{self.results}/sweeps/".encode()
            if words in command.replace(b"\0", b" ") and (ours in command or ours in inherited):
                found.append(int(folder.name))
        return sorted(found)

    def tasks(self, process: int) -> list[int]:
        """SLURM's own tasks of that number, one of each job."""
        number = f"SLURM_PROCID={process}\0".encode()
        found = self.processes(b"-u -m submitit.core._submit")
        return [pid for pid in found if number in Path(f"/proc/{pid}/environ").read_bytes()]

    def workers(self) -> list[int]:
        """The processes that train."""
        return self.processes(b"icbench.work.worker")

    def kill(self, pids: list[int]) -> None:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def wait_for_checkpoints(self, count: int = 1) -> None:
        wait_for(lambda: len(self.checkpoints()) >= count, 120)

    def runs(self) -> Any:
        return package.load_runs(self.results)
