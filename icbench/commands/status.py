"""`icbench status`: each sweep's runs by state, and what is running and what failed."""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from icbench.commands import arguments

if TYPE_CHECKING:
    from icbench.commands.arguments import Commands

_FAILURES_SHOWN = 10


def add(commands: "Commands") -> None:
    parser = commands.add_parser("status", help="show what is done, running, waiting and failed")
    arguments.results(parser)
    arguments.json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from icbench import monitor
    from icbench.console import console, duration, plural, print_json, print_table, table

    sweeps = monitor.sweeps(args.results)
    if args.json:
        print_json([asdict(sweep) | {"waiting": sweep.waiting} for sweep in sweeps])
        return 0
    out = console()
    if not sweeps:
        out.print(f"No sweep in {args.results}/ yet. Start one with: icbench sweep GRID")
        return 0
    overview = table()
    for title in ("sweep", "runs", "finished", "running", "interrupted", "waiting", "failed"):
        overview.add_column(title, justify="left" if title == "sweep" else "right")
    for sweep in sweeps:
        counts = (
            sweep.total,
            sweep.finished,
            len(sweep.running),
            sweep.interrupted,
            sweep.waiting,
            len(sweep.failures),
        )
        overview.add_row(sweep.name, *map(str, counts))
    print_table(out, overview)
    for beat in {beat.run_id: beat for sweep in sweeps for beat in sweep.running}.values():
        left = "" if beat.seconds_left is None else f", {duration(beat.seconds_left)} left"
        out.print(f"running {beat.run_id}: epoch {beat.done:.1f} of {beat.epochs}{left}, on {beat.hostname}")
    failures = {failure.run_id: failure for sweep in sweeps for failure in sweep.failures}
    for failure in list(failures.values())[:_FAILURES_SHOWN]:
        out.print(f"failed {failure.run_id} ({failure.kind}): {failure.message}")
    if len(failures) > _FAILURES_SHOWN:
        out.print(f"... and {plural(len(failures) - _FAILURES_SHOWN, 'more failed run')}; --json shows all.")
    if failures:
        out.print("To see why: icbench show RUN. To try again: icbench sweep GRID --retry-failed")
    return 0
