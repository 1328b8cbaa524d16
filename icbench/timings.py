"""What a results directory knows of how long trainings take: its finished runs, its canaries, its ledger."""

import hashlib
import json
import math
import socket
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from icbench import ledger, results
from icbench.estimate import Features, Observation, Place, epoch_operations, features, image_counts
from icbench.files import read_json, write_json
from icbench.layout import Layout
from icbench.profile import hardware, local_sharing

# Of runs that have files of their own, so many are looked at: the rest would tell little more, and take seconds to
# read.
_MOST_OWN, _MOST_OTHERS = 300, 150
_COLUMNS = (
    "cell_id", "config", "epochs", "train_seconds", "started_at", "finished_at", "attempts", "device", "threads",
    "world_size", "hostname",
    "engine", "images_at_once",
)  # fmt: skip


@dataclass(frozen=True)
class Timings:
    """observations: of nets in places. devices: their names, by what tells hardware apart (profile.hardware). seconds:
    by run id, what finished runs took. memory: by hardware and net, the most that one training had of the device's, and
    how much the device has; of GPUs alone.
    """

    observations: list[Observation] = field(default_factory=list)
    devices: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    memory: dict[tuple[str, Features], tuple[int, int]] = field(default_factory=dict)


def read(layout: Layout, own: Collection[str], exactly: Collection[str] = ()) -> Timings:
    """What is known; the directory need not exist.

    `own` runs come first where there are more than are looked at; of those in `exactly`, all are.
    """
    timings = Timings()
    if not layout.root.is_dir():
        return timings
    profiles = _profiles(layout)
    wanted = _wanted(results.finished(layout), own, exactly)
    if wanted:
        _add_runs(
            timings, results.read(layout, "runs", wanted, _COLUMNS).to_pylist(), profiles, results.measured(layout)
        )
    for file in sorted(layout.canaries.glob("*.json")):
        _add_canary(timings, read_json(file))
    return timings


def _wanted(done: set[str], own: Collection[str], exactly: Collection[str]) -> set[str]:
    """Which runs to read. Run ids are hashes, so the first of them are as good as drawn by lot."""
    ours = done.intersection(own)
    exact = ours.intersection(exactly)
    return exact | set(sorted(ours - exact)[:_MOST_OWN]) | set(sorted(done - ours)[:_MOST_OTHERS])


def _profiles(layout: Layout) -> dict[str, tuple[str, float]]:
    """By run id: the hardware it was last submitted to, and how many runs shared a GPU there, or a core.

    How many cores another host has is not known: there each thread counts as having its own.
    """
    found: dict[str, tuple[str, float]] = {}
    for entry in ledger.entries(layout):
        profile = entry.profile
        sharing = 1.0
        if entry.executor == "local" and (profile.get("gpus") or entry.hostname == socket.gethostname()):
            sharing = local_sharing(profile["workers"], profile["threads"], len(profile["gpus"]))
        elif entry.executor == "slurm" and profile.get("device") == "cuda":
            sharing = float(profile.get("runs_per_gpu", 1))
        where = hardware(entry.executor, entry.hostname, profile)
        found |= dict.fromkeys(entry.run_ids, (where, sharing))
    return found


def _add_runs(
    timings: Timings, rows: list[dict[str, Any]], profiles: Mapping[str, tuple[str, float]], probed: Collection[str]
) -> None:
    nets: dict[str, tuple[Features, str]] = {}
    logs: dict[tuple[Features, Place], list[float]] = defaultdict(list)
    for row in rows:
        seconds = busy_seconds(row, probed=row["run_id"] in probed)
        if not seconds or not row["epochs"] or row["device"] is None:
            continue
        timings.seconds[row["run_id"]] = seconds
        where, sharing = profiles.get(row["run_id"], ("", 1.0))
        timings.devices[where] = row["device"]
        if row["cell_id"] not in nets:
            config = json.loads(row["config"])
            nets[row["cell_id"]] = features(config), config["split"]
        net, split = nets[row["cell_id"]]
        place = Place(
            row["device"],
            row["threads"] or 1,
            row["world_size"] or 1,
            sharing,
            row["engine"] or "eager",
            row["images_at_once"],
        )
        one = epoch_operations(net.dataset, split, net.block, net.depth, net.width)
        logs[net, place].append(math.log(seconds / row["epochs"] / one))
    for (net, place), paces in logs.items():
        mean = sum(paces) / len(paces)
        squares = sum((pace - mean) ** 2 for pace in paces)
        timings.observations.append(Observation(net, place, math.exp(mean), len(paces), squares))


def busy_seconds(row: Mapping[str, Any], *, probed: bool = False) -> float | None:
    """What a run took: from its beginning to its end, evaluation included.

    Of one that was interrupted, or that probes measured, its training, and as much more as evaluation has operations.
    """
    if not probed and row["attempts"] == 1 and row["started_at"] and row["finished_at"]:
        took: float = (row["finished_at"] - row["started_at"]).total_seconds()
        return took
    if not row["train_seconds"]:
        return None
    config = json.loads(row["config"])
    train, test = image_counts(config["dataset"], config["split"])
    trained: float = row["train_seconds"]
    return trained * (1 + test / (3 * train))


@dataclass(frozen=True)
class Measured:
    """What a few steps of a net told. memory: in bytes, the most that it had of the device's, and what that has in all;
    of the CPU's, `device_memory` is None. from_shards: whether images were read and decoded, and not random ones that
    were there already.
    """

    train_seconds_per_image: float
    test_seconds_per_image: float
    seconds_per_epoch_more: float
    memory: int
    device_memory: int | None
    steps: int
    from_shards: bool
    torch_version: str


@dataclass(frozen=True)
class Canary(Measured):
    """What was measured of which net where. place.ranks: whose share of a batch it was; the times are of one alone."""

    features: Features
    split: str
    place: Place
    hardware: str
    icbench_version: str
    hostname: str
    measured_at: str

    @property
    def pace(self) -> float:
        """Seconds for a floating-point operation, over an epoch."""
        net = self.features
        train, test = image_counts(net.dataset, self.split)
        seconds = train * self.train_seconds_per_image + test * self.test_seconds_per_image
        one = epoch_operations(net.dataset, self.split, net.block, net.depth, net.width)
        return (seconds + self.seconds_per_epoch_more) / one


def write_canaries(layout: Layout, canaries: Iterable[Canary]) -> None:
    """Keep what canaries told, in place of what earlier ones of the same nets in the same places did."""
    layout.canaries.mkdir(parents=True, exist_ok=True)
    for canary in canaries:
        content = vars(canary) | {"features": canary.features._asdict(), "place": canary.place._asdict()}
        key = json.dumps([canary.features, canary.place, canary.hardware])
        write_json(layout.canaries / f"{hashlib.sha256(key.encode()).hexdigest()[:12]}.json", content)


def _add_canary(timings: Timings, content: dict[str, Any] | None) -> None:
    """One that is damaged, or of an icbench with other features, counts as not there."""
    try:
        assert content is not None
        parts = {"features": Features(**content["features"]), "place": Place(**content["place"])}
        canary = Canary(**content | parts)
        pace = canary.pace
    except (AssertionError, TypeError, KeyError, ImportError):
        return
    alone = canary.place._replace(ranks=1)
    timings.observations.append(
        Observation(canary.features, alone, pace, is_canary=True, from_shards=canary.from_shards)
    )
    timings.devices[canary.hardware] = canary.place.device
    if canary.device_memory is not None and canary.place.ranks == 1:
        timings.memory[canary.hardware, canary.features] = (canary.memory, canary.device_memory)


def now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
