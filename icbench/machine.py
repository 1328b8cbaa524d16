"""What this machine has: the cores and GPUs that a process started here may use."""

import ctypes
import os
from pathlib import Path

# glibc's names in malloc.h; blocks of up to 32 MiB, its largest, come from what is kept.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_MALLOC = {_M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 64 * 2**20, _M_MMAP_THRESHOLD: 32 * 2**20}
# Those that glibc begins with.
_PLAIN_MALLOC = {_M_TRIM_THRESHOLD: 2**17, _M_TOP_PAD: 2**17, _M_MMAP_THRESHOLD: 2**17}


def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, rather than give it back and have each page cleared anew.

    A step of training on the CPU frees and wants the same again: 10 % of a ResNet-110's. Where there is no glibc,
    nothing happens.
    """
    _set_malloc(_MALLOC)


def return_freed_memory() -> None:
    """The opposite: large blocks are the kernel's again once they are freed, and a process holds what it uses."""
    _set_malloc(_PLAIN_MALLOC)


def _set_malloc(options: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for name, value in options.items():
            mallopt(name, value)


def cores() -> int:
    """The CPU cores that this process may use: those it is bound to, and no more than its SLURM job was given."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE", "")
    # A cluster need not bind its jobs to their cores; two jobs on one node must not take it twice.
    return min(bound, int(given)) if given.isdigit() and given != "0" else bound


def visible_gpus() -> tuple[str, ...]:
    """The NVIDIA GPUs that CUDA programs started here would see, by name, without starting CUDA."""
    present = sum(path.name.removeprefix("nvidia").isdigit() for path in Path("/dev").glob("nvidia*"))
    if os.environ.get("CUDA_VISIBLE_DEVICES") is None or not present:
        # CUDA numbers those that it finds from 0, whatever the devices are called: a container may have nvidia3 alone.
        return tuple(map(str, range(present)))
    return assigned_gpus()


def device(choice: str) -> str:
    """What CUDA programs started here can compute on: a device by name, of `auto` a GPU if there is one."""
    return ("cuda" if visible_gpus() else "cpu") if choice == "auto" else choice


def assigned_gpus() -> tuple[str, ...]:
    """The names in CUDA_VISIBLE_DEVICES, which SLURM sets to what a job was given; none where it is not set."""
    names = (name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(","))
    return tuple(name for name in names if name and name != "-1")


def oom_kills() -> int:
    """How many processes of this one's control group the kernel has killed for want of memory; 0 where nobody counts.

    SLURM gives each job step a control group of its own, of version 1 or 2, where it constrains memory.
    """
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        files = (
            Path("/sys/fs/cgroup" + path, "memory.events"),
            Path("/sys/fs/cgroup/memory" + path, "memory.oom_control"),
        )
        if controllers in ("", "memory"):
            for counter in (words.split() for file in files for words in _lines(file)):
                if counter[0] == "oom_kill":
                    return int(counter[1])
    return 0


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
