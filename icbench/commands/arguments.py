"""Arguments that several commands share, spelled once."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

# What a bare --retry-failed stands for. With a value of its own it would take the grid for it.
ANY_KIND = "any"

if TYPE_CHECKING:
    from icbench.layout import Layout

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def grid(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("grid", metavar="GRID", type=Path, help="the grid's YAML file, such as sweeps/quickstart.yaml")


def results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", metavar="DIR", type=Path, default=Path("results"), help="results directory (default: %(default)s)"
    )


def layout(args: argparse.Namespace) -> "Layout":
    """The layout of the results directory, which need not exist. Raises UserError where there can be none."""
    from icbench.errors import UserError
    from icbench.layout import Layout

    nearest = next(path for path in (args.results, *args.results.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise UserError("this is not a directory.", "Give one with --results DIR.", file=nearest)
    return Layout(args.results)


def data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help="where the data sets' files are (default: $ICBENCH_DATA, else data)",
    )


def profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile", metavar="PROFILE", default="local", help="local, or a profile's YAML file (default: %(default)s)"
    )


def budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--budget", metavar="HOURS", help="refuse what would exceed it, such as 200gpu-hours or 30core-hours"
    )


def json(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def no_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-build", action="store_true", help="do not build each net of the grid once for a trial")


def retry_failed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--retry-failed",
        metavar="KIND",
        help="run failed runs again too: all of them, or with --retry-failed=KIND those of one kind that "
        "`icbench status` shows, such as gpu-oom",
    )
