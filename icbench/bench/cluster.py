"""One-epoch runs on the cluster of SLURM_CONF, two at a time: `icbench sweep --wait`, and one submitit job a run."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from icbench import grid
from icbench.bench.assigned import assigned
from icbench.errors import IcbenchError
from icbench.layout import Layout
from icbench.work.worker import work

COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scontrol", "sacctmgr", "scancel")
_GRID = """
recipe: {{name: digits, epochs: 1}}
fixed: {{dataset: digits, depth: 8, ordering: relu-ic-conv}}
seeds: {runs}
"""
_PROFILE = """
executor: slurm
time_limit: 60
gpus_per_node: 2
max_jobs_at_once: 1
device: cpu
"""


class Way(NamedTuple):
    """Seconds that all runs took, and how often each of SLURM's commands was called."""

    seconds: float
    calls: dict[str, int]


def by_sweep(runs: int) -> Way:
    """`icbench sweep --wait`: one job of two slots."""
    return _timed(runs, _sweep)


def by_jobs(runs: int) -> Way:
    """One submitit job a run, in one array with a throttle of two."""
    return _timed(runs, _jobs)


def _sweep(folder: Path, _: int) -> None:
    command = [sys.executable, "-m", "icbench", "sweep", "grid.yaml", "--profile", "profile.yaml", "--wait"]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode:
        raise IcbenchError(f"the sweep on the cluster ended with exit code {done.returncode}:\n{done.stderr}")


def _jobs(folder: Path, runs: int) -> None:
    import submitit

    executor = submitit.SlurmExecutor(folder / "submitit")
    executor.update_parameters(time=60, gpus_per_node=1, array_parallelism=2)
    for job in executor.map_array(train_one, [folder] * runs, range(runs)):
        job.result()


def train_one(folder: Path, number: int) -> None:
    """One run, in a job of its own: the same training, the same files."""
    run = grid.load(folder / "grid.yaml").runs()[number]
    with assigned([run], Layout(folder / "results"), "grid", f"run-{number}", heartbeat_seconds=10) as assignment:
        work(assignment)


def _timed(runs: int, way: Callable[[Path, int], None]) -> Way:
    # Below the working directory, which the nodes of a cluster see.
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".icbench-bench-") as name:
        folder = Path(name)
        (folder / "grid.yaml").write_text(_GRID.format(runs=runs), encoding="utf-8")
        (folder / "profile.yaml").write_text(_PROFILE, encoding="utf-8")
        with _counted(folder) as log:
            began = time.perf_counter()
            way(folder, runs)
            seconds = time.perf_counter() - began
        done = len(list(folder.glob("results/runs/*.parquet")))
        if done < runs:
            raise IcbenchError(f"only {done} of {runs} runs on the cluster were finished.")
        return Way(seconds, dict(Counter(log.read_text(encoding="utf-8").split())))


@contextmanager
def _counted(folder: Path) -> Iterator[Path]:
    """Put wrappers of SLURM's commands that note each call in front of them, here and in the jobs."""
    log = folder / "calls"
    log.touch()
    (folder / "bin").mkdir()
    for name in COMMANDS:
        wrapper = folder / "bin" / name
        wrapper.write_text(f'#!/bin/sh\necho {name} >> "{log}"\nexec {shutil.which(name)} "$@"\n', encoding="utf-8")
        wrapper.chmod(0o755)
    before = {name: os.environ.get(name) for name in ("PATH", "OMP_NUM_THREADS")}
    os.environ |= {"PATH": f"{folder / 'bin'}:{before['PATH']}", "OMP_NUM_THREADS": "1"}
    try:
        yield log
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
