"""A sweep's jobs on a cluster, followed by what their workers tell until none of them is live."""

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from icbench.cluster import slurm, submissions
from icbench.events import Event, Follower
from icbench.layout import Layout
from icbench.plan import Run
from icbench.results import finished

_POLL_SECONDS = 1.0
# How often squeue is asked; the scheduler has others to serve.
_QUEUE_SECONDS = 15.0


@dataclass
class ClusterJobs:
    """The live submissions that will do some of the `missing` runs, of this sweep or of another that shares them."""

    layout: Layout
    missing: tuple[Run, ...]
    _current: dict[Path, str] = field(default_factory=dict)
    _followers: dict[Path, Follower] = field(default_factory=dict)

    @property
    def running(self) -> list[str]:
        """The ids of the runs under way."""
        return list(self._current.values())

    def events(self) -> Iterator[Event | None]:
        """What the workers begin and end, as it happens; None whenever a moment has passed.

        Ends when no run is missing, or no submission is live. SLURM's not answering for a while does not end it.
        """
        ids = {run_id for run_id, _ in self.missing}
        live: list[submissions.Live] | None = None
        asked = -math.inf
        while True:
            if time.monotonic() - asked > _QUEUE_SECONDS:
                asked = time.monotonic()
                with contextlib.suppress(slurm.SlurmError):
                    live = self._live(ids)
            ended = live == [] or not self._open(ids)  # asked before reading, so that nothing told is missed
            for each in live or ():
                files = self.layout.sweep(each.entry.sweep).submission(each.entry.submission)
                for file in files.all_events():
                    yield from self._read(file)
            yield None
            if ended:
                return
            time.sleep(_POLL_SECONDS)

    def _live(self, ids: set[str]) -> list[submissions.Live]:
        return [each for each in submissions.queued(self.layout) if each.entry.run_ids & ids]

    def _open(self, ids: set[str]) -> bool:
        return any(not self.layout.run(run_id).failure.exists() for run_id in ids - finished(self.layout))

    def _read(self, file: Path) -> Iterator[Event]:
        for event in self._followers.setdefault(file, Follower(file)).read():
            match event["event"]:
                case "begin":
                    self._current[file] = event["run_id"]
                case "start" | "finish" | "fail" | "left" | "pruned":
                    self._current.pop(file, None)
            yield event
