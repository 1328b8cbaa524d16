"""`icbench plan`: what a grid names, what of it is done, and how the rest would be packed."""

import argparse
from contextlib import nullcontext
from typing import TYPE_CHECKING

from icbench.commands import arguments

if TYPE_CHECKING:
    from rich.console import Console

    from icbench.commands.arguments import Commands
    from icbench.commands.estimating import Budget, Costing
    from icbench.grid import Sweep
    from icbench.layout import Layout
    from icbench.plan import Pack, Plan

_CELLS_SHOWN = 40
_PACKS_SHOWN = 64


def add(commands: "Commands") -> None:
    parser = commands.add_parser("plan", help="show a grid's runs, what is done and missing, and the packs")
    arguments.grid(parser)
    arguments.results(parser)
    arguments.data(parser)
    arguments.profile(parser)
    arguments.no_build(parser)
    parser.add_argument(
        "--canary",
        action="store_true",
        help="first measure a few steps of each different net where the profile leads, for a better estimate",
    )
    arguments.budget(parser)
    arguments.json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from icbench import drybuild, grid, profile
    from icbench.commands import estimating

    with nullcontext() if args.no_build else drybuild.Builder(args.data) as builder:
        sweep, machine = grid.load(args.grid), profile.load(args.profile)
        budget = estimating.parse_budget(args.budget, machine)
        if builder:
            builder.send(sweep.cells)
        layout = arguments.layout(args)
        todo = compare(sweep, layout)
        if builder:
            builder.judge(sweep)
    if args.canary:
        estimating.measure(todo, layout, machine, args.data, again=True)
    costing = estimating.estimate(todo, layout, machine)
    show(todo, costing, budget, as_json=args.json)
    estimating.check_budget(budget, costing, todo)
    return 0


def compare(sweep: "Sweep", layout: "Layout", *, retry: str | None = None) -> "Plan":
    """The sweep's plan, given what the results directory holds; the directory need not exist.

    Runs that failed in the way `retry`, or in any way, are missing like any other.
    """
    from icbench import imports, monitor, plan, results

    imports.arrow_alone()
    done = results.finished(layout)
    failed = monitor.failures(layout, set(sweep.run_ids) - done)
    return plan.make(sweep, done, [i for i, why in failed.items() if retry not in (arguments.ANY_KIND, why.kind)])


def show(todo: "Plan", costing: "Costing", budget: "Budget | None", *, as_json: bool) -> None:
    """Print a plan."""
    from icbench import plan

    machine = costing.machine
    packs = plan.packs(todo.missing, machine.packs(len(todo.missing)), costing.weigh)
    if as_json:
        from icbench.commands import estimating
        from icbench.console import print_json

        print_json(_record(todo, packs) | {"estimate": estimating.record(costing, todo, budget)})
    else:
        _print(todo, packs, costing)


def _print(todo: "Plan", packs: "list[Pack]", costing: "Costing") -> None:
    from icbench.commands import estimating
    from icbench.console import console, duration, plural
    from icbench.profile import Slurm

    sweep, machine, out = todo.sweep, costing.machine, console()
    out.print(f"{sweep.name}: {sweep.question}" if sweep.question else sweep.name)
    counts = f"{len(todo.finished):,} finished, {len(todo.missing):,} missing, {len(todo.failed):,} failed"
    out.print(f"{plural(len(sweep.run_ids), 'run')} in {plural(len(sweep.cells), 'cell')}: {counts}.")
    _print_cells(todo, out)
    if isinstance(machine, Slurm) and packs:
        jobs = machine.jobs_for(len(todo.missing))
        slots = plural(machine.slots, "slot")
        at_once = min(jobs, machine.max_jobs_at_once)
        out.print(f"{plural(jobs, 'job')} of {slots} each, {at_once} at once; pack k is done by slot k:")
    whole = costing.forecast.seconds.estimate
    for index, pack in enumerate(packs[:_PACKS_SHOWN]):
        load = sum(costing.weigh(config) for _, config in pack)
        out.print(f"pack {index}: {plural(len(pack), 'run')}, {load / whole:.0%} of the work, about {duration(load)}")
    if len(packs) > _PACKS_SHOWN:
        out.print(f"... and {plural(len(packs) - _PACKS_SHOWN, 'more pack')}; --json shows all.")
    if not packs:
        out.print(
            "Nothing is missing."
            if not todo.failed
            else "Nothing is missing but what failed: --retry-failed tries again."
        )
    for line in estimating.lines(costing, todo):
        out.print(line)


def _print_cells(todo: "Plan", out: "Console") -> None:
    from icbench.console import plural, print_table, table
    from icbench.wording import cell_columns

    sweep = todo.sweep
    columns = cell_columns(cell.config for cell in sweep.cells)
    cells = table()
    for title in ("cell", *(title for title, _ in columns), "seeds", "finished", "failed"):
        cells.add_column(title)
    for cell in sweep.cells[:_CELLS_SHOWN]:
        finished = sum(run_id in todo.finished for run_id in cell.run_ids)
        failed = sum(run_id in todo.failed for run_id in cell.run_ids)
        words = [of(cell.config) for _, of in columns]
        cells.add_row(cell.cell_id, *words, str(len(cell.seeds)), str(finished), str(failed or ""))
    print_table(out, cells)
    out.print()
    if len(sweep.cells) > _CELLS_SHOWN:
        out.print(f"... and {plural(len(sweep.cells) - _CELLS_SHOWN, 'more cell')}; --json shows all.")


def _record(todo: "Plan", packs: "list[Pack]") -> dict[str, object]:
    import json

    sweep = todo.sweep
    return {
        "name": sweep.name,
        "question": sweep.question,
        "runs": len(sweep.run_ids),
        "cells": [
            {
                "cell_id": cell.cell_id,
                "baseline_cell_id": sweep.baselines.get(cell.cell_id),
                "config": json.loads(cell.config.cell_json()),
                "seeds": list(cell.seeds),
                "run_ids": list(cell.run_ids),
            }
            for cell in sweep.cells
        ],
        "finished": sorted(todo.finished),
        "failed": sorted(todo.failed),
        "missing": [run_id for run_id, _ in todo.missing],
        "packs": [[run_id for run_id, _ in pack] for pack in packs],
    }
