"""What `--retry-failed` does to the runs that are to be tried again."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from icbench.layout import Layout
    from icbench.plan import Plan


def forgive(todo: "Plan", layout: "Layout") -> frozenset[str]:
    """Forget that the plan's missing runs failed, those that did; their ids."""
    from icbench import monitor
    from icbench.work.attempts import Attempts

    failed = frozenset(monitor.failures(layout, [run_id for run_id, _ in todo.missing]))
    for run_id in failed:
        files = layout.run(run_id)
        Attempts.forgive(files)
        files.failure.unlink(missing_ok=True)
    return failed
