"""`icbench data`: make the files of data sets that icbench does not ship."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from icbench.commands import arguments

if TYPE_CHECKING:
    from icbench.commands.arguments import Commands


def add(commands: "Commands") -> None:
    parser = commands.add_parser("data", help="prepare data sets")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    prepare = actions.add_parser(
        "prepare", help="make DIR/NAME.npz from a download, archives or another .npz, or DIR/NAME/ from photos"
    )
    prepare.add_argument("name", metavar="NAME", help="cifar10, cifar100 or imagenet")
    prepare.add_argument(
        "--from",
        dest="source",
        metavar="DIR_OR_FILE",
        type=Path,
        help="of the CIFARs: archives (python or binary version, packed or not) or a .npz; default: download through "
        "torchvision. Of imagenet, which has no default: the folder with train/CLASS/*.JPEG and val/CLASS/*.JPEG; its "
        "images are resized and packed by all cores",
    )
    arguments.data(prepare)
    arguments.json(prepare)
    prepare.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from icbench.console import print_json
    from icbench.data.prepare import prepare

    file = prepare(args.name, args.source, args.data, tell=lambda line: print(line, file=sys.stderr, flush=True))
    if args.json:
        print_json({"name": args.name, "file": str(file)})
    else:
        print(f"{args.name} is ready: {file}")
    return 0
