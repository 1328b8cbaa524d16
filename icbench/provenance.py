"""What a result owes its reader: which code, which machine. What torch knows of them is in train/hardware.py."""

import os
import platform
import socket
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from icbench import __version__
from icbench.files import read_json

RECORD = "provenance.json"


@cache
def of_code() -> dict[str, Any]:
    """icbench's version, and its git commit and whether the tree differs from it; null when it is not run from one.

    Of code that was frozen at submission (icbench/cluster/frozen.py): as it was then.
    """
    folder = Path(__file__).parent
    frozen: dict[str, Any] | None = read_json(folder.parent / RECORD)
    if frozen and "icbench_version" in frozen:
        return frozen
    # Installed somewhere inside another project's repository, icbench's files are not that repository's.
    tracked = _git(folder, "ls-files", "--error-unmatch", "__init__.py") is not None
    commit = _git(folder, "rev-parse", "HEAD") if tracked else None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=normal", "--", ".") if commit else None
    return {
        "icbench_version": __version__,
        "git_commit": commit,
        "git_dirty": None if changes is None else bool(changes),
    }


def of_machine() -> dict[str, Any]:
    """Where this process runs."""
    return {
        "hostname": socket.gethostname(),
        "slurm_job_id": slurm_job_id(),
        "node": os.environ.get("SLURMD_NODENAME"),
        "gpu": os.environ.get("CUDA_VISIBLE_DEVICES") or None,
    }


def slurm_job_id() -> str | None:
    """The SLURM job that this process belongs to, as squeue calls it: `12`, or `12_3` in an array."""
    array, index = (os.environ.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
    return f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID")


def cpu_model() -> str:
    """The processor's name, where Linux tells it; elsewhere its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def cpu_device() -> str:
    """What the column `device` calls this machine's processor."""
    return f"cpu ({cpu_model()})"


def _git(folder: Path, *arguments: str) -> str | None:
    # Of the repository that the folder is in, whatever repository a hook or the user's environment names.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True, env=environment)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
