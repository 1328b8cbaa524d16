"""`icbench report`: a sweep's results as a page, tables and figures fit to publish."""

import argparse
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from icbench.commands import arguments
from icbench.console import complain
from icbench.errors import UserError

if TYPE_CHECKING:
    from icbench.commands.arguments import Commands
    from icbench.grid import Sweep
    from icbench.layout import Layout
    from icbench.report.document import Report


def add(commands: "Commands") -> None:
    parser = commands.add_parser("report", help="make a page, tables and figures of a sweep's results")
    arguments.results(parser)
    parser.add_argument(
        "--sweep", metavar="NAME", help="the sweep's name, or its grid's file (default: each sweep of the directory)"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("report"), help="where to write (default: %(default)s)"
    )
    parser.add_argument(
        "--target",
        metavar="PERCENT",
        type=_percent,
        help="measure speed by the epochs to this accuracy (default: the median final one of the baseline's seeds)",
    )
    parser.add_argument(
        "--detect",
        metavar="POINTS",
        type=_percent,
        default=0.005,
        help="the difference, in percentage points, to tell the seeds needed for (default: 0.5)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse runs that differ in code, device, precision, world size or torch"
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    arguments.json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from icbench import results
    from icbench.report import comparability, document

    layout = results.existing(args.results)
    document.check_folder(args.out)
    sweeps = _sweeps(layout, args.sweep)
    reports = [document.load(layout, sweep, args.target, args.detect) for sweep in sweeps]
    finished = [report for report in reports if report.evidence.runs["run_id"]]
    if not finished:
        document.check_finished(reports[0], layout)
    for report in reports:
        if report not in finished:
            complain(f"{report.name}: no run is finished, so it has no page.")
        elif args.strict:
            comparability.refuse(report.mixtures, report.name)
    reports = finished
    pages = [report.write(args.out / report.name if len(reports) > 1 else args.out) for report in reports]
    if len(reports) > 1:
        from icbench.report.page import index

        pages.insert(0, index(args.out, reports))
    _tell(reports, pages, as_json=args.json)
    if args.open:
        webbrowser.open(pages[0].absolute().as_uri())
    return 0


def _percent(text: str) -> float:
    """Per cent, or percentage points, as a fraction."""
    with suppress(ValueError):
        value = float(text.removesuffix("%"))
        if 0 < value <= 100:
            return value / 100
    raise argparse.ArgumentTypeError(f"{text} should be a number above 0 and at most 100")


def _sweeps(layout: "Layout", name: str | None) -> "list[Sweep]":
    from icbench.report import evidence

    names = [name] if name else evidence.sweep_names(layout)
    if not names:
        remedy = "Name the grid's file: --sweep GRID.yaml. Or run one: icbench sweep GRID"
        raise UserError(f"{layout.root}/ holds no sweep.", remedy)
    return [evidence.find_sweep(layout, each) for each in names]


def _tell(reports: "list[Report]", pages: list[Path], *, as_json: bool) -> None:
    if as_json:
        from icbench.console import print_json

        print_json([_record(report) for report in reports])
        return
    for report in reports:
        print(f"{report.name}: {report.question}" if report.question else report.name)
        print(f"{report.answer}\n{report.counts_in_words}")
        for mixture in report.mixtures:
            complain(f"{report.name}: not known to be comparable, and pooled nevertheless: {mixture}.")
    print(f"{pages[0]} (figures/ and tables/ beside {'each page' if len(reports) > 1 else 'it'})")


def _record(report: "Report") -> dict[str, object]:
    import math

    def plain(value: object) -> object:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {
        "name": report.name,
        "question": report.question,
        "answer": report.answer,
        "runs": report.evidence.counts(),
        "mixtures": [
            {"condition": each.condition, "values": dict(each.values), "contrasts": each.contrasts}
            for each in report.mixtures
        ],
        "tables": {
            name: [{key: plain(value) for key, value in record.items()} for record in table.records()]
            for name, table in report.tables.items()
        },
    }
