"""Root mean squares of weights, activations and their gradients by depth (Glorot and Bengio 2010, section 4).

For each weight layer: of its filters (weight_rms), its input (input_rms) and its output (output_rms), before any norm
or activation behind it; of the gradient of an image's loss by the output (output_gradient_rms), and of the gradient of
the mean loss by the filters (weight_gradient_rms). sqrt(mean of squares) over all elements; where depth makes signals
or gradients vanish or explode, these fall or grow geometrically from layer to layer.

In training mode, as the training sees it, with dropout's gates. n: batches, each of the recipe's size and one
observation; of weight_rms 1. The gradient by outputs is that of the sum of a batch's losses, so that it does not depend
on the batch size. Activations are without the zeros of a padding.

Cost: by default 512 images forward and backward, twice by the filters: as much as 700 without that.
"""

from collections import defaultdict
from collections.abc import Iterator

from torch import Tensor

from icbench.probing.layers import Backward, backwards, filters, weight_layers
from icbench.probing.measurement import Measurement, Probe, mean_of
from icbench.probing.subject import Subject
from icbench.values import PositiveInt


def build(*, images: PositiveInt = 512) -> Probe:
    """`images`: how many, in batches."""
    return _Magnitudes(images)


class _Magnitudes:
    def __init__(self, images: int):
        self.images = images

    def __call__(self, subject: Subject) -> Iterator[Measurement]:
        found: dict[tuple[str, str], list[float]] = defaultdict(list)

        def see(passage: Backward) -> None:
            name = passage.at.name
            found[name, "input_rms"].append(_rms(passage.at.activations()))
            found[name, "output_rms"].append(_rms(passage.at.outputs()))
            found[name, "output_gradient_rms"].append(_rms(passage.by_outputs()))
            found[name, "weight_gradient_rms"].append(_rms(passage.by_filters()))

        with backwards(subject.net, see):
            for images, labels in subject.batches(self.images):
                subject.loss(images, labels).backward()  # type: ignore[no-untyped-call]
        for name, layer in weight_layers(subject.net).items():
            yield Measurement(name, "weight_rms", _rms(filters(layer)), None, 1)
            for (where, statistic), values in found.items():
                if where == name:
                    yield from mean_of(name, statistic, values)


def _rms(values: Tensor) -> float:
    return values.double().square().mean().sqrt().item()
