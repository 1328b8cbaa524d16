"""What a worker does: its pack of runs, one after another, then the other packs' that nobody has begun.

A run is claimed by a lock that the kernel frees when its holder dies, so any number of workers, of any number of
sweeps, may be given the same runs: each is done once. torch is imported only when the work begins.
"""

import math
import os
import pickle
import shutil
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from icbench import imports, kinds, provenance, wording
from icbench.config import RunConfig
from icbench.curve import read_curve
from icbench.events import Teller
from icbench.failure import in_words, record_failure
from icbench.files import read_json, say_in_log, write_json
from icbench.layout import Layout, RunFiles
from icbench.locks import Lock, is_free
from icbench.plan import Pack, Run
from icbench.results import configured, finished, is_finished, write_run
from icbench.work.assignment import WAITING, Assignment, Outcome
from icbench.work.attempts import Attempts
from icbench.work.pulse import Watched

if TYPE_CHECKING:
    from icbench.data.source import Source
    from icbench.train.ranks import Ranks
    from icbench.train.state import State
    from icbench.work.equipment import Equipment


# How often a worker that waits for more says so to its ranks, and looks whether anybody is there to give it any; and
# how long it keeps its place while nobody is.
_STILL_HERE_SECONDS = 30.0
_PATIENCE_SECONDS = 900.0


class Stop(Exception):
    """This worker was asked to stop, or who looks after it is gone."""


class Parted(Exception):
    """The ranks of a run are no longer in step: each of them has to begin anew."""


def main() -> None:
    """A worker as a process of its own, with its assignment, pickled, on standard input."""
    sys.exit(work(pickle.load(sys.stdin.buffer)).value)


def work(assignment: Assignment) -> Outcome:
    """Do the assignment. SIGTERM, or SLURM's SIGUSR2, ends it early with a checkpoint stored."""
    os.environ["CUDA_VISIBLE_DEVICES"] = assignment.gpu or ""
    if assignment.engine == "compiled":
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Layout(assignment.results).kernels))
    if assignment.rank > 0:
        with imports.kept():
            from icbench.work import follower

        return follower.work(assignment)
    submission = Layout(assignment.results).sweep(assignment.sweep).submission(assignment.submission)
    try:
        with Teller(submission.events(assignment.index)) as tell:
            return _lead(assignment, tell)
    except OSError as error:
        if error.errno not in kinds.DISK_ERRORS:
            raise
        say_in_log(f"halted: {_in_words(error, assignment)}")
        return Outcome.HALTED


def _lead(assignment: Assignment, tell: Teller) -> Outcome:
    imports.arrow_alone()
    with imports.kept():
        from icbench.train.ranks import PeerLost
        from icbench.work.equipment import Equipment
        from icbench.work.meeting import meet

    where = provenance.of_machine()
    tell("start", pid=os.getpid(), incarnation=assignment.incarnation, node=where["node"], gpu=where["gpu"])
    equipment = Equipment(assignment)
    try:
        with equipment.pulse, meet(equipment) as ranks:
            _work(equipment, tell, ranks)
    except Stop:
        return Outcome.STOPPED
    except (PeerLost, Parted) as error:
        say_in_log(f"parted: {error}")
        return Outcome.PARTED
    tell("end")
    return Outcome.DONE


def _work(equipment: "Equipment", tell: Teller, ranks: "Ranks") -> None:
    """All runs that there are to do; the other ranks learn of each, of a stop (b""), and of the end (None)."""
    worker = _Worker(equipment, tell, ranks)
    try:
        worker.run()
    except Stop:
        tell("stopped", advanced=worker.advanced)
        ranks.broadcast(b"")
        raise
    except OSError as error:
        if error.errno in kinds.DISK_ERRORS:
            with suppress(OSError):  # it may be just this disk
                tell("halted", reason=_in_words(error, equipment.assignment))
        raise
    ranks.broadcast(None)


def _in_words(error: OSError, assignment: Assignment) -> str:
    return f"{error.strerror}: {error.filename or assignment.results}"


class _Worker:
    """One process that trains, or the first of several: claims runs, trains them, writes their results."""

    def __init__(self, equipment: "Equipment", tell: Teller, ranks: "Ranks"):
        self.advanced = False
        self._held = False
        self._alone_since = math.inf
        self._equipment = equipment
        self._assignment = equipment.assignment
        self._layout = equipment.layout
        self._submission = equipment.submission
        self._tell = tell
        self._ranks = ranks
        # Now, not when a run ends: by then the tree may hold other code than that which runs.
        self._code = provenance.of_code()

    def run(self) -> None:
        while True:
            self._held = False
            packs = self._packs_version()
            if self._pass():
                continue
            if self._may_more_come():
                if not self._wait_for_more(packs):
                    return
            elif self._packs_version() == packs and not self._pass_again():
                return

    def _may_more_come(self) -> bool:
        """Whether runs may be handed out yet that this worker is needed for."""
        files = self._submission
        return files.open.exists() and not files.released(self._assignment.index).exists()

    def _pass_again(self) -> bool:
        """A last pass some time after one that found nothing to do but what others held; whether there was anything.

        It may since have been left; and who merely looks at a lock holds it for a while on a network file system.
        """
        return self._held and self._pass(after=self._assignment.heartbeat_seconds / 10)

    def _packs_version(self) -> tuple[int, int]:
        """Changes whenever the packs are replaced by others."""
        status = self._submission.packs.stat()
        return status.st_ino, status.st_mtime_ns

    def _wait_for_more(self, packs: tuple[int, int]) -> bool:
        """Wait until the packs are others, or no more will come, or for a while; whether to look again.

        Whoever hands out the runs may be away, to be started again, but not for ever.
        """
        until = time.monotonic() + _STILL_HERE_SECONDS
        while self._packs_version() == packs and self._may_more_come():
            if self._equipment.pulse.stop:
                raise Stop
            if time.monotonic() > until:
                break
            time.sleep(self._assignment.heartbeat_seconds / 200)
        else:
            return True
        self._ranks.broadcast(WAITING)
        now = time.monotonic()
        self._alone_since = min(self._alone_since, now) if is_free(self._submission.lifeline) else math.inf
        return now - self._alone_since < _PATIENCE_SECONDS

    def _pass(self, after: float = 0.0) -> bool:
        """Go through all packs once; whether there was anything to do."""
        time.sleep(after)
        done, worked = finished(self._layout), False
        for run_id, config in self._runs():
            if self._equipment.pulse.stop:
                raise Stop
            if run_id not in done:
                worked |= self._attend(run_id, config)
        return worked

    def _runs(self) -> Iterator[Run]:
        """The own pack; then the other packs from their far ends, where their workers come last."""
        packs: list[Pack] = pickle.loads(self._submission.packs.read_bytes())
        own = self._assignment.index % len(packs)
        yield from packs[own]
        for other in (*packs[own + 1 :], *packs[:own]):
            yield from reversed(other)

    def _attend(self, run_id: str, config: RunConfig) -> bool:
        """Train a run, unless it is finished, given up, or another worker has it; whether it was trained."""
        files = self._layout.run(run_id)
        if self._submission.stop(run_id).exists():
            return False
        if files.failure.exists() or (is_finished(self._layout, run_id) and not files.checkpoint.exists()):
            return False
        files.folder.mkdir(parents=True, exist_ok=True)
        lock = Lock.take(files.lock)
        if lock is None:
            self._held = True
            return False
        with lock:
            # Between the look and the lock another worker may have ended it, or died in the middle of clearing up.
            if is_finished(self._layout, run_id):
                _clear(files)
                return False
            if files.failure.exists():
                return False
            self._train(run_id, config, files)
            return True

    def _train(self, run_id: str, config: RunConfig, files: RunFiles) -> None:
        from icbench.train.ranks import PeerLost

        assignment = self._assignment
        # Before anything is held against the run: where data cannot be read, something is wrong with the machine.
        data = self._equipment.data(config)
        before = Attempts.read(files)
        attempts = Attempts.begin(
            files, self._code, assignment.incarnation, provenance.slurm_job_id(), assignment.submission
        )
        self._tell("begin", run_id=run_id, attempts=attempts.attempts)
        if reason := attempts.reason_to_give_up(assignment.incarnation):
            self._give_up(run_id, files, attempts, reason)
            return
        with _log(files) as write:
            where = f"{socket.gethostname()}, process {os.getpid()}"
            write(f"attempt {attempts.attempts} of {wording.run(config)} on {where}: {attempts.code}")
            if before and before.code != attempts.code:
                write(f"the attempt before ran other code: {before.code}")
            try:
                self._train_logged(run_id, config, data, files, attempts, write)
            except PeerLost as error:
                self._part(run_id, files, error, write)
            except OSError as error:
                if error.errno in kinds.DISK_ERRORS:
                    raise
                self._fail_with(run_id, files, error, write)
            except Stop:
                raise
            except Exception as error:
                self._fail_with(run_id, files, error, write)

    def _train_logged(
        self,
        run_id: str,
        config: RunConfig,
        data: "Source",
        files: RunFiles,
        attempts: Attempts,
        write: Callable[[str], None],
    ) -> None:
        from icbench.train.engines import choose
        from icbench.train.evaluation import Stopped
        from icbench.train.loop import train
        from icbench.work.recorder import Recorder

        asked = self._assignment
        engine = choose(asked.engine, config, data, self._ranks, asked.images_at_once)
        if engine.reason:
            write(f"engine: {engine}, since {engine.reason}")
        files.pruned.unlink(missing_ok=True)
        watcher = self._equipment.pulse.watch(files, config, self._submission.stop(run_id), write)
        recorder = Recorder(
            asked.recording,
            config,
            data,
            self._ranks,
            files,
            self._layout.kept(run_id),
            watcher.should_stop,
            write,
            partial(self._probe_failed, run_id),
            engine.images_at_once,
        )
        try:
            self._ranks.broadcast(pickle.dumps((run_id, config)))
            state, diverged = train(
                config,
                data,
                files.checkpoint,
                watcher,
                self._ranks,
                durable=self._assignment.durable,
                engine=engine,
                observe=recorder,
            )
        except Stopped:
            self._leave(run_id, files, attempts, watcher, write)
            return
        finally:
            self._equipment.pulse.unwatch()
            self.advanced |= watcher.advanced
        row = self._row(run_id, config, state, diverged, attempts) | {
            "engine": str(engine),
            "images_at_once": engine.images_at_once,
        }
        recorder.write(self._layout, run_id)
        write_run(self._layout, row, [{"run_id": run_id, **asdict(epoch)} for epoch in state.rows])
        write(
            "diverged: the loss is not finite"
            if diverged
            else f"finished with test accuracy {row['test_accuracy']:.4f}"
        )
        _clear(files)
        self._tell("finish", run_id=run_id, test_accuracy=row["test_accuracy"], diverged=diverged)

    def _probe_failed(self, run_id: str, probe: str, epoch: int, reason: str) -> None:
        self._tell("probe-failed", run_id=run_id, probe=probe, epoch=epoch, message=reason)

    def _leave(
        self, run_id: str, files: RunFiles, attempts: Attempts, watcher: Watched, write: Callable[[str], None]
    ) -> None:
        """The training stopped with its checkpoint stored: it was pruned or cancelled, or this worker has to end."""
        attempts.left(files, advanced=watcher.advanced)
        if watcher.pruned:
            epochs = len(read_curve(files).accuracies)
            write_json(files.pruned, {"search": self._assignment.sweep, "epochs": epochs})
            write(f"pruned after {epochs} epochs by {self._assignment.sweep}; the checkpoint is stored")
            files.progress.unlink(missing_ok=True)
            self._tell("pruned", run_id=run_id)
            if self._equipment.pulse.stop:
                raise Stop
            return
        if watcher.cancelled and not self._equipment.pulse.stop:
            write("cancelled; the checkpoint is stored")
            files.progress.unlink(missing_ok=True)
            self._tell("fail", run_id=run_id, kind=kinds.CANCELLED, message=kinds.KINDS[kinds.CANCELLED])
            return
        write("stopped; the checkpoint is stored")
        self._tell("left", run_id=run_id)
        raise Stop

    def _row(
        self, run_id: str, config: RunConfig, state: "State", diverged: bool, attempts: Attempts
    ) -> dict[str, Any]:
        import numpy as np

        from icbench.nets.build import parameter_count
        from icbench.train import hardware

        accuracies = [row.test_accuracy for row in state.rows]
        tail = accuracies[-1:] if diverged else accuracies[-10:]
        seconds = sum(row.seconds for row in state.rows)
        images = len(state.rows) * self._equipment.data(config).train_count
        return configured(run_id, config) | {
            "parameters": parameter_count(state.net),
            "epochs": len(state.rows),
            "test_accuracy": accuracies[-1],
            "test_accuracy_last10": sum(tail) / len(tail),
            "diverged": diverged,
            "train_seconds": seconds,
            "images_per_second": images / seconds,
            "started_at": datetime.fromisoformat(attempts.started_at),
            "finished_at": datetime.now(UTC),
            "attempts": attempts.attempts,
            "world_size": self._ranks.size,
            "test_top5_accuracy": state.rows[-1].test_top5_accuracy,
            "test_correct": np.packbits(state.correct.numpy()).tobytes(),
            **self._code,
            **hardware.describe(self._equipment.device),
            **provenance.of_machine(),
        }

    def _give_up(self, run_id: str, files: RunFiles, attempts: Attempts, reason: str) -> None:
        kind, words = self._assignment.before
        attempts.not_begun(files)
        with _log(files) as write:
            write(f"given up: {reason} ({words})")
        self._fail(run_id, files, kind, f"{reason} ({words})", "")

    def _part(self, run_id: str, files: RunFiles, error: Exception, write: Callable[[str], None]) -> None:
        """Another rank is gone: it has recorded why the run failed, or was killed, and the run goes on from here."""
        write(str(error))
        if failure := read_json(files.failure):
            files.progress.unlink(missing_ok=True)
            self._tell("fail", run_id=run_id, kind=failure["kind"], message=failure["message"])
        raise Parted(str(error)) from None

    def _fail_with(self, run_id: str, files: RunFiles, error: Exception, write: Callable[[str], None]) -> None:
        trace = traceback.format_exc()
        write(trace)
        self._fail(run_id, files, kinds.of_error(error), in_words(error), trace)
        if self._ranks.size > 1:
            raise Parted(f"run {run_id} failed on the first rank")
        if self._equipment.device.type == "cuda":
            import torch

            torch.cuda.synchronize()  # raises where the error has broken CUDA in this process; another worker goes on

    def _fail(self, run_id: str, files: RunFiles, kind: str, message: str, trace: str) -> None:
        """Record that the run failed; the rest go on."""
        record_failure(files, kind, message, trace)
        files.progress.unlink(missing_ok=True)
        self._tell("fail", run_id=run_id, kind=kind, message=message)


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
    for file in (files.checkpoint, files.progress, files.attempts, files.curve, files.pruned):
        file.unlink(missing_ok=True)
    shutil.rmtree(files.probes, ignore_errors=True)
