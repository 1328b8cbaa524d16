"""Input: images a second, ready to train on, beside a DataLoader of PIL images and torchvision's transforms.

CIFAR's way: all images on the device as they are, and a batch gathered, shifted, flipped and normalised at once.
ImageNet's way: packed photos, decoded, cropped and flipped by a thread a core.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from icbench.bench.findings import Column, Findings, Row, Table, Tell, spread
from icbench.bench.measure import Comparison, Spread, in_turn
from icbench.bench.task import Task, configuration, data_option, recipe_of
from icbench.console import plural
from icbench.errors import UserError, suggest
from icbench.machine import cores

if TYPE_CHECKING:
    from icbench.bench.children import Group

_DATASETS = ("cifar10", "cifar100", "digits")
_SETTLE_SECONDS = 0.1


@dataclass(frozen=True)
class Settings:
    """seconds: of each turn, `repeats` of which each side has. processes: of the whole machine; 0 is one a core.
    photos: how many are made up and decoded; 0 is none.
    """

    data: Path | None = None
    dataset: str = "cifar10"
    seconds: float = 2.0
    repeats: int = 5
    processes: int = 0
    photos: int = 512


SHORT = Settings(seconds=1.0, repeats=3, photos=256)
QUICK = Settings(dataset="digits", seconds=0.05, repeats=2, processes=1, photos=0)


def add_options(parser: argparse.ArgumentParser) -> None:
    data_option(parser)
    parser.add_argument("--dataset", metavar="NAME", help="cifar10 (default), cifar100 or digits")
    parser.add_argument("--processes", metavar="N", type=int, help="that read at once (default: one a core)")
    parser.add_argument("--photos", metavar="N", type=int, help="photos to decode (default: 512; 0: none)")
    parser.add_argument("--seconds", metavar="S", type=float, help="of each turn of small images (default: 2)")
    parser.add_argument("--repeats", metavar="N", type=int, help="turns of each side (default: 5)")


def check(settings: Settings) -> None:
    """Raise UserError unless all that is named exists."""
    if settings.dataset not in _DATASETS:
        problem = f"--dataset: there is no {settings.dataset!r} to read here."
        raise UserError(problem, suggest(settings.dataset, _DATASETS))
    for option in ("seconds", "repeats"):
        if getattr(settings, option) <= 0:
            raise UserError(f"--{option} {getattr(settings, option)} should be above 0.")
    for option in ("processes", "photos"):
        if getattr(settings, option) < 0:
            raise UserError(f"--{option} {getattr(settings, option)} should not be negative.")


def expected_seconds(settings: Settings) -> float:
    photos = settings.photos * (0.02 + 2 * settings.repeats * 0.007)
    return 5 * (3.0 + settings.repeats * (settings.seconds + 0.2)) + photos


def measure(settings: Settings, tell: Tell) -> Findings:
    """Every way to feed a training is a function of this list: ratios first, all of them."""
    found = Findings()
    for part in (_small_images, _photos):
        found += part(settings, tell)
    return found


def _photos(settings: Settings, tell: Tell) -> Findings:
    """One core, and the machine, each with as many threads or workers of the DataLoader."""
    if not settings.photos:
        return Findings()
    from icbench.bench import decode

    measured = decode.measure(settings.photos, rounds=settings.repeats, tell=lambda line: tell(f"data: {line}"))
    comparisons = [
        Comparison.of_rates(f"photos, {plural(each.cores, 'core')}", "images/s", each.ours, each.peer)
        for each in measured
    ]
    what = "random JPEGs of 500 x 375 pixels and about 100 kB, cropped to 224 x 224; icbench's are packed beforehand"
    notes = [
        f"photos: {what}; the other is torchvision's ImageFolder and a DataLoader.",
        "icbench's photos are resized to a short side of 256 beforehand, as its shards are, and so have fewer pixels "
        "to decode: part of the ratio is that.",
    ]
    return Findings(comparisons, [], notes)


def _small_images(settings: Settings, tell: Tell) -> Findings:
    """One core, and the machine: each side with a process a core, or the DataLoader with a worker a core."""
    from icbench.bench.images import described

    name = settings.dataset
    tell(f"data: {name}")
    with ExitStack() as stack:
        turns = {}
        for side, group in _groups(settings):
            stack.enter_context(group)
            group.ask("read", 0.0)
            turns[side] = partial(_turn, group, settings.seconds)
        rates = in_turn(turns, settings.repeats)
    found = Findings(notes=[f"{name}: {described(name, settings.data)}. Each process has one thread."])
    own, plain = rates["icbench, 1 process"], rates["plain loop, 1 process"]
    found.comparisons.append(Comparison.of_rates(f"input {name}, a core", "images/s", own, plain))
    if (processes := settings.processes or cores()) > 1:
        others = {side: each for side, each in rates.items() if side.startswith("plain loop") and each is not plain}
        best = max(others, key=lambda side: Spread.of(others[side]).median)
        what = f"input {name}, {processes} cores ({best})"
        mine = rates[f"icbench, {processes} processes"]
        found.comparisons.append(Comparison.of_rates(what, "images/s", mine, others[best]))
    rows: list[Row] = [{"by": side, "images_per_second": Spread.of(each)} for side, each in rates.items()]
    columns = (Column("by", "by"), Column("images_per_second", "images/s", spread))
    found.tables.append(Table("input", f"input of {name}", columns, rows))
    return found


def _groups(settings: Settings) -> Iterator[tuple[str, "Group"]]:
    from icbench import catalog
    from icbench.bench.children import Group

    config = configuration(dataset=settings.dataset, depth=8, ordering="baseline", recipe=recipe_of(settings.dataset))
    images = catalog.load("datasets", settings.dataset).TRAIN_IMAGES

    def group(engine: str, processes: int, loader: int = 0) -> "Group":
        task = Task(engine, config, settings.data, "cpu", images, 1, loader)
        return Group(processes, 1, "icbench.bench.engines.Input", task)

    yield "icbench, 1 process", group("icbench", 1)
    yield "plain loop, 1 process", group("plain", 1)
    if (processes := settings.processes or cores()) > 1:
        yield f"icbench, {processes} processes", group("icbench", processes)
        yield f"plain loop, {processes} processes", group("plain", processes)
        yield f"plain loop, {processes} loaders", group("plain", 1, processes)


def _turn(group: "Group", seconds: float) -> float:
    time.sleep(_SETTLE_SECONDS)
    return float(sum(images / took for images, took in group.ask("read", seconds)))
