"""What the variants cost: operations of a step, and times as ratios to a control's. For tests/methods.py."""

import itertools
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from operations import Operations
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from icbench import catalog
from icbench.config import RunConfig
from icbench.data import store
from icbench.data.device import DeviceData
from icbench.machine import cores
from icbench.nets.reference import ReferenceBatch
from icbench.procedure import Procedure
from icbench.resolve import parse_field, resolve
from icbench.train.hardware import describe
from icbench.train.loop import Unwatched, train
from icbench.train.numerics import set_numerics
from icbench.train.state import EpochRow, State

MAPS = (64, 16, 32, 32)
# Images in front of each batch, for virtual batch norm.
REFERENCE = int(catalog.options("norms", "virtual")["images"].default)
WARM_UP = 2
SHORTEST = 0.01  # seconds
EPOCHS = 3
# So that something happens in each epoch of digits, 23 batches of 64, as once in one of CIFAR by the default.
OPTIONS = {"svb": {"every": 23}}
# A procedure that has none of these only gives a training other numbers.
HOOKS = ("attach", "stepped", "evaluating")

CONTROLS = {"norms": "batch", "weights": "plain", "activations": "relu"}

Action = Callable[[], object]
Timer = Callable[[], float]


def build(kind: str, name: str) -> nn.Module:
    """A variant alone, on maps of 16 channels. A virtual batch norm has its reference batch in front."""
    variant = catalog.load(kind, name)
    if kind == "activations":
        return variant.build()
    if kind == "weights":
        return variant.build(nn.Conv2d(MAPS[1], MAPS[1], 3, padding=1, bias=False))
    norm = variant.build(MAPS[1])
    return ReferenceBatch(norm, (REFERENCE, *MAPS[1:])) if name == "virtual" else norm


def random_maps(device: torch.device) -> Tensor:
    return torch.randn(MAPS, device=device).to(memory_format=torch.channels_last)


def alone(module: nn.Module, device: torch.device) -> tuple[Action, Action]:
    """A forward and backward pass in training, and a forward pass in evaluation."""
    module.to(device, memory_format=torch.channels_last)
    if isinstance(module, ReferenceBatch):
        module.take(torch.randn(module.images.shape))
    x, gradient = random_maps(device).requires_grad_(), random_maps(device)

    def step() -> None:
        module.train()
        module.zero_grad()
        x.grad = None
        module(x).backward(gradient)

    @torch.inference_mode()
    def evaluation() -> None:
        module.eval()
        module(x)

    return step, evaluation


def operations(kind: str, name: str) -> float:
    """Of a step of the variant alone, for each element of its input."""
    step, _ = alone(build(kind, name), torch.device("cpu"))
    with Operations() as counter:
        step()
    return counter.count / torch.Size(MAPS).numel()


def configuration(**fields: Any) -> RunConfig:
    return resolve({name: parse_field(name, value, ()) for name, value in fields.items()})


def step_of_a_net(config: RunConfig, device: torch.device, batch: int = 64) -> Action:
    """A step of training: forward, backward, optimiser."""
    state = State.fresh(config, device)
    dataset = catalog.load("datasets", config.dataset)
    height, width, channels = dataset.SHAPE
    images = torch.randn(batch, channels, height, width, device=device).to(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % dataset.CLASSES
    if isinstance(state.net, ReferenceBatch):
        state.net.take(images[: len(state.net.images)])
    state.net.train()

    def step() -> None:
        loss = cross_entropy(state.net(images), labels)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        state.optimizer.step()

    return step


def resnet(norm: str) -> RunConfig:
    return configuration(recipe="chen2019", dataset="cifar10", depth=20, ordering="relu-ic-conv", norm=norm)


def lstm(norm: str) -> RunConfig:
    return configuration(
        recipe="digits", dataset="digits", block="lstm", depth=1, width=64, ordering="baseline", norm=norm
    )


class Clock(Unwatched):
    """Watches a training, and notes when its epochs end."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def epoch_ended(self, row: EpochRow) -> None:
        self.ends.append(time.perf_counter())


def epoch_of_digits(procedures: list[object], device: torch.device) -> Timer:
    """The seconds of an epoch with its evaluation and checkpoint: the median of those after the first."""
    config = configuration(
        recipe={"name": "digits", "epochs": EPOCHS},
        dataset="digits",
        depth=8,
        ordering="relu-ic-conv",
        procedures=procedures,
    )
    data = DeviceData(
        store.split(store.load(config.dataset, None), config.split),
        pixel_maximum=catalog.load("datasets", config.dataset).PIXEL_MAXIMUM,
        subtract_mean=config.recipe.subtract_pixel_mean,
        augmentation=config.recipe.augmentation,
        device=device,
    )

    def seconds() -> float:
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            train(config, data, Path(folder) / "checkpoint.pt", clock)
        return statistics.median(b - a for a, b in itertools.pairwise(clock.ends))

    return seconds


def has_a_cost(procedure: str) -> bool:
    """Whether it does more in a training than give it other numbers."""
    does = type(catalog.load("procedures", procedure).build())
    return any(getattr(does, hook) is not getattr(Procedure, hook) for hook in HOOKS)


def norms_with(function: str) -> list[str]:
    """The norms with `build`, for maps, or with `recurrent`, for sequences."""
    return [name for name in catalog.names("norms") if function in catalog.functions("norms", name)]


def on_maps(kind: str) -> Iterable[str]:
    """The variants of a kind that can stand alone, on maps."""
    return norms_with("build") if kind == "norms" else catalog.names(kind)


def counted() -> dict[str, dict[str, float]]:
    """The operations of all that can stand alone."""
    return {kind: {name: float(f"{operations(kind, name):.4g}") for name in on_maps(kind)} for kind in CONTROLS}


def timer(action: Action, device: torch.device) -> Timer:
    """The seconds of an action: of so many at once that the clock sees at least SHORTEST."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def seconds(times: int) -> float:
        wait()
        began = time.perf_counter()
        for _ in range(times):
            action()
        wait()
        return (time.perf_counter() - began) / times

    seconds(WARM_UP)
    return partial(seconds, math.ceil(SHORTEST / seconds(1)))


def compared(control: Timer, treated: Mapping[str, Callable[[], Timer]], repetitions: int) -> dict[str, Any]:
    """Ratios of seconds to the control's just before, A B A B ...: median, least and largest."""
    ratios, seconds = {}, []
    for name, prepare in treated.items():
        other = prepare()
        pairs = [(control(), other()) for _ in range(repetitions)]
        seconds += [own for own, _ in pairs]
        each = [b / a for a, b in pairs]
        ratios[name] = [float(f"{value:.3g}") for value in (statistics.median(each), min(each), max(each))]
    return {"control_milliseconds": float(f"{1000 * statistics.median(seconds):.3g}"), "ratios": ratios}


def measure(device: torch.device, repetitions: int) -> dict[str, Any]:
    """All times on a device, with their conditions: by kind and what was timed, what `compared` returns."""
    torch.set_num_threads(1)
    set_numerics("float32")
    torch.manual_seed(0)
    found: dict[str, Any] = {"conditions": conditions(device, repetitions)}

    def prepared(kind: str, part: int, name: str) -> Timer:
        return timer(alone(build(kind, name), device)[part], device)

    def net(of: Callable[[str], RunConfig], norm: str) -> Timer:
        return timer(step_of_a_net(of(norm), device), device)

    def compare(prepare: Callable[[str], Timer], control: str, names: Iterable[str]) -> dict[str, Any]:
        return compared(prepare(control), {name: partial(prepare, name) for name in names}, repetitions)

    for kind, control in CONTROLS.items():
        names = on_maps(kind)
        found[kind] = {
            part: compare(partial(prepared, kind, which), control, names)
            for which, part in enumerate(("step", "evaluation"))
        }
    found["norms"]["net"] = compare(partial(net, resnet), "batch", norms_with("build"))
    found["norms"]["lstm"] = compare(partial(net, lstm), "none", norms_with("recurrent"))
    treated = {
        name: partial(epoch_of_digits, [{"name": name, **OPTIONS.get(name, {})}], device)
        for name in filter(has_a_cost, catalog.names("procedures"))
    }
    found["procedures"] = {"epoch": compared(epoch_of_digits([], device), treated, repetitions)}
    return found


def conditions(device: torch.device, repetitions: int) -> dict[str, Any]:
    return {
        "date": date.today().isoformat(),
        **describe(device),
        "cores": cores(),
        "load": round(os.getloadavg()[0], 1),
        "repetitions": repetitions,
    }
