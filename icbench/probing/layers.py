"""Weight layers, and what a batch does at each of them.

A convolution or linear layer multiplies filters, the rows of an (out, elements) matrix, with patches of its input. The
gradient by the filters is a sum over images and output positions of delta x patch', where delta is the gradient by the
products. Where weights are parametrised, filters are what the parameters come to: of unit length in weights cosine.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, unfold
from torch.nn.grad import conv2d_weight
from torch.nn.utils.parametrize import is_parametrized

from icbench.nets.reference import ReferenceBatch
from icbench.nets.weights.cosine import CosineConvolution
from icbench.nets.weights.normprop import UnitConvolution
from icbench.probing.subject import exact

# Of the gradients of single images so many elements are held at a time: 64 MiB in float32.
_AT_ONCE = 2**24


def weight_layers(net: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Convolutions and the classifier by name, from the stem on; of an LSTM the classifier alone."""
    return {name: layer for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}


def filters(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """A copy of what the patches are multiplied with: (out, elements)."""
    rows = layer.weight.detach().flatten(1)
    if isinstance(layer, CosineConvolution | UnitConvolution):
        rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    if isinstance(layer, UnitConvolution):
        rows = rows * layer.scale.detach()[:, None]
    return rows.clone()


def learned(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """The parameter that the optimiser changes and that gives filters their directions; v of weight normalisation."""
    if is_parametrized(layer, "weight"):
        return layer.get_parameter("parametrizations.weight.original1")
    return layer.weight


class Forward(NamedTuple):
    """A batch's way through one weight layer. x: (R + N, C, H, W), y: (R + N, out, H', W'), behind R images of a
    reference batch, if there is one; of a linear layer, maps of one position.
    """

    name: str
    layer: nn.Conv2d | nn.Linear
    x: Tensor
    y: Tensor
    reference: int
    pad: tuple[int, int, int, int]

    def activations(self) -> Tensor:
        """(N, C, H, W): x without the reference, and without the zeros that a padding of its own put around it."""
        left, right, top, bottom = self.pad
        height, width = self.x.shape[2:]
        return exact(self.x[self.reference :, :, top : height - bottom, left : width - right])

    def outputs(self) -> Tensor:
        """(N, out, H', W')."""
        return exact(self.y[self.reference :])

    def positive_and_negative(self) -> tuple[Tensor, Tensor]:
        """How many elements of the patch at each output position are positive, how many negative: each (N, L)."""
        x = self.x[self.reference :]
        kernel, stride, padding = _geometry(self.layer)

        def count(which: Tensor) -> Tensor:
            counts = which.float().sum(1, keepdim=True)
            return avg_pool2d(counts, kernel, stride, padding, divisor_override=1).flatten(1).round()

        return count(x > 0), count(x < 0)


class Backward(NamedTuple):
    """A batch's way through one weight layer and back. gradient: of the mean loss by `at.y`."""

    at: Forward
    gradient: Tensor

    def by_outputs(self) -> Tensor:
        """The gradient of the sum of the losses, by `at.outputs()`."""
        own = exact(self.gradient[self.at.reference :])
        return own * len(own)

    def deltas(self) -> Tensor:
        """The gradient of the sum of the losses by the products of filters and patches: (N, out, L)."""
        return self._by_products().flatten(2)[self.at.reference :] * (len(self.gradient) - self.at.reference)

    def by_filters(self) -> Tensor:
        """The gradient of the mean loss: (out, elements)."""
        kernel, stride, padding = _geometry(self.at.layer)
        delta, x = self._by_products(), exact(self.at.x)
        size = (delta.shape[1], x.shape[1], *kernel)
        gradient: Tensor = conv2d_weight(x, size, delta, stride, padding)  # type: ignore[no-untyped-call]
        return gradient.flatten(1)

    def by_filters_of_each_image(self) -> Iterator[Tensor]:
        """An image's share in the gradient of the sum of losses: (N, rows, elements), some of the rows at a time."""
        kernel, stride, padding = _geometry(self.at.layer)
        x = exact(self.at.x[self.at.reference :])
        patches = unfold(x, kernel, padding=padding, stride=stride).transpose(1, 2)
        rows = max(1, _AT_ONCE // (len(x) * patches.shape[2]))
        for deltas in torch.split(self.deltas(), rows, dim=1):
            yield deltas @ patches

    def _by_products(self) -> Tensor:
        gradient = exact(self.gradient)
        layer = self.at.layer
        return gradient * layer.inverse_lengths(self.at.x) if isinstance(layer, CosineConvolution) else gradient


@contextmanager
def forwards(net: nn.Module, see: Callable[[Forward], None]) -> Iterator[None]:
    """Within it, every forward pass shows `see` each weight layer, in the pass's order."""
    with _hooked(net, lambda at, _: see(at)):
        yield


@contextmanager
def backwards(net: nn.Module, see: Callable[[Backward], None]) -> Iterator[None]:
    """Within it, every backward pass of a mean loss shows `see` each weight layer, from the classifier on.

    Nothing is kept for it that autograd does not keep anyway.
    """

    def passed(at: Forward, output: Tensor) -> None:
        def returned(gradient: Tensor) -> None:
            see(Backward(at, _as_maps(gradient)))

        output.register_hook(returned)  # type: ignore[no-untyped-call]

    with _hooked(net, passed):
        yield


@contextmanager
def _hooked(net: nn.Module, passed: Callable[[Forward, Tensor], None]) -> Iterator[None]:
    """Calls `passed` with what went through a weight layer, and with its very output."""
    reference = len(net.images) if isinstance(net, ReferenceBatch) else 0
    pads = _pads(net)

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def forward(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            # Detached: the output holds its hooks, which would hold it, and neither would ever be freed.
            x, y = _as_maps(inputs[0].detach()), _as_maps(output.detach())
            passed(Forward(name, layer, x, y, reference, pads.get(name, (0, 0, 0, 0))), output)

        return forward

    handles = [layer.register_forward_hook(hook(name)) for name, layer in weight_layers(net).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _as_maps(values: Tensor) -> Tensor:
    return values if values.dim() == 4 else values[..., None, None]


def _geometry(layer: nn.Conv2d | nn.Linear) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Kernel, stride, padding."""
    if isinstance(layer, nn.Linear):
        return (1, 1), (1, 1), (0, 0)
    assert layer.groups == 1
    assert not isinstance(layer.padding, str)
    (kernel, stride, padding) = (tuple(each) for each in (layer.kernel_size, layer.stride, layer.padding))
    return kernel, stride, padding  # type: ignore[return-value]


def _pads(net: nn.Module) -> dict[str, tuple[int, int, int, int]]:
    """The zeros around the input of layers that have a padding layer in front: left, right, top, bottom."""
    return {
        f"{name}.1": module[0].padding
        for name, module in net.named_modules()
        if type(module) is nn.Sequential and len(module) == 2 and type(module[0]) is nn.ZeroPad2d
    }
