"""`icbench show`: one run, whole: configuration, figures, epochs, where it failed."""

import argparse
import json
import math
from datetime import datetime
from typing import TYPE_CHECKING, Any

from icbench.commands import arguments

if TYPE_CHECKING:
    import pyarrow as pa

    from icbench.commands.arguments import Commands
    from icbench.layout import Layout

_LOG_LINES = 15


def add(commands: "Commands") -> None:
    parser = commands.add_parser("show", help="show one run: configuration, figures, epochs, failure")
    parser.add_argument("run_id", metavar="RUN", help="a run id, or its beginning")
    arguments.results(parser)
    arguments.json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from icbench import imports, monitor, results

    imports.arrow_alone()
    layout = results.existing(args.results)
    run_id = monitor.find(layout, args.run_id)
    rows, epochs = (_records(results.read(layout, table, [run_id])) for table in ("runs", "epochs"))
    if not rows:
        _show_unfinished(layout, run_id, as_json=args.json)
    else:
        row = {name: value for name, value in rows[0].items() if name != "test_correct"}
        row["config"], row["norm_options"] = json.loads(row["config"]), json.loads(row["norm_options"])
        _show_finished(row, epochs, as_json=args.json)
    return 0


def _records(rows: "pa.Table") -> list[dict[str, Any]]:
    """The rows as JSON values: times in ISO 8601; null for what is not finite."""

    def plain(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.isoformat()
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return [{name: plain(value) for name, value in row.items()} for row in rows.to_pylist()]


def _show_finished(row: dict[str, Any], epochs: list[dict[str, Any]], *, as_json: bool) -> None:
    from icbench.console import console, print_json, print_table, table

    curve_rows = [{name: value for name, value in epoch.items() if name != "run_id"} for epoch in epochs]
    if as_json:
        print_json(row | {"epoch_rows": curve_rows})
        return
    out = console()
    config = row.pop("config")
    for title, fields in (("", row), ("recipe", config["recipe"])):
        listing = table(title)
        listing.add_column("field", no_wrap=True)
        listing.add_column("value")
        for key, value in fields.items():
            if value is not None:
                listing.add_row(key, _in_words(value))
        print_table(out, listing)
        out.print()
    curve = table("epochs")
    names = [name for name in curve_rows[0] if name != "test_top5_accuracy" or row[name] is not None]
    for name in names:
        curve.add_column(name.replace("_", " "), justify="right")
    for epoch in curve_rows:
        curve.add_row(*(_in_words(epoch[name]) for name in names))
    print_table(out, curve)


def _in_words(value: Any) -> str:
    """A value for people: floats to four digits; `--json` has them all."""
    match value:
        case None:
            return "not finite"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case dict():
            return ", ".join(f"{name} {_in_words(each)}" for name, each in value.items())
        case list():
            return json.dumps(value)
    return str(value)


def _show_unfinished(layout: "Layout", run_id: str, *, as_json: bool) -> None:
    from icbench import monitor
    from icbench.console import console, print_json

    beat, failure, log = monitor.beat(layout, run_id), monitor.failure(layout, run_id), layout.run(run_id).log
    state = monitor.state(layout, run_id)
    if as_json:
        more = {"kind": failure.kind, "message": failure.message, "traceback": failure.traceback} if failure else {}
        print_json(
            {"run_id": run_id, "state": state, "epochs_done": beat.done if beat else None, "log": str(log), **more}
        )
        return
    out = console()
    out.print(f"run {run_id}: {state}" + (f", after {beat.done:.1f} of {beat.epochs} epochs" if beat else ""))
    if failure:
        out.print(f"{failure.kind}: {failure.message}\n{failure.traceback}".rstrip())
    if log.exists():
        lines = log.read_text(encoding="utf-8").splitlines()
        out.print(f"the end of its log, {log}:")
        out.print("\n".join(f"  {line}" for line in lines[-_LOG_LINES:]))
