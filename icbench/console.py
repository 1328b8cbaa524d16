"""How icbench speaks: to a terminal, to a pipe, to a program."""

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from icbench.errors import IcbenchError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Wide enough that no table is cut where there is no terminal to fit into.
_PIPE_WIDTH = 1000
_EXIT_INTERRUPTED = 130
YEAR_SECONDS = 365 * 86400


def exit_code(program: str, run: Callable[[], int]) -> int:
    """The exit code of `run`; what goes wrong in it is one paragraph on standard error, after the program's name."""
    _prepare_streams()
    try:
        code = run()
        sys.stdout.flush()
        return code
    except IcbenchError as error:
        complain(f"{program}: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        complain(f"{program}: interrupted.")
        return _EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _discard(sys.stdout)
        return 0
    except OSError as error:  # a full disk, a place that may not be written to
        complain(f"{program}: {error.filename or 'output'}: {error.strerror or error}.")
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


def console(stream: TextIO | None = None) -> "Console":
    """A rich console on standard output, or on `stream`."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            """Leave it to the command what it means that its reader has gone; rich would exit with 1."""
            raise

    stream = stream or sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Plain(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=True)


def table(title: str = "") -> "Table":
    """A table in the one style that icbench has."""
    from rich import box
    from rich.table import Table

    # Narrow gaps: a sweep's table with its usual columns fits into 80.
    return Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def print_table(out: "Console", content: "Table") -> None:
    """Print a table. Columns fold between words to fit; if that is not enough, lines get longer; nothing is cut."""
    from rich.cells import cell_len

    for column in content.columns:
        cells = [str(cell) for cell in (column.header, *column.cells)]
        pieces = [piece for cell in cells for piece in (cell.split("\n") if column.no_wrap else cell.split())]
        column.min_width = max(map(cell_len, pieces), default=0)
    needed = sum((column.min_width or 0) + 2 for column in content.columns)
    width = out.width
    if needed > width:  # it does not fit whatever is folded, so nothing is
        out.width = _PIPE_WIDTH
    out.print(content)
    out.width = width


def print_json(value: Any) -> None:
    """Print a value for a program to read."""
    print(json.dumps(value, indent=2, allow_nan=False))


def duration(seconds: float) -> str:
    """Seconds as people say them: 4 s, 3 min 20 s, 2 h 05 min, 3 d 4 h, 1.4 years, 4,000 years."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    if whole < YEAR_SECONDS:
        return f"{whole // 86400} d {whole % 86400 // 3600} h"
    years = seconds / YEAR_SECONDS
    return f"{years:,.{1 if years < 10 else 0}f} years"


def complain(words: str) -> None:
    """Say something on standard error, if anybody still reads it; the exit code must not hang on that."""
    try:
        print(words, file=sys.stderr, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
