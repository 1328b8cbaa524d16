"""What is missing, what it costs, how it is packed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from icbench import grid, plan

WriteGrid = Callable[..., Path]
GRID = "recipe: digits\nfixed: {dataset: digits, ordering: baseline}\ngrid: {depth: [8, 14, 110]}\nseeds: 4"


def test_grid_minus_results(write_grid: WriteGrid) -> None:
    sweep = grid.load(write_grid(GRID))
    ids = sweep.run_ids
    todo = plan.make(sweep, finished={ids[0], ids[5], "other"}, failed={ids[1], ids[5], "another"})
    assert todo.finished == {ids[0], ids[5]}
    assert todo.failed == {ids[1]}
    assert [run_id for run_id, _ in todo.missing] == [i for i in ids if i not in (ids[0], ids[1], ids[5])]
    assert plan.make(sweep, ids, ()).missing == ()


def test_packs_hold_each_run_once_and_are_balanced(write_grid: WriteGrid) -> None:
    runs = grid.load(write_grid(GRID)).runs()
    packs = plan.packs(runs, 3)
    assert sorted(run_id for pack in packs for run_id, _ in pack) == sorted(run_id for run_id, _ in runs)
    loads = [sum(plan.cost(config) for _, config in pack) for pack in packs]
    longest = max(plan.cost(config) for _, config in runs)
    assert max(loads) <= sum(loads) / 3 + longest  # the bound of longest-first list scheduling is tighter still
    assert max(loads) <= (4 / 3) * max(sum(loads) / 3, 2 * longest)
    assert [config.depth for config in (pack[0][1] for pack in packs)] == [110] * 3
    assert plan.packs(runs[:2], 8) == [(runs[0],), (runs[1],)]
    assert plan.packs([], 8) == []


def test_cost_follows_epochs_and_images(write_grid: WriteGrid) -> None:
    def cost(text: str) -> float:
        return plan.cost(grid.load(write_grid(text)).runs()[0][1])

    one = cost("recipe: {name: digits, epochs: 1}\nfixed: {dataset: digits, ordering: baseline, depth: 8}")
    ten = cost("recipe: digits\nfixed: {dataset: digits, ordering: baseline, depth: 8}")
    assert ten == pytest.approx(10 * one)
    # SCIENCE and PERFORMANCE: 253 M multiply-adds forward, 1.52 GFLOP an image and training step.
    cifar = cost("recipe: {name: chen2019, epochs: 1}\nfixed: {dataset: cifar10, ordering: baseline, depth: 110}")
    assert cifar == pytest.approx(1.52e9 * 50000 + 2 * 253e6 * 10000, rel=0.01)
