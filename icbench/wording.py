"""Configurations in words, short: variants without the options that are as usual, cells by what tells them apart."""

from collections.abc import Callable, Iterable
from functools import cache

from icbench import catalog
from icbench.config import RunConfig, Variant
from icbench.values import Scalar

Column = tuple[str, Callable[[RunConfig], str]]


@cache
def in_short(kind: str, variant: Variant) -> str:
    """A variant without the options that are as its file has them."""
    return variant.differing_from(_defaults(kind, variant.name))


def norm(config: RunConfig) -> str:
    """A run's norm without the options that are as its file or its recipe has them."""
    return _norm(config.norm, config.recipe.norm_defaults)


@cache
def _norm(variant: Variant, recipe: tuple[tuple[str, tuple[tuple[str, Scalar], ...]], ...]) -> str:
    return variant.differing_from(_defaults("norms", variant.name) | dict(dict(recipe).get(variant.name, ())))


def _defaults(kind: str, name: str) -> dict[str, Scalar]:
    return {option: each.default for option, each in catalog.options(kind, name).items()}


def procedures(config: RunConfig) -> str:
    """A run's procedures; empty if there is none."""
    return " + ".join(in_short("procedures", each) for each in config.procedures)


_ALWAYS: tuple[Column, ...] = (
    ("ordering", lambda config: config.ordering),
    ("dropout", lambda config: "" if config.dropout is None else f"{config.dropout:g}"),
)
_WHERE_THEY_DIFFER: tuple[Column, ...] = (
    ("dataset", lambda config: config.dataset),
    ("block", lambda config: config.block),
    ("depth", lambda config: str(config.depth)),
    ("width", lambda config: str(config.width)),
    ("norm", norm),
    ("weight", lambda config: in_short("weights", config.weight)),
    ("activation", lambda config: in_short("activations", config.activation)),
    ("procedures", procedures),
    ("recipe", lambda config: config.recipe.label),
    ("precision", lambda config: config.precision),
    ("split", lambda config: config.split),
)


def cell_columns(configs: Iterable[RunConfig]) -> list[Column]:
    """What tells cells apart: ordering and dropout always, the other fields where they differ."""
    every = list(configs)
    differing = ((title, of) for title, of in _WHERE_THEY_DIFFER if len({of(config) for config in every}) > 1)
    return [*_ALWAYS, *differing]
