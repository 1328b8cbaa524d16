"""How much memory a process took."""

import ctypes
import resource
from pathlib import Path

_PEAK_SO_FAR = "5"  # of what Linux lets a process forget of itself (proc_pid_clear_refs(5))


def peak() -> int:
    """The most bytes of memory that this process has held, DataLoader's and other children's apart.

    By the kernel's account since the program began, or since `at_rest`; that of getrusage begins with what the parent
    process held.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def at_rest() -> int | None:
    """The bytes that this process holds, after giving back what it has freed; `peak` counts from here on.

    None where the kernel does not let a process forget its peak.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text(_PEAK_SO_FAR, encoding="utf-8")
    except OSError:
        return None
    return peak()
