"""Sharpness: the largest eigenvalue and the trace of the loss's Hessian (Cohen et al. 2021, arXiv 2103.00065).

The Hessian H by all parameters of the mean loss of one batch of `images`, not augmented. Batch statistics are the
batch's, as in training; dropout is off, or with `gates` on, the same gates in all products. In float32 at least.

hessian_largest_eigenvalue: by Lanczos' method with full reorthogonalisation, the largest Ritz value, a lower bound of
the largest eigenvalue. hessian_residual: |H v - value v| for its Ritz vector v, so that H has an eigenvalue so near to
the value or nearer. It ends when the residual is below 1 % of the value, or after `iterations`. hessian_trace: by
Hutchinson (1990), the mean of z' H z over `vectors` random z of independent signs. n: products with H; of the trace its
vectors.

H v is the derivative of the gradient along v. Where a layer has no second derivative in torch (icbench's own faster
gradients, such as those of layer norm), it is a difference of gradients at points so near to each other, in float64,
that hardly a ReLU changes between.

Cost: by default 64 images and at most 12 + 8 products, of ResNet-20 as much as 4,400 images forward and backward; two
or three times that with differences. In memory: the graph of a gradient, about three times that of a loss.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from icbench.probing.landscape import Landscape, flat
from icbench.probing.measurement import Measurement, Probe, mean_of
from icbench.probing.subject import Subject
from icbench.values import PositiveInt

_TOLERANCE = 0.01
# Of the parameters' length. A ReLU among the ten million of a batch lies between with a probability of about 1e-4, and
# float64 leaves four digits of the difference.
_STEP = 1e-11

# (parameters,) -> (parameters,), in float64.
Product = Callable[[Tensor], Tensor]


def build(
    *, images: PositiveInt = 64, iterations: PositiveInt = 12, vectors: PositiveInt = 8, gates: bool = False
) -> Probe:
    """`gates`: whether dropout is on, with the same gates in all products."""
    return _Sharpness(images, iterations, vectors, gates)


class _Sharpness:
    def __init__(self, images: int, iterations: int, vectors: int, gates: bool):
        self.images, self.iterations, self.vectors, self.gates = images, iterations, vectors, gates

    def __call__(self, subject: Subject) -> Iterator[Measurement]:
        for module in subject.net.modules():
            if isinstance(module, _DropoutNd):
                module.train(self.gates)
        images, labels = subject.images(0, min(self.images, subject.data.train_count))
        product = hessian_product(subject.net, images, labels)
        parameters = [p for p in subject.net.parameters() if p.requires_grad]
        size, device = sum(p.numel() for p in parameters), parameters[0].device

        start = torch.randn(size, generator=subject.generator, dtype=torch.float64).to(device)
        found = largest_eigenvalue(product, start, self.iterations)
        yield Measurement("", "hessian_largest_eigenvalue", found.value, None, found.products)
        yield Measurement("", "hessian_residual", found.residual, None, found.products)
        signs = (
            torch.randint(0, 2, (size,), generator=subject.generator).double().to(device) * 2 - 1
            for _ in range(self.vectors)
        )
        yield from mean_of("", "hessian_trace", trace_estimates(product, signs))


def trace_estimates(product: Product, signs: Iterable[Tensor]) -> list[float]:
    """One unbiased estimate of the trace for each vector of independent signs."""
    return [(each @ product(each)).item() for each in signs]


class Ritz(NamedTuple):
    """value: the largest Ritz value; residual: of its vector; products: how many there were."""

    value: float
    residual: float
    products: int


def largest_eigenvalue(product: Product, start: Tensor, iterations: int, tolerance: float = _TOLERANCE) -> Ritz:
    """Of a symmetric matrix, by Lanczos' method from `start`; NaN where the matrix is not finite."""
    basis = [start / torch.linalg.vector_norm(start)]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        image = product(basis[-1])
        diagonal.append((basis[-1] @ image).item())
        known = torch.stack(basis)
        for _ in range(2):  # once leaves rounding, twice is enough (Parlett 1998, section 6.9)
            image = image - known.T @ (known @ image)
        beside.append(torch.linalg.vector_norm(image).item())
        if not torch.isfinite(image).all():
            return Ritz(float("nan"), float("nan"), len(diagonal))
        coupling = torch.tensor(beside[:-1], dtype=torch.float64)
        small = torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + coupling.diag(1) + coupling.diag(-1)
        values, vectors = torch.linalg.eigh(small)
        value, residual = values[-1].item(), abs(beside[-1] * vectors[-1, -1].item())
        if residual <= tolerance * abs(value) or len(diagonal) == min(iterations, len(start)):
            return Ritz(value, residual, len(diagonal))
        basis.append(image / beside[-1])


def hessian_product(net: nn.Module, images: Tensor, labels: Tensor) -> Product:
    """Products with the Hessian of the mean loss in the net's present mode. May make the net one in float64."""
    landscape = Landscape(net, images, labels)
    try:
        # Of a few images first: that a second derivative is missing shows only when it is asked for.
        few = _by_derivative(Landscape(net, images[:4], labels[:4]))
        few(torch.zeros(sum(p.numel() for p in net.parameters()), dtype=torch.float64, device=images.device))
    except RuntimeError as error:
        if not any(phrase in str(error) for phrase in ("once_differentiable", "not implemented")):
            raise
        landscape.restore()
        return _by_differences(Landscape(net.double(), images, labels))
    return _by_derivative(landscape)


def _by_derivative(landscape: Landscape) -> Product:
    parameters = landscape.parameters
    gradient = torch.autograd.grad(landscape.loss(), parameters, create_graph=True, materialize_grads=True)
    used = [index for index, each in enumerate(gradient) if each.requires_grad]

    def product(vector: Tensor) -> Tensor:
        along = _shaped(vector, parameters)
        return flat(
            torch.autograd.grad(
                [gradient[i] for i in used],
                parameters,
                [along[i] for i in used],
                retain_graph=True,
                materialize_grads=True,
            )
        )

    return product


def _by_differences(landscape: Landscape) -> Product:
    _, here = landscape.here()
    length = torch.linalg.vector_norm(flat(landscape.parameters)).item()

    def product(vector: Tensor) -> Tensor:
        step = _STEP * length / torch.linalg.vector_norm(vector).item()
        _, there = landscape.at(_shaped(vector * step, landscape.parameters))
        difference: Tensor = (flat(there) - flat(here)) / step
        return difference

    return product


def _shaped(vector: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """The parts of a vector of all parameters' elements."""
    parts = torch.split(vector, [parameter.numel() for parameter in parameters])
    return [part.view_as(each).to(each.dtype) for part, each in zip(parts, parameters, strict=True)]
