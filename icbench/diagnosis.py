"""What a sweep needs of this machine, of the cluster and of the directories: is it there, and what to do if not."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from icbench import catalog
from icbench.cluster import slurm
from icbench.data import store
from icbench.errors import UserError
from icbench.files import write_whole
from icbench.layout import Layout
from icbench.profile import Profile, Slurm, time_limit_minutes

_OK, _WARNING, _FAILED = "ok", "warning", "failed"
_LITTLE_SPACE = 2 * 2**30
_PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis. verdict: ok, warning or failed. remedy: what to do; empty where all is well."""

    what: str
    verdict: str
    words: str
    remedy: str = ""


def examine(profile: Profile, layout: Layout, data: Path | None) -> Iterator[Finding]:
    """All findings, each as soon as it is made."""
    yield from _results(layout)
    yield from _data_sets(data)
    yield from _torch(profile)
    if isinstance(profile, Slurm):
        try:
            yield from _cluster(profile)
        except slurm.SlurmError as error:
            yield Finding("SLURM's answers", _FAILED, str(error), "Ask whoever runs the cluster, or wait.")


def _results(layout: Layout) -> Iterator[Finding]:
    """Whether results can be written as icbench writes them: whole or not at all, durable, locked."""
    root = layout.root
    where = next(path for path in (root, *root.absolute().parents) if path.exists())
    probe = where / f".tmp-icbench-doctor-{os.getpid()}"
    try:
        write_whole(probe, lambda file: file.write(b"1"))
        write_whole(probe, lambda file: file.write(b"2"))  # over the first, with fsync of file and folder
        yield Finding("results", _OK, f"{where} can be written to, with fsync and rename")
        yield _locking(probe)
    except OSError as error:
        yield Finding("results", _FAILED, f"{where}: {error.strerror}.", "Choose another directory with --results DIR.")
        return
    finally:
        probe.unlink(missing_ok=True)
    free = shutil.disk_usage(where).free
    little = free < _LITTLE_SPACE
    remedy = "Make room: a run of ResNet-110 needs some 30 MB while it trains." if little else ""
    yield Finding("free space", _WARNING if little else _OK, f"{free / 2**30:.1f} GiB for {root}.", remedy)


def _locking(probe: Path) -> Finding:
    """Whether flock holds between processes there; what tells whether it does between nodes is the mount."""
    with probe.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            remedy = "Mount it with flock (Lustre: -o flock; NFS: version 4), or use another file system."
            return Finding("locks", _FAILED, f"flock does not work in {probe.parent}: {error.strerror}.", remedy)
        script = f"import fcntl; fcntl.flock(open({str(probe)!r}), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        other = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    if other.returncode == 0:
        return Finding("locks", _FAILED, f"flock keeps nobody out in {probe.parent}.", "Use another file system.")
    kind, options = _mount(probe.parent)
    if "localflock" in options or "local_lock" in options:
        remedy = "Mount it with flock; else two nodes may train the same run, and status cannot see what runs."
        return Finding("locks", _WARNING, f"{kind} is mounted so that locks hold on one node only.", remedy)
    return Finding("locks", _OK, f"flock works ({kind})")


def _mount(folder: Path) -> tuple[str, str]:
    """The type and the options of the file system that a folder is on, where Linux tells them."""
    best, found = "", ("unknown file system", "")
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return found
    for line in lines:
        _, point, kind, options, *_ = line.split()
        point = point.replace("\\040", " ")
        if folder.resolve().is_relative_to(point) and len(point) >= len(best):
            best, found = point, (kind, options)
    # local_lock=none, the default, is as it should be.
    return found[0], found[1].replace("local_lock=none", "")


def _data_sets(data: Path | None) -> Iterator[Finding]:
    for name in catalog.names("datasets"):
        try:
            store.verify(name, data)
        except UserError as error:
            missing = not store.file_of(name, data).is_file()
            yield Finding(f"data set {name}", _WARNING if missing else _FAILED, error.problem, error.remedy)
        else:
            yield Finding(f"data set {name}", _OK, str(store.file_of(name, data)))


def _torch(profile: Profile) -> Iterator[Finding]:
    """torch in a process of its own: it takes seconds to import, and may break."""
    script = (
        "import torch; print(torch.__version__, torch.version.cuda or 'none', "
        "torch.cuda.device_count() if torch.cuda.is_available() else 0)"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=True
        )
    except (subprocess.SubprocessError, OSError) as error:
        said = getattr(error, "stderr", "") or str(error)
        yield Finding("torch", _FAILED, f"cannot be imported: {said.strip().splitlines()[-1]}.", "Install it anew.")
        return
    version, cuda, gpus = done.stdout.split()[-3:]
    yield Finding("torch", _OK, f"{version}, CUDA {cuda}, {gpus} GPUs here")
    driver = Path("/proc/driver/nvidia/version")
    if driver.exists():
        match = re.search(r"\s(\d+\.\d+[.\d]*)\s", driver.read_text(encoding="utf-8"))
        words = f"NVIDIA {match[1] if match else 'of unknown version'}"
        blind = "" if int(gpus) else f"torch sees no GPU: the driver may be too old for CUDA {cuda}."
        yield Finding("driver", _WARNING if blind else _OK, words, blind)
    elif profile.device == "cuda":
        where = "this machine has none; its nodes should" if isinstance(profile, Slurm) else "no NVIDIA driver"
        verdict = _OK if isinstance(profile, Slurm) else _FAILED
        yield Finding("driver", verdict, where, "" if verdict == _OK else "Use device: cpu.")
        if cuda == "none":
            yield Finding(
                "torch for CUDA", _FAILED, "this torch is built for the CPU alone.", "Install torch with CUDA."
            )


def _cluster(profile: Slurm) -> Iterator[Finding]:
    missing = [name for name in ("sbatch", "squeue", "scontrol", "scancel", "srun") if shutil.which(name) is None]
    if missing:
        remedy = "Log in to a machine from which jobs are submitted, or load SLURM's module."
        yield Finding("SLURM's commands", _FAILED, f"{', '.join(missing)} not found.", remedy)
        return
    yield Finding("SLURM's commands", _OK, slurm.call("sbatch", "--version").strip())
    try:
        configuration = slurm.configuration()
        slurm.queue(["icbench-doctor"])
    except slurm.SlurmError as error:
        yield Finding("controller", _FAILED, str(error), "Ask whoever runs the cluster, or wait.")
        return
    yield Finding("controller", _OK, f"cluster {configuration.get('ClusterName', 'without a name')} answers")
    yield from _accounting(profile, configuration.get("ClusterName", ""))
    yield Finding("MaxArraySize", _OK, f"{configuration.get('MaxArraySize')}; more jobs go into several arrays")
    yield from _requeueing(profile, configuration)
    yield from _partition(profile)
    yield from _acceptance(profile)


def _accounting(profile: Slurm, cluster: str) -> Iterator[Finding]:
    remedy = "Sweeps work without it; `icbench status` cannot say how jobs ended."
    try:
        slurm.call("sacct", "--noheader", "--allocations", "--jobs=1")
    except slurm.SlurmError as error:
        yield Finding("accounting", _WARNING, str(error), remedy)
        return
    yield Finding("accounting", _OK, "sacct answers")
    try:
        limit = slurm.submit_limit(cluster, profile.account, profile.qos)
    except slurm.SlurmError as error:
        yield Finding("submit limit", _WARNING, str(error), "If sbatch refuses jobs, icbench submits fewer.")
        return
    if limit is None:
        yield Finding("submit limit", _OK, "none")
    else:
        verdict = _OK if limit else _WARNING
        yield Finding("submit limit", verdict, f"{limit} more jobs", "" if limit else "Wait for some to end.")


def _requeueing(profile: Slurm, configuration: dict[str, str]) -> Iterator[Finding]:
    """What the cluster does to jobs that it preempts, and whether they hear of it in time."""
    mode, kill_wait = configuration.get("PreemptMode", "OFF"), configuration.get("KillWait", "")
    if "REQUEUE" in mode:
        words = f"PreemptMode {mode}: preempted jobs are requeued"
    elif mode.startswith("OFF"):
        words = "PreemptMode OFF: jobs are not preempted"
    else:
        words = f"PreemptMode {mode}: preempted jobs that get notice (GraceTime) requeue themselves, others end"
    yield Finding("preemption", _OK if "CANCEL" not in mode else _WARNING, words)
    # Before Slurm 23.02 it was one of the scheduler's parameters.
    parameters = configuration.get("PreemptParameters", "") + configuration.get("SchedulerParameters", "")
    if "send_user_signal" not in parameters and not mode.startswith("OFF"):
        yield Finding("preemption signal", _OK, f"SIGTERM, {kill_wait} before the end; every slot stores a checkpoint")
    elif not mode.startswith("OFF"):
        yield Finding("preemption signal", _OK, "SIGUSR2 as before a time limit (send_user_signal)")


def _partition(profile: Slurm) -> Iterator[Finding]:
    """Whether there are nodes that can take such a job."""
    wanted = [f"--partition={profile.partition}"] if profile.partition else []
    listing = slurm.call("sinfo", "--noheader", "--format=%P|%a|%l|%D|%c|%G", *wanted)
    rows = [line.split("|") for line in listing.splitlines()]
    if not rows:
        remedy = f"Partitions: {' '.join(sorted(set(slurm.call('sinfo', '--noheader', '--format=%R').split())))}."
        yield Finding("partition", _FAILED, f"there is no partition {profile.partition!r}.", remedy)
        return
    if not profile.partition:
        rows = [row for row in rows if row[0].endswith("*")] or rows
    name = rows[0][0].rstrip("*")
    if not any(row[1] == "up" for row in rows):
        yield Finding("partition", _WARNING, f"{name} is down.", "Jobs will wait until it is up.")
    else:
        yield Finding("partition", _OK, f"{name}: {sum(int(row[3]) for row in rows)} nodes, time limit {rows[0][2]}")
    yield from _never(profile, rows)
    if profile.gpus_per_node:
        most = max((_gpus(row[5], profile.gpu_type) for row in rows), default=0)
        what = f"{profile.gpu_type} GPUs" if profile.gpu_type else "GPUs"
        if most < profile.gpus_per_node:
            remedy = f"Write gpus_per_node: {most}." if most else "Choose another partition, or gpus_per_node: 0."
            yield Finding("gres", _FAILED, f"no node of {name} has {profile.gpus_per_node} {what}.", remedy)
        else:
            yield Finding("gres", _OK, f"up to {most} {what} a node")


def _never(profile: Slurm, rows: list[list[str]]) -> Iterator[Finding]:
    """What sbatch takes, but no node will ever do: such a job waits in the queue for good."""
    limits = [minutes for row in rows if (minutes := time_limit_minutes(row[2]))]
    if len(limits) == len(rows) and max(limits) < profile.time_limit:
        words = f"{profile.time_limit} min is more than the partition's {max(limits)} min"
        yield Finding("time_limit", _FAILED, words, f"Write time_limit: {max(limits)}, or another partition.")
    nodes = sum(int(row[3]) for row in rows)
    if nodes < profile.nodes:
        yield Finding("nodes", _FAILED, f"the partition has {nodes}", f"Write nodes: {nodes} or fewer.")
    cores, wanted = max(int(row[4].rstrip("+")) for row in rows), profile.tasks_per_node * profile.cpus_per_task
    if cores < wanted:
        words = f"a job wants {wanted} on each node, but none has more than {cores}"
        yield Finding("cores", _FAILED, words, "Write fewer cpus_per_gpu, or fewer runs on a node.")


def _gpus(gres: str, kind: str | None) -> int:
    """The GPUs in sinfo's list of generic resources: gpu:a100:4(S:0-1),nvme:1."""
    total = 0
    for part in re.sub(r"\([^)]*\)", "", gres).split(","):
        words = part.split(":")
        if words[0] == "gpu" and words[-1].isdigit() and (kind is None or kind in words[1:-1]):
            total += int(words[-1])
    return total


def _acceptance(profile: Slurm) -> Iterator[Finding]:
    """What sbatch itself says to such a job, without submitting it."""
    from icbench.cluster.submit import options

    flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options(profile).items()]
    try:
        slurm.call("sbatch", "--test-only", *flags, "--wrap=true")
    except slurm.SlurmError as error:
        yield Finding("a job of this profile", _FAILED, str(error), "Change the profile.")
    else:
        yield Finding("a job of this profile", _OK, "sbatch --test-only accepts it")
