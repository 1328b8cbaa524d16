"""The shape of a net in numbers, without torch: a ResNet's convolutions, and what a net costs.

ResNets (He et al. 2015, section 4.2) have depth 6n+2 (basic) or 9n+2 (bottleneck): three stages of n units on maps of
full, half and quarter size, with width, 2*width and 4*width channels; bottlenecks hand on four times as many.
"""

from collections.abc import Iterator
from typing import NamedTuple

from icbench.config import LAYERS_PER_UNIT_OF_DEPTH


class Convolution(NamedTuple):
    """A square convolution: channels in and out, kernel size, stride."""

    channels: int
    out: int
    kernel: int
    stride: int


class Unit(NamedTuple):
    """A residual unit's convolutions; the shortcut has one where the shape changes."""

    branch: tuple[Convolution, ...]
    shortcut: Convolution | None


def stem(image_channels: int, width: int) -> Convolution:
    """The convolution before the first unit."""
    return Convolution(image_channels, width, 3, 1)


def units(block: str, depth: int, width: int) -> Iterator[Unit]:
    """The units in order. The first convolution of a branch carries the unit's stride."""
    per_stage = (depth - 2) // LAYERS_PER_UNIT_OF_DEPTH[block]
    channels = width
    for index in range(3 * per_stage):
        stage, position = divmod(index, per_stage)
        inner = width * 2**stage
        stride = 2 if stage > 0 and position == 0 else 1
        branch: tuple[Convolution, ...]
        if block == "basic":
            branch = (Convolution(channels, inner, 3, stride), Convolution(inner, inner, 3, 1))
        else:
            branch = (
                Convolution(channels, inner, 1, stride),
                Convolution(inner, inner, 3, 1),
                Convolution(inner, 4 * inner, 1, 1),
            )
        out = branch[-1].out
        changes = channels != out or stride != 1
        yield Unit(branch, Convolution(channels, out, 1, stride) if changes else None)
        channels = out


def multiply_adds(block: str, depth: int, width: int, shape: tuple[int, int, int], classes: int) -> int:
    """Multiply-adds of one image's pass: the weight layers alone. shape: (height, width, channels) of an image."""
    if block == "lstm":
        return lstm_multiply_adds(depth, width, shape, classes)
    pixels = shape[0] * shape[1]
    total = _cost(stem(shape[2], width), pixels)
    out = width
    for unit in units(block, depth, width):
        pixels_out = pixels // unit.branch[0].stride ** 2
        total += sum(_cost(convolution, pixels_out) for convolution in unit.branch)
        total += _cost(unit.shortcut, pixels_out) if unit.shortcut else 0
        pixels, out = pixels_out, unit.branch[-1].out
    return total + out * classes


def lstm_multiply_adds(layers: int, width: int, shape: tuple[int, int, int], classes: int) -> int:
    """Multiply-adds of one image's pass through an LSTM: the four gates at each row, and the classifier.

    shape: (height, width, channels) of an image, whose rows are the steps. The first step's product with the hidden
    state, which is 0, counts as the others do.
    """
    steps, columns, channels = shape
    features = columns * channels + (layers - 1) * width
    return steps * 4 * width * (features + layers * width) + width * classes


def _cost(convolution: Convolution, pixels_out: int) -> int:
    return convolution.channels * convolution.out * convolution.kernel**2 * pixels_out
