"""Parse the command line and dispatch; nothing else. Imports neither torch nor pandas nor matplotlib."""

import argparse
import os
import sys
from collections.abc import Sequence

from icbench import __version__
from icbench.commands import compact, data, list_, plan, show, status, sweep
from icbench.errors import IcbenchError

_COMMANDS = (sweep, plan, status, show, list_, compact, data)
_EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0: done, 1: some run failed, 2: the user's mistake, 130: interrupted."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if "run" not in parsed:
        parser.print_help()
        return 0
    try:
        code: int = parsed.run(parsed)
        sys.stdout.flush()
        return code
    except IcbenchError as error:
        print(f"icbench: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("icbench: interrupted.", file=sys.stderr)
        return _EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.filename is None:
            raise
        print(f"icbench: {error.filename}: {error.strerror}.", file=sys.stderr)
        return 1


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
