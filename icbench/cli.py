"""Parse the command line and dispatch; nothing else. Imports neither torch nor pandas nor matplotlib."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from icbench import __version__
from icbench.commands import arguments, cancel, compact, data, doctor, list_, logs, plan, report, show, status, sweep
from icbench.console import complain
from icbench.errors import IcbenchError

_COMMANDS = (sweep, plan, status, report, show, logs, cancel, list_, compact, data, doctor)
_EXIT_INTERRUPTED = 130


def main(words: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0: done, 1: some run failed, 2: the user's mistake, 130: interrupted."""
    _prepare_streams()
    parser = _parser()
    given = sys.argv[1:] if words is None else words
    parsed = parser.parse_args([f"{word}={arguments.ANY_KIND}" if word == "--retry-failed" else word for word in given])
    if "run" not in parsed:
        parser.print_help()
        return 0
    try:
        code: int = parsed.run(parsed)
        sys.stdout.flush()
        return code
    except IcbenchError as error:
        complain(f"icbench: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        complain("icbench: interrupted.")
        return _EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _discard(sys.stdout)
        return 0
    except OSError as error:  # a full disk, a place that may not be written to
        complain(f"icbench: {error.filename or 'output'}: {error.strerror or error}.")
        _discard(sys.stdout)
        return 1


def _prepare_streams() -> None:
    """Have what a terminal cannot show replaced, and what is written to closed streams dropped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _discard(stream: TextIO) -> None:
    """Send what is still to be written to nowhere, so that the interpreter's last flush does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
