"""A pack for a worker that no sweep has started, and what it is told."""

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from icbench import plan
from icbench.layout import Layout
from icbench.locks import Lock
from icbench.plan import Run
from icbench.work.assignment import Assignment


@contextmanager
def assigned(
    runs: Sequence[Run], layout: Layout, sweep: str, submission: str, *, heartbeat_seconds: float
) -> Iterator[Assignment]:
    """All runs to one worker with a CPU core; its lifeline is held as long as the context lasts."""
    files = layout.sweep(sweep).submission(submission)
    files.folder.mkdir(parents=True)
    files.packs.write_bytes(pickle.dumps(plan.packs(runs, 1)))
    lifeline = Lock.take(files.lifeline)
    assert lifeline is not None, "nobody else knows of it"
    with lifeline:
        yield Assignment(
            results=layout.root,
            sweep=sweep,
            submission=submission,
            data=None,
            threads=1,
            device="cpu",
            checkpoint_minutes=10,
            heartbeat_seconds=heartbeat_seconds,
            index=0,
            gpu=None,
            incarnation=submission,
        )
