"""What tests share: grids in files, the CLI as a real subprocess, a training without a worker."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import icbench as package
from icbench import cli
from icbench.locks import Lock

if TYPE_CHECKING:
    from harness import Cluster

# Before torch is imported: two test processes with a thread for each core would spin in each other's way, ten times
# slower than with one.
os.environ["OMP_NUM_THREADS"] = "1"

REPOSITORY = Path(__file__).parent.parent


# What may differ between two sweeps of one grid.
VARYING = [
    "train_seconds",
    "images_per_second",
    "started_at",
    "finished_at",
    "attempts",
    "hostname",
    "slurm_job_id",
    "node",
    "gpu",
]

SMALL = """
name: small
question: Does a small sweep make a report?
recipe: {name: digits, epochs: 3}
fixed: {dataset: digits, depth: 8, width: 4}
grid: {ordering: [baseline, relu-ic-conv, ic-conv-relu], dropout: [0.05, 0.1]}
seeds: 2
baseline: {ordering: baseline}
"""

UNPROBED = """
recipe: {name: digits, epochs: 4, batch_size: 200}
fixed: {dataset: digits, depth: 8, width: 4}
grid: {ordering: [baseline, relu-ic-conv]}
"""
PROBED = (
    UNPROBED
    + """
probes:
  - {name: magnitudes, images: 300}
  - {name: dependence, images: 300, pairs: 8, epochs: [0, 3]}
  - {name: effective-lr, steps: 3, every: 3}
keep_checkpoints: {every: 3}
"""
)


@dataclass
class Finished:
    """An ended subprocess."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def environment(**more: str) -> dict[str, str]:
    """The tests' environment, without what a developer may have set."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ICBENCH")}
    return kept | more


Icbench = Callable[..., Finished]


@pytest.fixture
def icbench(tmp_path: Path) -> Icbench:
    """Run `icbench ARGUMENTS` in `tmp_path`."""

    def run(*arguments: object, **more: str) -> Finished:
        command = [sys.executable, "-m", "icbench", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(**more), capture_output=True, text=True, timeout=120
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def icbench_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Icbench:
    """As `icbench`, but in this process, which has imported already what a command takes."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ.keys() - environment().keys():
        monkeypatch.delenv(name)

    def run(*arguments: object) -> Finished:
        try:
            code = cli.main([str(each) for each in arguments])
        except SystemExit as ended:  # argparse's refusals
            code = int(str(ended.code))
        return Finished(code, *capsys.readouterr())

    return run


@pytest.fixture
def write_grid(tmp_path: Path) -> Callable[..., Path]:
    """Write a grid's text into a file."""

    def write(text: str, name: str = "grid.yaml") -> Path:
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        return file

    return write


def sweep_here(folder: Path, grid: str) -> Path:
    """The results of a local sweep in `folder` that nothing disturbs."""
    (folder / "grid.yaml").write_text(grid)
    # A second worker, or a trial build, would import torch for 2 s of a core that another test process makes use of.
    (folder / "one.yaml").write_text("workers: 1")
    command = [sys.executable, "-m", "icbench", "sweep", "grid.yaml", "--profile", "one.yaml", "--no-build"]
    subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True, timeout=300)
    return folder / "results"


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder that `make` has filled, in whichever test process came first: to be read, not to be changed."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # that of all test processes
    made = base / f"{name}.made"
    with Lock.wait(base / f"{name}.lock", told=lambda: None):
        if not made.exists():
            folder = factory.mktemp(name)
            make(folder)
            made.write_text(str(folder), encoding="utf-8")  # last: what was not made whole is made again
    return Path(made.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def small_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a real sweep with a baseline, two orderings at two dropout rates, and two seeds each."""
    return made_once(tmp_path_factory, "small", lambda folder: sweep_here(folder, SMALL)) / "results"


@pytest.fixture(scope="session")
def probed_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a real sweep whose networks were measured."""
    return made_once(tmp_path_factory, "probed", lambda folder: sweep_here(folder, PROBED)) / "results"


def assert_same_rows(results: Path, undisturbed: Path) -> None:
    """Bit for bit, but for what may differ."""
    for ours, theirs in zip(_rows(results), _rows(undisturbed), strict=True):
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


def _rows(results: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    return package.load_runs(results).drop(columns=VARYING), package.load_epochs(results).drop(columns="seconds")


def wait_for(condition: Callable[[], object], seconds: float = 60, every: float = 0.02) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(every)


@pytest.fixture(scope="session")
def slurm_conf() -> Iterator[Path]:
    """A real SLURM of two nodes with four "GPUs" each, whose job arrays have at most five jobs; its configuration.

    Skips where SLURM is not installed, unless ICBENCH_REQUIRE_CLUSTER says that it has to be, as CI does.
    """
    absent = [name for name in ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd") if not shutil.which(name)]
    if absent and not os.environ.get("ICBENCH_REQUIRE_CLUSTER"):
        pytest.skip(f"SLURM is not installed here: there is no {', '.join(absent)}")
    folder = Path(tempfile.mkdtemp(prefix="icbench-"))  # short: the paths of sockets are
    command = [REPOSITORY / "slurm" / "devcluster", "--dir", folder / "c"]
    subprocess.run([*command, "up", "--set", "MaxArraySize=5"], check=True, timeout=60)
    try:
        yield folder / "c" / "etc" / "slurm.conf"
    finally:
        subprocess.run([*command, "down"], check=True, timeout=60)
        shutil.rmtree(folder)


@pytest.fixture
def cluster(slurm_conf: Path, tmp_path: Path) -> Iterator["Cluster"]:
    """A user's folder on the real cluster; nothing of it is left in the queue."""
    from harness import Cluster

    folder = tmp_path / "user"
    folder.mkdir()
    cluster = Cluster(slurm_conf, folder)
    yield cluster
    subprocess.run(["scancel", f"--user={os.getuid()}"], env=cluster.environment, check=True, timeout=60)
    cluster.finish(60)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the harness's SLOW, from a local sweep that nothing disturbs."""
    from harness import SLOW

    return made_once(tmp_path_factory, "cluster-undisturbed", lambda folder: sweep_here(folder, SLOW)) / "results"
