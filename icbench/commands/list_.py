"""`icbench list`: the names that a grid may use, each with its docstring's first line."""

import argparse
from typing import TYPE_CHECKING, Any

from icbench.commands import arguments

if TYPE_CHECKING:
    from icbench.commands.arguments import Commands


def add(commands: "Commands") -> None:
    from icbench.catalog import KINDS

    parser = commands.add_parser("list", help="list norms, orderings, data sets, recipes, optimisers")
    parser.add_argument(
        "kind", metavar="KIND", nargs="?", choices=KINDS, help=f"one of {', '.join(KINDS)} (default: all)"
    )
    forms = parser.add_mutually_exclusive_group()
    arguments.json(forms)
    forms.add_argument("--markdown", action="store_true", help="print a reference: formulas, options, what each needs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from icbench.catalog import KINDS
    from icbench.console import console, print_json, print_table, table

    kinds = [args.kind] if args.kind else KINDS
    if args.json:
        print_json({kind: _entries(kind) for kind in kinds})
        return 0
    if args.markdown:
        from icbench import markdown

        print("\n\n".join(markdown.reference(kind) for kind in kinds))
        return 0
    out = console()
    for kind in kinds:
        if kind != kinds[0]:
            out.print()
        entries = table(kind)
        entries.add_column("name", no_wrap=True)
        if any(entry["options"] for entry in _entries(kind)):
            entries.add_column("options")
        entries.add_column("what it is")
        for entry in _entries(kind):
            options = ", ".join(f"{name}: {value}" for name, value in entry["options"].items())
            entries.add_row(entry["name"], *([options] if len(entries.columns) == 3 else []), entry["summary"])
        print_table(out, entries)
    return 0


def _entries(kind: str) -> list[dict[str, Any]]:
    from icbench import catalog

    def defaults(name: str) -> dict[str, Any]:
        return {key: option.default for key, option in catalog.options(kind, name).items()}

    return [
        {"name": name, "summary": catalog.summary(kind, name), "options": defaults(name)}
        for name in catalog.names(kind)
    ]
