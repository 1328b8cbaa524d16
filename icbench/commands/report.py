"""`icbench report`: the results of a sweep or a search as a page, tables and figures fit to publish."""

import argparse
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from icbench.commands import arguments
from icbench.console import complain
from icbench.errors import UserError, suggest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from icbench.commands.arguments import Commands
    from icbench.layout import Layout
    from icbench.report.document import Document


def add(commands: "Commands") -> None:
    parser = commands.add_parser("report", help="make a page, tables and figures of the results of a sweep or a search")
    arguments.results(parser)
    parser.add_argument(
        "--sweep", metavar="NAME", help="the name or the file of a sweep or a search (default: each of the directory)"
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
    from icbench.report import comparability
    from icbench.report.document import check_folder

    layout = results.existing(args.results)
    check_folder(args.out)
    every = _documents(layout, args)
    documents = [document for document in every if not document.is_empty]
    if not documents:
        every[0].check(layout)
    for document in every:
        if document.is_empty:
            complain(f"{document.name}: nothing is finished, so it has no page.")
        elif args.strict:
            comparability.refuse(document.mixtures, document.name)
    pages = _write(args.out, documents)
    _tell(documents, pages, as_json=args.json)
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


def _documents(layout: "Layout", args: argparse.Namespace) -> "list[Document]":
    """The reports that are asked for: of sweeps, and of searches."""
    from icbench.report import evidence
    from icbench.report.searches import document as searches

    names = sorted({*evidence.sweep_names(layout), *searches.names(layout)})
    if args.sweep is None and not names:
        remedy = "Name the grid's file: --sweep GRID.yaml. Or run one: icbench sweep GRID"
        raise UserError(f"{layout.root}/ holds no sweep.", remedy)
    if args.sweep and args.sweep not in names and not args.sweep.endswith((".yaml", ".yml")):
        raise UserError(f"there is no sweep {args.sweep!r} in {layout.root}/.", suggest(args.sweep, names))
    return [_document(layout, name, args) for name in ([args.sweep] if args.sweep else names)]


def _document(layout: "Layout", name: str, args: argparse.Namespace) -> "Document":
    from icbench.report import document, evidence
    from icbench.report.searches import document as searches

    if searches.is_search(layout, name):
        return searches.load(layout, name)
    return document.load(layout, evidence.find_sweep(layout, name), args.target, args.detect)


def _write(folder: Path, documents: "Sequence[Document]") -> list[Path]:
    """Write the page of each, and of several the one that leads to them, which comes first."""
    if len(documents) == 1:
        return [documents[0].write(folder)]
    from icbench.report.page import index

    names = {document.name for document in documents}
    pages = [document.write(folder / document.name, beside=names) for document in documents]
    return [index(folder, documents), *pages]


def _tell(documents: "Sequence[Document]", pages: list[Path], *, as_json: bool) -> None:
    if as_json:
        from icbench.console import print_json

        print_json([document.record() for document in documents])
        return
    for document in documents:
        print(f"{document.name}: {document.question}" if document.question else document.name)
        print(f"{document.answer}\n{document.counts_in_words}")
        if document.theory:
            print(f"{document.theory.name}, theory.html: {document.theory.answer}")
        for mixture in document.mixtures:
            complain(f"{document.name}: not known to be comparable, and pooled nevertheless: {mixture}.")
    print(f"{pages[0]} (figures/ and tables/ beside {'each page' if len(documents) > 1 else 'it'})")
