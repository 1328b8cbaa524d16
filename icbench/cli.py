"""Parse the command line and dispatch; nothing else. Imports neither torch nor pandas nor matplotlib."""

import argparse
import gc
import sys
from collections.abc import Sequence

from icbench import __version__
from icbench.commands import (
    arguments,
    bench,
    cancel,
    compact,
    data,
    doctor,
    list_,
    logs,
    plan,
    probe,
    report,
    search,
    show,
    status,
    sweep,
)
from icbench.console import exit_code

_COMMANDS = (sweep, search, plan, status, report, probe, show, logs, cancel, list_, compact, data, doctor, bench)


def main(words: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0: done, 1: some run failed, 2: the user's mistake, 130: interrupted."""
    # A grid of 100,000 runs is a million objects and no garbage; Python would look through them ten times as often.
    gc.set_threshold(100_000, 50, 100)
    return exit_code("icbench", lambda: _run(words))


def _run(words: Sequence[str] | None) -> int:
    parser = _parser()
    given = sys.argv[1:] if words is None else words
    words = [f"{word}={arguments.ANY_KIND}" if word == "--retry-failed" else word for word in given]
    parsed = parser.parse_args(words, argparse.Namespace(words=list(given)))
    if "run" not in parsed:
        parser.print_help()
        return 0
    code: int = parsed.run(parsed)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="icbench",
        description="Benchmarks and ablations of the IC layer: normalisation + dropout right before each weight layer.",
        epilog="Exit codes: 0 done, 1 some run failed, 2 a mistake in what was typed, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"icbench {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return parser
