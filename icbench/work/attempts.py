"""How often a run was begun, and how often in a row that got it nowhere: what ends a crash loop.

Progress is a checkpoint further on than the one before, or an epoch's end. An attempt is held against the run when it
ended without progress. Within one incarnation (a local sweep; one stay of a SLURM job on its nodes) three such
attempts in a row mean that the run kills its workers. Over all incarnations ten do: jobs that are preempted, or sweeps
that are killed, are not the run's fault, but cannot go on for ever either.
"""

from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from icbench.files import read_json, write_json
from icbench.layout import RunFiles

MAX_IN_ONE_INCARNATION = 3
MAX_IN_ALL = 10


@dataclass(frozen=True)
class Attempts:
    """A run's record. idle: attempts in a row without progress, by incarnation; job: SLURM's id of the last one's job;
    checkpoint: when the checkpoint was written that the last attempt began with, in nanoseconds.
    """

    attempts: int = 0
    idle: dict[str, int] = field(default_factory=dict)
    checkpoint: int = 0
    started_at: str = ""
    code: str = ""
    job: str | None = None
    submission: str = ""

    @classmethod
    def read(cls, files: RunFiles) -> "Attempts | None":
        """The record of a run that has begun and is not finished; None of any other."""
        content = read_json(files.attempts)
        return cls(**content) if content else None

    @classmethod
    def begin(
        cls, files: RunFiles, code: dict[str, Any], incarnation: str, job: str | None, submission: str
    ) -> "Attempts":
        """Count one more attempt, and as idle until there is a sign of progress."""
        before = cls.read(files) or cls(started_at=datetime.now(UTC).isoformat())
        checkpoint = _written(files)
        idle = before.idle if checkpoint == before.checkpoint else {}
        attempts = replace(
            before,
            attempts=before.attempts + 1,
            idle=idle | {incarnation: idle.get(incarnation, 0) + 1},
            checkpoint=checkpoint,
            code=_in_words(code),
            job=job,
            submission=submission,
        )
        attempts._write(files)
        return attempts

    def left(self, files: RunFiles, *, advanced: bool) -> None:
        """The attempt ended because its worker was asked to stop, its checkpoint stored."""
        replace(self, idle={} if advanced else self.idle, checkpoint=_written(files))._write(files)

    def not_begun(self, files: RunFiles) -> None:
        """What `begin` counted was no attempt: the run is given up instead."""
        replace(self, attempts=self.attempts - 1)._write(files)

    @classmethod
    def forgive(cls, files: RunFiles) -> None:
        """Begin to count anew: somebody wants a run that was given up tried again."""
        if record := cls.read(files):
            replace(record, idle={})._write(files)

    def reason_to_give_up(self, incarnation: str) -> str:
        """Why the run should not be tried again, in words; empty while it should."""
        if self.idle[incarnation] > MAX_IN_ONE_INCARNATION:
            return f"{MAX_IN_ONE_INCARNATION} workers in a row died on it without progress"
        if sum(self.idle.values()) > MAX_IN_ALL:
            return f"{MAX_IN_ALL} attempts in a row made no progress"
        return ""

    def _write(self, files: RunFiles) -> None:
        write_json(files.attempts, asdict(self))


def _in_words(code: dict[str, Any]) -> str:
    commit = f"{code['git_commit']}{' and changes' if code['git_dirty'] else ''}" if code["git_commit"] else "no git"
    return f"icbench {code['icbench_version']} ({commit})"


def _written(files: RunFiles) -> int:
    try:
        return files.checkpoint.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
