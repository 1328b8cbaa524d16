"""The learning curve of a run under way, or of one that was left: what its epochs so far came to."""

import json
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from icbench.layout import RunFiles


class Epoch(Protocol):
    """What is kept of an epoch, counted from 1; seconds: of its training."""

    @property
    def epoch(self) -> int: ...
    @property
    def test_accuracy(self) -> float: ...
    @property
    def seconds(self) -> float: ...


class Curve(NamedTuple):
    """The accuracy after each epoch, from the first on, and the seconds of training that all of them took."""

    accuracies: list[float]
    seconds: float


def write_curve(files: RunFiles, epochs: Iterable[Epoch]) -> None:
    """Add epochs to a run's curve; only the worker that holds the run does."""
    lines = [
        json.dumps({"epoch": each.epoch, "test_accuracy": each.test_accuracy, "seconds": each.seconds})
        for each in epochs
    ]
    with files.curve.open("a", encoding="utf-8") as stream:
        stream.write("".join(f"{line}\n" for line in lines))


def read_curve(files: RunFiles) -> Curve:
    """The curve so far; empty of a run that has not begun, or is finished. A line that is being written is left out."""
    try:
        lines = files.curve.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return Curve([], 0.0)
    epochs = [json.loads(line) for line in lines if line.endswith("\n")]
    return Curve([each["test_accuracy"] for each in epochs], sum(each["seconds"] for each in epochs))
