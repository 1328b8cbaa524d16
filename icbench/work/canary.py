"""Trains nets for a few steps, in a process of its own, and measures them; see icbench.work.canaries.

Of a data set that is read from shards, where these are there, images are read and decoded as in a run, by as many
threads: the first ones of an epoch, which the system may still have in memory. Where they are not, what comes after
decoding is measured, on random images. Of a run that several GPUs share, one's share of a batch, without their exchange
of gradients.

Whatever engine the profile has is the canary's. NVIDIA's service for several processes of a GPU (a profile's `mps`) is
not: canaries that share a GPU take turns there.
"""

import math
import os
import pickle
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from icbench import catalog
from icbench.child import answers
from icbench.config import RunConfig
from icbench.data.device import DeviceData
from icbench.data.store import file_of, is_sharded
from icbench.estimate import image_counts
from icbench.failure import in_words
from icbench.machine import cores, keep_freed_memory
from icbench.procedure import together
from icbench.timings import Measured
from icbench.train import hardware, seeds
from icbench.train.course import Course
from icbench.train.engines import Engine, choose, start
from icbench.train.evaluation import evaluate
from icbench.train.loop import Unwatched, begin
from icbench.train.numerics import set_numerics
from icbench.train.ranks import ALONE, Ranks
from icbench.train.state import State
from icbench.train.upkeep import Upkeep
from icbench.work.canaries import Company
from icbench.work.equipment import streamed

if TYPE_CHECKING:
    from icbench.data.streamed import StreamedData

_WARM_UP = 2
# Measured until the mean of the stretches is known so well, or so long.
_PRECISION = 0.02
_SECONDS = 2.0
_STRETCHES = 5
_STRETCH_SECONDS = 0.05
# A training evaluates batches of 1,000, of which there may be more than a canary has time for; an image takes as long
# in smaller ones.
_MOST_TESTED, _LEAST_TESTED = 1000, 64
_LONGEST = 400


@dataclass(frozen=True)
class MeasuredHere(Measured):
    """And by which engine on which device, as they call themselves."""

    device: str
    engine: str
    images_at_once: int | None


def main() -> None:
    """A child (icbench/child.py) that says "ready" once torch is there; asked then, with a Company, for configurations,
    it answers for each: what was measured, or in words why it could not be.

    After the last it goes on with its steps until it is killed, so that those beside it are not measured alone.
    """
    answer = answers()
    parent = os.getppid()
    answer("ready")
    company, configs = pickle.load(sys.stdin.buffer)
    keep_freed_memory()
    torch.set_num_threads(company.threads)
    training = None
    for config in configs:
        try:
            del training
            training = Training(config, company)
            found: Any = vars(measure(training))
        except Exception as error:
            training, found = None, " ".join(in_words(error).split())[:_LONGEST]
        answer(found)
    while os.getppid() == parent:
        if training is None:
            time.sleep(1)
        else:
            training.step()


class Training:
    """A training of `config` in its first epoch, of whose batches only the full ones are done, or the first rank's
    share of them; again and again where there are few.
    """

    def __init__(self, config: RunConfig, company: Company):
        device = torch.device(company.device)
        _forget_peak(device)
        self.config, self.device = config, device
        self.data = _data(config, company)
        set_numerics(config.precision)
        with tempfile.TemporaryDirectory() as folder:
            self.state: State = begin(config, self.data, Path(folder) / "none", Unwatched(), ALONE)
        self._whole = min(config.recipe.batch_size, self.data.train_count)
        self.batch_size = -(-self._whole // company.ranks)
        self.steps = 0
        self._course = Course(config, self.data.train_count)
        self._upkeep = Upkeep(config, self.state.net, self.state.optimizer)
        self.engine = _engine(company, config, self.data)
        self._train_on = start(self.engine, config, self.state, self.data, ALONE)
        self._plan: Any = self.data.plan_epoch(seeds.generator(config.seed, "epoch", 1))
        self._train_on.begin_epoch(self._plan)
        self._shares = self._from_the_first()

    def _from_the_first(self) -> Iterator[tuple[int, int]]:
        """The rows of one batch after another."""
        firsts = range(0, self.data.train_count - self._whole + 1, self._whole)
        while True:
            self.data.expect([(first, first + self.batch_size) for first in firsts], self._plan)
            for first in firsts:
                yield first, first + self.batch_size

    def step(self) -> None:
        """As icbench.train.loop does it."""
        self.state.net.train()
        self._upkeep.before_step(self._course.moment(1, 0))
        self._train_on(*next(self._shares))
        self.steps += 1
        self._upkeep.after_step(self.steps, ALONE)

    def pause(self) -> None:
        """Between steps: nothing is made ready for the next ones, which begin with the first batch again."""
        self.data.expect((), self._plan)
        self._shares = self._from_the_first()

    def wait(self) -> None:
        """Return once the device has done all that it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, action: Callable[[], object], times: int = 1) -> float:
        self.wait()
        began = time.perf_counter()
        for _ in range(times):
            action()
        self.wait()
        return (time.perf_counter() - began) / times


def _engine(company: Company, config: RunConfig, data: "DeviceData | StreamedData") -> Engine:
    """What a real run has, whose images may come from shards, and which other ranks may share."""
    ranks = Ranks()
    ranks.size = company.ranks
    engine = choose(company.engine, config, data, ranks, company.images_at_once)
    return engine._replace(graph=engine.graph and not is_sharded(config.dataset))


def measure(training: Training) -> MeasuredHere:
    """Seconds of a training image, of a test image, and of what an epoch takes besides; memory."""
    step, steps = _step_seconds(training)
    tested = _tested(training, step)
    training.pause()
    test = training.seconds(lambda: _evaluate(training, tested)) / tested
    described = hardware.describe(training.device)
    memory, device_memory = _memory(training)
    return MeasuredHere(
        train_seconds_per_image=step / training.batch_size,
        test_seconds_per_image=test,
        seconds_per_epoch_more=_epoch_seconds(training),
        memory=memory,
        device_memory=device_memory,
        steps=steps,
        from_shards=not isinstance(training.data, DeviceData),
        torch_version=described["torch_version"],
        device=described["device"],
        engine=str(training.engine),
        images_at_once=training.engine.images_at_once,
    )


def _step_seconds(training: Training) -> tuple[float, int]:
    """The mean seconds of a step, and over how many. One so long that a second would take minutes counts as it is."""
    once = training.seconds(training.step)
    if once > 10 * _SECONDS:
        return once, 1
    for _ in range(_WARM_UP - 1):
        once = training.seconds(training.step)
    each = max(1, math.ceil(_STRETCH_SECONDS / once))
    stretches: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < _SECONDS or not stretches:
        stretches.append(training.seconds(training.step, each))
        if len(stretches) >= _STRETCHES and stdev(stretches) < _PRECISION * fmean(stretches) * len(stretches) ** 0.5:
            break
    return fmean(stretches), each * len(stretches)


def _tested(training: Training, step: float) -> int:
    """How many images to evaluate: as many as take no longer than measuring the steps did, three times as fast each."""
    affordable = int(3 * _SECONDS / step * training.batch_size)
    return min(len(training.data.test_labels), _MOST_TESTED, max(_LEAST_TESTED, affordable))


def _evaluate(training: Training, images: int) -> None:
    data = training.data
    whole = data.test_labels
    data.test_labels = whole[:images]
    try:
        config = training.config
        with training.engine.evaluating():
            evaluate(training.state.net, data, config.precision, procedures=together(config.procedures))
    finally:
        data.test_labels = whole


def _epoch_seconds(training: Training) -> float:
    """What an epoch takes besides its images: its plan, and the checkpoint at its end."""
    config, data = training.config, training.data
    count = image_counts(config.dataset, config.split)[0]
    plan = training.seconds(lambda: data.plan_epoch(seeds.generator(config.seed, "epoch", 1)))
    with tempfile.TemporaryDirectory() as folder:
        stored = training.seconds(lambda: training.state.save(Path(folder) / "checkpoint.pt"))
    return stored + plan * count / data.train_count


def _data(config: RunConfig, company: Company) -> "DeviceData | StreamedData":
    """A run's images, if they are in shards that are there; else random ones."""
    device = torch.device(company.device)
    if is_sharded(config.dataset) and file_of(config.dataset, company.data).is_file():
        return streamed(config, company.data, device, company.threads, company.cores or cores())
    return _random(config, device)


def _random(config: RunConfig, device: torch.device) -> DeviceData:
    """Random images; enough for a batch, and for the norm that wants a reference."""
    dataset = catalog.load("datasets", config.dataset)
    train, test = image_counts(config.dataset, config.split)
    train, test = min(train, max(config.recipe.batch_size, _MOST_TESTED)), min(test, _MOST_TESTED)
    random = np.random.default_rng(0)

    def images(count: int) -> Any:
        return random.integers(0, dataset.PIXEL_MAXIMUM + 1, (count, *dataset.SHAPE), dtype=np.uint8)

    def labels(count: int) -> Any:
        return random.integers(0, dataset.CLASSES, count)

    return DeviceData(
        (images(train), labels(train), images(test), labels(test)),
        pixel_maximum=dataset.PIXEL_MAXIMUM,
        subtract_mean=config.recipe.subtract_pixel_mean,
        augmentation=config.recipe.augmentation,
        device=device,
    )


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # before it, there is nothing whose peak could be forgotten
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        with suppress(OSError):  # not Linux
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _memory(training: Training) -> tuple[int, int | None]:
    """The most that this training had of the device's memory, as if all images were there that are to be; that of the
    device, if a GPU's.

    On the CPU all of the process's counts.
    """
    config, data = training.config, training.data
    dataset = catalog.load("datasets", config.dataset)
    train, test = image_counts(config.dataset, config.split)
    absent = 0 if is_sharded(config.dataset) else max(0, train + test - data.train_count - len(data.test_labels))
    more = absent * math.prod(dataset.SHAPE)
    if training.device.type == "cuda":
        properties = torch.cuda.get_device_properties(training.device)
        return torch.cuda.max_memory_reserved() + more, properties.total_memory
    found = None
    with suppress(OSError):
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return (1024 * int(found[1]) if found else 0) + more, None
