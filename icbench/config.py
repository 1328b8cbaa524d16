"""What one run is: a configuration and a seed; its canonical form, run id and cell id.

The canonical form is JSON: defaults filled in, keys sorted, what cannot matter dropped, the recipe by content and not
by name. Two spellings of one experiment are one run. A run id never changes for a configuration that once had one:
a field added later must be left out of the canonical form while it has the value that all earlier runs had.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from operator import attrgetter
from typing import Any

from icbench.values import Scalar

BLOCKS = ("basic", "bottleneck", "lstm")
PRECISIONS = ("float32", "tf32", "bfloat16", "float64")
SPLITS = ("test", "heldout")
FILLS = ("edge", "zero")
INITIALIZATIONS = ("he-truncated-normal", "he-normal", "he-fan-out", "lecun-normal", "torch-default")
PADDINGS = ("trailing", "symmetric")


@dataclass(frozen=True, slots=True)
class Variant:
    """A named variant with all its options, sorted by name: `group` with `epsilon=1e-05, groups=8`."""

    name: str
    options: tuple[tuple[str, Scalar], ...] = ()

    def __str__(self) -> str:
        return self.name + "".join(f" {key}={value}" for key, value in self.options)

    def differing_from(self, defaults: Mapping[str, Scalar]) -> str:
        """In words, without the options that are as in `defaults`."""
        return str(replace(self, options=tuple(each for each in self.options if each not in defaults.items())))

    def without(self, option: str) -> "Variant":
        return replace(self, options=tuple(each for each in self.options if each[0] != option))

    def canonical(self) -> dict[str, Scalar]:
        return {"name": self.name, **dict(self.options)}


# A dropout rate of all stages of a net, or one of each.
Dropout = float | tuple[float, ...]


def by_stage(dropout: Dropout, stages: int) -> tuple[float, ...]:
    """The rate of each stage of a net that has so many."""
    return dropout if isinstance(dropout, tuple) else (dropout,) * stages


# What a net has unless something else is said; as in all runs before there was a choice.
PLAIN_WEIGHT = Variant("plain")
RELU = Variant("relu")


@dataclass(frozen=True, slots=True)
class WeightDecay:
    """Coupled L2 decay (torch's `weight_decay`, the gradient of decay/2 * sum(w^2)) of each parameter group.

    convolution: of an LSTM, its matrices.
    """

    convolution: float
    classifier: float
    other: float


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random shift of up to `shift` pixels in each direction, new pixels by `fill`; horizontal flip of every second.

    crop_area: the least part of an image's area that a random resized crop keeps (Szegedy et al. 2015, section 6), of
    aspect ratio 3/4 to 4/3; at 1 nothing is cropped.
    """

    shift: int
    fill: str
    flip: bool
    crop_area: float = 1.0

    def canonical(self) -> dict[str, Any]:
        """Without what no run had before there was a choice."""
        crop = {} if self.crop_area == 1 else {"crop_area": self.crop_area}
        return {"shift": self.shift, "fill": self.fill, "flip": self.flip, **crop}


@dataclass(frozen=True)
class Recipe:
    """A training procedure. `label` and `norm_defaults` name and shape things but are not hashed by themselves."""

    optimizer: Variant
    learning_rate: float
    learning_rate_steps: tuple[tuple[int, float], ...]
    epochs: int
    batch_size: int
    weight_decay: WeightDecay
    augmentation: Augmentation
    subtract_pixel_mean: bool
    convolution_bias: bool
    initialization: str
    downsample_padding: str
    sync_batch_norm: bool
    norm_defaults: tuple[tuple[str, tuple[tuple[str, Scalar], ...]], ...] = field(compare=False)
    label: str = field(compare=False)
    standardize_channels: bool = False

    def canonical_json(self, block: str, norm: str) -> str:
        """The content that makes the run id of nets of `block` with `norm`.

        `norm_defaults` enter the run id through the norm's options.
        """
        return self._canonical_json[block, norm == "batch"]

    @cached_property
    def _canonical_json(self) -> dict[tuple[str, bool], str]:
        content = {
            "augmentation": self.augmentation.canonical(),
            "batch_size": self.batch_size,
            "convolution_bias": self.convolution_bias,
            "downsample_padding": self.downsample_padding,
            "epochs": self.epochs,
            "initialization": self.initialization,
            "learning_rate": self.learning_rate,
            "learning_rate_steps": [list(step) for step in self.learning_rate_steps],
            "optimizer": self.optimizer.canonical(),
            "subtract_pixel_mean": self.subtract_pixel_mean,
            "weight_decay": _fields(self.weight_decay),
        } | ({"standardize_channels": True} if self.standardize_channels else {})
        # Small images' bottlenecks stride in 1x1 convolutions, which are not padded, and ImageNet's pad symmetrically
        # whatever the recipe says; an LSTM has no convolutions at all.
        without = {
            "basic": (),
            "bottleneck": ("downsample_padding",),
            "lstm": ("downsample_padding", "convolution_bias"),
        }
        # Only batch normalisation has anything to synchronise, and the runs before this field did without.
        synchronised = {"sync_batch_norm": True} if self.sync_batch_norm else {}
        return {
            (block, is_batch): _json(
                {key: value for key, value in content.items() if key not in dropped}
                | (synchronised if is_batch else {})
            )
            for block, dropped in without.items()
            for is_batch in (True, False)
        }


@dataclass(frozen=True, slots=True)
class RunConfig:
    """One run. `ordering` is never the alias `baseline`; `recipe` is as `procedures`, sorted by name, have adapted it.

    dropout: None where the ordering has no dropout; each stage's where they differ, so one of them at least is not 0,
    and `bool(dropout)` says of every form whether anything is dropped.
    """

    dataset: str
    block: str
    depth: int
    width: int
    ordering: str
    norm: Variant
    dropout: Dropout | None
    recipe: Recipe
    precision: str
    split: str
    seed: int
    weight: Variant = PLAIN_WEIGHT
    activation: Variant = RELU
    procedures: tuple[Variant, ...] = ()

    def cell_json(self) -> str:
        """The canonical form without the seed."""
        return self._spell("")

    def canonical_json(self) -> str:
        """The canonical form: JSON with sorted keys and no spaces."""
        return self._spell(f'"seed":{self.seed},')

    def run_id_of(self, seed: int) -> str:
        """The run id of this configuration with another seed."""
        return _digest(self._spell(f'"seed":{seed},'))

    def _spell(self, seed: str) -> str:
        # By hand, which json.dumps would take four times as long for: a grid may have 100,000 runs.
        recipe = self.recipe.canonical_json(self.block, self.norm.name)
        activation = "" if self.activation == RELU else f'"activation":{_variant_json(self.activation)},'
        dropout = "" if self.dropout is None else f'"dropout":{_dropout_json(self.dropout)},'
        procedures = f'"procedures":{_variants_json(self.procedures)},' if self.procedures else ""
        weight = "" if self.weight == PLAIN_WEIGHT else f'"weight":{_variant_json(self.weight)},'
        return (
            f'{{{activation}"block":"{self.block}","dataset":"{self.dataset}","depth":{self.depth},{dropout}'
            f'"norm":{_variant_json(self.norm)},"ordering":"{self.ordering}","precision":"{self.precision}",'
            f'{procedures}"recipe":{recipe},{seed}"split":"{self.split}",{weight}"width":{self.width}}}'
        )

    @property
    def run_id(self) -> str:
        """The first 12 hex digits of the SHA-256 of the canonical form."""
        return self.run_id_of(self.seed)

    @property
    def cell_id(self) -> str:
        """As the run id, without the seed: the runs that differ in nothing but the seed share it."""
        return _digest(self.cell_json())

    def varied(self, field: str, value: Dropout) -> "RunConfig":
        """This configuration with another seed or dropout rate; faster than `replace`, for grids of 100,000 runs."""
        before, after = _around[field]
        values: tuple[Any, ...] = (*before(self), value, *after(self))
        return RunConfig(*values)


def _getters_around(field: str) -> tuple[Callable[[RunConfig], Any], Callable[[RunConfig], Any]]:
    names = RunConfig.__slots__
    place = names.index(field)
    return attrgetter(*names[:place]), attrgetter(*names[place + 1 :])


# Of the values before each field and after it.
_around = {field: _getters_around(field) for field in ("seed", "dropout")}


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a sweep: one configuration, its seeds, and the run id of each."""

    config: RunConfig
    cell_id: str
    seeds: tuple[int, ...]
    run_ids: tuple[str, ...]

    @classmethod
    def of(cls, config: RunConfig, seeds: tuple[int, ...], cell_id: str = "") -> "Cell":
        """The cell of a configuration, whose cell id may be given if it is known already."""
        return cls(config, cell_id or config.cell_id, seeds, tuple(config.run_id_of(seed) for seed in seeds))

    def runs(self) -> list[tuple[str, RunConfig]]:
        """Each run id with its configuration."""
        config = self.config
        return [
            (run_id, config if seed == config.seed else config.varied("seed", seed))
            for run_id, seed in zip(self.run_ids, self.seeds, strict=True)
        ]


def _digest(canonical: str) -> str:
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _dropout_json(dropout: Dropout) -> str:
    return _json(dropout) if isinstance(dropout, tuple) else repr(dropout)


@cache
def _variant_json(variant: Variant) -> str:
    return _json(variant.canonical())


@cache
def _variants_json(variants: tuple[Variant, ...]) -> str:
    return _json([variant.canonical() for variant in variants])


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _fields(value: WeightDecay) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}
