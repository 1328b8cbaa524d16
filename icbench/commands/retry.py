"""What `--retry-failed` does to the runs that are to be tried again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from icbench.layout import Layout
    from icbench.monitor import Failure
    from icbench.plan import Plan


def failed_among(todo: "Plan", layout: "Layout") -> "dict[str, Failure]":
    """Those of the plan's missing runs that have failed, and are to be tried again."""
    from icbench import monitor

    return monitor.failures(layout, [run_id for run_id, _ in todo.missing])


@contextmanager
def forgiven(todo: "Plan", layout: "Layout") -> Iterator[None]:
    """Forget that the plan's missing runs failed; remember it again if what follows comes to nothing."""
    from icbench.failure import record_failure
    from icbench.work.attempts import Attempts

    failed = failed_among(todo, layout)
    for run_id in failed:
        Attempts.forgive(layout.run(run_id))
        layout.run(run_id).failure.unlink(missing_ok=True)
    try:
        yield
    except Exception:
        for run_id, why in failed.items():
            record_failure(layout.run(run_id), why.kind, why.message, why.traceback)
        raise
