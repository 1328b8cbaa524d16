"""`icbench doctor`: whether what a sweep needs is there, a line for each, with the remedy."""

import argparse
from collections import Counter
from typing import TYPE_CHECKING

from icbench.commands import arguments

if TYPE_CHECKING:
    from icbench.commands.arguments import Commands


def add(commands: "Commands") -> None:
    parser = commands.add_parser("doctor", help="check this machine, the cluster and the directories before a sweep")
    arguments.results(parser)
    arguments.profile(parser)
    arguments.data(parser)
    arguments.json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from icbench import diagnosis, profile
    from icbench.console import console, print_json

    findings = diagnosis.examine(profile.load(args.profile), arguments.layout(args), args.data)
    if args.json:
        collected = [asdict(finding) for finding in findings]
        print_json(collected)
        return int(any(finding["verdict"] == "failed" for finding in collected))
    out, verdicts = console(), Counter[str]()
    for finding in findings:
        verdicts[finding.verdict] += 1
        remedy = f". {finding.remedy}" if finding.remedy else ""
        out.print(f"{finding.verdict:8}{finding.what}: {finding.words.rstrip('.')}{remedy}")
    out.print(", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()) + ".")
    return int(bool(verdicts["failed"]))
