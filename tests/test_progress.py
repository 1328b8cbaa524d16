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
from icbench.files import write_json
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


def test_runs_of_another_sweep_are_not_displayed(write_grid: WriteGrid, tmp_path: Path) -> None:
    """Jobs that are shared may be at work on them."""
    layout = Layout(tmp_path / "results")
    (run_id, _), *rest = grid.load(write_grid(TEXT)).runs()
    for each in (run_id, rest[0][0]):
        layout.run(each).progress.parent.mkdir(parents=True)
        write_json(layout.run(each).progress, {"done": 1, "epochs": 2, "seconds_left": 3.0, "hostname": "n1"})
    with Progress(layout, tuple(rest), len(rest), console(), lambda _: 1.0) as shown:
        out = console()
        with out.capture() as lines:
            out.print(shown._display([run_id, rest[0][0]]))
    assert rest[0][0] in lines.get()
    assert run_id not in lines.get()
