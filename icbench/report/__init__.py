"""From results to statements: `report.load("results", "quickstart")` is what `icbench report` shows of a sweep.

metrics and stats are pure functions; evidence is what a results directory holds; comparison is what follows from it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from icbench.report.document import Report


def load(results: str | Path = "results", sweep: str = "", *, target: float | None = None) -> "Report":
    """The report of one sweep: its name, or the grid's file; may be left out where the directory holds just one.

    target: the accuracy that speed is measured by, a fraction; by default each baseline's median final accuracy.
    Raises UserError: no such directory or sweep, or several.
    """
    from icbench.errors import UserError
    from icbench.report import document, evidence
    from icbench.results import existing

    layout = existing(results)
    names = evidence.sweep_names(layout)
    if not sweep and len(names) != 1:
        known = f"It holds: {', '.join(names)}." if names else "It holds none: give a grid's file."
        raise UserError(f"say which sweep of {layout.root}/ to report, by its name.", known)
    return document.load(layout, evidence.find_sweep(layout, sweep or names[0]), target)
