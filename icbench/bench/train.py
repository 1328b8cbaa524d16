"""Training: images a second of each net and ordering, beside the plain eager loop that public trainers have.

Both train the same net by the same recipe on the same images, in turn, in processes of their own: as a local sweep does
it, a process a core with one thread each, and one process alone with all cores.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from icbench.bench.findings import Column, Findings, Row, Table, Tell, digits, percent, spread
from icbench.bench.measure import Comparison, Spread, in_turn
from icbench.bench.task import OURS, PLAIN, Task, configuration, data_option, recipe_of
from icbench.console import plural
from icbench.errors import UserError, suggest
from icbench.machine import cores, device, visible_gpus

if TYPE_CHECKING:
    from icbench.bench.children import Group
    from icbench.config import RunConfig

_NETS = tuple(f"resnet-{depth}" for depth in (8, 14, 20, 32, 44, 56, 110))
# What IC orderings are measured with as well, where there is such a procedure.
_FAST_DROPOUT = "fast-dropout"
# The plain loop has no other; nobody trains like that.
_PRECISIONS = ("float32", "tf32", "bfloat16")
LAYOUTS = ("workers", "alone", "both")
DEVICES = ("auto", "cpu", "cuda")
# Of a training step, by multiply-adds of a forward pass: 2 for each, and backward takes twice as many as forward.
_OPERATIONS = 6
# What is timed of an evaluation; the rest takes as long.
_TEST_IMAGES = 1000
# The workers of its DataLoader that the plain loop may choose from; trainers for CIFAR mostly have 2.
_LOADERS = {"cpu": (0, 2), "cuda": (2, 4)}
# After its turn a DataLoader fills its queues.
_SETTLE_SECONDS = 0.1
_START_SECONDS = 4.0


@dataclass(frozen=True)
class Settings:
    """net: without any, resnet-20, and on a GPU resnet-110 as well. batch: 0 is the recipe's. layout: as a local sweep
    has it, one process alone with all cores, or both. workers: 0 is a core's each, or 1 on a GPU. seconds: of a turn.
    loaders: numbers of workers for the plain loop to choose from; without any, 0 and 2.
    """

    data: Path | None = None
    net: tuple[str, ...] = ()
    ordering: tuple[str, ...] = ("baseline", "relu-ic-conv", "ic-conv-relu", "conv-relu-ic")
    engine: tuple[str, ...] = ("icbench",)
    procedure: tuple[str, ...] = ()
    dataset: str = "cifar10"
    batch: int = 0
    precision: str = "float32"
    device: str = "auto"
    layout: str = "both"
    workers: int = 0
    threads: int = 1
    seconds: float = 3.0
    repeats: int = 5
    phase_steps: int = 5
    loaders: tuple[int, ...] = ()

    @property
    def torch_device(self) -> str:
        return device(self.device)

    @property
    def nets(self) -> tuple[str, ...]:
        return self.net or (("resnet-20", "resnet-110") if self.torch_device == "cuda" else ("resnet-20",))

    def layouts(self) -> "list[Layout]":
        workers = self.workers or (1 if self.torch_device == "cuda" else max(1, cores() // self.threads))
        packed, alone = Layout(workers, self.threads), Layout(1, cores())
        chosen = {"workers": [packed], "alone": [alone], "both": [packed, alone]}[self.layout]
        # A GPU's work is the same whatever the CPU's threads are.
        return chosen[:1] if packed == alone or self.torch_device == "cuda" else chosen


SHORT = Settings(ordering=("baseline", "relu-ic-conv"), layout="workers", seconds=1.5, repeats=3, phase_steps=3)
QUICK = Settings(
    net=("resnet-8",),
    ordering=("relu-ic-conv",),
    dataset="digits",
    layout="workers",
    workers=1,  # of one thread: several would wait for one another, spinning, where others are at work
    seconds=0.05,
    repeats=2,
    phase_steps=2,
    loaders=(0,),
)


class Layout(NamedTuple):
    """How many processes train at the same time, and the CPU threads of each."""

    processes: int
    threads: int

    def __str__(self) -> str:
        return f"{self.processes} x {plural(self.threads, 'thread')}"


@dataclass
class _Side:
    """One of those that are compared, and what is found of it. rates: images a second of all processes together."""

    engine: str
    task: Task
    group: "Group"
    start: float = 0.0
    rates: list[float] = field(default_factory=list)


def add_options(parser: argparse.ArgumentParser) -> None:
    data_option(parser)
    parser.add_argument("--net", metavar="NET", action="append", help="such as resnet-20 (its default), resnet-110")
    parser.add_argument("--ordering", metavar="NAME", action="append", help="default: baseline and three IC orderings")
    parser.add_argument("--engine", choices=OURS, action="append", help="default: icbench")
    parser.add_argument(
        "--procedure",
        metavar="NAME",
        action="append",
        help="also measure icbench with this procedure (default: fast-dropout in IC orderings, if there is one)",
    )
    parser.add_argument("--dataset", metavar="NAME", help="cifar10 (default), cifar100 or digits")
    parser.add_argument("--batch", metavar="N", type=int, help="the batch size (default: the recipe's)")
    parser.add_argument("--precision", choices=_PRECISIONS)
    parser.add_argument("--device", choices=DEVICES)
    parser.add_argument("--layout", choices=LAYOUTS, help="one worker a core, one alone with all cores, or both")
    parser.add_argument("--workers", metavar="N", type=int, help="processes that train at once (default: one a core)")
    parser.add_argument("--threads", metavar="N", type=int, help="CPU threads of each worker (default: 1)")
    parser.add_argument(
        "--loaders",
        metavar="N",
        type=int,
        action="append",
        help="workers that the plain loop's DataLoader may have, the quickest of which it gets (default: 0 and 2)",
    )
    parser.add_argument("--seconds", metavar="S", type=float, help="of each turn (default: 3)")
    parser.add_argument("--repeats", metavar="N", type=int, help="turns of each side (default: 5)")


def check(settings: Settings) -> None:
    """Raise UserError unless all that is named exists and fits."""
    if settings.dataset not in (valid := ("cifar10", "cifar100", "digits")):
        raise UserError(
            f"--dataset: there is no {settings.dataset!r} to train on here.", suggest(settings.dataset, valid)
        )
    for option in ("seconds", "repeats", "threads"):
        if getattr(settings, option) <= 0:
            raise UserError(f"--{option} {getattr(settings, option)} should be above 0.")
    for option in ("batch", "workers", "loaders"):
        if any(value < 0 for value in _all(getattr(settings, option))):
            raise UserError(f"--{option} should not be negative.")
    _check_device(settings)
    for net in settings.nets:
        for ordering in settings.ordering:
            for procedure in settings.procedure or [None]:
                _configuration(settings, net, ordering, procedure)


def _check_device(settings: Settings) -> None:
    if settings.device == "cuda" and not visible_gpus():
        raise UserError("--device cuda: this machine has no NVIDIA GPU.", "Leave it out.")
    if settings.torch_device == "cpu":
        if settings.precision == "tf32":
            raise UserError("--precision tf32 needs an NVIDIA GPU.", "On a CPU: --precision float32.")
        if "graph" in settings.engine:
            raise UserError("--engine graph needs an NVIDIA GPU.", "On a CPU: --engine eager or compiled.")


def _all(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def expected_seconds(settings: Settings) -> float:
    each = _START_SECONDS + settings.repeats * (settings.seconds + 0.5) + 3 * settings.seconds
    own = len(settings.engine) * (1.5 + len(settings.procedure))
    sides = len(settings.ordering) * (own + 1) + len(_loaders(settings)) // 2 * 2
    return each * sides * len(settings.nets) * len(settings.layouts())


def measure(settings: Settings, tell: Tell) -> Findings:
    """Ratios of images a second, then every side's figures and where its time goes."""
    from icbench.bench.images import described

    found = Findings(notes=[f"{settings.dataset}: {described(settings.dataset, settings.data)}."])
    rows: list[Row] = []
    for layout in settings.layouts():
        peak = _peak(settings, layout)
        found.notes.append(f"{layout}: {peak / 1e9:,.0f} GFLOP/s in products of large {settings.precision} matrices.")
        for net in settings.nets:
            loader = _better_loader(settings, net, layout, tell)
            for ordering in settings.ordering:
                tell(f"train: {net} {ordering}, {layout}")
                sides, figures = _compared(settings, net, ordering, layout, loader, peak)
                rows += figures
                *own, plain = sides
                for side in own:
                    what = f"train {net} {ordering}, {side.engine}, {layout}"
                    found.comparisons.append(Comparison.of_rates(what, "images/s", side.rates, plain.rates))
    found.tables += [
        Table("train", "training", _COLUMNS, rows),
        Table("phases", "where the time goes: ms of a step, seconds of an epoch", _PHASE_COLUMNS, rows),
    ]
    found.notes += _NOTES
    return found


def _configuration(settings: Settings, net: str, ordering: str, procedure: str | None = None) -> "RunConfig":
    kind, _, depth = net.rpartition("-")
    if kind != "resnet" or not depth.isdigit():
        raise UserError(f"there is no net {net!r}.", suggest(net, _NETS))
    batch = {"batch_size": settings.batch} if settings.batch else {}
    return configuration(
        dataset=settings.dataset,
        depth=int(depth),
        ordering=ordering,
        recipe={"name": recipe_of(settings.dataset), **batch},
        precision=settings.precision,
        procedures=[procedure] if procedure else [],
    )


def _tasks(settings: Settings, net: str, ordering: str, loader: int) -> Iterator[tuple[str, Task]]:
    """What is compared, by the name that it has in tables; the plain loop is the last."""
    from icbench import catalog

    named = settings.procedure or ((_FAST_DROPOUT,) if _FAST_DROPOUT in catalog.names("procedures") else ())
    plain = _configuration(settings, net, ordering)
    for engine in settings.engine:
        yield engine, _task(settings, engine, plain)
        for name in named:
            if (config := _configuration(settings, net, ordering, name)) != plain:
                yield f"{engine} with {name}", _task(settings, engine, config)
    yield f"plain loop, {plural(loader, 'loader')}", _task(settings, PLAIN, plain, loader)


def _task(settings: Settings, engine: str, config: "RunConfig", loader: int = 0) -> Task:
    from icbench import catalog

    images = catalog.load("datasets", config.dataset).TRAIN_IMAGES
    return Task(engine, config, settings.data, settings.torch_device, images, _TEST_IMAGES, loader)


def _group(layout: Layout, task: Task) -> "Group":
    from icbench.bench.children import Group

    return Group(layout.processes, layout.threads, "icbench.bench.engines.Measured", task)


def _peak(settings: Settings, layout: Layout) -> float:
    """Floating-point operations a second in products of large matrices, of all processes at once; the best turn's."""
    from icbench.bench.children import Group

    device, precision = settings.torch_device, settings.precision
    with Group(layout.processes, layout.threads, "icbench.bench.engines.Peak", device, precision) as group:
        return max(_rate(group.ask("multiply", settings.seconds)) for _ in range(3))


def _loaders(settings: Settings) -> tuple[int, ...]:
    return settings.loaders or _LOADERS[settings.torch_device]


def _better_loader(settings: Settings, net: str, layout: Layout, tell: Tell) -> int:
    """The number of DataLoader's workers by which the plain loop is quickest here."""
    choices = _loaders(settings)
    if len(choices) == 1:
        return choices[0]
    tell(f"train: {net}, {layout}: which DataLoader is best for the plain loop")
    config = _configuration(settings, net, settings.ordering[0])
    with ExitStack() as stack:
        turns = {}
        for workers in choices:
            group = stack.enter_context(_group(layout, _task(settings, PLAIN, config, workers)))
            group.ask("first_step")
            turns[str(workers)] = partial(_turn, group, settings.seconds)
        rates = in_turn(turns, min(settings.repeats, 3))
    return int(max(rates, key=lambda workers: Spread.of(rates[workers]).median))


def _compared(
    settings: Settings, net: str, ordering: str, layout: Layout, loader: int, peak: float
) -> tuple[list[_Side], list[Row]]:
    """The sides, with their rates, of turns of one net and ordering; and the figures of each."""
    with ExitStack() as stack:
        sides = []
        for engine, task in _tasks(settings, net, ordering, loader):
            began = time.perf_counter()
            group = stack.enter_context(_group(layout, task))
            group.ask("first_step")
            sides.append(_Side(engine, task, group, time.perf_counter() - began))
        rates = in_turn({side.engine: partial(_turn, side.group, settings.seconds) for side in sides}, settings.repeats)
        for side in sides:
            side.rates = rates[side.engine]
        return sides, [
            {"net": net, "ordering": ordering, "engine": side.engine, **layout._asdict(), "layout": str(layout)}
            | _figures(side, layout, peak, settings.phase_steps)
            for side in sides
        ]


def _turn(group: "Group", seconds: float) -> float:
    time.sleep(_SETTLE_SECONDS)
    return _rate(group.ask("train", seconds))


def _rate(answers: list[tuple[float, float]]) -> float:
    return sum(done / seconds for done, seconds in answers)


def _figures(side: _Side, layout: Layout, peak: float, phase_steps: int) -> Row:
    """What a side does, and where its time goes. An epoch is of all the data set's images, by one of the processes."""
    from icbench import catalog
    from icbench.architecture import shape

    config, group = side.task.config, side.group
    about = catalog.load("datasets", config.dataset)
    rate = Spread.of(side.rates)
    phases = _mean_phases(group.ask("phases", phase_steps))
    timed = min(_TEST_IMAGES, about.TEST_IMAGES)
    evaluation = max(group.ask("evaluate")) * about.TEST_IMAGES / timed
    checkpoint = max(group.ask("store"))
    training = about.TRAIN_IMAGES * layout.processes / rate.median
    epoch = training + evaluation + checkpoint
    net = shape(config.dataset, config.block, config.depth, config.width)
    operations = _OPERATIONS * net.multiply_adds()
    return {
        "images_per_second": rate,
        "share_of_peak": rate.median * operations / peak,
        "runs_per_hour": 3600 * layout.processes / (config.recipe.epochs * epoch),
        "epochs": config.recipe.epochs,
        "peak_memory": max(group.ask("memory")),
        "step_seconds": phases or None,
        "evaluation_seconds": evaluation,
        "checkpoint_seconds": checkpoint,
        "start_seconds": side.start,
        "epoch_seconds": epoch,
        "epoch_shares": shares(phases, training, evaluation, checkpoint) if phases else None,
        **beside(phases, training, evaluation, checkpoint, side.start, config.recipe.epochs),
    }


def _mean_phases(answers: list[dict[str, float]]) -> dict[str, float]:
    """Of all processes."""
    return {phase: sum(each[phase] for each in answers) / len(answers) for phase in answers[0]}


def shares(phases: dict[str, float], training: float, evaluation: float, checkpoint: float) -> dict[str, float]:
    """Of an epoch's seconds, what each phase of its steps takes, the evaluation and the checkpoint; 1 in all."""
    step, epoch = sum(phases.values()), training + evaluation + checkpoint
    found = {phase: seconds / step * training / epoch for phase, seconds in phases.items()}
    return found | {"evaluation": evaluation / epoch, "checkpoint": checkpoint / epoch}


def beside(
    phases: dict[str, float], training: float, evaluation: float, checkpoint: float, start: float, epochs: int
) -> dict[str, float | None]:
    """Of an epoch, the share of what is no training: counting, evaluation, checkpoint, and the start of the process.

    share_beside: the start is spread over a run's epochs. share_beside_first: it counts whole, as in a run's first.
    """
    if not phases:
        return {"share_beside": None, "share_beside_first": None}
    counting = training * phases["rest"] / sum(phases.values())

    def share(started: float) -> float:
        return (counting + evaluation + checkpoint + started) / (training + evaluation + checkpoint + started)

    return {"share_beside": share(start / epochs), "share_beside_first": share(start)}


def _milliseconds(phase: str) -> Column:
    return Column("step_seconds", phase, lambda seconds: digits(1000 * seconds[phase]) if seconds else "")


_SIDE = (Column("net", "net"), Column("ordering", "ordering"), Column("engine", "by"), Column("layout", "processes"))
_COLUMNS = (
    *_SIDE,
    Column("images_per_second", "images/s", spread),
    Column("share_of_peak", "of peak", percent),
    Column("runs_per_hour", "runs/hour", digits),
    Column("peak_memory", "memory MB", lambda size: digits(size / 1e6)),
)
_PHASE_COLUMNS = (
    *_SIDE,
    *(_milliseconds(phase) for phase in ("input", "forward", "backward", "optimizer", "rest")),
    Column("evaluation_seconds", "evaluation s", digits),
    Column("checkpoint_seconds", "checkpoint s", digits),
    Column("start_seconds", "start s", digits),
    Column("epoch_seconds", "epoch s", digits),
    Column("share_beside", "beside\ntraining", percent),
    Column("share_beside_first", "in the\nfirst epoch", percent),
)
_NOTES = [
    "images/s: of all processes together; the median and range of turns. of peak: 6 operations for each multiply-add "
    "of a forward pass, of those a second that products of matrices reach.",
    "runs/hour: whole recipes, by all processes together; memory: of each process, at its peak.",
    "rest: counting losses and hits. start: from nothing to the end of the first step. epoch: with its evaluation and "
    "checkpoint. beside training: rest, evaluation, checkpoint, and a run's share of the start; in the first epoch, "
    "the whole start.",
]
