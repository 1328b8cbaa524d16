"""Reports of searches whose trials are of the test's own making."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icbench.layout import Layout
from icbench.report import evidence
from icbench.report.evidence import Evidence
from icbench.report.searches.document import SearchReport
from icbench.report.searches.found import found
from icbench.search import settings
from icbench.search.settings import Search, SearchCell

Values = Mapping[str, Any]
Row = dict[str, Any]


def load(folder: Path, text: str, name: str = "made") -> Search:
    """A search by its text."""
    file = folder / f"{name}.yaml"
    file.write_text(text)
    return settings.load(file)


def trial(
    cell: SearchCell,
    number: int,
    parameters: Values,
    by_seed: Sequence[Sequence[float]] = (),
    state: str = "complete",
    **more: Any,
) -> Row:
    """A row of the table of trials. by_seed: of each seed the objectives."""
    values = [float(each) for each in np.mean(by_seed, axis=0)] if by_seed else None
    return {
        "study": "",
        "cell": cell.key,
        "number": number,
        "state": state,
        "parameters": json.dumps(parameters),
        "values": values,
        "by_seed": [list(map(float, each)) for each in by_seed],
        "run_ids": [],
        "steps": [],
        "reported": [],
        "diverged": 0,
        "train_seconds": 1.0,
        "started_at": None,
        "ended_at": None,
        "reason": "",
        **more,
    }


def drawn(search: Search, cell: SearchCell, count: int, seed: int = 0) -> list[Values]:
    """Values at random for so many trials; of a cell without parameters, once nothing."""
    random = np.random.default_rng(seed)
    if not cell.space.dimensions:
        return [{}]
    every: list[Values] = []
    for _ in range(count):
        values: dict[str, Any] = {}
        for dimension in cell.space.dimensions:
            if dimension.count is not None:
                points = dimension.points()
                values[dimension.name] = points[random.integers(len(points))]
            elif dimension.log:
                values[dimension.name] = float(np.exp(random.uniform(np.log(dimension.low), np.log(dimension.high))))
            else:
                values[dimension.name] = float(random.uniform(dimension.low, dimension.high))
        every.append(values)
    return every


def report(
    folder: Path, search: Search, rows: Callable[[SearchCell], Sequence[Row]], confirming: Evidence | None = None
) -> SearchReport:
    """The report of a search whose cells have these trials."""
    every = [row for cell in search.cells for row in rows(cell)]
    layout = Layout(folder / "results")
    layout.sweep(search.name).folder.mkdir(parents=True, exist_ok=True)
    runs = confirming.runs if confirming else evidence.columns(layout, [])
    known = confirming.cells if confirming else ()
    return SearchReport(search, layout, tuple(found(search, every, known)), runs, confirming)
