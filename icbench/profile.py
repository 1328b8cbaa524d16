"""How the machine is to be used: never part of a run's identity."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icbench.errors import UserError, suggest
from icbench.values import TYPES
from icbench.yamlfile import Mistake, read

_EXECUTORS = ("local",)
_MOST = 4096  # workers, and threads of each
_DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Profile:
    """workers: processes that train at the same time. threads: CPU threads of each. gpus: the names, as
    CUDA_VISIBLE_DEVICES has them, of those that workers share; none to train on the CPU.
    """

    executor: str
    workers: int
    threads: int
    gpus: tuple[str, ...]

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"


def load(name: str) -> Profile:
    """The built-in profile `local`, or the one in a YAML file. Raises UserError for any mistake in it."""
    if name == "local":
        return _profile({})
    file = Path(name)
    if not file.exists() and file.suffix not in (".yaml", ".yml"):
        remedy = "Write local, or the path of a profile's YAML file, such as slurm/workstation.yaml."
        raise UserError(f"there is no profile {name!r}.", remedy)
    document = read(file)
    try:
        if not isinstance(document.data, dict):
            raise Mistake(
                (), "the file holds no profile.", f"A profile maps some of these to values: {', '.join(_FIELDS)}."
            )
        return _profile(document.data)
    except Mistake as mistake:
        raise document.error(mistake) from None


_FIELDS = ("executor", "workers", "threads", "device")


def _profile(data: dict[str, Any]) -> Profile:
    for key in data:
        if key not in _FIELDS:
            raise Mistake((key,), f"a profile has no field {key!r}.", suggest(key, _FIELDS))
    executor = _word(data, "executor", _EXECUTORS)
    device = _word(data, "device", _DEVICES)
    present = visible_gpus()
    if device == "cuda" and not present:
        raise Mistake(
            ("device",), "device: cuda, but this machine shows no NVIDIA GPU.", "Write device: auto or device: cpu."
        )
    gpus = present if device != "cpu" else ()
    threads = _count(data, "threads", 1)
    workers = _count(data, "workers", len(gpus) or max(1, cores() // threads))
    return Profile(executor, workers, threads, gpus)


def _word(data: dict[str, Any], key: str, valid: tuple[str, ...]) -> str:
    value = data.get(key, valid[0])
    if value not in valid:
        raise Mistake((key,), f"{key}: there is no {value!r}.", suggest(value, valid))
    return str(value)


def _count(data: dict[str, Any], key: str, automatic: int) -> int:
    value = data.get(key, "auto")
    if value == "auto":
        return automatic
    try:
        number = int(TYPES["PositiveInt"].parse(value))
    except ValueError as error:
        raise Mistake((key,), f"{key}: {error}, or auto.") from None
    if number > _MOST:
        raise Mistake((key,), f"{key}: {number} is beyond any machine.", f"At most: {_MOST:,}, or auto.")
    return number


def cores() -> int:
    """The CPU cores that this process may use: those it is bound to, and no more than its SLURM job was given."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE", "")
    # A cluster need not bind its jobs to their cores; two jobs on one node must not take it twice.
    return min(bound, int(given)) if given.isdigit() and given != "0" else bound


def visible_gpus() -> tuple[str, ...]:
    """The NVIDIA GPUs that CUDA programs started here would see, by name, without starting CUDA."""
    present = sum(path.name.removeprefix("nvidia").isdigit() for path in Path("/dev").glob("nvidia*"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not present:
        # CUDA numbers those that it finds from 0, whatever the devices are called: a container may have nvidia3 alone.
        return tuple(map(str, range(present)))
    names = (name.strip() for name in visible.split(","))
    return tuple(name for name in names if name and name != "-1")
