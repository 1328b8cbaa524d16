"""`icbench sweep`: make the results hold what the grid says; only what is missing is run."""

import argparse
import shlex
import signal
import sys
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, NoReturn

from icbench.commands import arguments
from icbench.commands.plan import compare, show
from icbench.console import complain
from icbench.errors import UserError

if TYPE_CHECKING:
    from icbench.commands.arguments import Commands
    from icbench.grid import Sweep
    from icbench.layout import Layout
    from icbench.plan import Plan
    from icbench.profile import Profile
    from icbench.progress import Progress

_WAIT_SECONDS = 1.0


def add(commands: "Commands") -> None:
    parser = commands.add_parser("sweep", help="run what is missing of a grid, then print its table")
    arguments.grid(parser)
    arguments.results(parser)
    arguments.profile(parser)
    arguments.data(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything and print the plan; run and write nothing"
    )
    parser.add_argument("--retry-failed", action="store_true", help="run failed runs again too")
    arguments.json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from icbench import grid, plan, profile

    sweep, machine, layout = grid.load(args.grid), profile.load(args.profile), arguments.layout(args)
    todo = compare(sweep, layout, retry_failed=args.retry_failed)
    _check(todo, machine, args)
    if args.dry_run:
        show(todo, plan.packs(todo.missing, machine.workers), as_json=args.json)
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal or a job's end is a Ctrl-C too
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _interrupt)
    try:
        _train(sweep, layout, machine, args)
    except (KeyboardInterrupt, BrokenPipeError):  # a reader that has gone away, such as `head`, ends a sweep as well
        again = shlex.join(["icbench", *sys.argv[1:]])
        complain(f"\nInterrupted. Nothing is lost: each run goes on from its last checkpoint. To go on:\n  {again}")
        return 130
    return _conclude(sweep, layout, args)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _check(todo: "Plan", machine: "Profile", args: argparse.Namespace) -> None:
    """Raise UserError for what would make runs fail for sure: a missing data set, a precision that needs a GPU."""
    from icbench.data import store

    for name in sorted({config.dataset for _, config in todo.missing}):
        store.load(name, args.data)
    if machine.device == "cpu" and any(config.precision == "tf32" for _, config in todo.missing):
        raise UserError(
            "precision tf32 needs an NVIDIA GPU; here the profile trains on the CPU.", "Use float32.", file=args.grid
        )


def _train(sweep: "Sweep", layout: "Layout", machine: "Profile", args: argparse.Namespace) -> None:
    """Run what is missing until nothing is: what another sweep is at is waited for, and taken over if it dies there."""
    from icbench import launch, plan
    from icbench.console import console
    from icbench.progress import Progress

    todo = compare(sweep, layout, retry_failed=args.retry_failed)
    # Finished results can be looked at where they cannot be written to.
    with suppress(OSError) if not todo.missing else nullcontext():
        if launch.record_sweep(layout, sweep):
            complain(f"{sweep.name} was the name of another grid here; `icbench status` now shows this one under it.")
    if not todo.missing:
        return
    if args.retry_failed:
        for run_id, _ in todo.missing:
            layout.run(run_id).failure.unlink(missing_ok=True)
    out = console(sys.stderr if args.json else sys.stdout)
    total = len(sweep.run_ids)
    out.print(
        f"{sweep.name}: {len(todo.missing)} of {total} runs to do, {machine.workers} at a time. Results: {layout.root}/"
    )
    with Progress(layout, todo.missing, total, out) as progress:
        while todo.missing:
            packs = plan.packs(todo.missing, machine.workers)
            with launch.LocalJobs(layout, sweep.name, packs, machine, args.data) as jobs:
                for event in jobs.events():
                    if event is not None:
                        progress.note(event)
                    progress.refresh(jobs)
            _wait_for_others(sweep, layout, progress)
            todo = compare(sweep, layout)


def _wait_for_others(sweep: "Sweep", layout: "Layout", progress: "Progress") -> None:
    """Return once no missing run is held by anybody else's worker; none of ours is at work any more."""
    from icbench.console import plural
    from icbench.locks import is_free

    told = False
    while held := [i for i, _ in compare(sweep, layout).missing if not is_free(layout.run(i).lock)]:
        if not told:
            progress.say(f"waiting for {plural(len(held), 'run')} that another sweep is at")
            told = True
        time.sleep(_WAIT_SECONDS)


def _conclude(sweep: "Sweep", layout: "Layout", args: argparse.Namespace) -> int:
    """Print the table and what failed; the exit code."""
    from icbench import results
    from icbench.commands.table import print_summary, record
    from icbench.report.tables import sweep_table

    todo = compare(sweep, layout)
    runs, epochs = (results.read(layout, name, todo.finished) for name in ("runs", "epochs"))
    rows = sweep_table(sweep, runs, epochs)
    if args.json:
        from icbench.console import print_json

        print_json(record(sweep, rows, todo, layout))
    else:
        print_summary(sweep, rows, todo, layout)
    return 1 if todo.failed else 0
