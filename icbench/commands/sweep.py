"""`icbench sweep`: make the results hold what the grid says; only what is missing is run."""

import argparse
import shlex
import signal
import sys
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, NoReturn

from icbench.commands import arguments
from icbench.commands.plan import compare, show
from icbench.commands.retry import check_kind, failed_among
from icbench.console import complain
from icbench.errors import UserError

if TYPE_CHECKING:
    from icbench.commands.arguments import Commands
    from icbench.commands.estimating import Costing
    from icbench.grid import Sweep
    from icbench.layout import Layout
    from icbench.plan import Plan
    from icbench.profile import Profile


def add(commands: "Commands") -> None:
    parser = commands.add_parser("sweep", help="run what is missing of a grid, then print its table")
    arguments.grid(parser)
    arguments.results(parser)
    arguments.profile(parser)
    arguments.data(parser)
    arguments.no_build(parser)
    arguments.budget(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything and print the plan; run and write nothing"
    )
    arguments.retry_failed(parser)
    parser.add_argument(
        "--wait", action="store_true", help="on a cluster: follow the jobs until all is done, as a local sweep does"
    )
    arguments.json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from icbench import grid, profile
    from icbench.commands import estimating

    check_kind(args.retry_failed)
    sweep, machine, layout = grid.load(args.grid), profile.load(args.profile), arguments.layout(args)
    budget = estimating.parse_budget(args.budget, machine)
    todo = compare(sweep, layout, retry=args.retry_failed)
    if args.retry_failed and not failed_among(todo, layout):
        kind = "" if args.retry_failed == arguments.ANY_KIND else f" in the way {args.retry_failed}"
        complain(f"no run of {sweep.name} has failed{kind}; what was interrupted is gone on with in any case.")
    _check(todo, machine, args)
    if args.dry_run:
        _note_unmeasured(todo, layout, args)
        costing = estimating.estimate(todo, layout, machine)
        show(todo, costing, budget, as_json=args.json)
        estimating.check_budget(budget, costing, todo)
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal or a job's end is a Ctrl-C too
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _interrupt)
    if todo.missing:
        if machine.automatic:
            estimating.measure(todo, layout, machine, args.data, again=False)
        costing = estimating.estimate(todo, layout, machine)
        estimating.check_budget(budget, costing, todo)
        _record(sweep, layout, needed=True)
        code = _make(sweep, layout, costing, args)
        if code is not None:
            return code
    else:
        _record(sweep, layout, needed=False)
    return _conclude(sweep, layout, args)


def _make(sweep: "Sweep", layout: "Layout", costing: "Costing", args: argparse.Namespace) -> int | None:
    """Have what is missing run; the exit code, or None when the sweep is done and its table is to be shown."""
    from icbench.commands import sweep_cluster, sweep_local
    from icbench.profile import Slurm

    on_cluster = isinstance(costing.machine, Slurm)
    try:
        if isinstance(costing.machine, Slurm):
            return sweep_cluster.run(sweep, layout, costing.machine, args, costing)
        sweep_local.run(sweep, layout, costing.machine, args, costing)
    except (KeyboardInterrupt, BrokenPipeError):  # a reader that has gone away, such as `head`, ends a sweep as well
        again = shlex.join(["icbench", *sys.argv[1:]])
        what = "What was submitted goes on" if on_cluster else "Each run goes on from its last checkpoint"
        complain(f"\nInterrupted. Nothing is lost. {what}. To go on:\n  {again}")
        return 130
    return None


def _note_unmeasured(todo: "Plan", layout: "Layout", args: argparse.Namespace) -> None:
    """Say of finished runs that some of the grid's probes have no rows of them: they are not trained again for that."""
    from icbench import results
    from icbench.console import plural

    probes = todo.sweep.recording.names()
    if not probes or not todo.finished:
        return
    measured = results.measured_by(layout, todo.finished)
    lacking = [name for name in probes if any((run_id, name) not in measured for run_id in todo.finished)]
    runs = [run_id for run_id in todo.finished if any((run_id, name) not in measured for name in lacking)]
    if runs:
        complain(
            f"{plural(len(runs), 'finished run')} without rows of {', '.join(lacking)}. From checkpoints that were "
            f"kept, and before training, they come by: icbench probe {shlex.quote(str(args.grid))}"
        )


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _check(todo: "Plan", machine: "Profile", args: argparse.Namespace) -> None:
    """Raise UserError for what would make runs fail for sure, such as a missing data set or an impossible net."""
    from icbench import drybuild

    with drybuild.Builder(args.data) if todo.missing and not args.no_build else nullcontext() as builder:
        if builder:
            missing = {run_id for run_id, _ in todo.missing}
            builder.send(cell for cell in todo.sweep.cells if not missing.isdisjoint(cell.run_ids))
        _check_machine(todo, machine, args)
        if builder:
            builder.judge(todo.sweep)


def _check_machine(todo: "Plan", machine: "Profile", args: argparse.Namespace) -> None:
    """Raise UserError for a missing data set, or for what the machine or the cluster cannot do."""
    from icbench.commands import sweep_cluster
    from icbench.data import store
    from icbench.profile import Slurm

    for name in sorted({config.dataset for _, config in todo.missing}):
        store.verify(name, args.data)
    if machine.device == "cpu" and any(config.precision == "tf32" for _, config in todo.missing):
        raise UserError(
            "precision tf32 needs an NVIDIA GPU; here the profile trains on the CPU.", "Use float32.", file=args.grid
        )
    if isinstance(machine, Slurm):
        sweep_cluster.check(todo.sweep, machine, args)


def _record(sweep: "Sweep", layout: "Layout", *, needed: bool) -> None:
    """Keep the grid beside its results; finished ones can be looked at where they cannot be written to."""
    from icbench import ledger

    with nullcontext() if needed else suppress(OSError):
        if ledger.record_sweep(layout, sweep):
            complain(f"{sweep.name} was the name of another grid here; `icbench status` now shows this one under it.")


def _conclude(sweep: "Sweep", layout: "Layout", args: argparse.Namespace) -> int:
    """Print the table and what failed; the exit code."""
    from icbench.commands.table import print_summary, record
    from icbench.report import evidence
    from icbench.report.cells import cell_rows

    todo = compare(sweep, layout)
    rows = cell_rows(evidence.load(layout, sweep))
    if args.json:
        from icbench.console import print_json

        print_json(record(sweep, rows, todo, layout))
    else:
        print_summary(sweep, rows, todo, layout)
    _note_unmeasured(todo, layout, args)
    return 1 if todo.failed or todo.missing else 0
