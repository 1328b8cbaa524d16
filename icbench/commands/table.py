"""The table that a sweep ends with, for people and for programs."""

import json
import math
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from icbench import monitor
from icbench.console import console, plural, print_table, table
from icbench.grid import Sweep
from icbench.layout import Layout
from icbench.plan import Plan
from icbench.report.cells import CellRow
from icbench.report.stats import Estimate
from icbench.wording import cell_columns

_FAILURES_SHOWN = 10


def print_summary(sweep: Sweep, rows: list[CellRow], todo: Plan, layout: Layout) -> None:
    """Print one row a cell, what its columns mean, what failed, where the results are and what to type next."""
    out = console()
    columns = cell_columns(row.config for row in rows)
    grid = table(f"{sweep.name}: {sweep.question}" if sweep.question else sweep.name)
    for title, _ in columns:
        grid.add_column(title, no_wrap=title not in ("norm", "weight", "procedures", "recipe"))
    contrasts = ("vs baseline", "epochs\nto target") if sweep.baselines else ()
    for title in ("seeds", "accuracy %", *contrasts, "diverged"):
        grid.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        seeds = str(row.seeds) if row.seeds == row.seeds_wanted else f"{row.seeds} of {row.seeds_wanted}"
        figures = _figures(row) if sweep.baselines else (_accuracy(row),)
        grid.add_row(*(of(row.config) for _, of in columns), seeds, *figures, str(row.diverged))
    print_table(out, grid)
    out.print()
    for note in _notes(sweep, rows):
        out.print(note)
    failures = monitor.failures(layout, sorted(todo.failed))
    for why in list(failures.values())[:_FAILURES_SHOWN]:
        out.print(f"FAILED {why.run_id}: {why.message}")
    if failures:
        out.print(f"{plural(len(failures), 'run')} failed. To see why: icbench show RUN. To try again: --retry-failed.")
    at = "" if str(layout.root) == "results" else f" --results {shlex.quote(str(layout.root))}"
    out.print(f"\nResults: {layout.root}/runs and {layout.root}/epochs (Parquet). Next:")
    if activate := _activation():
        out.print(f"  {activate}")
    if todo.finished:
        out.print(f"  icbench report --sweep {shlex.quote(sweep.name)}{at}")
        out.print(f"  icbench show {min(todo.finished)}{at}")
    program = f"import icbench; print(icbench.load_runs({json.dumps(str(layout.root))}))"
    out.print(f"  python -c {shlex.quote(program)}")


def record(sweep: Sweep, rows: list[CellRow], todo: Plan, layout: Layout) -> dict[str, Any]:
    """The same as JSON values; accuracies are fractions."""
    failures = monitor.failures(layout, sorted(todo.failed)).values()
    return {
        "name": sweep.name,
        "question": sweep.question,
        "results": str(layout.root),
        "finished": len(todo.finished),
        "missing": len(todo.missing),
        "cells": [
            {**row.record(), "baseline_cell_id": sweep.baselines.get(row.cell_id), "run_ids": list(cell.run_ids)}
            for row, cell in zip(rows, sweep.cells, strict=True)
        ],
        "failed": [{"run_id": why.run_id, "kind": why.kind, "message": why.message} for why in failures],
    }


def _activation() -> str | None:
    """What puts `icbench` and its `python` on the path; None where they are there, or live in no environment."""
    script = Path(sys.prefix, "bin", "activate")
    found = shutil.which("icbench")
    if not script.exists() or (found and Path(found).resolve().is_relative_to(Path(sys.prefix).resolve())):
        return None
    return f". {shlex.quote(os.path.relpath(script) if script.is_relative_to(Path.cwd()) else str(script))}"


def _figures(row: CellRow) -> tuple[str, ...]:
    difference = "" if row.difference is None else _percent(row.difference, signed=True)
    return _accuracy(row), difference, _epochs(row)


def _accuracy(row: CellRow) -> str:
    return "" if row.accuracy is None else _percent(row.accuracy, signed=False)


def _percent(estimate: Estimate, *, signed: bool) -> str:
    value = f"{100 * estimate.value:{'+' if signed else ''}.2f}"
    return value if math.isnan(estimate.half_width) else f"{value} ± {100 * estimate.half_width:.2f}"


def _epochs(row: CellRow) -> str:
    """The median epoch, or `never`; how many seeds got there, unless all did."""
    if row.epochs_to_target is None:
        return ""
    median = f"{row.epochs_to_target:g}" if math.isfinite(row.epochs_to_target) else "never"
    return median if row.reached == row.seeds else f"{median} ({row.reached}/{row.seeds})"


def _notes(sweep: Sweep, rows: list[CellRow]) -> list[str]:
    split = {row.config.split for row in rows}
    images = "test" if split == {"test"} else "held-out training" if split == {"heldout"} else "test or held-out"
    notes = [f"accuracy: on the {images} images after the last epoch, mean ± 95 % t-interval over seeds, in per cent."]
    if sweep.baselines:
        notes.append(
            "vs baseline: difference of the means in percentage points ± 95 % Welch interval, "
            "not corrected for the number of cells."
        )
        notes.append(
            "epochs to target: median over seeds of the first epoch that reaches the baseline's median final accuracy."
        )
        if any(row.reached < row.seeds for row in rows):
            notes.append("(k/n) there: k of n seeds reach it; one that never does counts as infinity.")
    if any(row.diverged for row in rows):
        notes.append(
            "diverged: runs whose loss ceased to be finite; they count with the accuracy that they ended with."
        )
    if any(row.diverged and row.cell_id in sweep.baselines.values() for row in rows):
        notes.append("A baseline diverged: differences and targets are to a net that did not train.")
    if any(row.accuracy is not None and math.isnan(row.accuracy.half_width) for row in rows):
        notes.append("A single seed has no interval.")
    return notes
