"""The shape of a net in numbers, without torch: a ResNet's convolutions, and what a net costs.

He et al. 2015 have two families of ResNets; which one a net is of follows from its data set, whose file may say
NETS. For small images (section 4.2): a 3x3 stem, then three stages of n units each on maps of full, half and quarter
size; depth 6n+2 (basic) or 9n+2 (bottleneck). For ImageNet's (table 1): a 7x7 stem of stride 2, max pooling, then four
stages, of as many units as the table has for a few depths. In both a stage has twice as many channels as the one before
it, and bottlenecks hand on four times as many.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from icbench import catalog

LAYERS_PER_UNIT = {"basic": 2, "bottleneck": 3}


@dataclass(frozen=True)
class Family:
    """What all ResNets for one kind of images have in common.

    width: channels of the first stage, if nothing else is said. baselines: the ordering that `baseline` means, by
    block. stem: kernel size and stride of the first convolution; pools: whether max pooling of 3x3 and stride 2 follows
    it. stage_count: how many stages each net has. striding: which of a bottleneck's convolutions has the unit's stride;
    of a basic block, the first. depths: by block and depth, how many units each stage has; None: all equally many.
    """

    width: int
    baselines: Mapping[str, str]
    stem: tuple[int, int]
    pools: bool
    stage_count: int
    striding: int
    depths: Mapping[str, Mapping[int, tuple[int, ...]]] | None = None

    def stages(self, block: str, depth: int) -> tuple[int, ...] | None:
        """How many units each stage has; None where there is no ResNet of that depth."""
        if self.depths is not None:
            return self.depths[block].get(depth)
        units, rest = divmod(depth - 2, self.stage_count * LAYERS_PER_UNIT[block])
        return None if rest or units < 1 else (units,) * self.stage_count

    def shallowest(self, block: str, depth: int) -> int:
        """The least depth of a net in which every layer stands that one of `depth` has.

        A stage's units are alike from its second on, in channels, maps and what the ordering puts where, and so are an
        LSTM's layers.
        """
        if block == "lstm":
            return min(depth, 2)
        if self.depths is not None:
            return min(self.depths[block])
        return min(depth, 2 * self.stage_count * LAYERS_PER_UNIT[block] + 2)


SMALL = Family(
    width=16,
    baselines={"basic": "baseline-v1", "bottleneck": "baseline-v2", "lstm": "lstm"},
    stem=(3, 1),
    pools=False,
    stage_count=3,
    striding=0,
)
# Bottlenecks stride in their 3x3 convolutions as torchvision's do, where He et al.'s stride in the first 1x1. What
# everybody calls ResNet-50 is v1.
IMAGENET = Family(
    width=64,
    baselines={"basic": "baseline-v1", "bottleneck": "baseline-v1", "lstm": "lstm"},
    stem=(7, 2),
    pools=True,
    stage_count=4,
    striding=1,
    depths={
        "basic": {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)},
        "bottleneck": {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)},
    },
)
_FAMILIES = {"": SMALL, "imagenet": IMAGENET}


@cache
def family(dataset: str) -> Family:
    """The ResNets for the images of a data set."""
    return _FAMILIES[catalog.constant("datasets", dataset, "NETS")]


class Convolution(NamedTuple):
    """A square convolution: channels in and out, kernel size, stride."""

    channels: int
    out: int
    kernel: int
    stride: int


class Unit(NamedTuple):
    """A residual unit's stage, from 0, and its convolutions; the shortcut has one where the shape changes."""

    stage: int
    branch: tuple[Convolution, ...]
    shortcut: Convolution | None


@dataclass(frozen=True)
class Shape:
    """A net without what stands between its weight layers. image: (height, width, channels)."""

    family: Family
    block: str
    depth: int
    width: int
    image: tuple[int, int, int]
    classes: int

    @property
    def stem(self) -> Convolution:
        """The convolution before the first unit."""
        return Convolution(self.image[2], self.width, *self.family.stem)

    def units(self) -> Iterator[Unit]:
        """A ResNet's units in order."""
        stages = self.family.stages(self.block, self.depth)
        assert stages is not None, f"there is no {self.block} ResNet of depth {self.depth}"
        channels = self.width
        for stage, count in enumerate(stages):
            for position in range(count):
                stride = 2 if stage > 0 and position == 0 else 1
                branch = self._branch(channels, self.width * 2**stage, stride)
                out = branch[-1].out
                changes = channels != out or stride != 1
                yield Unit(stage, branch, Convolution(channels, out, 1, stride) if changes else None)
                channels = out

    def _branch(self, channels: int, inner: int, stride: int) -> tuple[Convolution, ...]:
        if self.block == "basic":
            return Convolution(channels, inner, 3, stride), Convolution(inner, inner, 3, 1)
        strides = [stride if layer == self.family.striding else 1 for layer in range(2)]
        return (
            Convolution(channels, inner, 1, strides[0]),
            Convolution(inner, inner, 3, strides[1]),
            Convolution(inner, 4 * inner, 1, 1),
        )

    def multiply_adds(self) -> int:
        """Multiply-adds of one image's pass: the weight layers alone."""
        if self.block == "lstm":
            return lstm_multiply_adds(self.depth, self.width, self.image, self.classes)
        height, width, _ = self.image
        maps = _strided((height, width), self.stem.stride)
        total = _cost(self.stem, maps)
        if self.family.pools:
            maps = _strided(maps, 2)
        out = self.width
        for unit in self.units():
            for convolution in unit.branch:
                maps = _strided(maps, convolution.stride)
                total += _cost(convolution, maps)
            total += _cost(unit.shortcut, maps) if unit.shortcut else 0
            out = unit.branch[-1].out
        return total + out * self.classes


def shape(dataset: str, block: str, depth: int, width: int) -> Shape:
    """The shape of a net for a data set."""
    module = catalog.load("datasets", dataset)
    return Shape(family(dataset), block, depth, width, module.SHAPE, module.CLASSES)


def lstm_multiply_adds(layers: int, width: int, image: tuple[int, int, int], classes: int) -> int:
    """Multiply-adds of one image's pass through an LSTM: the four gates at each row, and the classifier.

    image: (height, width, channels), whose rows are the steps. The first step's product with the hidden state, which is
    0, counts as the others do.
    """
    steps, columns, channels = image
    features = columns * channels + (layers - 1) * width
    return steps * 4 * width * (features + layers * width) + width * classes


def _strided(maps: tuple[int, int], stride: int) -> tuple[int, int]:
    """Height and width of maps that a stride leaves, by paddings that keep them at stride 1."""
    return -(-maps[0] // stride), -(-maps[1] // stride)


def _cost(convolution: Convolution, maps_out: tuple[int, int]) -> int:
    return convolution.channels * convolution.out * convolution.kernel**2 * maps_out[0] * maps_out[1]
