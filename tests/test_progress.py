"""How long a sweep that is under way is said to take yet."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from icbench import grid, profile, progress
from icbench.commands import estimating
from icbench.commands.plan import compare
from icbench.config import RunConfig
from icbench.console import console
from icbench.layout import Layout
from icbench.progress import Progress

WriteGrid = Callable[..., Path]
TEXT = """
recipe: digits
fixed: {dataset: digits, depth: 8, ordering: relu-ic-conv}
grid: {norm: [batch, layer]}
seeds: 2
"""


def test_the_time_left_is_of_what_runs_are_expected_to_take(
    write_grid: WriteGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of as many operations: those of layer norm take three times as long, and all take double what was expected.

    The pace counts from the first sign of work on, which here is the end of the first run.
    """
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(progress, "time", clock)
    missing = tuple(grid.load(write_grid(TEXT)).runs())
    short, long = ([i for i, config in missing if config.norm.name == name] for name in ("batch", "layer"))

    def weigh(config: RunConfig) -> float:
        return {"batch": 10.0, "layer": 30.0}[config.norm.name]

    with Progress(Layout(tmp_path / "results"), missing, len(missing), console(), weigh) as shown:
        told = []
        for seconds, run_id in ((20, short[0]), (40, short[1]), (100, long[0])):
            shown._note({"event": "begin", "run_id": run_id})
            clock.now = float(seconds)
            shown._note({"event": "finish", "run_id": run_id, "test_accuracy": 0.5, "diverged": False})
            told.append(shown._time_left([]))
    assert told == ["20 s elapsed", "40 s elapsed, about 2 min 00 s left", "1 min 40 s elapsed, about 1 min 00 s left"]


def test_a_run_that_is_missing_since_the_estimate_was_made_is_weighed_too(
    write_grid: WriteGrid, tmp_path: Path
) -> None:
    """Of three times as many epochs as all that was missing then: three times its seconds."""
    sweep, layout = grid.load(write_grid(TEXT.replace("batch, layer", "batch"))), Layout(tmp_path / "results")
    costing = estimating.estimate(compare(sweep, layout), layout, profile.load("local"))
    known = sweep.cells[0].config
    recipe = replace(known.recipe, epochs=3 * known.recipe.epochs)
    assert costing.weigh(replace(known, recipe=recipe)) == pytest.approx(3 * costing.weigh(known))
