"""A search's report as one HTML file that needs nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from icbench.report.page import render

if TYPE_CHECKING:
    from icbench.report.searches.document import SearchReport

_CONTENTS = {
    "verdicts": "Answer",
    "confirmed": "On test images",
    "best": "What was found",
    "rates": "Dropout rate",
    "front": "Pareto front",
    "history": "History",
    "importance": "What matters",
    "parallel": "Parameters together",
    "trial-curves": "Learning curves",
    "trials": "All trials",
    "settings": "How it was searched",
    "provenance": "Provenance",
    "methods": "How to read this",
}
# What is there only if a figure of it is.
_DRAWN = ("front", "history", "parallel", "trial-curves")


def page(report: "SearchReport", drawings: Sequence[Path], confirming: str) -> str:
    """The page as HTML, with SVG files in it. confirming: the link to the confirming sweep's page, if there is one."""
    names = [file.stem for file in drawings]
    absent = {kind: not any(name.startswith(kind) for name in names) for kind in _DRAWN}
    absent |= {"rates": not report.curves, "importance": not report.importances}
    return render(
        "searches/page.html.j2",
        report,
        drawings,
        {key: title for key, title in _CONTENTS.items() if not absent.get(key)},
        confirming=confirming,
    )
