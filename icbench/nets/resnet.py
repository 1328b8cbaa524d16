"""ResNets for small images and for ImageNet's (He et al. 2015), of basic blocks or bottlenecks, in any ordering.

Which convolutions they have, icbench/architecture.py says. Where a unit changes the shape, its shortcut is a 1x1
convolution without a norm, so that all orderings have the same number of parameters; torchvision's have one there.

Each stage may have a dropout rate of its own. A unit's dropout layers are of its stage, and so is the projection that
begins a stage; the stem's are of the first stage, those behind the last unit, also before the classifier, of the last.
"""

from collections.abc import Callable

from torch import Tensor, nn

from icbench.architecture import Convolution, Shape
from icbench.nets.ic import IC
from icbench.nets.ordering import Ordering, Piece

NormFactory = Callable[[int], nn.Module]
Factory = Callable[[], nn.Module]
# A stage, from 0 -> a dropout layer at its rate.
DropoutFactory = Callable[[int], nn.Module]


class Parts:
    """Makes the pieces that an ordering names, in the way a configuration wants them."""

    def __init__(
        self, norm: NormFactory, activation: Factory, dropout: DropoutFactory, *, bias: bool, trailing_padding: bool
    ):
        self.norm = norm
        self.activation = activation
        self.dropout = dropout
        self.bias = bias
        self.trailing_padding = trailing_padding

    def sequence(
        self, stage: int, pieces: tuple[Piece, ...], channels: int, convolutions: tuple[Convolution, ...] = ()
    ) -> nn.Sequential:
        """The pieces one after another, from `channels` on; each CONV takes the next of `convolutions`."""
        remaining = iter(convolutions)
        modules: list[nn.Module] = []
        for piece in pieces:
            if piece is Piece.CONV:
                convolution = next(remaining)
                assert convolution.channels == channels
                modules.append(self.convolution(convolution))
                channels = convolution.out
            else:
                modules.append(self._other(stage, piece, channels))
        return nn.Sequential(*modules)

    def convolution(self, shape: Convolution) -> nn.Module:
        channels, out, kernel, stride = shape
        if kernel == 3 and stride == 2 and self.trailing_padding:
            # Keras' 'same': of the row and column of zeros that an even map needs, both are below and right.
            return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, out, 3, 2, bias=self.bias))
        return nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, bias=self.bias)

    def _other(self, stage: int, piece: Piece, channels: int) -> nn.Module:
        match piece:
            case Piece.RELU:
                return self.activation()
            case Piece.NORM:
                return self.norm(channels)
            case Piece.IC:
                return IC(self.norm(channels), self.dropout(stage))
            case Piece.DROPOUT:
                return self.dropout(stage)
            case Piece.POOL:
                return nn.MaxPool2d(3, stride=2, padding=1)
        raise AssertionError(piece)


class Unit(nn.Module):
    """A residual unit: branch(x) + shortcut(x), then what the ordering puts after the addition.

    in_place: the branch's output may be overwritten with the sum.
    """

    def __init__(self, branch: nn.Module, shortcut: nn.Module, after: nn.Module):
        super().__init__()
        self.in_place = False
        self.branch = branch
        self.shortcut = shortcut
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        branch, shortcut = self.branch(x), self.shortcut(x)
        # Under autocast the two may have different precisions, whose sum has the higher.
        in_place = self.in_place and branch.dtype == shortcut.dtype
        out: Tensor = self.after(branch.add_(shortcut) if in_place else branch + shortcut)
        return out


class ResNet(nn.Module):
    """x: (N, image channels, H, W) -> logits (N, classes)."""

    def __init__(self, parts: Parts, ordering: Ordering, shape: Shape):
        super().__init__()
        stem = ordering.pooled_stem if shape.family.pools else ordering.stem
        self.stem = parts.sequence(0, stem, shape.image[2], (shape.stem,))
        channels = shape.width
        chain: list[Unit] = []
        for unit in shape.units():
            branch = ordering.branch(len(unit.branch), first=not chain)
            shortcut = parts.convolution(unit.shortcut) if unit.shortcut else nn.Identity()
            out = unit.branch[-1].out
            chain.append(
                Unit(
                    parts.sequence(unit.stage, branch, channels, unit.branch),
                    shortcut,
                    parts.sequence(unit.stage, ordering.after_add, out),
                )
            )
            channels = out
        self.units = nn.Sequential(*chain)
        last = shape.family.stage_count - 1
        self.last = parts.sequence(last, ordering.last, channels)
        self.head = parts.sequence(last, ordering.head, channels)
        self.classifier = nn.Linear(channels, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.last(self.units(self.stem(x)))
        logits: Tensor = self.classifier(self.head(maps.mean(dim=(2, 3))))
        return logits
