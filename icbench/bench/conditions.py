"""What a number was measured under: the machine, the versions, the code, the command, and who else was at work."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from icbench.console import plural
from icbench.machine import cores, visible_gpus
from icbench.provenance import cpu_model, of_code

_LIBRARIES = ("torch", "torchvision", "numpy", "pyarrow", "pandas")
# Of the machine's cores, that other programs keep busy.
_BUSY = 0.2


def conditions(words: list[str]) -> dict[str, Any]:
    """As JSON values. words: of the command that measures. load: running processes, the last minute's mean."""
    load = os.getloadavg()[0]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["icbench", *words]),
        **of_code(),
        "system": platform.platform(),
        "cpu": cpu_model(),
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "gpus": _gpu_names(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "load_at_start": round(load, 2),
        "busy_at_start": load > _BUSY * (os.cpu_count() or 1),
    }


def in_words(found: dict[str, Any]) -> str:
    """The conditions in a line or two."""
    gpus = f", {', '.join(found['gpus'])}" if found["gpus"] else ", no GPU"
    commit = f", commit {found['git_commit'][:10]}" if found["git_commit"] else ""
    changed = " with changes" if found["git_dirty"] else ""
    return (
        f"{found['date'][:10]}, {found['cpu']}, {plural(found['cores'], 'core')}, {found['memory_gib']:g} GiB{gpus}; "
        f"Python {found['python']}, torch {found['libraries']['torch']}, icbench {found['icbench_version']}"
        f"{commit}{changed}; load at the start {found['load_at_start']:g}"
    )


def warning(found: dict[str, Any]) -> str | None:
    """What to say where others are at work on the machine."""
    if not found["busy_at_start"]:
        return None
    return (
        f"warning: the machine is busy: {found['load_at_start']:g} processes ran in the last minute, on the mean. "
        "Seconds measured now are worth little, ratios less than usual."
    )


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _gpu_names() -> list[str]:
    """By a process of its own: torch takes seconds and memory that this one has no other use for."""
    if not visible_gpus():
        return []
    program = "import torch; [print(torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())]"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()
