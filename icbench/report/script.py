"""What the scripts of analysis/ share: each prints some tables of a report, and writes them and some of its figures."""

import argparse
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from icbench import report
from icbench.console import complain, console, exit_code, print_table
from icbench.console import table as empty_table
from icbench.errors import UserError
from icbench.report import document
from icbench.report.document import Report
from icbench.report.tables import Table
from icbench.results import existing

# By the name of a table, the columns that are printed; none: all. Files have all.
Columns = Mapping[str, Sequence[str]]
_TITLE = 10


def main(
    about: str, tables: Columns, figures: Sequence[str], note: Callable[[Report], str], *, compares: bool = True
) -> int:
    """Do what a script is asked on the command line; the exit code, as `icbench` has it.

    figures: kinds of them, as Report.figures has them. note: what the tables need to be understood. compares: whether
    the script has nothing to say without a baseline.
    """
    parser = _parser(about)

    def run() -> int:
        args = parser.parse_args()
        found = _load(args, compares=compares)
        _tell(found, tables, note(found))
        written = document.write_files(args.out, [found.tables[name] for name in tables], found.figures(*figures))
        print("\nWritten, tables with all their columns:", *written, sep="\n  ")
        return 0

    return exit_code(parser.prog, run)


def _parser(about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("results", metavar="RESULTS", type=Path, help="results directory")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=Path("report"),
        help="where to write tables/ and figures/ (default: %(default)s)",
    )
    parser.add_argument(
        "--sweep", metavar="NAME", default="", help="the sweep's name, or its grid's file (default: the only one)"
    )
    return parser


def _load(args: argparse.Namespace, *, compares: bool) -> Report:
    document.check_folder(args.out)
    found = report.load(args.results, args.sweep)
    found.check(existing(args.results))
    if compares and not found.comparisons.pooled:
        remedy = "Name one, baseline: {ordering: baseline}, say, and give the grid's file: --sweep GRID.yaml"
        raise UserError(f"{found.name}: {found.answer}", "" if found.sweep.baselines else remedy)
    return found


def _tell(found: Report, tables: Columns, note: str) -> None:
    print(f"{found.name}: {found.question}" if found.question else found.name)
    print(found.counts_in_words)
    for mixture in found.mixtures:
        complain(f"{found.name}: not known to be comparable, and pooled nevertheless: {mixture}.")
    for name, columns in tables.items():
        print()
        _print(found.tables[name].only(*columns) if columns else found.tables[name])
    print(f"\n{note}")


def _print(table: Table) -> None:
    if not table.rows:
        print(f"{table.title}: nothing to show.")
        return
    rows = [[text for text, _ in row] for row in table.texts()]
    content = empty_table(table.title)
    for column, texts in zip(table.columns, zip(*rows, strict=True), strict=True):
        # Titles fold to about the width of what stands below; of that, words do, and intervals never.
        title = textwrap.fill(column.title, max(_TITLE, *map(len, texts)), break_long_words=False)
        content.add_column(title, justify="left" if column.is_text else "right", no_wrap=not column.is_text)
    for row in rows:
        content.add_row(*row)
    print_table(console(), content)
    print(table.note)
