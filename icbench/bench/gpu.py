"""One GPU: a run's steps one by one, from a graph, compiled; then several runs at once, in every way there is.

Full runs an hour of a net by the paper's recipe, beside the plain eager loop, which each way takes turns with. Several
runs share the GPU as processes (one after another in slices of time, or together by NVIDIA's MPS), as streams of one
process, or as one net whose weights are stacked.
"""

import argparse
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from icbench import catalog, mps
from icbench.bench.children import Group
from icbench.bench.findings import Column, Findings, Row, Table, Tell, digits, spread
from icbench.bench.measure import Comparison, Spread, in_turn
from icbench.bench.task import Task, configuration, data_option, recipe_of
from icbench.config import RunConfig
from icbench.errors import IcbenchError, UserError, suggest
from icbench.machine import visible_gpus

_TEST_IMAGES = 1000
_DEVICES = ("auto", "cuda", "cpu")
_PRECISIONS = ("float32", "tf32", "bfloat16")


@dataclass(frozen=True)
class Settings:
    """depth: of a ResNet of basic blocks. together: how many runs share the GPU. compiled: whether that is
    tried too, which takes a minute. seconds: of a turn."""

    data: Path | None = None
    dataset: str = "cifar10"
    depth: int = 110
    ordering: str = "relu-ic-conv"
    precision: str = "tf32"
    device: str = "auto"
    together: tuple[int, ...] = ()
    compiled: bool = True
    seconds: float = 5.0
    repeats: int = 3

    @property
    def torch_device(self) -> str:
        return "cpu" if self.device == "cpu" else "cuda"

    @property
    def numbers(self) -> tuple[int, ...]:
        return self.together or (2, 4, 8, 16)


SHORT = Settings(together=(4,), seconds=3.0, repeats=2)
QUICK = Settings(
    dataset="digits", depth=8, precision="float32", device="cpu", together=(2,), compiled=False, seconds=0.05, repeats=2
)


class _Way(NamedTuple):
    """A way to train: the engine, the runs it trains at once in a process, the processes, and whether by MPS."""

    name: str
    engine: str
    together: int = 1
    processes: int = 1
    mps: bool = False

    @property
    def runs(self) -> int:
        return self.together * self.processes


def add_options(parser: argparse.ArgumentParser) -> None:
    data_option(parser)
    parser.add_argument("--dataset", metavar="NAME", help="cifar10 (default), cifar100 or digits")
    parser.add_argument("--depth", metavar="N", type=int, help="of the ResNet (default: 110)")
    parser.add_argument("--ordering", metavar="NAME", help="default: relu-ic-conv")
    parser.add_argument("--precision", choices=_PRECISIONS, help="default: tf32")
    parser.add_argument("--device", choices=_DEVICES, help="cpu: only to try the ways that are possible there")
    parser.add_argument(
        "--together", metavar="K", type=int, action="append", help="runs that share the GPU (default: 2, 4, 8, 16)"
    )
    parser.add_argument("--seconds", metavar="S", type=float, help="of each turn (default: 5)")
    parser.add_argument("--repeats", metavar="N", type=int, help="turns of each way (default: 3)")


def check(settings: Settings) -> None:
    """Raise UserError unless there is a GPU, and what is named exists and fits."""
    if settings.dataset not in (valid := ("cifar10", "cifar100", "digits")):
        raise UserError(f"--dataset: there is no {settings.dataset!r} here.", suggest(settings.dataset, valid))
    for option in ("seconds", "repeats"):
        if getattr(settings, option) <= 0:
            raise UserError(f"--{option} {getattr(settings, option)} should be above 0.")
    if min(settings.numbers) < 2:
        raise UserError(f"--together {min(settings.numbers)}: sharing begins with 2.")
    if settings.torch_device == "cpu" and settings.precision == "tf32":
        raise UserError("--precision tf32 needs an NVIDIA GPU.", "With --device cpu: --precision float32.")
    if settings.torch_device == "cuda" and not visible_gpus():
        raise UserError("this machine has no NVIDIA GPU.", "On a CPU: icbench bench train.")
    _configuration(settings)


def possible() -> bool:
    """Whether there is anything to measure here."""
    return bool(visible_gpus())


def expected_seconds(settings: Settings) -> float:
    """Starting a process takes some seconds, recording a graph less, compiling a minute."""
    ways = list(_ways(settings))
    starts = sum(10 + 2 * way.runs + 60 * (way.engine == "compiled") for way in ways)
    return starts + len(ways) * settings.repeats * 2 * (settings.seconds + 1)


def measure(settings: Settings, tell: Tell) -> Findings:
    """Each way's images a second beside the plain loop's, and its full runs an hour."""
    from icbench.bench.images import described

    found = Findings(notes=[f"{settings.dataset}: {described(settings.dataset, settings.data)}."])
    rows: list[Row] = []
    config = _configuration(settings)
    label = f"resnet-{settings.depth} {config.ordering}, {settings.precision}, batch {config.recipe.batch_size}"
    with _group(settings, _Way("plain loop", "plain")) as plain:
        plain.ask("first_step")
        for way in _ways(settings):
            tell(f"gpu: {label}: {way.name}")
            try:
                rates, memory = _compared(settings, way, plain)
            except IcbenchError as error:  # too little memory for so many, say: the others can be measured all the same
                found.notes.append(f"{way.name} failed: {' '.join(str(error).split())[-300:]}")
                continue
            found.comparisons.append(Comparison.of_rates(way.name, "images/s", rates[way.name], rates["plain loop"]))
            rows.append(_row(way, config, Spread.of(rates[way.name]), memory))
    found.tables.append(Table("gpu", label, _COLUMNS, rows))
    found.notes += _NOTES
    if not shutil.which(mps.CONTROL):
        found.notes.append(f"MPS was not tried: there is no {mps.CONTROL} here.")
    return found


def _ways(settings: Settings) -> Iterator[_Way]:
    """All that can be tried here, alone and shared."""
    gpu = settings.torch_device == "cuda"
    yield _Way("eager", "eager")
    if gpu:
        yield _Way("graph", "graph")
    if settings.compiled:
        yield _Way("compiled graph" if gpu else "compiled", "compiled")
    best = "graph" if gpu else "eager"
    for runs in settings.numbers:
        yield _Way(f"{runs} processes", best, processes=runs)
        if gpu and shutil.which(mps.CONTROL):
            yield _Way(f"{runs} processes, MPS", best, processes=runs, mps=True)
        if gpu:
            yield _Way(f"{runs} streams", "streams", together=runs)
        yield _Way(f"{runs} fused", "fused", together=runs)


def _compared(settings: Settings, way: _Way, plain: Group) -> tuple[dict[str, list[float]], int]:
    """Images a second of the way and of the plain loop, in turn, and the bytes of memory of all the way's runs."""
    with ExitStack() as stack:
        stack.enter_context(_service(way))
        group = stack.enter_context(_group(settings, way))
        group.ask("first_step")
        sides = {way.name: group, "plain loop": plain}
        turns = {name: partial(_turn, each, settings.seconds) for name, each in sides.items()}
        return in_turn(turns, settings.repeats), sum(group.ask("memory"))


@contextmanager
def _service(way: _Way) -> Iterator[None]:
    if not way.mps:
        yield
        return
    with mps.pipe_folder() as folder, mps.serving(folder) as environment:
        os.environ.update(environment)
        try:
            yield
        finally:
            for name in environment:
                del os.environ[name]


def _turn(group: Group, seconds: float) -> float:
    answers: list[tuple[int, float]] = group.ask("train", seconds)
    return sum(images / taken for images, taken in answers)


def _group(settings: Settings, way: _Way) -> Group:
    config = _configuration(settings)
    images = catalog.load("datasets", config.dataset).TRAIN_IMAGES
    task = Task(
        way.engine, config, settings.data, settings.torch_device, images, _TEST_IMAGES, loader_workers=2,
        together=way.together,
    )  # fmt: skip
    return Group(way.processes, 1, "icbench.bench.engines.Measured", task)


def _configuration(settings: Settings) -> RunConfig:
    return configuration(
        dataset=settings.dataset,
        depth=settings.depth,
        ordering=settings.ordering,
        recipe=recipe_of(settings.dataset),
        precision=settings.precision,
    )


def _row(way: _Way, config: RunConfig, rate: Spread, memory: int) -> Row:
    images = catalog.load("datasets", config.dataset).TRAIN_IMAGES * config.recipe.epochs
    return {
        **way._asdict(),
        "runs": way.runs,
        "images_per_second": rate,
        "epoch_seconds": way.runs * images / config.recipe.epochs / rate.median,
        "runs_per_hour": 3600 * rate.median / images,
        "memory": memory,
    }


_COLUMNS = (
    Column("name", "way"),
    Column("runs", "runs"),
    Column("images_per_second", "images/s", spread),
    Column("epoch_seconds", "epoch s", digits),
    Column("runs_per_hour", "full runs\nan hour", digits),
    Column("memory", "memory MB", lambda size: digits(size / 1e6)),
)
_NOTES = [
    "images/s, full runs an hour (all epochs of the recipe, without evaluations) and memory: of all runs together.",
    "the plain loop is one run, alone on the GPU while it has its turn.",
    "fused: the step is not recorded as a graph, so that it pays for Python, which graph and streams do not.",
    "streams of one process draw from one generator as they come, so that runs could not be repeated: for timing only.",
]
