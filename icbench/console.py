"""How icbench speaks: to a terminal, to a pipe, to a program."""

import json
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TextIO

from icbench.config import RunConfig

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Wide enough that no table is cut where there is no terminal to fit into.
_PIPE_WIDTH = 200

Column = tuple[str, Callable[[RunConfig], str]]

_ALWAYS: tuple[Column, ...] = (
    ("ordering", lambda config: config.ordering),
    ("dropout", lambda config: "" if config.dropout is None else f"{config.dropout:g}"),
)
_WHERE_THEY_DIFFER: tuple[Column, ...] = (
    ("dataset", lambda config: config.dataset),
    ("block", lambda config: config.block),
    ("depth", lambda config: str(config.depth)),
    ("width", lambda config: str(config.width)),
    ("norm", lambda config: str(config.norm)),
    ("recipe", lambda config: config.recipe.label),
    ("precision", lambda config: config.precision),
    ("split", lambda config: config.split),
)


def console(stream: TextIO | None = None) -> "Console":
    """A rich console on standard output, or on `stream`."""
    from rich.console import Console

    stream = stream or sys.stdout
    return Console(
        file=stream, width=None if stream.isatty() else _PIPE_WIDTH, highlight=False, markup=False, soft_wrap=True
    )


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


def cell_columns(configs: Iterable[RunConfig]) -> list[Column]:
    """What tells cells apart: ordering and dropout always, the other fields where they differ."""
    every = list(configs)
    differ = [(title, of) for title, of in _WHERE_THEY_DIFFER if len({of(config) for config in every}) > 1]
    return [*_ALWAYS, *differ]


def print_json(value: Any) -> None:
    """Print a value for a program to read."""
    print(json.dumps(value, indent=2, allow_nan=False))


def duration(seconds: float) -> str:
    """Seconds as people say them: 4 s, 3 min 20 s, 2 h 05 min, 3 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
