"""What `--retry-failed` does to the runs that are to be tried again."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from icbench.commands import arguments
from icbench.errors import UserError, suggest

if TYPE_CHECKING:
    from icbench.layout import Layout
    from icbench.monitor import Failure
    from icbench.plan import Plan


def failed_among(todo: "Plan", layout: "Layout") -> "dict[str, Failure]":
    """Those of the plan's missing runs that have failed, and are to be tried again."""
    from icbench import monitor

    return monitor.failures(layout, [run_id for run_id, _ in todo.missing])


def forget(layout: "Layout", failed: Iterable[str]) -> None:
    """Forget that runs failed, and how often they were begun."""
    from icbench.work.attempts import Attempts

    for run_id in failed:
        Attempts.forgive(layout.run(run_id))
        layout.run(run_id).failure.unlink(missing_ok=True)


def check_kind(kind: str | None) -> None:
    """Raise UserError unless runs can fail in this way."""
    from icbench.kinds import KINDS

    if kind == "diverged":
        raise UserError(
            "--retry-failed=diverged: a run that diverged is a result, not a failure; the same seed diverges again.",
            "To have it done anew all the same, remove its files in runs/ and epochs/.",
        )
    if kind not in (None, arguments.ANY_KIND, *KINDS):
        raise UserError(f"--retry-failed={kind}: there is no such kind.", suggest(kind, KINDS))


@contextmanager
def forgiven(todo: "Plan", layout: "Layout") -> Iterator[None]:
    """Forget that the plan's missing runs failed; remember it again if what follows comes to nothing."""
    from icbench.failure import record_failure

    failed = failed_among(todo, layout)
    forget(layout, failed)
    try:
        yield
    except Exception:
        for run_id, why in failed.items():
            record_failure(layout.run(run_id), why.kind, why.message, why.traceback)
        raise
