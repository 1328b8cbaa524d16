"""What runs in the processes of `icbench bench whitening`: a layer in training, or FastICA, at one width after another.

Every layer gets the same maps, as large as a stage of a ResNet has them and channels-last in memory, as in icbench's
trainings.
"""

import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from icbench.bench import memory
from icbench.machine import keep_freed_memory, return_freed_memory
from icbench.nets.fast_ic import FastIC
from icbench.nets.gaps import GapDropout
from icbench.nets.ic import IC
from icbench.nets.norms import batch, iternorm, zca
from icbench.train.numerics import set_numerics

# Pixels a side of a map: of the last stage of a ResNet for CIFAR.
SIDE = 8
_RATE = 0.05
_GROUP = 16


def _fast_ic(norm: nn.Module) -> nn.Module:
    assert type(norm) is nn.BatchNorm2d
    # In a net a convolution makes the gradient for this layer alone.
    return FastIC(norm, GapDropout(_RATE), gradient_is_own=True)


_LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "ic": lambda channels: IC(batch.build(channels), nn.Dropout(_RATE)),
    "fast-ic": lambda channels: _fast_ic(batch.build(channels)),
    "zca": lambda channels: zca.build(channels, group_size=channels),
    "zca-16": lambda channels: zca.build(channels, group_size=_GROUP),
    "iternorm": lambda channels: iternorm.build(channels, group_size=channels),
    "iternorm-16": lambda channels: iternorm.build(channels, group_size=_GROUP),
}


class Layer:
    """A layer in training, in a process that is measured (see children.py): times in seconds, memory in bytes.

    Memory is to be asked for before any turn: these keep what is freed, as icbench's trainings do, and what is used
    then hangs on how well blocks fit into what others have left.
    """

    def __init__(self, name: str, device: str):
        return_freed_memory()
        set_numerics("float32")
        self._build, self._device = _LAYERS[name], torch.device(device)

    def prepare(self, channels: int, rows: int) -> None:
        """Stand before maps of so many channels, with so many values a channel, and their gradient."""
        self._layer = self._build(channels).to(self._device).train()
        self._x = self._maps(mixed(channels, rows)).requires_grad_()
        self._gradient = self._maps(torch.randn(rows, channels))

    def _maps(self, pixels: Tensor) -> Tensor:
        """(rows, channels) -> (images, channels, SIDE, SIDE) on the device, channels-last as the pixels lie already."""
        return pixels.view(-1, SIDE, SIDE, pixels.shape[1]).permute(0, 3, 1, 2).to(self._device)

    def memory(self) -> int | None:
        """The most that a step takes beside its input, its gradient and the weights; None where it cannot be seen.

        Not the first, when libraries load code and make buffers of their own.
        """
        self._step()
        if self._device.type == "cuda":
            rest = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            self._step()
            return torch.cuda.max_memory_allocated() - rest
        return _taken(self._step)

    def turn(self, seconds: float) -> tuple[float, float]:
        """Seconds forward and backward of a step, the mean of those that it takes to pass so many seconds.

        The first, which finds the caches cold, is not counted unless it alone takes as long.
        """
        keep_freed_memory()
        steps = [self._step()]
        if sum(steps[0]) < seconds:
            steps, began = [], time.perf_counter()
            while not steps or time.perf_counter() - began < seconds:
                steps.append(self._step())
        forward, backward = (sum(each) / len(steps) for each in zip(*steps, strict=True))
        return forward, backward

    def _step(self) -> tuple[float, float]:
        moments = [self._now()]
        output = self._layer(self._x)
        moments.append(self._now())
        torch.autograd.grad(output, [self._x, *self._layer.parameters()], self._gradient)
        moments.append(self._now())
        return moments[1] - moments[0], moments[2] - moments[1]

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


class Ica:
    """scikit-learn's FastICA, in a process that is measured: exact PCA whitening, then the rotation that it finds."""

    def __init__(self) -> None:
        return_freed_memory()

    def prepare(self, channels: int, rows: int) -> None:
        self._x = mixed(channels, rows).numpy()

    def memory(self) -> int | None:
        """The most that a fit takes beside its input: every iteration takes the same. Before any fit, as of layers."""
        _fit(self._x, max_iter=1)
        return _taken(lambda: _fit(self._x, max_iter=1))

    def fit(self, limit: float) -> dict[str, Any]:
        """seconds, iterations and whether they converged; where it gave up, after `limit` seconds, seconds alone."""
        keep_freed_memory()
        began = time.perf_counter()
        try:
            with _at_most(limit):
                found = _fit(self._x)
        except TimeoutError:
            found = {}
        return {"seconds": time.perf_counter() - began, **found}


def mixed(channels: int, rows: int) -> Tensor:
    """(rows, channels): independent Laplace sources of deviations from 1/2 to 2, rotated; the same every time.

    ICA finds these more easily than a net's activations, so that its costs are the least to be expected. What the
    others cost does not depend on values.
    """
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(rows, channels, generator=generator).sub_(0.5)
    sources = -uniform.sign() * torch.log1p((-2 * uniform.abs()).clamp_min_(-1 + 1e-6)) / 2**0.5
    rotation = torch.linalg.qr(torch.randn(channels, channels, generator=generator)).Q
    found: Tensor = (sources * torch.linspace(0.5, 2, channels)) @ rotation
    return found


def _fit(x: Any, **options: Any) -> dict[str, Any]:
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    # By the eigendecomposition of the covariance, as the others whiten, which is quicker than an SVD of x.
    ica = FastICA(whiten="unit-variance", whiten_solver="eigh", random_state=0, **options)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ica.fit_transform(x)
    converged = not any(issubclass(each.category, ConvergenceWarning) for each in said)
    return {"iterations": int(ica.n_iter_), "converged": converged}


def _taken(action: Callable[[], object]) -> int | None:
    rest = memory.at_rest()
    action()
    taken = memory.peak() - (rest or 0)
    # The kernel counts pages, and a few at a time.
    return taken if rest is not None and taken > 0 else None


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError within, once so many seconds have passed and Python comes to its next line."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
