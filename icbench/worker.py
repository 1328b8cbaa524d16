"""What a job does: its pack of runs, one after another, then the other packs' that nobody has begun.

A run is claimed by a lock that the kernel frees when its holder dies, so any number of workers, of any number of
sweeps, may be given the same runs: each is done once. torch is imported only when the work begins.
"""

import errno
import json
import os
import pickle
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icbench import provenance
from icbench.config import RunConfig
from icbench.errors import UserError
from icbench.files import read_json, write_json
from icbench.layout import Layout, RunFiles, SubmissionFiles
from icbench.locks import Lock
from icbench.plan import Pack, Run
from icbench.pulse import Pulse
from icbench.results import finished, is_finished, write_run

if TYPE_CHECKING:
    from icbench.data.device import DeviceData
    from icbench.train.state import State

# A run that so many workers of a submission in a row began, and died on before they ended an epoch, is given up.
MAX_DEATHS = 3
# What ends a worker and not a run: the disk is full, read-only or away.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class Assignment:
    """All that a worker is told. `gpu` is the one it may use, as CUDA_VISIBLE_DEVICES has it."""

    results: Path
    sweep: str
    submission: str
    index: int
    data: Path | None
    threads: int
    gpu: str | None


class Stop(Exception):
    """This worker was asked to stop, or its sweep is gone."""


def work(assignment: Assignment) -> None:
    """Do the assignment. SIGTERM, or the sweep's letting go of its lifeline, ends it early with a checkpoint stored."""
    os.environ["CUDA_VISIBLE_DEVICES"] = assignment.gpu or ""
    layout = Layout(assignment.results)
    submission = layout.sweep(assignment.sweep).submission(assignment.submission)
    with submission.events(assignment.index).open("a", encoding="utf-8") as events:

        def tell(event: str, **more: object) -> None:
            events.write(json.dumps({"event": event, **more}) + "\n")
            events.flush()

        tell("start", pid=os.getpid())
        try:
            _Worker(assignment, layout, submission, tell).run()
            tell("end")
        except Stop:
            tell("stopped")
        except OSError as error:
            if error.errno not in _DISK_ERRORS:
                raise
            tell("halted", reason=f"{error.strerror}: {error.filename or assignment.results}")


class _Worker:
    """One process that trains: claims runs, trains them, writes their results."""

    def __init__(self, assignment: Assignment, layout: Layout, submission: SubmissionFiles, tell: Callable[..., None]):
        import torch

        self.layout = layout
        self.tell = tell
        self.assignment = assignment
        self.device = torch.device("cuda" if assignment.gpu is not None else "cpu")
        self.pulse = Pulse(submission.lifeline)
        self._submission = submission
        self._data: dict[Any, DeviceData] = {}
        # Now, not when a run ends: by then the tree may hold other code than that which runs.
        self._code = provenance.of_code()
        torch.set_num_threads(assignment.threads)
        torch.zeros(1, device=self.device)  # a GPU that does not work is no run's failure
        signal.signal(signal.SIGTERM, self._asked_to_stop)

    def _asked_to_stop(self, *_: object) -> None:
        self.pulse.stop = True

    def run(self) -> None:
        with self.pulse:
            done = finished(self.layout)
            for run_id, config in self._runs():
                if self.pulse.stop:
                    raise Stop
                if run_id not in done:
                    self._attend(run_id, config)

    def _runs(self) -> Iterator[Run]:
        """The own pack; then the other packs from their far ends, where their workers come last."""
        packs: list[Pack] = pickle.loads(self._submission.packs.read_bytes())
        own = self.assignment.index % len(packs)
        yield from packs[own]
        for other in (*packs[own + 1 :], *packs[:own]):
            yield from reversed(other)

    def _attend(self, run_id: str, config: RunConfig) -> None:
        """Train a run, unless it is finished, given up, or another worker has it."""
        files = self.layout.run(run_id)
        if is_finished(self.layout, run_id) and not files.checkpoint.exists():
            return
        files.folder.mkdir(parents=True, exist_ok=True)
        lock = Lock.take(files.lock)
        if lock is None:
            return
        with lock:
            # Between the look and the lock another worker may have ended it, or died in the middle of clearing up.
            if is_finished(self.layout, run_id):
                _clear(files)
            elif not files.failure.exists():
                self._train(run_id, config, files)

    def _train(self, run_id: str, config: RunConfig, files: RunFiles) -> None:
        attempts, other_code = _begin_attempt(files, self._code, self.assignment.submission)
        deaths = attempts["deaths"][self.assignment.submission]
        self.tell("begin", run_id=run_id, attempts=attempts["attempts"])
        if deaths > MAX_DEATHS:
            reason = f"{MAX_DEATHS} workers in a row died on it before it ended an epoch (out of memory? killed?)"
            write_json(files.attempts, attempts | {"attempts": attempts["attempts"] - 1})
            with _log(files) as write:
                write(f"given up: {reason}")
            self._fail(run_id, files, "died", reason, "")
            return
        with _log(files) as write:
            where = f"{socket.gethostname()}, process {os.getpid()}"
            write(f"attempt {attempts['attempts']} of {config.label()} on {where}: {attempts['code']}")
            if other_code:
                write(f"the attempt before ran other code: {other_code}")
            try:
                self._train_logged(run_id, config, files, attempts, write)
            except Stop:
                write("stopped; the checkpoint is stored")
                write_json(files.attempts, attempts | {"deaths": {self.assignment.submission: deaths - 1}})
                self.tell("left", run_id=run_id)
                raise
            except OSError as error:
                if error.errno in _DISK_ERRORS:
                    raise
                self._fail_with(run_id, files, error, write)
            except Exception as error:
                self._fail_with(run_id, files, error, write)

    def _train_logged(
        self, run_id: str, config: RunConfig, files: RunFiles, attempts: dict[str, Any], write: Callable[[str], None]
    ) -> None:
        from icbench.train.loop import Stopped, train

        watcher = self.pulse.watch(files, config, attempts["epochs"], write)
        try:
            state, diverged = train(config, self._dataset(config), files.checkpoint, watcher)
        except Stopped:
            raise Stop from None
        finally:
            self.pulse.unwatch()
        row = self._row(run_id, config, state, diverged, attempts)
        write_run(self.layout, row, [{"run_id": run_id, **asdict(epoch)} for epoch in state.rows])
        write(
            "diverged: the loss is not finite"
            if diverged
            else f"finished with test accuracy {row['test_accuracy']:.4f}"
        )
        _clear(files)
        self.tell("finish", run_id=run_id, test_accuracy=row["test_accuracy"], diverged=diverged)

    def _dataset(self, config: RunConfig) -> "DeviceData":
        """The run's data on the device; that of the last run is kept, since neighbours in a pack share it."""
        from icbench import catalog
        from icbench.data import store
        from icbench.data.device import DeviceData

        recipe = config.recipe
        key = (config.dataset, config.split, recipe.augmentation, recipe.subtract_pixel_mean)
        if key not in self._data:
            self._data.clear()
            self._data[key] = DeviceData(
                store.split(store.load(config.dataset, self.assignment.data), config.split),
                pixel_maximum=catalog.load("datasets", config.dataset).PIXEL_MAXIMUM,
                subtract_mean=recipe.subtract_pixel_mean,
                augmentation=recipe.augmentation,
                device=self.device,
            )
        return self._data[key]

    def _row(
        self, run_id: str, config: RunConfig, state: "State", diverged: bool, attempts: dict[str, Any]
    ) -> dict[str, Any]:
        from icbench.nets.build import parameter_count
        from icbench.train import hardware

        accuracies = [row.test_accuracy for row in state.rows]
        tail = accuracies[-1:] if diverged else accuracies[-10:]
        seconds = sum(row.seconds for row in state.rows)
        images = len(state.rows) * self._dataset(config).train_count
        return {
            "run_id": run_id,
            "cell_id": config.cell_id,
            "dataset": config.dataset,
            "block": config.block,
            "depth": config.depth,
            "width": config.width,
            "ordering": config.ordering,
            "norm": config.norm.name,
            "norm_options": json.dumps(dict(config.norm.options)),
            "dropout": config.dropout,
            "recipe": config.recipe.label,
            "precision": config.precision,
            "split": config.split,
            "seed": config.seed,
            "parameters": parameter_count(state.net),
            "epochs": len(state.rows),
            "test_accuracy": accuracies[-1],
            "test_accuracy_last10": sum(tail) / len(tail),
            "diverged": diverged,
            "train_seconds": seconds,
            "images_per_second": images / seconds,
            "started_at": datetime.fromisoformat(attempts["started_at"]),
            "finished_at": datetime.now(UTC),
            "attempts": attempts["attempts"],
            "world_size": 1,
            "config": config.canonical_json(),
            **self._code,
            **hardware.describe(self.device),
            **provenance.of_machine(),
        }

    def _fail_with(self, run_id: str, files: RunFiles, error: Exception, write: Callable[[str], None]) -> None:
        trace = traceback.format_exc()
        write(trace)
        message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        self._fail(run_id, files, "error", message, trace)
        if self.device.type == "cuda":
            import torch

            torch.cuda.synchronize()  # raises where the error has broken CUDA in this process; another worker goes on

    def _fail(self, run_id: str, files: RunFiles, kind: str, message: str, trace: str) -> None:
        """Record that the run failed; the rest go on."""
        moment = datetime.now(UTC).isoformat()
        write_json(files.failure, {"kind": kind, "message": message, "traceback": trace, "failed_at": moment})
        files.progress.unlink(missing_ok=True)
        self.tell("fail", run_id=run_id, kind=kind, message=message)


@contextmanager
def _log(files: RunFiles) -> Iterator[Callable[[str], None]]:
    """Write lines, with the time before each, to the end of the run's log."""
    with files.log.open("a", encoding="utf-8") as log:

        def write(line: str) -> None:
            log.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}\n")
            log.flush()

        yield write


def _clear(files: RunFiles) -> None:
    """Remove what a finished run no longer needs. The lock stays: without its file, two might hold it."""
    for file in (files.checkpoint, files.progress, files.attempts):
        file.unlink(missing_ok=True)


def _begin_attempt(files: RunFiles, code: dict[str, Any], submission: str) -> tuple[dict[str, Any], str]:
    """Count this attempt; return its record, and in words the code of the one before if that was another.

    `deaths`: how many attempts in a row, this one included, began but did not end an epoch, by submission: a run whose
    whole sweep was killed is not to blame, but one that kills worker after worker of a sweep that lives on is.
    """
    commit = f"{code['git_commit']}{' and changes' if code['git_dirty'] else ''}" if code["git_commit"] else "no git"
    now = {"started_at": datetime.now(UTC).isoformat(), "code": f"icbench {code['icbench_version']} ({commit})"}
    before = read_json(files.attempts) or {"attempts": 0, "deaths": {}, "epochs": 0, **now}
    epochs = int((read_json(files.progress) or {}).get("done", 0))
    deaths = {} if epochs > before["epochs"] else before["deaths"]
    attempts = before | {
        "attempts": before["attempts"] + 1,
        "deaths": deaths | {submission: deaths.get(submission, 0) + 1},
        "epochs": max(epochs, before["epochs"]),
        "code": now["code"],
    }
    write_json(files.attempts, attempts)
    return attempts, "" if before["code"] == now["code"] else before["code"]
