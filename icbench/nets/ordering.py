"""What an ordering is: the same cycle of pieces, cut at another place (Chen et al. 2019, section 4, figure 3).

An ordering is data, so that the grid can ask it whether it uses dropout without importing torch; `nets/resnet.py`
builds networks from it.
"""

from dataclasses import dataclass
from enum import Enum, auto


class Piece(Enum):
    """What networks are put together from."""

    CONV = auto()
    RELU = auto()
    NORM = auto()
    DROPOUT = auto()
    IC = auto()
    """Normalisation, then dropout."""
    POOL = auto()
    """Max pooling of 3x3 and stride 2, in the stem of ImageNet's nets."""


CONV, RELU, NORM, DROPOUT, IC, POOL = Piece.CONV, Piece.RELU, Piece.NORM, Piece.DROPOUT, Piece.IC, Piece.POOL
Pieces = tuple[Piece, ...]


@dataclass(frozen=True)
class Ordering:
    """Where the pieces of a ResNet stand.

    stem: before the first unit. layer: repeated twice (basic) or three times (bottleneck) to make a residual branch.
    after_add: pieces taken off the end of the branch and put after the addition instead. first_unit_without: pieces
    taken off the beginning of the very first branch, since the stem has just done them. last: after the last unit.
    head: between the global average pooling and the classifier. where_v2: what it is in nets whose baseline is
    baseline-v2, if another.
    """

    stem: Pieces
    layer: Pieces
    after_add: Pieces = ()
    first_unit_without: Pieces = ()
    last: Pieces = ()
    head: Pieces = ()
    where_v2: "Ordering | None" = None

    def __post_init__(self) -> None:
        assert self.stem.count(CONV) == self.layer.count(CONV) == 1
        assert not self.after_add or self.layer[-len(self.after_add) :] == self.after_add
        assert self.layer[: len(self.first_unit_without)] == self.first_unit_without

    def of(self, baseline: str) -> "Ordering":
        """The ordering in nets that have that baseline."""
        return self.where_v2 if baseline == "baseline-v2" and self.where_v2 else self

    @property
    def pooled_stem(self) -> Pieces:
        """The stem of nets that pool there: last, but for an IC, which stays right before the next weight layer."""
        return (*self.stem[:-1], POOL, IC) if self.stem[-1] is IC else (*self.stem, POOL)

    def stages_with_dropout(self, count: int) -> frozenset[int]:
        """Which of a net's stages, from 0, have dropout layers.

        A unit's are of its stage, the stem's of the first, those behind the last unit of the last.
        """
        places = {0: self.stem, count - 1: self.last + self.head}
        return frozenset(s for s in range(count) if {IC, DROPOUT} & {*self.layer, *places.get(s, ())})

    def branch(self, layers: int, *, first: bool) -> Pieces:
        """The residual branch of `layers` layers, up to the addition."""
        pieces = self.layer * layers
        if self.after_add:
            pieces = pieces[: -len(self.after_add)]
        return pieces[len(self.first_unit_without) :] if first else pieces
