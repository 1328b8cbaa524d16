"""What is running, what failed and why, from the results directory alone."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icbench.errors import UserError
from icbench.files import read_json
from icbench.layout import Layout
from icbench.locks import is_free
from icbench.results import existing, finished


@dataclass(frozen=True)
class Beat:
    """A run's last sign of life: epochs done of all, seconds left by its pace, and where."""

    run_id: str
    done: float
    epochs: int
    seconds_left: float | None
    hostname: str


@dataclass(frozen=True)
class Failure:
    """Why a run failed: kind `error` (it raised) or `died` (its workers were killed again and again)."""

    run_id: str
    kind: str
    message: str
    traceback: str


@dataclass(frozen=True)
class SweepStatus:
    """The ids of a sweep's runs by state; `interrupted` ones have begun and wait to be gone on with."""

    name: str
    total: int
    finished: int
    running: tuple[Beat, ...]
    interrupted: int
    failures: tuple[Failure, ...]

    @property
    def waiting(self) -> int:
        return self.total - self.finished - len(self.running) - self.interrupted - len(self.failures)


def beat(layout: Layout, run_id: str) -> Beat | None:
    """The heartbeat of a run that has begun and not ended."""
    content = read_json(layout.run(run_id).progress)
    if not content:
        return None
    return Beat(run_id, content["done"], content["epochs"], content["seconds_left"], content["hostname"])


def is_running(layout: Layout, run_id: str) -> bool:
    """Whether a worker, somewhere, is at this run: it holds its lock."""
    return not is_free(layout.run(run_id).lock)


def failure(layout: Layout, run_id: str) -> Failure | None:
    """Why a run failed, if it did."""
    content = read_json(layout.run(run_id).failure)
    if not content:
        return None
    return Failure(run_id, content["kind"], content["message"], content["traceback"])


def begun(layout: Layout, run_ids: Iterable[str]) -> list[str]:
    """Of some runs, those that have a working directory: without one, a run was never begun."""
    known = {path.name for path in layout.work.iterdir()} if layout.work.is_dir() else set()
    return [run_id for run_id in run_ids if run_id in known]


def failures(layout: Layout, run_ids: Iterable[str]) -> dict[str, Failure]:
    """The failures among some runs, by run id."""
    found = ((run_id, failure(layout, run_id)) for run_id in begun(layout, run_ids))
    return {run_id: why for run_id, why in found if why}


def sweeps(results: Path) -> list[SweepStatus]:
    """The status of every sweep in a results directory, by name. Raises UserError when there is no such directory."""
    layout = existing(results)
    done = finished(layout)
    manifests = map(read_json, sorted(layout.sweeps.glob("*/sweep.json")))
    return [_status(layout, content, done) for content in manifests if content and "run_ids" in content]


def find(layout: Layout, prefix: str) -> str:
    """The id of the one run, finished or begun, that begins with `prefix`. Raises UserError: none or several."""
    known = finished(layout)
    known |= {path.name for path in layout.work.iterdir()} if layout.work.is_dir() else set()
    hits = sorted(run_id for run_id in known if run_id.startswith(prefix.lower()))
    if not hits:
        raise UserError(
            f"no run in {layout.root} has an id that begins with {prefix!r}.",
            "Ids stand in the column run_id of icbench.load_runs(), and in: icbench plan GRID --json",
        )
    if len(hits) > 1:
        raise UserError(
            f"{len(hits)} runs have an id that begins with {prefix!r}: {', '.join(hits[:10])}.", "Write more of it."
        )
    return hits[0]


def _status(layout: Layout, manifest: dict[str, Any], done: set[str]) -> SweepStatus:
    ids = manifest["run_ids"]
    left = begun(layout, (run_id for run_id in ids if run_id not in done))
    failed = failures(layout, left)
    held = [run_id for run_id in left if run_id not in failed and is_running(layout, run_id)]
    running = tuple(sign for sign in (beat(layout, run_id) for run_id in held) if sign)
    interrupted = {run_id for run_id in left if layout.run(run_id).attempts.exists()} - failed.keys() - set(held)
    return SweepStatus(
        manifest["name"],
        len(ids),
        sum(run_id in done for run_id in ids),
        running,
        len(interrupted),
        tuple(failed.values()),
    )
