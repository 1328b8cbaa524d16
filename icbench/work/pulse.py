"""A worker's pulse: a thread that makes its progress known, and notices when it should stop."""

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from icbench.config import RunConfig
from icbench.curve import write_curve
from icbench.files import write_json
from icbench.layout import RunFiles
from icbench.provenance import slurm_job_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from icbench.train.state import EpochRow

_LOOK_SECONDS = 1.0


class Pulse:
    """Once a second looks whether this worker is `alone`, its sweep or parent gone; now and then writes the heartbeat.

    `stop` becomes true when it is, and may be made true by whoever wants this worker to stop. It is no
    threading.Event, whose lock a signal handler might find taken by the code that it interrupts.
    """

    def __init__(self, alone: Callable[[], bool], heartbeat_seconds: float, checkpoint_minutes: float):
        self.stop = False
        self.checkpoint_seconds = 60 * checkpoint_minutes
        self._alone = alone
        self._heartbeat_seconds = heartbeat_seconds
        self._shown = -heartbeat_seconds
        self._watched: Watched | None = None
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def __enter__(self) -> "Pulse":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def watch(self, files: RunFiles, config: RunConfig, stop: Path, write: Callable[[str], None]) -> "Watched":
        """Begin a run's heartbeat; where the file `stop` stands at an epoch's end, the run is pruned."""
        self._watched = watched = Watched(self, files, config.recipe.epochs, stop, write)
        self._shown = -self._heartbeat_seconds
        self.show()
        return watched

    def unwatch(self) -> None:
        """From here on no heartbeat is written, so that the run's files can be cleared away."""
        with self._writing:
            self._watched = None

    def show(self) -> None:
        """Write the heartbeat of the run under way, if there is one and the last is long ago; see if it is cancelled.

        A full disk is for the training to notice.
        """
        with self._writing, suppress(OSError):
            now = time.monotonic()
            if self._watched is not None and now - self._shown >= self._heartbeat_seconds:
                self._shown = now
                self._watched.show()

    def _beat(self) -> None:
        while not self._ended.wait(min(_LOOK_SECONDS, self._heartbeat_seconds)):
            with suppress(OSError):  # a network file system that stumbles: look again in a second
                self.stop = self.stop or self._alone()
            self.show()


class Watched:
    """The training's watcher: notes how far it is, which the pulse makes known, and passes on the wish to stop.

    cancelled: somebody recorded the run as failed meanwhile, which `icbench cancel RUN` does. pruned: its search wants
    no more of it. advanced: a checkpoint was stored that is further on than where this attempt began.
    """

    def __init__(self, pulse: Pulse, files: RunFiles, epochs: int, stop: Path, write: Callable[[str], None]):
        self.cancelled = False
        self.pruned = False
        self.advanced = False
        self._stop = stop
        self._pulse = pulse
        self._files = files
        self._epochs = epochs
        self._write = write
        self._began: tuple[float, float] | None = None
        self._done = 0.0
        self._saved = time.monotonic()
        files.curve.unlink(missing_ok=True)

    def resumed(self, rows: "Sequence[EpochRow]", step: int) -> None:
        self._done = float(len(rows))
        write_curve(self._files, rows)
        self._write(f"goes on from its checkpoint in epoch {len(rows) + 1}, after {step} batches")

    def discarded(self) -> None:
        self._write("its checkpoint is damaged; the run begins anew")

    def stepped(self, epochs: float) -> None:
        if self._began is None:
            self._began = (time.monotonic(), epochs)
        self._done = epochs

    def epoch_ended(self, row: "EpochRow") -> None:
        self._write(f"epoch {row.epoch}: train loss {row.train_loss:.4f}, test accuracy {row.test_accuracy:.4f}")
        write_curve(self._files, [row])
        self.pruned = self._stop.exists()
        self._pulse.show()

    def should_stop(self) -> bool:
        return self._pulse.stop or self.cancelled or self.pruned

    def should_save(self) -> bool:
        return time.monotonic() - self._saved > self._pulse.checkpoint_seconds

    def saved(self, epochs: float) -> None:
        """A checkpoint is stored; what matters is whether it is further on than the first steps of this attempt."""
        self._saved = time.monotonic()
        self.advanced |= self._began is not None and epochs >= self._began[1]

    def show(self) -> None:
        """Write the heartbeat. seconds_left is extrapolated from this attempt's pace; null before there is one."""
        self.cancelled = self._files.failure.exists()
        left = None
        if self._began is not None and self._done > self._began[1]:
            pace = (time.monotonic() - self._began[0]) / (self._done - self._began[1])
            left = pace * (self._epochs - self._done)
        beat = {
            "done": self._done,
            "epochs": self._epochs,
            "seconds_left": left,
            "updated_at": datetime.now(UTC).isoformat(),
            "hostname": socket.gethostname(),
            "pid": os.getpid(),
            "job": slurm_job_id(),
        }
        write_json(self._files.progress, beat, durable=False)
