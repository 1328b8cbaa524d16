"""What a process is to train while it is measured; without torch, so that who measures need not import it."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icbench.errors import UserError

if TYPE_CHECKING:
    from icbench.config import RunConfig

# What trains, by name: the function that makes it of a Task and images. Each imports what it takes, and nothing for the
# others. PLAIN is what they are compared with.
PLAIN = "plain"
OURS = ("icbench", "eager", "graph", "compiled")
ENGINES = {
    **dict.fromkeys(OURS, "icbench.bench.ours.prepare"),
    "streams": "icbench.bench.shared.Streams",
    "fused": "icbench.bench.shared.Stacked",
    PLAIN: "icbench.bench.plain.prepare",
}
# Likewise, what yields for one batch after another, once it is ready to be trained on, how many images it has.
INPUTS = {"icbench": "icbench.bench.ours.batches", PLAIN: "icbench.bench.plain.batches"}


@dataclass(frozen=True)
class Task:
    """A configuration, and by which of ENGINES it is trained on which images.

    data: the folder of data sets. train_images, test_images: at most so many. loader_workers: of the plain loop.
    together: how many trainings one process does at once, where the engine can.
    """

    engine: str
    config: "RunConfig"
    data: Path | None
    device: str
    train_images: int
    test_images: int
    loader_workers: int = 0
    together: int = 1


def configuration(**fields: Any) -> "RunConfig":
    """A configuration as a grid would have it. Raises UserError where its fields do not fit."""
    from icbench.resolve import parse_field, resolve
    from icbench.yamlfile import Mistake

    try:
        return resolve({name: parse_field(name, value, ()) for name, value in fields.items()})
    except Mistake as mistake:
        raise UserError(mistake.problem, mistake.remedy) from None


def recipe_of(dataset: str) -> str:
    """The recipe that a data set is measured with."""
    return "digits" if dataset == "digits" else "chen2019"


def data_option(parser: argparse.ArgumentParser) -> None:
    """`--data`, which has no default, so that it may also stand before a bench's name."""
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        default=argparse.SUPPRESS,
        help="where the data sets' .npz files are (default: $ICBENCH_DATA, else data)",
    )
