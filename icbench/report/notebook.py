"""A report in a notebook: where results are, its tables and figures as a notebook shows them; nothing is written."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from icbench.errors import UserError
from icbench.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler


def results() -> Path:
    """The directory that ICBENCH_RESULTS names, else the nearest `results` from here upwards. Raises UserError."""
    if named := os.environ.get("ICBENCH_RESULTS"):
        return Path(named)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "results").is_dir():
            return folder / "results"
    remedy = "Make one with `make quickstart`, or name one in the environment variable ICBENCH_RESULTS."
    raise UserError(f"there is no results directory in {here} or above.", remedy)


def frame(table: Table, *columns: str) -> "Styler":
    """A table, or some columns of it, as people read it: words to the left, figures to the right."""
    import pandas as pd

    shown = table.only(*columns) if columns else table
    titles = [column.title for column in shown.columns]
    rows = [[text for text, _ in row] for row in shown.texts()]
    words = pd.Index([column.title for column in shown.columns if column.is_text])
    figures = pd.Index(titles).difference(words)
    styled = pd.DataFrame(rows, columns=titles).style.hide(axis="index").format(escape="html")
    styled.set_properties(subset=words, **{"text-align": "left"})
    return styled.set_properties(subset=figures, **{"text-align": "right", "white-space": "nowrap"})


def show(figures: "Mapping[str, Figure]") -> None:
    """Show figures one below the other."""
    from IPython.display import Image, display

    from icbench.report.drawing import style

    if not figures:
        print("This sweep has nothing to show here.")
    for name, figure in figures.items():
        buffer = io.BytesIO()
        with style():
            figure.savefig(buffer, format="png", dpi=200)
        display(Image(buffer.getvalue(), retina=True, alt=name))  # type: ignore[no-untyped-call]
