"""`icbench status`: each sweep's runs by state, and what is running, what was left and what failed."""

import argparse
import time
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from icbench.commands import arguments
from icbench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from icbench.commands.arguments import Commands
    from icbench.monitor import Interruption, Overview

_FAILURES_SHOWN = 10
_RUNNING_SHOWN = 40
# Each look is one call of squeue and at most one of sacct.
_WATCH_SECONDS = 10.0


def add(commands: "Commands") -> None:
    parser = commands.add_parser("status", help="show what is done, running, queued and failed, and why")
    arguments.results(parser)
    parser.add_argument(
        "--watch", action="store_true", help=f"look again every {_WATCH_SECONDS:.0f} s until nothing is under way"
    )
    arguments.json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from icbench import imports, monitor
    from icbench.console import console, print_json

    if args.json and args.watch:
        raise UserError("--watch is for people; a program asks for --json again and again.")
    imports.arrow_alone()
    if args.json:
        seen = monitor.overview(args.results)
        print_json([asdict(sweep) | {"notes": seen.notes} for sweep in seen.sweeps])
        return 0
    out = console()
    while True:
        seen = monitor.overview(args.results)
        if args.watch and out.is_terminal:
            out.clear()
        _print(seen, args, out)
        if not args.watch or not any(sweep.is_under_way for sweep in seen.sweeps):
            return 0
        try:
            time.sleep(_WATCH_SECONDS)
        except KeyboardInterrupt:
            return 0
        if not out.is_terminal:
            out.print()


def _print(seen: "Overview", args: argparse.Namespace, out: "Console") -> None:
    from icbench.console import print_table, table

    for note in seen.notes:
        out.print(note)
    if not seen.sweeps:
        out.print(f"No sweep in {args.results}/ yet. Start one with: icbench sweep GRID")
        return
    with_jobs = any(sweep.jobs_pending or sweep.jobs_running for sweep in seen.sweeps)
    overview = table()
    pruning = any(sweep.pruned for sweep in seen.sweeps)
    columns = ["runs", "finished", "diverged", *(["pruned"] if pruning else [])]
    columns += ["running", "queued", "interrupted", "waiting", "failed"]
    for title in ("sweep", *columns, *(["jobs"] if with_jobs else [])):
        overview.add_column(title, justify="left" if title in ("sweep", "jobs") else "right")
    for sweep in seen.sweeps:
        counts = (
            sweep.total,
            sweep.finished,
            sweep.diverged,
            *([sweep.pruned] if pruning else []),
            len(sweep.running),
            sweep.queued,
            len(sweep.interrupted),
            sweep.waiting,
            len(sweep.failures),
        )
        jobs = f"{sweep.jobs_running} running, {sweep.jobs_pending} pending"
        overview.add_row(sweep.name, *map(str, counts), *([jobs] if with_jobs else []))
    print_table(out, overview)
    for sweep in seen.sweeps:
        if sweep.pending_because:
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(sweep.pending_because.items()))
            out.print(f"jobs of {sweep.name} pending because: {reasons}")
        for job in sweep.jobs_ended[:_FAILURES_SHOWN]:
            out.print(f"job {job.job} of {sweep.name} ended: {job.state}, {job.kind}: {job.said}")
    _print_running(seen, out)
    _print_interrupted([each for sweep in seen.sweeps for each in sweep.interrupted], out)
    _print_failed(seen, out)


def _print_running(seen: "Overview", out: "Console") -> None:
    from icbench.console import duration, plural

    beats = list({beat.run_id: beat for sweep in seen.sweeps for beat in sweep.running}.values())
    for beat in beats[:_RUNNING_SHOWN]:
        left = "" if beat.seconds_left is None else f", {duration(beat.seconds_left)} left"
        job = f", job {beat.job}" if beat.job else ""
        out.print(f"running {beat.run_id}: epoch {beat.done:.1f} of {beat.epochs}{left}, on {beat.hostname}{job}")
    if len(beats) > _RUNNING_SHOWN:
        out.print(f"... and {plural(len(beats) - _RUNNING_SHOWN, 'more run')} under way; --json shows all.")


def _print_interrupted(interrupted: "list[Interruption]", out: "Console") -> None:
    from icbench.console import plural
    from icbench.kinds import KINDS

    distinct = {each.run_id: each for each in interrupted}.values()
    for (kind, job), count in Counter((each.kind, each.job) for each in distinct).items():
        runs = plural(count, "run")
        where = f" in job {job}" if job else ""
        why = f": {kind}, {KINDS[kind]}" if kind else ""
        out.print(f"interrupted {runs}{where}{why}")
    if distinct:
        out.print("The same command goes on with what was interrupted.")


def _print_failed(seen: "Overview", out: "Console") -> None:
    from icbench.console import plural

    failures = {failure.run_id: failure for sweep in seen.sweeps for failure in sweep.failures}
    for failure in list(failures.values())[:_FAILURES_SHOWN]:
        last_line = failure.message.strip().splitlines()[-1:] or [""]
        out.print(f"failed {failure.run_id} ({failure.kind}): {last_line[0]}")
    if len(failures) > _FAILURES_SHOWN:
        out.print(f"... and {plural(len(failures) - _FAILURES_SHOWN, 'more failed run')}; --json shows all.")
    if failures:
        counts = Counter(failure.kind for failure in failures.values())
        out.print(f"failed by kind: {', '.join(f'{kind} {count}' for kind, count in sorted(counts.items()))}")
        out.print(
            "To see why: icbench show RUN, icbench logs RUN. "
            "To try again: icbench sweep GRID, or search SEARCH, --retry-failed[=KIND]"
        )
