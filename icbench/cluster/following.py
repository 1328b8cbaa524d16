"""A sweep's jobs on a cluster, followed by what their workers tell until none of them is live."""

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from icbench.cluster import slurm, submissions
from icbench.events import Event, Follower
from icbench.layout import Layout, SubmissionFiles
from icbench.plan import Run
from icbench.results import finished

_POLL_SECONDS = 1.0
# How often squeue is asked; the scheduler has others to serve.
_QUEUE_SECONDS = 15.0


@dataclass
class Workers:
    """What the workers of submissions tell. current: of each worker's file, the run that it is at."""

    current: dict[Path, str] = field(default_factory=dict)
    _followers: dict[Path, Follower] = field(default_factory=dict)

    def read(self, files: SubmissionFiles) -> Iterator[Event]:
        """What a submission's workers have told since the last look; a death, where one was replaced in a run."""
        for file in files.all_events():
            for event in self._followers.setdefault(file, Follower(file)).read():
                match event["event"]:
                    case "begin":
                        self.current[file] = event["run_id"]
                    case "start":
                        if run_id := self.current.pop(file, None):
                            yield {"event": "death", "run_id": run_id}
                    case "finish" | "fail" | "left" | "pruned":
                        self.current.pop(file, None)
                yield event


@dataclass
class ClusterJobs:
    """The live submissions that will do some of the `missing` runs, of this sweep or of another that shares them."""

    layout: Layout
    missing: tuple[Run, ...]
    _workers: Workers = field(default_factory=Workers)

    @property
    def running(self) -> list[str]:
        """The ids of the runs under way."""
        return list(self._workers.current.values())

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
                yield from self._workers.read(files)
            yield None
            if ended:
                return
            time.sleep(_POLL_SECONDS)

    def _live(self, ids: set[str]) -> list[submissions.Live]:
        return [each for each in submissions.queued(self.layout) if each.entry.run_ids & ids]

    def _open(self, ids: set[str]) -> bool:
        return any(not self.layout.run(run_id).failure.exists() for run_id in ids - finished(self.layout))
