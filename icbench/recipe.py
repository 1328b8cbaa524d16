"""From YAML to a Recipe: a recipe's file, and what a grid overrides of it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from icbench import catalog
from icbench.config import FILLS, INITIALIZATIONS, PADDINGS, Augmentation, Recipe, Variant, WeightDecay
from icbench.errors import suggest
from icbench.values import TYPES, Scalar
from icbench.yamlfile import Mistake, Path_, read

# A recipe before its steps are turned into epochs: field -> parsed value.
Spec = dict[str, Any]


def parse_recipe(raw: object, path: Path_) -> Recipe:
    """A recipe by name, or `{name: ..., any field: ...}`. Raises Mistake."""
    if isinstance(raw, str):
        return named(_known_name(raw, path))
    if not isinstance(raw, dict) or "name" not in raw:
        raise Mistake(path, f"{raw!r} is no recipe.", "Write its name, or {name: digits, epochs: 20}.")
    name = _known_name(raw["name"], (*path, "name"))
    spec = dict(_base(name))
    overrides = {key: value for key, value in raw.items() if key != "name"}
    for key, value in overrides.items():
        _check_field(key, path)
        spec[key] = _PARSERS[key](value, (*path, key), spec[key])
    return _finish(spec, label=_label(name, spec))


@cache
def named(name: str) -> Recipe:
    """The recipe of that name, as its file has it."""
    return _finish(_base(name), label=name)


@cache
def _base(name: str) -> Spec:
    """A recipe file's fields, all of them checked. Raises UserError naming the file."""
    document = read(catalog.recipe_file(name))
    try:
        if not isinstance(document.data, dict):
            raise Mistake((), "a recipe maps fields to values.")
        for key in document.data:
            _check_field(key, ())
        for key in _PARSERS:
            if key not in document.data:
                raise Mistake((), f"the field {key!r} is missing.", "A recipe gives every field.")
        return {key: _PARSERS[key](document.data[key], (key,), None) for key in _PARSERS}
    except Mistake as mistake:
        raise document.error(mistake) from None


def parse_variant(kind: str, raw: object, path: Path_) -> Variant:
    """A variant by name, or `{name: ..., option: ...}`; only the options that are given. Raises Mistake."""
    noun = kind.removesuffix("s")
    if isinstance(raw, str):
        raw = {"name": raw}
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
        raise Mistake(path, f"{raw!r} is no {noun}.", suggest("", catalog.names(kind), what="Write one of"))
    name = raw["name"]
    if name not in catalog.names(kind):
        at = (*path, "name") if len(raw) > 1 else path
        raise Mistake(at, f"there is no {noun} {name!r}.", suggest(name, catalog.names(kind)))
    given = {key: value for key, value in raw.items() if key != "name"}
    return Variant(name, tuple(sorted(_options(kind, name, given, path).items())))


def parse_procedures(raw: object, path: Path_) -> tuple[Variant, ...]:
    """A list of procedures, each once, sorted by name; one alone need not stand in a list. Raises Mistake."""
    if not isinstance(raw, list):
        return (parse_variant("procedures", raw, path),)
    parsed = [parse_variant("procedures", each, (*path, index)) for index, each in enumerate(raw)]
    for index, procedure in enumerate(parsed):
        if procedure.name in (earlier.name for earlier in parsed[:index]):
            raise Mistake((*path, index), f"the procedure {procedure.name!r} stands there twice.", "Keep one of them.")
    return tuple(sorted(parsed, key=lambda each: each.name))


def _options(kind: str, name: str, given: dict[str, Any], path: Path_) -> dict[str, Scalar]:
    known = catalog.options(kind, name)
    parsed = {}
    for key, value in given.items():
        if key not in known:
            raise Mistake((*path, key), f"{name!r} has no option {key!r}.", suggest(key, known, what="Its options"))
        try:
            parsed[key] = known[key].type.parse(value)
        except ValueError as error:
            raise Mistake((*path, key), f"the option {key!r} of {name!r}: {error}.") from None
    return parsed


def fill_options(kind: str, given: Variant, defaults: dict[str, Scalar]) -> Variant:
    """Complete a variant: its own defaults, then `defaults`, then what was given."""
    own = {key: option.default for key, option in catalog.options(kind, given.name).items()}
    return Variant(given.name, tuple(sorted((own | defaults | dict(given.options)).items())))


def typed(type_name: str) -> Callable[[object, Path_, Any], Scalar]:
    """A parser for a value of one of the types in icbench/values.py."""

    def parse(raw: object, path: Path_, _base: Any = None) -> Scalar:
        try:
            return TYPES[type_name].parse(raw)
        except ValueError as error:
            raise Mistake(path, f"{path[-1]}: {error}.") from None

    return parse


def choice(valid: tuple[str, ...]) -> Callable[[object, Path_, Any], str]:
    """A parser for one of a few words."""

    def parse(raw: object, path: Path_, _base: Any = None) -> str:
        if raw not in valid:
            raise Mistake(path, f"{path[-1]}: there is no {raw!r}.", suggest(raw, valid))
        return str(raw)

    return parse


def _parse_optimizer(raw: object, path: Path_, base: Variant | None) -> Variant:
    if isinstance(raw, dict) and "name" not in raw and base is not None:
        raw = {"name": base.name, **raw}
    given = parse_variant("optimizers", raw, path)
    inherited = dict(base.options) if base is not None and base.name == given.name else {}
    return fill_options("optimizers", given, inherited)


def _parse_steps(raw: object, path: Path_, _base: object) -> tuple[tuple[float, float], ...]:
    shape = "a list of [epoch, factor], as in [[80, 0.1], [0.75, 0.1]]; an epoch below 1 is a fraction of the epochs"
    if not isinstance(raw, list):
        raise Mistake(path, f"learning_rate_steps: {raw!r} should be {shape}.")
    steps = []
    for index, step in enumerate(raw):
        at = (*path, index)
        if not (isinstance(step, list) and len(step) == 2):
            raise Mistake(at, f"learning_rate_steps: {step!r} should be one of {shape}.")
        after = float(typed("PositiveFloat")(step[0], (*at, "epoch"), None))
        if after >= 1 and not after.is_integer():
            raise Mistake(at, f"learning_rate_steps: {after} is no whole epoch and no fraction below 1.")
        steps.append((after, float(typed("PositiveFloat")(step[1], (*at, "factor"), None))))
    return tuple(steps)


def _parse_group(fields: dict[str, Callable[[object, Path_, Any], Any]], make: type) -> Callable[..., Any]:
    """A parser for a mapping of fixed fields; what is not given stays as the base has it."""

    def parse(raw: object, path: Path_, base: Any = None) -> Any:
        if not isinstance(raw, dict):
            raise Mistake(path, f"{path[-1]}: {raw!r} should map {', '.join(fields)} to values.")
        values = {} if base is None else {name: getattr(base, name) for name in fields}
        for key, value in raw.items():
            if key not in fields:
                raise Mistake((*path, key), f"{path[-1]} has no {key!r}.", suggest(key, fields))
            values[key] = fields[key](value, (*path, key), None)
        missing = [name for name in fields if name not in values]
        if missing:
            raise Mistake(path, f"{path[-1]} lacks {', '.join(missing)}.")
        return make(**values)

    return parse


def _parse_norm_defaults(raw: object, path: Path_, base: dict[str, Any] | None) -> dict[str, dict[str, Scalar]]:
    if not isinstance(raw, dict):
        raise Mistake(path, f"norm_defaults: {raw!r} should map norms to options, as in {{batch: {{momentum: 0.1}}}}.")
    result = {name: dict(options) for name, options in (base or {}).items()}
    for name, options in raw.items():
        at = (*path, name)
        if not isinstance(options, dict):
            raise Mistake(at, f"norm_defaults: {options!r} should map options to values.")
        parse_variant("norms", name, at)
        result[name] = result.get(name, {}) | _options("norms", name, options, at)
    return result


_PARSERS: dict[str, Callable[[Any, Path_, Any], Any]] = {
    "optimizer": _parse_optimizer,
    "learning_rate": typed("PositiveFloat"),
    "learning_rate_steps": _parse_steps,
    "epochs": typed("PositiveInt"),
    "batch_size": typed("PositiveInt"),
    "weight_decay": _parse_group(
        dict.fromkeys(("convolution", "classifier", "other"), typed("NonNegativeFloat")), WeightDecay
    ),
    "augmentation": _parse_group(
        {
            "shift": typed("NonNegativeInt"),
            "fill": choice(FILLS),
            "flip": typed("bool"),
            "crop_area": typed("Fraction"),
        },
        Augmentation,
    ),
    "subtract_pixel_mean": typed("bool"),
    "standardize_channels": typed("bool"),
    "convolution_bias": typed("bool"),
    "initialization": choice(INITIALIZATIONS),
    "downsample_padding": choice(PADDINGS),
    "sync_batch_norm": typed("bool"),
    "norm_defaults": _parse_norm_defaults,
}
FIELDS = tuple(_PARSERS)


def _known_name(raw: object, path: Path_) -> str:
    valid = catalog.names("recipes")
    if raw not in valid:
        raise Mistake(path, f"there is no recipe {raw!r}.", suggest(raw, valid))
    return str(raw)


def _check_field(key: str, path: Path_) -> None:
    if key not in _PARSERS:
        raise Mistake((*path, key), f"a recipe has no field {key!r}.", suggest(key, _PARSERS))


def _label(name: str, spec: Spec) -> str:
    """The recipe's name and what differs from its file, for people: `digits epochs=20 optimizer.epsilon=1e-07`."""
    ours, base = dict(_flat(spec)), dict(_flat(_base(name)))
    return " ".join([name, *(f"{key}={value}" for key, value in ours.items() if value != base.get(key))])


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(key, value) in words of each part of a spec, the keys of its parts joined by dots."""
    match value:
        case dict():
            for name, part in value.items():
                yield from _flat(part, f"{key}.{name}" if key else name)
        case Variant():
            yield key, value.name
            yield from _flat(dict(value.options), key)
        case WeightDecay() | Augmentation():
            yield from _flat({name: getattr(value, name) for name in value.__slots__}, key)
        case tuple():
            yield key, str([list(step) for step in value]).replace(" ", "")
        case _:
            yield key, str(value)


def _finish(spec: Spec, label: str) -> Recipe:
    epochs = spec["epochs"]
    steps = sorted((_epoch(after, epochs), factor) for after, factor in spec["learning_rate_steps"])
    augmentation: Augmentation = spec["augmentation"]
    if augmentation.shift == 0:  # without a shift there is nothing to fill
        augmentation = replace(augmentation, fill="zero")
    return Recipe(
        **{
            key: value
            for key, value in spec.items()
            if key not in ("learning_rate_steps", "augmentation", "norm_defaults")
        },
        learning_rate_steps=tuple((after, factor) for after, factor in steps if after < epochs),
        augmentation=augmentation,
        norm_defaults=tuple(
            (name, tuple(sorted(options.items()))) for name, options in sorted(spec["norm_defaults"].items())
        ),
        label=label,
    )


def _epoch(after: float, epochs: int) -> int:
    return int(after) if after >= 1 else math.floor(after * epochs + 0.5)
