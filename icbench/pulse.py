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
from icbench.files import write_json
from icbench.layout import RunFiles
from icbench.locks import is_free

if TYPE_CHECKING:
    from icbench.train.state import EpochRow

_HEARTBEAT_SECONDS = 1.0


class Pulse:
    """Once a second, writes the current run's heartbeat and looks whether the sweep is still there.

    `stop` becomes true when it is not, and may be made true by whoever wants this worker to stop. It is no
    threading.Event, whose lock a signal handler might find taken by the code that it interrupts.
    """

    def __init__(self, lifeline: Path):
        self.stop = False
        self._lifeline = lifeline
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

    def watch(self, files: RunFiles, config: RunConfig, done: int, write: Callable[[str], None]) -> "Watched":
        """Begin a run's heartbeat; `done`: the epochs that earlier attempts are known to have done."""
        self._watched = watched = Watched(self, files, done, config.recipe.epochs, write)
        self.show()
        return watched

    def unwatch(self) -> None:
        """From here on no heartbeat is written, so that the run's files can be cleared away."""
        with self._writing:
            self._watched = None

    def show(self) -> None:
        """Write the heartbeat of the run under way, if there is one. A full disk is for the training to notice."""
        with self._writing, suppress(OSError):
            if self._watched is not None:
                self._watched.show()

    def _beat(self) -> None:
        while not self._ended.wait(_HEARTBEAT_SECONDS):
            with suppress(OSError):  # a network file system that stumbles: look again in a second
                self.stop = self.stop or is_free(self._lifeline)
            self.show()


class Watched:
    """The training's watcher: notes how far it is, which the pulse makes known, and passes on the wish to stop."""

    def __init__(self, pulse: Pulse, files: RunFiles, done: int, epochs: int, write: Callable[[str], None]):
        self._pulse = pulse
        self._files = files
        self._epochs = epochs
        self._write = write
        self._began: tuple[float, float] | None = None
        self._done = float(done)

    def resumed(self, epoch: int, step: int) -> None:
        self._done = epoch - 1.0
        self._write(f"goes on from its checkpoint in epoch {epoch}, after {step} batches")

    def discarded(self) -> None:
        self._write("its checkpoint is damaged; the run begins anew")

    def stepped(self, epochs: float) -> None:
        if self._began is None:
            self._began = (time.monotonic(), epochs)
        self._done = epochs

    def epoch_ended(self, row: "EpochRow") -> None:
        self._write(f"epoch {row.epoch}: train loss {row.train_loss:.4f}, test accuracy {row.test_accuracy:.4f}")
        self._pulse.show()

    def should_stop(self) -> bool:
        return self._pulse.stop

    def show(self) -> None:
        """Write the heartbeat. seconds_left is extrapolated from this attempt's pace; null before there is one."""
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
        }
        write_json(self._files.progress, beat, durable=False)
