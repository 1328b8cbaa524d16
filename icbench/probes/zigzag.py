"""Zigzag: sign agreement within rows of the gradient, and how straight updates go (Chen et al. 2019, section 5.1).

The gradient by a filter is a sum over images and output positions of delta x, x the patch of inputs. Where all inputs
are non-negative, as behind ReLU, all its elements have the sign of delta: weights that should change in different
directions can only do so by zigzagging (LeCun et al. 1998, Efficient BackProp, section 4.3). Sums wash it out.

Sign agreement of a row with n+ positive and n- negative elements: max(n+, n-) / (n+ + n-), 1/2 to 1; zeros, such as
padding and dropped inputs, do not count. Mean over rows: position_sign_agreement, of one output position of one image
(n: images, each the mean over its positions); image_sign_agreement, of the sum over an image's positions (n: images);
batch_sign_agreement, of a batch's gradient (n: batches). Rows are the filters of each weight layer, of a parametrised
weight what its parameters come to.

batch_gradient_cosine: of a batch's gradient and the full one, over `images` but for the last quarter of their batches,
or the last one of two or three, which are the ones compared (n: batches), so that no batch is part of what it is
compared with. update_cosine: of the changes of the weights in successive ones of the training's next steps (n: pairs of
steps); path_over_displacement: the sum of the changes' lengths over the length of the whole, 1 for a straight line (n:
steps). Of each layer's filters, and of all parameters. Successive steps are not independent, so the standard error of
update_cosine is too small.

In training mode, with dropout's gates, in batches of the recipe's size. Where batch statistics tie images together,
an image's gradient is its share of the gradient of the sum of all losses: what passes through its own outputs of the
layer.

Cost: by default 2,048 images forward and backward, twice by the filters, 256 of them once more by image; 20 steps: in
batches of 64 as much as 4,500 images forward and backward.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from icbench.probing.landscape import flat
from icbench.probing.layers import Backward, backwards, filters, weight_layers
from icbench.probing.measurement import Measurement, Probe, mean_of
from icbench.probing.subject import Subject
from icbench.values import PositiveInt


def build(*, images: PositiveInt = 2048, single_images: PositiveInt = 256, steps: PositiveInt = 20) -> Probe:
    """`images`: of the full gradient; `single_images`: looked at one by one; `steps`: of the training, watched."""
    return _Zigzag(images, single_images, steps)


class _Zigzag:
    def __init__(self, images: int, single_images: int, steps: int):
        self.images, self.single_images, self.steps = images, single_images, steps

    def __call__(self, subject: Subject) -> Iterator[Measurement]:
        yield from self._gradients(subject)
        yield from self._updates(subject)

    def _gradients(self, subject: Subject) -> Iterator[Measurement]:
        found: dict[tuple[str, str], list[float]] = defaultdict(list)
        full: dict[str, Tensor] = {}
        batches = list(subject.batch_ranges(self.images))
        compared_from = max(1, len(batches) - max(1, len(batches) // 4))
        gradients: dict[str, Tensor] = {}
        single = 0

        def see(passage: Backward) -> None:
            name = passage.at.name
            gradients[name] = passage.by_filters()
            found[name, "batch_sign_agreement"] += _mean_agreement(gradients[name][None])
            if single > 0:
                found[name, "position_sign_agreement"] += of_positions(passage)
                found[name, "image_sign_agreement"] += of_images(passage)

        for index, (start, stop) in enumerate(batches):
            single = self.single_images - start
            subject.net.zero_grad()
            gradients.clear()
            with backwards(subject.net, see):
                subject.loss(*subject.images(start, stop)).backward()  # type: ignore[no-untyped-call]
            gradients[""] = flat([p.grad for p in subject.net.parameters() if p.grad is not None])
            for name, gradient in gradients.items():
                if index < compared_from:
                    full[name] = full[name] + gradient if name in full else gradient
                else:
                    found[name, "batch_gradient_cosine"] += _cosine(gradient, full[name])
        for name in weight_layers(subject.net):
            for (where, statistic), values in found.items():
                if where == name:
                    yield from mean_of(name, statistic, values)
        yield from mean_of("", "batch_gradient_cosine", found["", "batch_gradient_cosine"])

    def _updates(self, subject: Subject) -> Iterator[Measurement]:
        layers = weight_layers(subject.net)
        places: dict[str, Callable[[], Tensor]] = {
            name: lambda layer=layer: filters(layer).double().flatten()  # type: ignore[misc]
            for name, layer in layers.items()
        }
        places[""] = lambda: flat(list(subject.net.parameters()))
        paths = {name: Path(place()) for name, place in places.items()}
        for step in subject.steps(self.steps):
            if step:
                for name, place in places.items():
                    paths[name].go(place())
        for name, path in paths.items():
            yield from path.measured(name)


class Path:
    """The way that parameters go from `start`, of which it keeps three points."""

    def __init__(self, start: Tensor) -> None:
        self.start = self.place = start
        self.update = torch.zeros_like(start)
        self.steps = 0
        self.length = 0.0
        self.cosines: list[float] = []

    def go(self, place: Tensor) -> None:
        """place: (parameters,), as `start`."""
        update = place - self.place
        if self.steps:
            self.cosines += _cosine(update, self.update)
        self.length += torch.linalg.vector_norm(update).item()
        self.place, self.update = place, update
        self.steps += 1

    def measured(self, layer: str) -> Iterator[Measurement]:
        yield from mean_of(layer, "update_cosine", self.cosines)
        displacement = torch.linalg.vector_norm(self.place - self.start).item()
        if displacement:
            yield Measurement(layer, "path_over_displacement", self.length / displacement, None, self.steps)


def sign_agreement(gradients: Tensor) -> Tensor:
    """(..., rows, elements) -> (..., rows); NaN of a row of zeros."""
    positive, negative = (gradients > 0).sum(-1), (gradients < 0).sum(-1)
    return torch.maximum(positive, negative) / (positive + negative)


def of_positions(passage: Backward) -> list[float]:
    """For each image, the mean over its output positions and rows; none for an image without any gradient.

    Within a row a position's elements are delta x: the signs agree as x's do, whatever delta is, unless it is 0.
    """
    positive, negative = passage.at.positive_and_negative()
    agreement = torch.maximum(positive, negative) / (positive + negative)
    rows = torch.where(agreement.isnan(), 0, (passage.deltas() != 0).sum(1))
    return _finite((agreement.nan_to_num() * rows).sum(1) / rows.sum(1))


def of_images(passage: Backward) -> list[float]:
    """For each image, the mean over rows; none for an image without any gradient."""
    by_rows = [sign_agreement(some) for some in passage.by_filters_of_each_image()]
    return _finite(torch.cat(by_rows, dim=1).nanmean(1))


def _mean_agreement(gradients: Tensor) -> list[float]:
    return _finite(sign_agreement(gradients).nanmean(1))


def _finite(values: Tensor) -> list[float]:
    each: list[float] = values[values.isfinite()].tolist()
    return each


def _cosine(a: Tensor, b: Tensor) -> list[float]:
    """None where one is 0 or not finite."""
    a, b = a.double().flatten(), b.double().flatten()
    return _finite((a @ b / (torch.linalg.vector_norm(a) * torch.linalg.vector_norm(b)))[None])
