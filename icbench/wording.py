"""Configurations in words, short: variants without the options that are as usual, cells by what tells them apart."""

from collections.abc import Callable, Iterable
from functools import cache

from icbench import catalog
from icbench.architecture import family
from icbench.config import PLAIN_WEIGHT, RELU, RunConfig, Variant, by_stage
from icbench.values import Scalar

Column = tuple[str, Callable[[RunConfig], str]]


def run(config: RunConfig) -> str:
    """A run in a few words."""
    return f"{cell(config)} seed {config.seed}"


def cell(config: RunConfig) -> str:
    """A run's cell in a few words: what it is, and what is not as usual."""
    words = [config.ordering, config.dataset, f"{config.block}-{config.depth}"]
    if config.width != family(config.dataset).width:
        words.append(f"width {config.width}")
    if config.norm.name != "batch":
        words.append(str(config.norm))
    if config.weight != PLAIN_WEIGHT:
        words.append(f"weight {config.weight}")
    if config.activation != RELU:
        words.append(str(config.activation))
    if config.dropout is not None:
        words.append(f"dropout {dropout(config)}")
    words += [f"with {procedure}" for procedure in config.procedures]
    words += [word for word, usual in ((config.precision, "float32"), (config.split, "test")) if word != usual]
    return " ".join(words)


def dropout(config: RunConfig) -> str:
    """A run's dropout rate, or those of its stages, the first one's first; empty if it has no dropout."""
    rates = () if config.dropout is None else by_stage(config.dropout, 1)
    return " ".join(f"{rate:g}" for rate in rates)


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
    ("dropout", dropout),
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
