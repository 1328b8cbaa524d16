"""Builds nets for a trial, in a process of its own, before anything of a grid is run; see icbench/drybuild.py."""

import pickle
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache

import torch
from torch.nn.functional import cross_entropy

from icbench import catalog
from icbench.architecture import shape
from icbench.child import answers
from icbench.config import RunConfig
from icbench.data import store
from icbench.errors import UserError
from icbench.failure import in_words
from icbench.nets.build import build
from icbench.nets.reference import ReferenceBatch
from icbench.plan import smallest_batch
from icbench.resolve import DEFAULTS, Given, resolve
from icbench.train.numerics import autocast, dtype
from icbench.yamlfile import Mistake

# What a net that cannot be built is blamed on, the likeliest first: fields that have a default to go back to.
_SUSPECTS = ("norm", *(field for field in DEFAULTS if field != "norm"))
# Multiply-adds of a batch's forward pass up to which a net is tried with numbers, in 0.2 s or so. Beyond, it is tried
# with shapes alone (torch's device "meta"), which takes 2 s for the first net and 0.1 s for each. A net that cannot be
# is tried with numbers after all if that takes seconds only, and else left to its runs.
_MOST_WITH_NUMBERS = 1e9
_MOST_WITH_NUMBERS_IF_NEEDED = 3e10
_LONGEST = 400
_ROUNDING = 1e-10  # of float64, with a margin

_CPU, _META = torch.device("cpu"), torch.device("meta")


@dataclass(frozen=True)
class Failure:
    """A net that cannot be what `step` says: why, in a line, and the field that would have to be another, if one."""

    step: str
    reason: str
    field: str | None = None


def main() -> None:
    """A child (icbench/child.py), asked for nets by their configurations; it answers for each in turn: its Failure or
    null, and whether it tells images apart.
    """
    answer = answers()
    for config in pickle.load(sys.stdin.buffer):
        failure = examine(config)
        answer((failure and asdict(failure), failure is not None or tells_images_apart(config)))


def examine(config: RunConfig) -> Failure | None:
    """Why no run of `config` can be trained, if so."""
    failure = _failure(config)
    if failure is None:
        return None
    field = next((field for field in _SUSPECTS if _is_to_blame(field, config)), None)
    return Failure(failure.step, failure.reason, field)


def tells_images_apart(config: RunConfig) -> bool:
    """Whether the net, untrained, says anything else of one image than of another. True of a net too large to try.

    One that normalises each map of each image right before the average over its pixels does not, and never learns to.
    """
    return 2 * _multiply_adds(config) > _MOST_WITH_NUMBERS or _tells_apart(config)


@torch.no_grad()
def _tells_apart(config: RunConfig) -> bool:
    torch.manual_seed(0)
    net = build(config).double().eval()
    height, width, channels = catalog.load("datasets", config.dataset).SHAPE
    one, other = net(torch.rand(2, channels, height, width, dtype=torch.float64))
    return not bool((one - other).abs().max() <= _ROUNDING)


def _is_to_blame(field: str, config: RunConfig) -> bool:
    """Whether the net can be built once the field has its default."""
    given = {name: getattr(config, name) for name in config.__slots__ if name not in (field, "seed")}
    try:
        other = resolve({name: Given(value, ()) for name, value in given.items() if value is not None})
    except Mistake:
        return False
    return other != config and _failure(other) is None


def _failure(config: RunConfig) -> Failure | None:
    work = _multiply_adds(config) * config.recipe.batch_size
    if work <= _MOST_WITH_NUMBERS:
        return _failure_on(_CPU, config)
    failure = _failure_on(_META, config)
    if failure and "meta" in failure.reason.lower():
        # What looks at a tensor's values, or computes in NumPy, is possible, though not where there are none.
        return _failure_on(_CPU, config) if work <= _MOST_WITH_NUMBERS_IF_NEEDED else None
    return failure


def _multiply_adds(config: RunConfig) -> int:
    """Of one image's forward pass."""
    return shape(config.dataset, config.block, config.depth, config.width).multiply_adds()


def _failure_on(device: torch.device, config: RunConfig) -> Failure | None:
    """A training in the small: gradients of the smallest batch, the loss of the full one, an evaluation."""
    step = "built"
    try:
        with device:
            torch.manual_seed(0)
            # No optimiser, whose import takes a second: it takes any net.
            net = build(config).to(dtype=dtype(config.precision))
            _check_reference(net, config)
            smallest, full = _batches(config)
            step = f"trained on a batch of {smallest}"
            _loss(net, smallest, config, device).backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                if full > smallest:
                    step = f"trained on a batch of {full}"
                    _loss(net, full, config, device)
                step = "evaluated"
                _loss(net.eval(), smallest, config, device)
    except Exception as error:
        return Failure(step, " ".join(in_words(error).split())[:_LONGEST])
    return None


def _check_reference(net: torch.nn.Module, config: RunConfig) -> None:
    count = _train_count(config.dataset, config.split)
    if isinstance(net, ReferenceBatch) and len(net.images) > count:
        raise ValueError(f"a reference of {len(net.images)} images is more than the {count} that there are to train on")


def _batches(config: RunConfig) -> tuple[int, int]:
    """The smallest and the largest number of images in a batch of training."""
    count = _train_count(config.dataset, config.split)
    return smallest_batch(count, config.recipe.batch_size), min(config.recipe.batch_size, count)


@cache
def _train_count(name: str, split: str) -> int:
    dataset = catalog.load("datasets", name)
    count: int = dataset.TRAIN_IMAGES
    if split == "test":
        return count
    if hasattr(dataset, "BUNDLED") or store.is_sharded(name):
        with suppress(UserError):  # shards need not be there yet
            return store.train_count(name, None, split)
    return count - count // 10  # a tenth of each class; the CIFARs', which need not be there yet, are of equal size


def _loss(net: torch.nn.Module, count: int, config: RunConfig, device: torch.device) -> torch.Tensor:
    height, width, channels = catalog.load("datasets", config.dataset).SHAPE
    images = torch.rand(count, channels, height, width, dtype=dtype(config.precision))
    labels = torch.zeros(count, dtype=torch.long)
    if device == _META:  # which has no autocast, so that bfloat16's nets are tried in float32's types there
        return cross_entropy(net(images), labels)
    with autocast(config.precision, device):
        return cross_entropy(net(images), labels)
