"""Arguments that several commands share, spelled once."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def grid(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("grid", metavar="GRID", type=Path, help="the grid's YAML file, such as sweeps/quickstart.yaml")


def results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", metavar="DIR", type=Path, default=Path("results"), help="results directory (default: %(default)s)"
    )


def data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help="where the data sets' .npz files are (default: $ICBENCH_DATA, else data)",
    )


def profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile", metavar="PROFILE", default="local", help="local, or a profile's YAML file (default: %(default)s)"
    )


def json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
