"""`icbench cancel`: end a sweep's jobs, or one run; every run keeps its checkpoint."""

import argparse
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from icbench.commands import arguments
from icbench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from icbench.commands.arguments import Commands
    from icbench.layout import Layout
    from icbench.ledger import Entry


def add(commands: "Commands") -> None:
    parser = commands.add_parser("cancel", help="end a sweep's jobs, or one run; checkpoints are kept")
    parser.add_argument(
        "what",
        metavar="GRID|RUN",
        nargs="?",
        help="a grid's file, a sweep's name, or a run id or its beginning (default: every sweep in the results)",
    )
    arguments.results(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from icbench import results
    from icbench.console import console

    layout, out = results.existing(args.results), console()
    sweep = _sweep(args.what, layout)
    if args.what is not None and sweep is None:
        return _cancel_run(args.what, layout, out)
    return _cancel_sweeps(sweep, layout, out)


def _sweep(what: str | None, layout: "Layout") -> str | None:
    """The name of the sweep that is meant, if one is."""
    if what is None:
        return None
    if Path(what).suffix in (".yaml", ".yml"):
        what = _name(Path(what))
        if not layout.sweep(what).manifest.exists():
            raise UserError(f"no sweep {what!r} was ever begun in {layout.root}.")
    return what if layout.sweep(what).manifest.exists() else None


def _name(file: Path) -> str:
    """The name of the sweep, or the search, that a file describes."""
    from icbench import grid
    from icbench.search import settings
    from icbench.yamlfile import read

    data = read(file).data
    return settings.load(file).name if isinstance(data, dict) and "search" in data else grid.load(file).name


def _cancel_sweeps(sweep: str | None, layout: "Layout", out: "Console") -> int:
    """Cancel the jobs of one sweep, or of all, and stop its local sweeps, if they run on this machine."""
    from icbench.cluster import slurm, submissions

    live = [each for each in submissions.live(layout) if sweep in (None, each.entry.sweep)]
    jobs = [job.job_id for each in live for job in each.jobs if not job.is_ending]
    slurm.cancel(jobs)
    _close(sweep, layout)
    if jobs:
        out.print(f"cancelled {' '.join(slurm.in_short(jobs))}")
    code = 0
    for entry in (each.entry for each in live if each.entry.executor == "local"):
        code |= _stop_local(entry, out)
    if not live:
        out.print(f"Nothing of {sweep or 'any sweep'} is under way in {layout.root}/.")
        for other in _others(sweep, layout):
            out.print(f"Some of its runs are in the jobs of {other}: icbench cancel {other}, or icbench cancel RUN.")
    else:
        out.print("Runs keep their checkpoints; the same command goes on with them.")
    return code


def _close(sweep: str | None, layout: "Layout") -> None:
    """Let the controllers of searches know that their jobs were cancelled, lest they submit others."""
    from icbench import ledger
    from icbench.work.handout import Handout

    for entry in ledger.entries(layout):
        if sweep in (None, entry.sweep) and entry.executor == "slurm":
            Handout(layout, entry).close(entry.run_ids)


def _others(sweep: str | None, layout: "Layout") -> list[str]:
    """The live sweeps that have runs of this one in their jobs."""
    from icbench.cluster import submissions
    from icbench.files import read_json

    ids = (read_json(layout.sweep(sweep).manifest) or {}).get("run_ids", ()) if sweep else ()
    live = submissions.live(layout)
    return sorted({each.entry.sweep for each in live if not each.entry.run_ids.isdisjoint(ids)})


def _stop_local(entry: "Entry", out: "Console") -> int:
    """Ask a local sweep to stop, as Ctrl-C does; 1 when that cannot be done from here."""
    if entry.hostname != socket.gethostname():
        out.print(f"{entry.sweep} runs on {entry.hostname}: press Ctrl-C there, or cancel it there.")
        return 1
    os.kill(entry.pid, signal.SIGTERM)  # it holds its lifeline, so this is no other process's id
    out.print(f"stopped the local sweep {entry.sweep} (process {entry.pid})")
    return 0


def _cancel_run(prefix: str, layout: "Layout", out: "Console") -> int:
    """Record a run as cancelled; the worker that is at it notices, stores a checkpoint and goes on to its next run."""
    from icbench import kinds, monitor, results
    from icbench.failure import record_failure

    run_id = monitor.find(layout, prefix)
    files = layout.run(run_id)
    if run_id in results.finished(layout):
        raise UserError(f"run {run_id} is finished.", "There is nothing to cancel.")
    if files.failure.exists():
        raise UserError(f"run {run_id} has failed already.", f"See why with: icbench show {run_id}")
    record_failure(files, kinds.CANCELLED, kinds.KINDS[kinds.CANCELLED])
    again = "icbench sweep GRID, or search SEARCH, --retry-failed=cancelled"
    out.print(f"cancelled run {run_id}; to have it done after all: {again}")
    return 0
