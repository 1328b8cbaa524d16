"""`icbench bench`: what this machine does, measured: ratios first, then tables; for people and for programs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icbench import bench

if TYPE_CHECKING:
    from icbench.bench.findings import Findings, Table
    from icbench.commands.arguments import Commands


def add(commands: "Commands") -> None:
    from icbench.bench.task import data_option

    parser = commands.add_parser("bench", help="measure this machine: training, data, tables of results, starting")
    parser.set_defaults(run=run)
    _add_common(parser)
    data_option(parser)
    names = parser.add_subparsers(title="benches (default: a short look at all)", metavar="BENCH", dest="bench")
    for name in bench.NAMES:
        module = bench.load(name)
        summary = str(module.__doc__).split("\n", 1)[0]
        each = names.add_parser(name, help=summary.rstrip("."), description=summary, argument_default=argparse.SUPPRESS)
        _add_common(each)
        module.add_options(each)


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Options that may stand before a bench's name or behind it, so that none has a default."""
    parser.add_argument("--quick", action="store_true", default=argparse.SUPPRESS, help="only try that it works")
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, default=argparse.SUPPRESS, help="also write the JSON into a file"
    )


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from icbench.bench.conditions import conditions, in_words, warning
    from icbench.console import complain, console, duration, print_json
    from icbench.files import write_json

    given = vars(args)
    as_json, out = given.get("json", False), _target(given.get("out"))
    names = [args.bench] if args.bench else bench.possible_names()
    chosen = [(name, bench.load(name), _settings(name, given)) for name in names]
    for _, module, settings in chosen:
        module.check(settings)
    where = conditions(args.words)
    if words := warning(where):
        complain(words)
    seconds = sum(module.expected_seconds(settings) for _, module, settings in chosen)
    complain(f"this takes about {duration(seconds)}; leave the machine alone meanwhile")
    record: dict[str, Any] = {"conditions": where, "benches": {}}
    for name, module, settings in chosen:
        found = module.measure(settings, complain)
        record["benches"][name] = {"settings": _plain(asdict(settings)), **found.record()}
        if not as_json:
            _print(name, found)
    if as_json:
        print_json(record)
    else:
        console().print(in_words(where))
    if out:
        write_json(out, record)
    return 0


def _target(out: Path | None) -> Path | None:
    """The file to write to. Raises UserError now, not after minutes, where there can be none."""
    from icbench.errors import UserError

    if out and (out.is_dir() or not out.parent.is_dir()):
        problem = "this is a directory." if out.is_dir() else "there is no such directory."
        raise UserError(problem, "Give --out a file.", file=out if out.is_dir() else out.parent)
    return out


def _settings(name: str, given: dict[str, Any]) -> Any:
    """The bench's settings, with what was typed in place of what they would be."""
    from dataclasses import fields, replace

    module = bench.load(name)
    base = module.QUICK if given.get("quick") else module.Settings() if given["bench"] else module.SHORT
    typed = {each.name: given[each.name] for each in fields(base) if each.name in given}
    return replace(base, **{key: tuple(value) if isinstance(value, list) else value for key, value in typed.items()})


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()}


def _print(name: str, found: "Findings") -> None:
    from icbench.bench.findings import spread
    from icbench.console import console, print_table, table

    out = console()
    ratios = table(f"{name}: above 1 where icbench is better")
    for title in ("what", "unit", "icbench", "the other", "ratio", "n"):
        ratios.add_column(title, justify="left" if title in ("what", "unit") else "right", no_wrap=True)
    for each in found.comparisons:
        figures = (spread(each.ours), spread(each.other), spread(each.ratio), str(each.ratio.n))
        ratios.add_row(each.what, each.unit, *figures)
    if found.comparisons:
        print_table(out, ratios)
        out.print()
    for each_table in found.tables:
        print_table(out, _rich(each_table))
        out.print()
    for note in found.notes:
        out.print(note)
    out.print()


def _rich(content: "Table") -> Any:
    from icbench.console import table

    shown = table(content.title)
    for column in content.columns:
        words = all(isinstance(row[column.key], str | dict) for row in content.rows)
        shown.add_column(column.title, justify="left" if words else "right", no_wrap=True)
    for row in content.rows:
        values = ((column, row[column.key]) for column in content.columns)
        shown.add_row(*(column.absent if value is None else column.write(value) for column, value in values))
    return shown
