"""How a machine or a cluster is to be used: never part of a run's identity."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from icbench.errors import UserError, suggest
from icbench.machine import cores, visible_gpus
from icbench.values import TYPES, Scalar
from icbench.yamlfile import Mistake, read

EXECUTORS = ("local", "slurm")
_FOR_CLUSTERS = "For a cluster write executor: slurm, and see slurm/template.yaml."
_DEVICES = ("auto", "cpu", "cuda")
ENGINES = ("auto", "eager", "graph", "compiled")
CHECKPOINT_MINUTES = 10.0
_NEAR = 0.6  # of difflib's ratios of short words: slrum is near to slurm, fast is not near to auto
_MOST = 4096  # workers, threads, nodes, GPUs of one of them


@dataclass(frozen=True)
class Local:
    """This machine. workers: processes that train at the same time. threads: CPU threads of each. gpus: the names, as
    CUDA_VISIBLE_DEVICES has them, of those that workers share; none to train on the CPU. engine: how steps are done.
    images_at_once: how many images are trained on at once at most; larger batches are done in parts. mps: whether
    workers run on a GPU at the same time, by NVIDIA's service for that. automatic: how many share a GPU is for canaries
    to say; until then it is one.
    """

    executor: ClassVar[str] = "local"
    workers: int
    threads: int
    gpus: tuple[str, ...]
    checkpoint_minutes: float
    engine: str = "auto"
    images_at_once: int | None = None
    mps: bool = False
    automatic: bool = False

    ranks: ClassVar[int] = 1

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    @property
    def sharing(self) -> float:
        """How many runs share a GPU, or a core that has less than one for each thread."""
        return local_sharing(self.workers, self.threads, len(self.gpus))

    @property
    def cores_a_gpu(self) -> int | None:
        """How many runs' threads there are cores for, for each GPU."""
        return max(1, cores() // self.threads // max(1, len(self.gpus)))

    def at_once(self, runs: int) -> int:
        """How many of so many runs are trained at the same time."""
        return min(self.workers, runs)

    def shared(self, runs_per_gpu: int) -> "Local":
        """This profile, once it is known how many runs share a GPU."""
        return replace(self, workers=max(1, len(self.gpus)) * runs_per_gpu, automatic=False)

    def packs(self, runs: int) -> int:
        """How many packs so many runs are dealt into: one a worker."""
        return min(self.workers, runs)


@dataclass(frozen=True)
class Slurm:
    """A SLURM cluster. A job is `nodes` nodes of `gpus_per_node` GPUs; each GPU is shared by `runs_per_gpu` slots, or
    `gpus_per_run` of them, also of several nodes, are one slot. time_limit: minutes. jobs: into how many jobs the
    runs are dealt at most, of which `max_jobs_at_once` run at a time. engine, images_at_once, mps: as of Local.
    automatic: how many share a GPU is for canaries to say; until then it is one. cpus_follow: each run of a GPU has
    `threads` cores, however many runs there are.
    """

    executor: ClassVar[str] = "slurm"
    time_limit: int
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodes: int = 1
    gpus_per_node: int = 1
    gpu_type: str | None = None
    cpus_per_gpu: int = 1
    mem_per_gpu: str | None = None
    runs_per_gpu: int = 1
    gpus_per_run: int = 1
    runs_per_node: int = 1
    max_jobs_at_once: int = 8
    jobs: int | None = None
    threads: int = 1
    device: str = "cuda"
    signal_seconds: int = 90
    checkpoint_minutes: float = CHECKPOINT_MINUTES
    engine: str = "auto"
    images_at_once: int | None = None
    mps: bool = False
    setup: tuple[str, ...] = ()
    sbatch: tuple[tuple[str, Scalar], ...] = ()
    automatic: bool = False
    cpus_follow: bool = False

    @property
    def tasks_per_node(self) -> int:
        """Processes of a job on each node: one for each share of a GPU, or `runs_per_node` where there are none."""
        return self.gpus_per_node * self.runs_per_gpu if self.gpus_per_node else self.runs_per_node

    @property
    def cpus_per_task(self) -> int:
        return max(self.threads, self.cpus_per_gpu // self.runs_per_gpu if self.gpus_per_node else 1)

    @property
    def ranks(self) -> int:
        """Processes that train one run together."""
        return self.gpus_per_run

    @property
    def slots(self) -> int:
        """Runs that a job trains at the same time."""
        return self.nodes * self.tasks_per_node // self.ranks

    @property
    def sharing(self) -> float:
        """How many runs share a GPU; cores are each run's own."""
        return float(self.runs_per_gpu if self.device == "cuda" else 1)

    @property
    def cores_a_gpu(self) -> int | None:
        """How many runs' threads there are cores for, for each GPU; None: as many as it takes."""
        return None if self.cpus_follow else max(1, self.cpus_per_gpu // self.threads)

    def at_once(self, runs: int) -> int:
        """How many of so many runs are trained at the same time, once as many jobs run as may."""
        return min(min(self.jobs_for(runs), self.max_jobs_at_once) * self.slots, runs)

    def shared(self, runs_per_gpu: int) -> "Slurm":
        """This profile, once it is known how many runs share a GPU."""
        cpus = runs_per_gpu * self.threads if self.cpus_follow else self.cpus_per_gpu
        return replace(self, runs_per_gpu=runs_per_gpu, cpus_per_gpu=cpus, automatic=False)

    def jobs_for(self, runs: int) -> int:
        """How many jobs so many runs are dealt into: no slot is without a run as long as there are enough."""
        return min(self.jobs or self.max_jobs_at_once, -(-runs // self.slots))

    def packs(self, runs: int) -> int:
        """How many packs so many runs are dealt into: one a slot."""
        return min(self.jobs_for(runs) * self.slots, runs)


Profile = Local | Slurm


def local_sharing(workers: int, threads: int, gpus: int) -> float:
    """How many runs share a GPU of this machine, or, without any, a core that has less than one for each thread."""
    return max(1.0, workers / gpus if gpus else workers * threads / cores())


def resource(profile: Profile) -> tuple[str, float]:
    """What a profile's runs use up, gpu or core, and how many of them a run has: of a GPU that it shares, its share."""
    if profile.device == "cuda":
        return "gpu", profile.ranks / profile.sharing
    return "core", profile.ranks * profile.threads / (profile.sharing if isinstance(profile, Local) else 1)


def hardware(executor: str, hostname: str, fields: Mapping[str, Any]) -> str:
    """What tells apart on which devices a profile's runs are trained: a local one's host, what a cluster is asked for.

    fields: the profile's, as a dictionary; the ledger keeps them so.
    """
    if executor == "local":
        return f"{hostname} {'cuda' if fields.get('gpus') else 'cpu'}"
    return " ".join(f"{key}={fields.get(key)}" for key in ("device", "partition", "constraint", "gpu_type"))


def load(name: str) -> Profile:
    """The built-in profile `local`, or the one in a YAML file. Raises UserError for any mistake in it."""
    if name == "local":
        return _local({})
    file = Path(name)
    if not name or (not file.exists() and file.suffix not in (".yaml", ".yml")):
        remedy = "Write local, or the path of a profile's YAML file, such as slurm/workstation.yaml."
        raise UserError(f"there is no profile {name!r}.", remedy)
    document = read(file)
    try:
        if not isinstance(document.data, dict):
            fields = ", ".join(["executor", *_LOCAL])
            raise Mistake((), "the file holds no profile.", f"A profile maps some of these to values: {fields}.")
        executor = _word(EXECUTORS)(document.data.get("executor", "local"), "executor")
        return _slurm(document.data) if executor == "slurm" else _local(document.data)
    except Mistake as mistake:
        raise document.error(mistake) from None


_Parser = Callable[[Any, str], Any]


def _word(valid: tuple[str, ...]) -> _Parser:
    def parse(value: object, key: str) -> str:
        if value not in valid:
            raise Mistake((key,), f"{key}: there is no {value!r}.", suggest(value, valid, cutoff=_NEAR))
        return str(value)

    return parse


def _number(type_name: str, *, most: int = _MOST, automatic: bool = False) -> _Parser:
    """A parser for a number of a type of icbench/values.py; with `automatic`, also for the word auto, as None."""
    otherwise = ", or auto" if automatic else ""

    def parse(value: object, key: str) -> int | float | None:
        if automatic and value == "auto":
            return None
        try:
            number = TYPES[type_name].parse(value)
        except ValueError as error:
            raise Mistake((key,), f"{key}: {error}{otherwise}.") from None
        assert isinstance(number, int | float)
        if number > most:
            raise Mistake((key,), f"{key}: {number} is beyond any machine.", f"At most: {most:,}{otherwise}.")
        return number

    return parse


def _text(value: object, key: str) -> str:
    """A word for sbatch, where a number can be one too: a partition may be called 4."""
    if isinstance(value, bool) or not isinstance(value, str | int) or not re.fullmatch(r"[^\s\"']+", str(value)):
        raise Mistake((key,), f"{key}: {value!r} should be a word, without blanks and quotes.")
    return str(value)


def _flag(value: object, key: str) -> bool:
    if not isinstance(value, bool):
        raise Mistake((key,), f"{key}: {value!r} should be true or false.")
    return value


def _gpu_type(value: object, key: str) -> str:
    if ":" in str(value):
        raise Mistake((key,), f"{key}: {value!r} should be the type alone.", "How many is gpus_per_node.")
    return _text(value, key)


_TIME = re.compile(
    r"(?:(?P<days>\d+)-(?P<hours_of_day>\d+)(?::(?P<minutes_of_day>\d+)(?::(?P<seconds_of_day>\d+))?)?"
    r"|(?P<hours>\d+):(?P<minutes>\d+):(?P<seconds>\d+)|(?P<only_minutes>\d+)(?::(?P<only_seconds>\d+))?)"
)


def time_limit_minutes(written: object) -> int | None:
    """A time limit as sbatch and sinfo write it, in whole minutes, rounded up; None where it is none."""
    match = _TIME.fullmatch(str(written)) if isinstance(written, str | int) and not isinstance(written, bool) else None
    parts = {name: int(text) for name, text in match.groupdict().items() if text} if match else {}
    hours = 24 * parts.get("days", 0) + parts.get("hours_of_day", 0) + parts.get("hours", 0)
    minutes = 60 * hours + sum(parts.get(name, 0) for name in ("minutes_of_day", "minutes", "only_minutes"))
    seconds = 60 * minutes + sum(parts.get(name, 0) for name in ("seconds_of_day", "seconds", "only_seconds"))
    return -(-seconds // 60) if 0 < seconds < 60 * 10**7 else None


def _minutes(value: object, key: str) -> int:
    minutes = time_limit_minutes(value)
    if minutes is None:
        remedy = "Write it as for sbatch: 90 (minutes), 1:30:00, 2-00:00:00 (days-hours:minutes:seconds)."
        raise Mistake((key,), f"{key}: {value!r} is no time above 0.", remedy)
    return minutes


def _memory(value: object, key: str) -> str:
    if isinstance(value, bool) or not re.fullmatch(r"[1-9]\d*[KMGTkmgt]?", str(value)):
        raise Mistake((key,), f"{key}: {value!r} is no amount of memory.", "Write it as for sbatch: 32G, 4000M.")
    return str(value)


def _lines(value: object, key: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
        remedy = 'As in ["module load cuda"]; in quotes, where there is a colon or a # in it.'
        raise Mistake((key,), f"{key}: {value!r} should be a list of shell commands.", remedy)
    return tuple(value)


# sbatch's options that the profile's fields, or icbench itself, set: option -> what to do instead.
_TAKEN = {
    **{name: f"Use the profile's field {name}." for name in ("partition", "account", "qos", "constraint", "nodes")},
    "time": "Use the profile's field time_limit.",
    "gres": "Use the profile's fields gpus_per_node and gpu_type.",
    **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-task"), "Use the profile's fields gpus_per_node and gpu_type."),
    **dict.fromkeys(("cpus-per-task", "cpus-per-gpu"), "Use the profile's field cpus_per_gpu, or threads."),
    "mem-per-gpu": "Use the profile's field mem_per_gpu.",
    "signal": "Use the profile's field signal_seconds.",
    **dict.fromkeys(("ntasks", "ntasks-per-node", "ntasks-per-gpu"), "It follows from runs_per_gpu or runs_per_node."),
    **dict.fromkeys(
        ("array", "begin", "chdir", "clusters", "comment", "dependency", "error", "export", "gid", "help", "hold",
         "job-name", "no-requeue", "open-mode", "output", "parsable", "requeue", "test-only", "uid", "usage",
         "version", "wait", "wckey", "wrap"),
        "icbench sets it, or relies on its default.",
    ),
}  # fmt: skip


# An option of its own, though another's name begins so.
_WHOLE = ("mem",)


def _sbatch(value: object, key: str) -> tuple[tuple[str, Scalar], ...]:
    if not isinstance(value, dict):
        raise Mistake((key,), f"{key}: {value!r} should map options to values.", "As in {reservation: mine}.")
    for option, given in value.items():
        path = (key, option)
        if not re.fullmatch(r"[a-z][a-z0-9-]+", option):
            raise Mistake(path, f"{option!r} is no option of sbatch.", "Write its long name without the dashes.")
        taken = next((name for name in _TAKEN if name.startswith(option)), None)  # sbatch takes abbreviations
        if taken and option not in _WHOLE:
            raise Mistake(path, f"the option {option!r} is not for sbatch: here.", _TAKEN[taken])
        if given in ("yes", "no", "on", "off"):
            raise Mistake(path, f"{option}: {given!r} is a word.", "Write true for an option that takes no value.")
        if not isinstance(given, bool | int | float | str) or given is False or "\n" in str(given):
            raise Mistake(path, f"{option}: {given!r} should be a word, a number, or true where it takes no value.")
    return tuple(sorted(value.items()))


# What a GPU lets one do with it, and what is needed to look after it.
_SHARED: dict[str, _Parser] = {
    "device": _word(_DEVICES),
    "checkpoint_minutes": _number("PositiveFloat", most=10**6),
    "engine": _word(ENGINES),
    "images_at_once": _number("PositiveInt", most=10**6, automatic=True),
    "mps": _flag,
}
_LOCAL: dict[str, _Parser] = {
    "workers": _number("PositiveInt", automatic=True),
    "threads": _number("PositiveInt", automatic=True),
    **_SHARED,
}
_SLURM: dict[str, _Parser] = {
    "time_limit": _minutes,
    **dict.fromkeys(("partition", "account", "qos", "constraint"), _text),
    "gpu_type": _gpu_type,
    **dict.fromkeys(("nodes", "gpus_per_run", "runs_per_node"), _number("PositiveInt")),
    "runs_per_gpu": _number("PositiveInt", automatic=True),
    "cpus_per_gpu": _number("PositiveInt", automatic=True),
    "gpus_per_node": _number("NonNegativeInt"),
    "mem_per_gpu": _memory,
    "max_jobs_at_once": _number("PositiveInt", most=10**6),
    "jobs": _number("PositiveInt", most=10**6, automatic=True),
    "threads": _number("PositiveInt", automatic=True),
    "signal_seconds": _number("PositiveInt", most=65535),  # sbatch's own limit
    "setup": _lines,
    "sbatch": _sbatch,
    **_SHARED,
}


def _parse(data: Mapping[str, Any], parsers: Mapping[str, _Parser], other: Mapping[str, _Parser], executor: str) -> Any:
    """The fields that were given, parsed. A field left empty is as if it were not there."""
    fields: dict[str, Any] = {}
    for key, value in data.items():
        if key == "executor":
            continue
        if key not in parsers:
            if key in other and executor == "local":
                raise Mistake((key,), f"a profile for this machine has no field {key!r}.", _FOR_CLUSTERS)
            elsewhere = f" for executor {executor}" if key in other else ""
            raise Mistake((key,), f"a profile{elsewhere} has no field {key!r}.", suggest(key, ["executor", *parsers]))
        if value is not None:
            fields[key] = parsers[key](value, key)
    return fields


def _local(data: Mapping[str, Any]) -> Local:
    fields = _parse(data, _LOCAL, _SLURM, "local")
    present = visible_gpus()
    device = fields.get("device", "auto")
    if device == "cuda" and not present:
        raise Mistake(
            ("device",), "device: cuda, but this machine shows no NVIDIA GPU.", "Write device: auto or device: cpu."
        )
    gpus = present if device != "cpu" else ()
    threads = fields.get("threads") or 1
    given = fields.get("workers")
    workers = given or len(gpus) or max(1, cores() // threads)
    if fields.get("mps") and not gpus:
        raise Mistake(("mps",), "mps: true, but no GPU is used that workers could share.", "Leave it away.")
    same = {name: fields[name] for name in ("engine", "images_at_once", "mps") if name in fields}
    minutes = fields.get("checkpoint_minutes", CHECKPOINT_MINUTES)
    return Local(workers, threads, gpus, minutes, automatic=bool(gpus) and given is None, **same)


def _slurm(data: Mapping[str, Any]) -> Slurm:
    fields = _parse(data, _SLURM, _LOCAL, "slurm")
    if "time_limit" not in fields:
        remedy = "Write, say, time_limit: 4:00:00; a job that reaches it goes on in the next."
        raise Mistake(("executor",), "a profile for executor slurm needs a time_limit.", remedy)
    fields["threads"] = fields.get("threads") or 1
    fields["automatic"] = "runs_per_gpu" in fields and fields["runs_per_gpu"] is None
    if fields["automatic"]:
        fields["runs_per_gpu"] = 1
    if fields.get("gpus_per_node", 1) and not fields.get("cpus_per_gpu"):
        fields["cpus_per_gpu"] = fields["threads"] * fields.get("runs_per_gpu", 1)
        fields["cpus_follow"] = True
    # Half of a very short job's time, as in trials.
    fields.setdefault("signal_seconds", min(Slurm.signal_seconds, 30 * fields["time_limit"]))
    gpus = fields.get("gpus_per_node", 1)
    if fields.get("device", "auto") == "auto":
        fields["device"] = "cuda" if gpus else "cpu"
    profile = Slurm(**fields)
    _check_gpus(profile, fields)
    _check_mps(profile)
    if profile.signal_seconds >= 60 * profile.time_limit:
        raise Mistake(
            ("signal_seconds",),
            f"signal_seconds: {profile.signal_seconds} s before the end of a job of {profile.time_limit} min "
            "is before its beginning.",
            "Write fewer seconds or a longer time_limit.",
        )
    return profile


def _check_gpus(profile: Slurm, fields: Mapping[str, Any]) -> None:
    """What fits together of the fields that say who uses which GPU."""
    if not profile.gpus_per_node:
        for key in ("gpu_type", "cpus_per_gpu", "mem_per_gpu", "runs_per_gpu", "gpus_per_run"):
            if key in fields:
                remedy = "Nodes without GPUs have runs_per_node and threads."
                raise Mistake((key,), f"{key} means nothing where gpus_per_node is 0.", remedy)
        if profile.mps:
            raise Mistake(("mps",), "mps: true, but gpus_per_node is 0.", "Leave it away.")
        if profile.device == "cuda":
            raise Mistake(("device",), "device: cuda, but gpus_per_node is 0.", "Write device: auto or device: cpu.")
    elif "runs_per_node" in fields:
        raise Mistake(("runs_per_node",), "runs_per_node is for nodes without GPUs.", "Use runs_per_gpu.")
    if profile.automatic and profile.device == "cpu":
        remedy = "Write a number, or device: cuda."
        raise Mistake(("runs_per_gpu",), "runs_per_gpu: auto goes by GPUs' memory; this trains on the CPU.", remedy)
    if profile.gpus_per_run > 1:
        if profile.runs_per_gpu > 1 or profile.automatic:
            raise Mistake(
                ("runs_per_gpu",),
                "several runs cannot share a GPU (runs_per_gpu) where a run has several (gpus_per_run).",
                "Leave one of the two at 1.",
            )
        across, within = profile.gpus_per_run % profile.gpus_per_node, profile.gpus_per_node % profile.gpus_per_run
        if (across and within) or (profile.nodes * profile.gpus_per_node) % profile.gpus_per_run:
            raise Mistake(
                ("gpus_per_run",),
                f"gpus_per_run: {profile.gpus_per_run} does not fit {profile.nodes} x {profile.gpus_per_node} GPUs.",
                "A run has an even part of a node's GPUs, or all GPUs of an even part of the job's nodes.",
            )
    if profile.gpus_per_node and profile.threads * profile.runs_per_gpu > profile.cpus_per_gpu:
        raise Mistake(
            ("cpus_per_gpu",),
            f"cpus_per_gpu: {profile.cpus_per_gpu} cores are too few for {profile.runs_per_gpu} x {profile.threads} "
            "(runs_per_gpu x threads).",
            f"Write at least {profile.runs_per_gpu * profile.threads}, or leave it away.",
        )


def _check_mps(profile: Slurm) -> None:
    """NVIDIA's service is for runs that share a GPU: started for others it costs time and can fail."""
    if not profile.mps:
        return
    if profile.device == "cpu":
        raise Mistake(("mps",), "mps: true, but this trains on the CPU.", "Leave it away, or write device: cuda.")
    if profile.gpus_per_run > 1:
        raise Mistake(("mps",), "mps: true, but a run has several GPUs (gpus_per_run).", "Leave it away.")
    if profile.runs_per_gpu == 1 and not profile.automatic:
        remedy = "Leave it away, or write runs_per_gpu: auto or a number from 2 up."
        raise Mistake(("mps",), "mps: true, but each run has a GPU of its own.", remedy)
