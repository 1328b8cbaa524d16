"""Profiles: how this machine, or a cluster, is to be used; and what this machine has."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY

from icbench import machine, profile
from icbench.cluster.submit import chunks, options
from icbench.errors import UserError
from icbench.profile import Local, Slurm

WriteGrid = Callable[..., Path]
SLURM = "executor: slurm\ntime_limit: 60\n"


def test_the_local_profile_uses_every_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "visible_gpus", tuple)
    local = profile.load("local")
    assert isinstance(local, Local)
    assert (local.workers, local.threads, local.device) == (machine.cores(), 1, "cpu")
    monkeypatch.setattr(profile, "visible_gpus", lambda: ("2", "5"))
    assert profile.load("local").packs(9) == 2
    assert profile.load("local").device == "cuda"


def test_a_slurm_job_uses_no_more_cores_than_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert machine.cores() == 64
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "8")
    assert machine.cores() == 8
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    assert machine.cores() == 4
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "128")
    assert machine.cores() == 64


def test_a_profile_of_one_s_own(write_grid: WriteGrid) -> None:
    file = write_grid("executor: local\nworkers: 3\nthreads: 2\ndevice: cpu", "mine.yaml")
    mine = profile.load(str(file))
    assert isinstance(mine, Local)
    assert (mine.workers, mine.threads, mine.gpus) == (3, 2, ())


@pytest.mark.parametrize("file", sorted((REPOSITORY / "slurm").glob("*.yaml")), ids=lambda file: file.stem)
def test_our_profiles_are_right(file: Path) -> None:
    assert profile.load(str(file)).packs(1000) >= 1


MISTAKES = {
    "unknown field": ("workers: 2\nworker: 3", 2, "Did you mean 'workers'?"),
    "unknown executor": ("executor: slrum", 1, "there is no 'slrum'"),
    "no number": ("threads: many", 1, "a whole number from 1 up, or auto"),
    "zero": ("workers: 0", 1, "a whole number from 1 up"),
    "empty": ("", 1, "holds no profile"),
    "no GPU": ("device: cuda", 1, "no NVIDIA GPU"),
    "a cluster's field": (
        "workers: 2\nruns_per_gpu: 3",
        2,
        "no field 'runs_per_gpu'. For a cluster write",
    ),
    "no time limit": ("executor: slurm", 1, "needs a time_limit"),
    "no time": ("executor: slurm\ntime_limit: 4 hours", 2, "'4 hours' is no time above 0. Write it as for sbatch"),
    "no time at all": ("executor: slurm\ntime_limit: 0", 2, "0 is no time above 0"),
    "a local field": (f"{SLURM}workers: 2", 3, "for executor slurm has no field 'workers'"),
    "a near miss": (f"{SLURM}partiton: gpu", 3, "Did you mean 'partition'?"),
    "no memory": (f"{SLURM}mem_per_gpu: 32 GB", 3, "'32 GB' is no amount of memory. Write it as for sbatch: 32G"),
    "no list": (f"{SLURM}setup: module load cuda", 3, "should be a list of shell commands"),
    "no option": (f"{SLURM}sbatch: {{--exclusive: true}}", 3, "Write its long name without the dashes"),
    "an option of ours": (f"{SLURM}sbatch:\n  time: 5", 4, "Use the profile's field time_limit"),
    "another option of ours": (f"{SLURM}sbatch:\n  nice: 1\n  array: 0-3", 5, "icbench sets it"),
    "false": (f"{SLURM}sbatch: {{exclusive: false}}", 3, "or true where it takes no value"),
    "signal": (f"{SLURM}signal_seconds: 3600", 3, "is before its beginning"),
    "GPUs on no GPUs": (f"{SLURM}gpus_per_node: 0\nruns_per_gpu: 2", 4, "means nothing where gpus_per_node is 0"),
    "CUDA on no GPUs": (f"{SLURM}gpus_per_node: 0\ndevice: cuda", 4, "but gpus_per_node is 0"),
    "nodes' runs on GPUs": (f"{SLURM}runs_per_node: 2", 3, "Use runs_per_gpu"),
    "both ways": (f"{SLURM}gpus_per_node: 4\ngpus_per_run: 2\nruns_per_gpu: 2", 5, "Leave one of the two at 1"),
    "uneven": (f"{SLURM}gpus_per_node: 4\ngpus_per_run: 3", 4, "does not fit 1 x 4 GPUs"),
    "too many": (f"{SLURM}nodes: 3\ngpus_per_node: 4\ngpus_per_run: 8", 5, "does not fit 3 x 4 GPUs"),
    "few cores": (f"{SLURM}cpus_per_gpu: 4\nruns_per_gpu: 2\nthreads: 3", 3, "too few for 2 x 3"),
    "an abbreviation": (f"{SLURM}sbatch: {{depend: 5}}", 3, "icbench sets it"),
    "another's word for true": (f"{SLURM}sbatch: {{exclusive: yes}}", 3, "Write true"),
    "another cluster": (f"{SLURM}sbatch: {{clusters: other}}", 3, "icbench sets it"),
    "a type and a number": (f"{SLURM}gpu_type: a100:4", 3, "should be the type alone"),
    "blanks": (f"{SLURM}partition: a b", 3, "should be a word, without blanks"),
    "a colon": (f'{SLURM}setup:\n  - export X="a: b"', 3, "in quotes, where there is a colon"),
    "MPS on CPUs": (f"{SLURM}device: cpu\nruns_per_gpu: 2\nmps: true", 5, "this trains on the CPU. Leave it away, or"),
    "MPS over GPUs": (f"{SLURM}gpus_per_node: 2\ngpus_per_run: 2\nmps: true", 5, "several GPUs (gpus_per_run). Leave"),
    "MPS for one": (f"{SLURM}mps: true", 3, "has a GPU of its own. Leave it away, or write runs_per_gpu: auto or"),
    "MPS for one, in words": (f"{SLURM}runs_per_gpu: 1\nmps: true", 4, "each run has a GPU of its own"),
    "a word like none": ("engine: fast", 1, "there is no 'fast'. Valid: auto, compiled"),
    "a word like one": ("engine: grpah", 1, "there is no 'grpah'. Did you mean 'graph'?"),
    "a word with lines": (f'{SLURM}account: "a\\nb"', 3, "should be a word"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_profile_s_mistake_is_named(case: str, write_grid: WriteGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "visible_gpus", tuple)
    text, line, words = MISTAKES[case]
    file = write_grid(text, "mine.yaml")
    with pytest.raises(UserError) as caught:
        profile.load(str(file))
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize("runs", ["auto", "2"])
def test_runs_that_share_a_gpu_may_do_so_by_mps(runs: str, write_grid: WriteGrid) -> None:
    mine = profile.load(str(write_grid(f"{SLURM}runs_per_gpu: {runs}\nmps: true", "mine.yaml")))
    assert mine.mps


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no profile 'lokal'. Write local, or the path"):
        profile.load("lokal")
    with pytest.raises(UserError, match="there is no such file"):
        profile.load(str(tmp_path / "none.yaml"))


def test_visible_gpus_follow_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Devices:
        def glob(self, _: str) -> list[Path]:
            return [tmp_path / name for name in ("nvidia1", "nvidia0", "nvidia10", "nvidiactl", "nvidia-uvm")]

    monkeypatch.setattr(machine, "Path", lambda _: Devices())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.visible_gpus() == ("0", "1", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5ab")
    assert machine.visible_gpus() == ("3", "GPU-5ab")
    for none in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert machine.visible_gpus() == ()


@pytest.mark.parametrize(
    ("written", "minutes"),
    [("90", 90), ("1:30", 2), ("1:30:00", 90), ("0:00:30", 1), ("1-0", 1440), ("2-12:30", 3630), ("1-1:1:1", 1502)],
)
def test_time_limits_are_read_as_sbatch_reads_them(written: str, minutes: int, write_grid: WriteGrid) -> None:
    mine = profile.load(str(write_grid(f"executor: slurm\ntime_limit: {written}", "mine.yaml")))
    assert isinstance(mine, Slurm)
    assert mine.time_limit == minutes


def test_a_job_s_slots(write_grid: WriteGrid) -> None:
    def slots(more: str) -> tuple[int, int, int, int]:
        mine = profile.load(str(write_grid(f"{SLURM}{more}", "mine.yaml")))
        assert isinstance(mine, Slurm)
        return mine.slots, mine.tasks_per_node, mine.cpus_per_task, mine.jobs_for(100)

    assert slots("") == (1, 1, 1, 8)
    assert slots("runs_per_gpu: 3\nthreads: 2\nsbatch: {mem: 4G}") == (3, 3, 2, 8)
    assert slots("nodes: 2\ngpus_per_node: 4\nruns_per_gpu: 2\ncpus_per_gpu: 6") == (16, 8, 3, 7)
    assert slots("nodes: 2\ngpus_per_node: 4\ngpus_per_run: 8") == (1, 4, 1, 8)
    assert slots("gpus_per_node: 4\ngpus_per_run: 2\njobs: 80\nmax_jobs_at_once: 3") == (2, 4, 1, 50)
    assert slots("gpus_per_node: 0\nruns_per_node: 5\nthreads: 2\nnodes: 2") == (10, 5, 2, 8)


def test_what_sbatch_is_asked_for(write_grid: WriteGrid) -> None:
    text = "partition: gpu\nqos: 4\ngpus_per_node: 2\ngpu_type: a100\nmem_per_gpu: 8G\nsbatch: {exclusive: true}"
    mine = profile.load(str(write_grid(SLURM + text, "mine.yaml")))
    assert isinstance(mine, Slurm)
    assert options(mine) == {
        "time": 60,
        "nodes": 1,
        "ntasks-per-node": 2,
        "cpus-per-task": 1,
        "gpus-per-node": "a100:2",
        "mem-per-gpu": "8G",
        "partition": "gpu",
        "qos": "4",
        "requeue": True,
        "exclusive": True,
    }


@pytest.mark.parametrize("jobs", [1, 4, 5, 6, 23, 100])
@pytest.mark.parametrize("largest", [1, 5, 1000])
@pytest.mark.parametrize("at_once", [1, 3, 8, 256])
def test_arrays_never_run_more_jobs_than_allowed(jobs: int, largest: int, at_once: int) -> None:
    made = chunks(jobs, largest, at_once)
    assert sum(chunk.jobs for chunk in made) == jobs
    assert max(chunk.jobs for chunk in made) <= largest
    assert all(1 <= chunk.at_once <= chunk.jobs for chunk in made)
    lanes: list[int] = []  # the arrays that may run side by side: each chain's largest throttle
    lane_of = {}
    for index, chunk in enumerate(made):
        if chunk.after is None:
            lane_of[index] = len(lanes)
            lanes.append(chunk.at_once)
        else:
            lane_of[index] = lane_of.pop(chunk.after)  # only one may wait for it
            lanes[lane_of[index]] = max(lanes[lane_of[index]], chunk.at_once)
    assert sum(lanes) <= at_once
    if len(made) == 1:
        assert made[0].at_once == min(jobs, at_once)


def test_out_of_memory_kills_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As version 1 and version 2 of control groups tell them."""
    files = {"/proc/self/cgroup": "0::/job_1\n", "/sys/fs/cgroup/job_1/memory.events": "low 0\noom 2\noom_kill 3\n"}

    def path(*parts: object) -> Path:
        name = "/".join(map(str, parts))
        file = tmp_path / name.strip("/")
        if name in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(files[name])
        return file

    monkeypatch.setattr(machine, "Path", path)
    assert machine.oom_kills() == 3
    files["/proc/self/cgroup"] = "4:memory:/slurm/job_2\n3:cpu:/\n"
    assert machine.oom_kills() == 0
    files["/sys/fs/cgroup/memory/slurm/job_2/memory.oom_control"] = "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"
    assert machine.oom_kills() == 1


def test_freed_memory_is_kept() -> None:
    """A block of 16 MiB that is freed and wanted again costs no new pages: the kernel counts those it had to make."""
    code = """
import resource, sys
from icbench.machine import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(16 * 2**20)
before = faults()
for _ in range(10):
    bytearray(16 * 2**20)
print(faults() - before)
"""
    made = {how: int(subprocess.check_output([sys.executable, "-c", code, how])) for how in ("kept", "given")}
    assert made["kept"] < 1000 < made["given"]
