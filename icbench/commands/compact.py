"""`icbench compact`: put the finished runs' small files into one file a table."""

import argparse
from typing import TYPE_CHECKING

from icbench.commands import arguments

if TYPE_CHECKING:
    from icbench.commands.arguments import Commands


def add(commands: "Commands") -> None:
    parser = commands.add_parser("compact", help="put finished runs' files into one file a table, quick to read")
    arguments.results(parser)
    arguments.json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from icbench import imports, results
    from icbench.console import plural, print_json

    imports.arrow_alone()
    layout = results.existing(args.results)
    count = results.compact(layout)
    tables = (*results.TABLES, results.PROBES)
    files = [str(file) for table in tables if (file := layout.compacted_table(table)).exists()]
    if args.json:
        print_json({"runs": count, "files": files})
    else:
        print(f"{plural(count, 'finished run')} in {', '.join(files[:-1])} and {files[-1]}. The small files stay.")
    return 0
