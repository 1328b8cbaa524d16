"""`icbench logs`: what a run's workers wrote, and what the job around them said."""

import argparse
import time
from typing import TYPE_CHECKING

from icbench.commands import arguments

if TYPE_CHECKING:
    from pathlib import Path

    from icbench.commands.arguments import Commands
    from icbench.layout import Layout

_POLL_SECONDS = 0.5
_JOB_LINES = 20
_FILES = 8


def add(commands: "Commands") -> None:
    parser = commands.add_parser("logs", help="print a run's log, and where its job's output is")
    parser.add_argument("run_id", metavar="RUN", help="a run id, or its beginning")
    parser.add_argument("--follow", "-f", action="store_true", help="go on printing as it grows; Ctrl-C ends it")
    arguments.results(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from icbench import monitor, results
    from icbench.console import console
    from icbench.files import last_words

    layout = results.existing(args.results)
    run_id = monitor.find(layout, args.run_id)
    files = layout.run(run_id)
    out = console()
    position = _print_from(files.log, 0)
    if not position:
        out.print(f"run {run_id} has no log yet: no worker has begun it.")
    if not args.follow and not monitor.is_running(layout, run_id):
        for file in _job_output(layout, run_id)[-_FILES:]:
            out.print(f"\nthe end of {file}:\n{last_words(file, _JOB_LINES)}")
    while args.follow and (monitor.is_running(layout, run_id) or not files.log.exists()):
        time.sleep(_POLL_SECONDS)
        position = _print_from(files.log, position)
    return 0


def _job_output(layout: "Layout", run_id: str) -> "list[Path]":
    """What the job said that was at an unfinished run last; if none was, those that should have done it."""
    from icbench import ledger, monitor, results
    from icbench.work.attempts import Attempts

    if run_id in results.finished(layout):
        return []
    attempts = Attempts.read(layout.run(run_id))
    if attempts and attempts.job:
        return monitor.job_output(layout, attempts.job)
    entries = [entry for entry in ledger.entries(layout) if run_id in entry.run_ids and entry.executor == "slurm"]
    jobs = max(entries, key=lambda entry: entry.submitted_at).jobs if entries else ()
    return [file for job in jobs for file in monitor.job_output(layout, job) if file.suffix == ".err"]


def _print_from(file: "Path", position: int) -> int:
    """Print a file from a position on; the position of its end."""
    if not file.exists():
        return position
    with file.open("rb") as stream:
        stream.seek(position)
        content = stream.read()
    print(content.decode(errors="replace"), end="", flush=True)
    return position + len(content)
