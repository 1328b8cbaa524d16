"""NVIDIA's Multi-Process Service: kernels of several workers on one GPU run at the same time, not in turns."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from icbench.errors import IcbenchError

CONTROL = "nvidia-cuda-mps-control"
_PATIENCE_SECONDS = 20.0
_POLL_SECONDS = 0.05


@contextmanager
def pipe_folder() -> Iterator[Path]:
    """A folder of this node while inside; in /tmp wherever $TMPDIR is, since paths of sockets have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="icbench-mps-", dir="/tmp") as folder:
        yield Path(folder)


def environment(folder: Path) -> dict[str, str]:
    """What CUDA programs must see to use the service that listens in `folder`."""
    return {"CUDA_MPS_PIPE_DIRECTORY": str(folder / "pipe"), "CUDA_MPS_LOG_DIRECTORY": str(folder / "log")}


@contextmanager
def serving(folder: Path) -> Iterator[dict[str, str]]:
    """The service, listening in `folder`, on local storage, while inside; gives its environment.

    Raises IcbenchError where it cannot be started.
    """
    mine = environment(folder)
    # Clients count the GPUs that the service shows: from 0 again, if it had only some. Without, numbers mean the same.
    own = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"} | mine
    for path in mine.values():
        Path(path).mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run([CONTROL, "-d"], env=own, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise IcbenchError(f"mps: true, but there is no {CONTROL} on {os.uname().nodename}.") from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip() or f"exit code {error.returncode}"
        raise IcbenchError(f"mps: true, but {CONTROL} did not start: {said}") from None
    try:
        yield mine
    finally:
        subprocess.run([CONTROL], env=own, input="quit\n", check=False, capture_output=True, text=True)


def wait_for(folder: Path) -> dict[str, str]:
    """The environment of a service that another process of this node starts. Raises IcbenchError if it does not."""
    mine = environment(folder)
    control = Path(mine["CUDA_MPS_PIPE_DIRECTORY"], "control")
    until = time.monotonic() + _PATIENCE_SECONDS
    while not control.exists():
        if time.monotonic() > until:
            raise IcbenchError(f"mps: true, but no service listens in {folder} after {_PATIENCE_SECONDS:g} seconds.")
        time.sleep(_POLL_SECONDS)
    return mine
