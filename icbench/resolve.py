"""From the fields that a grid gives to a RunConfig: types, names, defaults, and what fits together."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from icbench import catalog, recipe
from icbench.architecture import LAYERS_PER_UNIT, SMALL, family
from icbench.config import (
    BLOCKS,
    PLAIN_WEIGHT,
    PRECISIONS,
    RELU,
    SPLITS,
    Augmentation,
    Dropout,
    Recipe,
    RunConfig,
    Variant,
)
from icbench.errors import suggest
from icbench.procedure import together
from icbench.values import TYPES
from icbench.yamlfile import Mistake, Path_

BASELINE = "baseline"

_resolved: dict[tuple[object, ...], tuple[RunConfig, list[Any]]] = {}

DEFAULTS: dict[str, Any] = {
    "block": "basic",
    "width": SMALL.width,
    "norm": Variant("batch"),
    "dropout": 0.05,
    "weight": PLAIN_WEIGHT,
    "activation": RELU,
    "procedures": (),
    "precision": "float32",
    "split": "test",
}

REQUIRED = ("dataset", "depth", "ordering", "recipe")
_CHECKED = (*REQUIRED, *(name for name in DEFAULTS if name != "dropout"))
_MOST = {"depth": 10_000, "width": 1_000_000}


@dataclass(frozen=True, slots=True)
class Given:
    """A parsed value and where in the file it stands."""

    value: Any
    path: Path_


Fields = dict[str, Given]


def _one_of(kind: str, *more: str) -> Callable[[object, Path_, Any], str]:
    def parse(raw: object, path: Path_, _base: Any = None) -> str:
        valid = (*more, *catalog.names(kind))
        if raw not in valid:
            raise Mistake(path, f"there is no {kind.removesuffix('s')} {raw!r}.", suggest(raw, valid))
        return str(raw)

    return parse


def _seed(raw: object, path: Path_, _base: Any) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int) or not 0 <= raw < 2**63:
        raise Mistake(path, f"seed: {raw!r} should be a whole number from 0 up, below 2^63.")
    return raw


def _dropout(raw: object, path: Path_, _base: Any) -> Dropout:
    """One rate, or a list with one for each stage."""
    rate = recipe.typed("Rate")
    if not isinstance(raw, list):
        return float(rate(raw, path, None))
    return tuple(float(rate(each, (*path, index, "dropout"), None)) for index, each in enumerate(raw))


_PARSERS: dict[str, Callable[..., Any]] = {
    "dataset": _one_of("datasets"),
    "block": recipe.choice(BLOCKS),
    "depth": recipe.typed("PositiveInt"),
    "width": recipe.typed("PositiveInt"),
    "ordering": _one_of("orderings", BASELINE),
    "norm": lambda raw, path, _: recipe.parse_variant("norms", raw, path),
    "weight": lambda raw, path, _: recipe.parse_variant("weights", raw, path),
    "activation": lambda raw, path, _: recipe.parse_variant("activations", raw, path),
    "procedures": lambda raw, path, _: recipe.parse_procedures(raw, path),
    "dropout": _dropout,
    "recipe": lambda raw, path, _: recipe.parse_recipe(raw, path),
    "precision": recipe.choice(PRECISIONS),
    "split": recipe.choice(SPLITS),
    "seed": _seed,
}

FIELDS = tuple(_PARSERS)


def parse_field(field: str, raw: object, path: Path_) -> Given:
    """Parse one value of one field; `path` ends where the value stands. Raises Mistake."""
    # Messages speak of the field by name; inside a list the path would end in an index.
    try:
        return Given(_PARSERS[field](raw, (*path, field), None), path)
    except Mistake as mistake:
        at = path + mistake.path[len(path) + 1 :]
        raise Mistake(at, mistake.problem, mistake.remedy) from None


def check_field(field: str, path: Path_) -> None:
    """Raise Mistake unless `field`, at `path`, is a field of a configuration."""
    if field in _PARSERS:
        return
    if field in recipe.FIELDS:
        remedy = f"Override it there: recipe: {{name: digits, {field}: ...}}."
        raise Mistake(path, f"{field!r} is a field of the recipe, not of the configuration.", remedy)
    raise Mistake(path, f"a configuration has no field {field!r}.", suggest(field, _PARSERS))


@cache
def defaults(dataset: str) -> dict[str, Any]:
    """What the fields of a configuration are that nobody gives: DEFAULTS, and the width of ImageNet's nets."""
    return DEFAULTS | {"width": family(dataset).width}


def check_required(fields: Fields) -> None:
    """Raise Mistake unless all fields are given that have no default."""
    for field in REQUIRED:
        if field not in fields:
            raise Mistake((), f"the field {field!r} is given nowhere.", "Add it to fixed, grid or zip.")


def resolve(fields: Fields) -> RunConfig:
    """The configuration (with seed 0) that `fields` and the defaults name. Raises Mistake where they do not fit.

    A grid's values are few, and where they lie tells them apart; but for dropout rates, of which it may have many.
    """
    check_required(fields)
    values = [fields[name].value if name in fields else None for name in _CHECKED]
    dropout = _dropout_that_matters(fields)
    key = (*map(id, values), not dropout)
    if key not in _resolved:
        _resolved[key] = (_resolve(fields, dropout), values)  # which keeps the values where they lie
    config, _ = _resolved[key]
    # Of an ordering without dropout it is None, and the configuration one and the same.
    return config if dropout in (None, config.dropout) else config.varied("dropout", dropout)


def _resolve(fields: Fields, dropout: Dropout | None) -> RunConfig:
    value = defaults(fields["dataset"].value) | {name: given.value for name, given in fields.items()}
    dataset, block, width, training = value["dataset"], value["block"], value["width"], value["recipe"]
    for field, most in _MOST.items():
        if value[field] > most:
            raise Mistake(where(fields, field), f"{field} {value[field]} is beyond any machine.", f"At most: {most:,}.")
    _check_input(fields, training, dataset)
    norm = full_norm(value["norm"], training)
    ordering = ordering_name(value["ordering"], dataset, block)
    if block == "lstm":
        _check_lstm(fields, value)
    else:
        _check_depth(fields, dataset, block, value["depth"])
    _check_norm(fields, norm, block)
    _check_divisors(fields, norm, width)
    weight, activation = _full("weights", value["weight"]), _full("activations", value["activation"])
    _check_activation(fields, weight, activation)
    training = _initialized(training, activation)
    if procedures := full_procedures(value["procedures"]):
        _check_schedules(fields, procedures)
        training = together(procedures).adapt(training)
        procedures = _that_matter(procedures, training, dropout=bool(dropout))
    return RunConfig(
        dataset=dataset,
        block=block,
        depth=value["depth"],
        width=width,
        ordering=ordering,
        norm=norm,
        dropout=dropout,
        recipe=training,
        precision=value["precision"],
        split=value["split"],
        seed=0,
        weight=weight,
        activation=activation,
        procedures=procedures,
    )


def ordering_name(name: str, dataset: str, block: str) -> str:
    """The ordering that a name means in nets of that block for that data set."""
    return family(dataset).baselines[block] if name == BASELINE else name


@cache
def _full(kind: str, given: Variant) -> Variant:
    """A variant with all its options."""
    return recipe.fill_options(kind, given, {})


def _initialized(training: Recipe, activation: Variant) -> Recipe:
    """The recipe with the initialisation that belongs to an activation, if one does."""
    own = catalog.constant("activations", activation.name, "INITIALIZATION")
    return _with_initialization(training, own) if own else training


@cache
def _with_initialization(training: Recipe, own: str) -> Recipe:
    return replace(training, initialization=own)


def full_procedures(given: tuple[Variant, ...]) -> tuple[Variant, ...]:
    """Procedures with all their options."""
    return tuple(_full("procedures", each) for each in given)


@cache
def _that_matter(procedures: tuple[Variant, ...], training: Recipe, *, dropout: bool) -> tuple[Variant, ...]:
    """Those of a run's procedures that change anything in it beyond its recipe."""
    built = zip(procedures, together(procedures).procedures, strict=True)
    return tuple(each for each, does in built if does.changes(training) and (dropout or not does.needs_dropout))


def _dropout_that_matters(fields: Fields) -> Dropout | None:
    """The rates of the stages that have dropout layers; one rate, where these agree. Raises Mistake."""
    dataset, ordering = fields["dataset"].value, fields["ordering"].value
    block, given = (fields[name].value if name in fields else DEFAULTS[name] for name in ("block", "dropout"))
    stages = _stages_with_dropout(ordering, dataset, block)
    if not isinstance(given, tuple):
        return given if stages else None
    count = family(dataset).stage_count
    if len(given) != count and block != "lstm":
        problem = f"dropout: a ResNet for {dataset} has {count} stages; the list gives rates for {len(given)}."
        remedy = "Give each stage a rate, or one rate for all; rates to try are an axis: grid: {dropout: [0.05, 0.1]}."
        raise Mistake(where(fields, "dropout"), problem, remedy)
    different = {given[stage] for stage in stages}
    if len(different) <= 1:
        return next(iter(different), None)
    return tuple(rate if stage in stages else 0.0 for stage, rate in enumerate(given))


@cache
def _stages_with_dropout(ordering: str, dataset: str, block: str) -> frozenset[int]:
    if block == "lstm":
        return frozenset()
    nets = family(dataset)
    pieces = catalog.load("orderings", ordering_name(ordering, dataset, block)).ORDERING.of(nets.baselines[block])
    stages: frozenset[int] = pieces.stages_with_dropout(nets.stage_count)
    return stages


def full_norm(given: Variant, training: Recipe) -> Variant:
    """The norm with all its options under a recipe."""
    return _filled(given, training.norm_defaults)


def full_variants(field: str, given: Any, training: Recipe) -> tuple[Variant, ...]:
    """The variants, with all their options, that a field's value names; the norm's depend on the recipe."""
    if field == "norm":
        return (full_norm(given, training),)
    if field == "procedures":
        return full_procedures(given)
    return (_full(f"{field}s", given),)


@cache
def _filled(given: Variant, defaults: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...]) -> Variant:
    return recipe.fill_options("norms", given, dict(dict(defaults).get(given.name, ())))


def where(fields: Fields, *names: str) -> Path_:
    """Where the first of the named fields stands, one in 'include' or 'baseline' before others."""
    paths = [fields[name].path for name in names if name in fields]
    own = [path for path in paths if path[:1] in (("include",), ("baseline",))]
    return next(iter(own + paths), ())


def _check_lstm(fields: Fields, value: dict[str, Any]) -> None:
    """An LSTM has no residual branches to order, no convolutions, and no ReLUs."""
    for field, only in (("ordering", BASELINE), ("weight", PLAIN_WEIGHT), ("activation", RELU)):
        if value[field] not in (only, ordering_name(BASELINE, value["dataset"], "lstm")):
            problem = f"{field} {value[field]} is impossible: an LSTM has no residual branches, convolutions or ReLUs."
            raise Mistake(where(fields, field, "block"), problem, f"With block: lstm write {field}: {only}.")


def _check_activation(fields: Fields, weight: Variant, activation: Variant) -> None:
    if activation != RELU and "activation" in catalog.functions("weights", weight.name):
        problem = (
            f"weight {weight.name!r} brings an activation of its own; activation {activation.name!r} has no place."
        )
        raise Mistake(where(fields, "activation", "weight"), problem, "Leave one of them out.")


def _check_schedules(fields: Fields, procedures: tuple[Variant, ...]) -> None:
    built = zip(procedures, together(procedures).procedures, strict=True)
    schedules = [each.name for each, does in built if does.is_schedule]
    if len(schedules) > 1:
        problem = f"a run has one schedule of its dropout rate; these are {len(schedules)}: {', '.join(schedules)}."
        raise Mistake(where(fields, "procedures"), problem, "Keep one of them.")


def _check_norm(fields: Fields, norm: Variant, block: str) -> None:
    function, net = ("recurrent", "an LSTM") if block == "lstm" else ("build", "a ResNet")
    if function not in catalog.functions("norms", norm.name):
        fitting = [name for name in catalog.names("norms") if function in catalog.functions("norms", name)]
        problem = f"norm {norm.name!r} cannot stand in {net}, which block: {block} makes."
        raise Mistake(where(fields, "norm", "block"), problem, f"The norms that can: {', '.join(fitting)}.")


def _check_depth(fields: Fields, dataset: str, block: str, depth: int) -> None:
    if family(dataset).stages(block, depth) is not None:
        return
    at = where(fields, "depth", "block")
    if depths := family(dataset).depths:
        every = "; ".join(f"{name} {', '.join(map(str, known))}" for name, known in depths.items())
        raise Mistake(at, f"depth {depth} is impossible: {dataset} has no {block} ResNet-{depth}.", f"It has: {every}.")
    per = 3 * LAYERS_PER_UNIT[block]
    units = (depth - 2) // per
    below, above = max(units, 1) * per + 2, (max(units, 0) + 1) * per + 2
    near = f"{below} or {above}" if below != above else f"{above}"
    problem = f"depth {depth} is impossible: a {block} ResNet has {per}n+2 layers, n from 1 up."
    raise Mistake(at, problem, f"The nearest: {near}.")


def _check_input(fields: Fields, training: Recipe, dataset: str) -> None:
    """Whether a recipe does to images what can be done to a data set's before a net sees them."""
    means = (training.subtract_pixel_mean, training.standardize_channels)
    if found := _input_mistake(dataset, training.augmentation, *means):
        field, problem, override = found
        remedy = f"Override it: recipe: {{name: ..., {override}}}."
        raise Mistake((*where(fields, "recipe"), *field), problem, remedy)


@cache
def _input_mistake(
    dataset: str, augmentation: Augmentation, of_pixels: bool, of_channels: bool
) -> tuple[Path_, str, str] | None:
    """The recipe's field that is wrong, why, and what to write instead; of_pixels, of_channels: whose mean is taken."""
    module, shift = catalog.load("datasets", dataset), augmentation.shift
    size, mean = f"{module.SHAPE[0]}x{module.SHAPE[1]}", ("subtract_pixel_mean",)
    without_shift, without_mean = "augmentation: {shift: 0}", "subtract_pixel_mean: false"
    if hasattr(module, "SHARDED_SIDE"):
        many = f"{dataset}'s images are of many sizes"
        if shift:
            return ("augmentation", "shift"), f"{many}: they are cropped, not shifted.", without_shift
        if of_pixels:
            return mean, f"{many}: no pixel has a mean.", without_mean
    elif augmentation.crop_area < 1:
        problem = f"{dataset}'s images are of one size, {size}: they are shifted, not cropped."
        return ("augmentation", "crop_area"), problem, "augmentation: {crop_area: 1}"
    if shift >= min(module.SHAPE[:2]):
        problem = f"a shift of {shift} pixels moves {dataset}'s {size} images out of sight."
        return ("augmentation", "shift"), problem, "augmentation: {shift: 1}"
    if of_pixels and of_channels:
        return mean, "either each pixel's mean is subtracted or each channel's, not both.", without_mean
    return None


def _check_divisors(fields: Fields, norm: Variant, width: int) -> None:
    for name, option in catalog.options("norms", norm.name).items():
        if option.type is not TYPES["ChannelDivisor"]:
            continue
        value = int(dict(norm.options)[name])
        if width % value:
            divisors = [str(d) for d in range(1, width + 1) if width % d == 0]
            problem = (
                f"norm {norm.name!r} with {name}: {value} cannot divide the {width} channels of a net of width {width}."
            )
            path = where(fields, "norm", "width")
            raise Mistake((*path, name), problem, f"{name} should be one of {', '.join(divisors)}.")
