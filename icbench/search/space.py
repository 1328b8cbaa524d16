"""What is searched: a parameter is a field of the configuration or of its recipe, with a range or with choices."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from icbench import catalog, recipe
from icbench.architecture import family
from icbench.config import Augmentation, RunConfig, Variant, WeightDecay
from icbench.errors import suggest
from icbench.recipe import parse_recipe
from icbench.resolve import DEFAULTS, FIELDS, Fields, Given, parse_field, resolve
from icbench.values import TYPES, Scalar
from icbench.yamlfile import Mistake, Path_

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value = Scalar

_RANGE_KEYS = ("low", "high", "step", "log", "per_stage")
_STAGE = "stage"
# A range of more points than this has no steps that anybody would notice.
_MOST_POINTS = 100_000
# So many whole numbers are all tried out beforehand; of more, the ends.
_MOST_TRIED = 100
# What a search says by itself, or searches in parts.
_NOT_SEARCHED = ("seed", "split", "recipe")
# What has parts that may be searched alone, and of which kind are the variants whose options they are.
_VARIANTS = {"norm": "norms", "weight": "weights", "activation": "activations", "optimizer": "optimizers"}
_GROUPS: dict[str, Sequence[str]] = {"weight_decay": WeightDecay.__slots__, "augmentation": Augmentation.__slots__}
_NORM_DEFAULTS = "norm_defaults"


@dataclass(frozen=True)
class Parameter:
    """One dimension of the search. name: as in the file, `weight_decay.convolution`; with the stage where each has its
    own, `dropout.stage2`. low, high, step, log: of a range, both ends included. choices: by label, what stands in the
    file; empty of a range. path: where it stands in the file.
    """

    name: str
    path: Path_
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    integer: bool = False
    per_stage: bool = False
    choices: tuple[tuple[str, Any], ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """Where its value belongs in a configuration's YAML."""
        head, *rest = self.name.split(".")
        return (head, *rest) if head in FIELDS else ("recipe", head, *rest)

    @property
    def field(self) -> str:
        """The configuration's field that it is, or is a part of."""
        return self.keys[0]

    @property
    def is_whole_field(self) -> bool:
        return self.keys == (self.name,)

    @property
    def ends(self) -> tuple[Value, ...]:
        """Of a range its ends, of choices all."""
        return tuple(label for label, _ in self.choices) or (self._typed(self.low), self._typed(self.high))

    @property
    def count(self) -> int | None:
        """How many values there are; None where there are endlessly many."""
        if self.choices:
            return len(self.choices)
        step = self.step or (1.0 if self.integer and not self.log else None)
        return None if step is None else round((self.high - self.low) / step) + 1

    def points(self) -> tuple[Value, ...] | None:
        """All values; None where there are endlessly many."""
        if self.choices or self.count is None:
            return self.ends if self.choices else None
        return tuple(self._at(index) for index in range(self.count))

    def tried(self) -> Iterator[tuple[Value, Path_]]:
        """The values that are tried out beforehand, and where each stands in the file."""
        if self.choices:
            yield from ((label, (*self.path, index)) for index, (label, _) in enumerate(self.choices))
            return
        yield from zip(self.ends, ((*self.path, "low"), (*self.path, "high")), strict=True)
        if self.integer and self.count is not None and self.count <= _MOST_TRIED:
            yield from ((point, self.path) for point in (self.points() or ())[1:-1])

    def distribution(self) -> "BaseDistribution":
        """As Optuna has it."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution([label for label, _ in self.choices])
        if self.integer:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def raw(self, value: Value) -> Any:
        """A value as it would stand in YAML."""
        return dict(self.choices)[str(value)] if self.choices else value

    def exact(self, value: Value) -> Value:
        """A value of a range with steps without the rounding of low + n * step, so that it is one that people write."""
        if self.step is None or isinstance(value, str):
            return value
        return self._at(round((value - self.low) / self.step))

    def describe(self) -> dict[str, Any]:
        """What makes this dimension another one, for the study's name."""
        if self.choices:
            return {"name": self.name, "choices": [raw for _, raw in self.choices]}
        stages = {"per_stage": True} if self.per_stage else {}
        return {"name": self.name, "low": self.low, "high": self.high, "step": self.step, "log": self.log} | stages

    def _at(self, index: int) -> Value:
        """A point of a range with steps, counted from 0; in decimals, since that is how people count."""
        return self._typed(float(_decimal(self.low) + index * _decimal(self.step or 1.0)))

    def _typed(self, value: float) -> Value:
        return int(value) if self.integer else float(value)


def parse(raw: object, path: Path_) -> tuple[Parameter, ...]:
    """The parameters of a search. Raises Mistake."""
    if not isinstance(raw, dict) or not raw:
        example = "parameters: {dropout: {low: 0, high: 0.5}}"
        raise Mistake(path, f"parameters: {raw!r} should map what is searched to ranges.", f"Write {example}.")
    parameters = tuple(_parse(name, value, (*path, name)) for name, value in raw.items())
    for one, other in itertools.combinations(parameters, 2):
        shorter, longer = sorted((one, other), key=lambda each: len(each.keys))
        if longer.keys[: len(shorter.keys)] == shorter.keys:
            problem = f"{longer.name!r} is searched twice, by itself and as a part of {shorter.name!r}."
            raise Mistake(other.path, problem, "Keep one of them.")
    return parameters


def _parse(name: str, raw: object, path: Path_) -> Parameter:
    head, *parts = name.split(".")
    if head in ("seed", "split"):
        problem = f"{name!r} is nothing to search for."
        raise Mistake(path, problem, "A search says itself which seeds and images it has.")
    if head == "recipe":
        part = ".".join(parts) or "learning_rate"
        raise Mistake(path, "a recipe is searched field by field.", f"Write {part}: {{low: ..., high: ...}}.")
    if head not in FIELDS and head not in recipe.FIELDS:
        problem = f"neither a configuration nor a recipe has a field {head!r}."
        within = [f"{group}.{head}" for group, names in _GROUPS.items() if head in names]
        valid = [each for each in (*FIELDS, *recipe.FIELDS) if each not in _NOT_SEARCHED]
        raise Mistake(path, problem, f"Write {within[0]}." if within else suggest(head, valid))
    _check_parts(head, parts, path)
    return _choices(name, raw, path) if isinstance(raw, list) else _range(name, raw, path)


def _check_parts(head: str, parts: list[str], path: Path_) -> None:
    """Raise Mistake where a field has no such parts; which options its variants have depends on the cell."""
    if not parts:
        return
    if head == "dropout":
        problem, remedy = (
            "dropout has no parts.",
            "For a rate of each stage: dropout: {low: ..., high: ..., per_stage: true}.",
        )
    elif head in _GROUPS:
        fits = len(parts) == 1 and parts[0] in _GROUPS[head]
        problem, remedy = f"{head} has no part {'.'.join(parts)!r}.", suggest(parts[0], _GROUPS[head])
        if fits:
            return
    elif head in _VARIANTS or head == _NORM_DEFAULTS:
        if len(parts) == (2 if head == _NORM_DEFAULTS else 1) and parts[-1] != "name":
            return
        example = "norm_defaults.batch.momentum" if head == _NORM_DEFAULTS else f"{head}: [...], or {head}.OPTION"
        problem, remedy = f"{'.'.join([head, *parts])!r} is no option.", f"Write {example}."
    else:
        problem, remedy = f"{head} has no parts.", f"Search {head} itself."
    raise Mistake(path, problem, remedy)


def _choices(name: str, raw: list[Any], path: Path_) -> Parameter:
    if len(raw) < 2:
        raise Mistake(path, f"{name}: one choice is none.", "Give two or more, or put it into fixed.")
    labelled: dict[str, Any] = {}
    for index, each in enumerate(raw):
        label = _label(each)
        if label in labelled:
            raise Mistake((*path, index), f"{name}: {label} stands there twice.", "Keep one of them.")
        labelled[label] = each
    return Parameter(name, path, choices=tuple(labelled.items()))


def _label(raw: Any) -> str:
    """A choice in words, by which Optuna knows it."""
    if isinstance(raw, dict):
        options = [f"{key}={_label(value)}" for key, value in raw.items() if key != "name"]
        return " ".join([str(raw.get("name", "")), *options]).strip()
    if isinstance(raw, list):
        return f"[{', '.join(map(_label, raw))}]"
    return str(raw).lower() if isinstance(raw, bool) else "null" if raw is None else str(raw)


def _range(name: str, raw: object, path: Path_) -> Parameter:
    right = f"{name}: {{low: 0.0, high: 0.5}}, with step: or log: true, or a list of choices"
    if not isinstance(raw, dict):
        raise Mistake(path, f"{name}: {raw!r} is no range.", f"Write {right}.")
    for key in raw:
        if key not in _RANGE_KEYS:
            raise Mistake((*path, key), f"a range has no key {key!r}.", suggest(key, _RANGE_KEYS))
    for key in ("low", "high"):
        if key not in raw:
            raise Mistake(path, f"{name}: the range lacks {key!r}.", f"Write {right}.")
    numbers = {key: _number(raw[key], (*path, key)) for key in ("low", "high", "step") if key in raw}
    for key in ("log", "per_stage"):
        if not isinstance(raw.get(key, False), bool):
            raise Mistake((*path, key), f"{key}: {raw[key]!r} should be true or false.")
    low, high, step = numbers["low"], numbers["high"], numbers.get("step")
    log, per_stage = raw.get("log", False), raw.get("per_stage", False)
    parameter = Parameter(name, path, low=low, high=high, step=step, log=log, per_stage=per_stage)
    _check_range(parameter)
    if parameter.per_stage and name != "dropout":
        raise Mistake((*path, "per_stage"), f"{name} is the same in all stages.", "Only dropout can be one a stage.")
    return parameter


def _number(raw: object, path: Path_) -> float:
    try:
        return float(TYPES["float"].parse(raw))
    except ValueError as error:
        raise Mistake(path, f"{path[-1]}: {error}.") from None


def _check_range(parameter: Parameter) -> None:
    low, high, step, path = parameter.low, parameter.high, parameter.step, parameter.path
    if not low < high:
        raise Mistake((*path, "high"), f"high: {high:g} should be above low, {low:g}.")
    if parameter.log and step is not None:
        raise Mistake((*path, "log"), "a range has equal steps or is logarithmic, not both.", "Leave out step or log.")
    if parameter.log and low <= 0:
        raise Mistake((*path, "low"), f"low: {low:g} has no logarithm.", "Give one above 0, or leave log out.")
    if step is None:
        return
    if step <= 0:
        raise Mistake((*path, "step"), f"step: {step:g} should be above 0.")
    if (high - low) / step > _MOST_POINTS:
        problem = f"step: {step:g} makes more than {_MOST_POINTS:,} points of this range."
        raise Mistake((*path, "step"), problem, "Leave it out.")
    length, each = _decimal(high) - _decimal(low), _decimal(step)
    if length % each:
        near = _decimal(low) + max(1, round(length / each)) * each
        problem = f"high: {high:g} is no whole number of steps above low."
        raise Mistake((*path, "high"), problem, f"The nearest: {float(near):g}.")


def _decimal(number: float) -> Decimal:
    """The number as people write it."""
    return Decimal(repr(number))


def typed(parameter: Parameter, raw: Mapping[str, Any]) -> Parameter:
    """The parameter, as one of whole numbers if its field takes no others. raw: of a cell that it applies to, the
    fields as in the file. Raises Mistake where the field does not take the low end, or a fraction.
    """
    if parameter.choices:
        return parameter
    _parsed(parameter, parameter.low, raw, (*parameter.path, "low"))
    if parameter.low % 1 or any(_takes(parameter, parameter.low + half, raw) for half in (0.5, -0.5)):
        return parameter
    for key in ("high", "step"):
        number = getattr(parameter, key)
        if number is not None and number % 1:
            problem = f"{key}: {number:g} should be a whole number, as {parameter.name} is."
            raise Mistake((*parameter.path, key), problem)
    return replace(parameter, integer=True)


def _takes(parameter: Parameter, value: float, raw: Mapping[str, Any]) -> bool:
    try:
        _parsed(parameter, value, raw, parameter.path)
    except Mistake:
        return False
    return True


def _parsed(parameter: Parameter, value: Value, raw: Mapping[str, Any], path: Path_) -> None:
    """Raise Mistake, at `path`, unless the parameter's field takes a value among the others that are given."""
    changed = deepcopy(dict(raw))
    _put(changed, parameter.keys, value)
    _given(parameter.field, changed[parameter.field], path)


def applies(parameter: Parameter, fields: Fields) -> bool:
    """Whether a cell with these fields has what is searched: where norms are compared, some have no such option."""
    head, *option = parameter.keys[-2:] if parameter.field == "recipe" else parameter.keys
    if not option or head not in _VARIANTS:
        return True
    if parameter.field == "recipe":
        variant = fields["recipe"].value.optimizer
    else:
        variant = fields[head].value if head in fields else DEFAULTS[head]
    return option[0] in catalog.options(_VARIANTS[head], variant.name)


def check_not_given(parameter: Parameter, fields: Fields, raw: Mapping[str, Any]) -> None:
    """Raise Mistake where the part of a field that is searched is given too, as a recipe's learning rate."""
    at, (head, *parts) = raw.get(parameter.field), parameter.keys
    for part in parts:
        if not isinstance(at, dict) or part not in at:
            return
        at = at[part]
    if parts:
        path = (*fields[head].path, *parts)
        raise Mistake(path, f"{parameter.name!r} is given here, and searched for.", "Keep one of them.")


@dataclass(frozen=True)
class Space:
    """The parameters that matter to one cell, and how values of them make a configuration of it.

    fields: what the search file gives for the cell; raw: the same, as it stands there. idle: of dimensions by stage,
    the names of those of stages without dropout.
    """

    parameters: tuple[Parameter, ...]
    fields: Fields
    raw: Mapping[str, Any]
    stages: int
    idle: frozenset[str] = frozenset()

    @cached_property
    def dimensions(self) -> tuple[Parameter, ...]:
        """The parameters, those by stage once for each."""
        return tuple(each for each in self._dimensions() if each.name not in self.idle)

    def _dimensions(self) -> Iterator[Parameter]:
        for each in self.parameters:
            if each.per_stage:
                yield from (replace(each, name=name) for name in self._by_stage(each))
            else:
                yield each

    def _by_stage(self, parameter: Parameter) -> list[str]:
        return [f"{parameter.name}.{_STAGE}{stage + 1}" for stage in range(self.stages)]

    def yaml(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """The fields of the cell with these values, as they would stand in a grid. values: by name of dimension."""
        raw = deepcopy(dict(self.raw))
        for parameter in self.parameters:
            if parameter.per_stage:
                names = self._by_stage(parameter)
                _put(raw, parameter.keys, [0.0 if name in self.idle else values[name] for name in names])
            else:
                _put(raw, parameter.keys, parameter.raw(values[parameter.name]))
        return raw

    def config(self, values: Mapping[str, Value]) -> RunConfig:
        """The cell's configuration with these values. Raises Mistake where they do not fit."""
        raw = self.yaml(values)
        path = {parameter.field: parameter.path for parameter in self.parameters}
        return resolve(self.fields | {field: _given(field, raw[field], path[field]) for field in path})

    @property
    def last(self) -> RunConfig:
        """The cell with the last of all values: a dropout rate that is not 0 keeps apart what differs by dropout."""
        return self.config(self._ends(-1))

    def corners(self) -> list[RunConfig]:
        """The cell with extreme values of each dimension in turn; as it is, where nothing is searched."""
        return [config for each in self.dimensions for config in self.varied_by(each, 0)] or [self.config({})]

    def varied_by(self, dimension: Parameter, place: int) -> list[RunConfig]:
        """The cell with both ends of a dimension, or all its choices. place: of the others' ends, 0 or -1."""
        others = self._ends(place)
        return [self.config(others | {dimension.name: value}) for value in dimension.ends]

    def check(self) -> None:
        """Raise Mistake, where it stands, for a value that does not fit the cell."""
        for others, dimension in itertools.product((self._ends(0), self._ends(-1)), self.dimensions):
            for value, path in dimension.tried():
                try:
                    self.config(others | {dimension.name: value})
                except Mistake as mistake:
                    raise Mistake(path, mistake.problem, mistake.remedy) from None

    def outlook(self) -> dict[str, list[tuple[str, ...]]]:
        """By dimension, what comes of each of its ends: the cell ids with the others at their first, and their last."""
        outlook = {}
        for each in self.dimensions:
            varied = zip(self.varied_by(each, 0), self.varied_by(each, -1), strict=True)
            outlook[each.name] = [tuple(config.cell_id for config in both) for both in varied]
        return outlook

    def _ends(self, place: int) -> dict[str, Value]:
        return {each.name: each.ends[place] for each in self.dimensions}


def _given(field: str, raw: Any, path: Path_) -> Given:
    try:
        return parse_field(field, raw, path)
    except Mistake as mistake:
        raise Mistake(path, mistake.problem, mistake.remedy) from None


def _put(raw: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    """Set a value within nested mappings; a variant that is given by its name alone becomes a mapping."""
    if keys == ("recipe", "weight_decay") and isinstance(value, int | float):
        value = _decay(raw["recipe"], value)
    at = raw
    for key in keys[:-1]:
        inside = at.get(key)
        if inside is None and isinstance(DEFAULTS.get(key), Variant):
            inside = DEFAULTS[key].name
        at[key] = {"name": inside} if isinstance(inside, str) else dict(inside or {})
        at = at[key]
    at[keys[-1]] = value


def _decay(raw: Any, value: float) -> dict[str, float]:
    """Weight decay of all that the recipe decays; where it decays nothing, of the weights."""
    decay = parse_recipe(raw, ()).weight_decay
    groups = [name for name in WeightDecay.__slots__ if getattr(decay, name)]
    return dict.fromkeys(groups or ("convolution", "classifier"), value)


def space(parameters: tuple[Parameter, ...], fields: Fields, raw: Mapping[str, Any], config: RunConfig) -> Space:
    """The space of one cell: without the parameters that change nothing in it, as dropout in a baseline.

    config: the cell's with any values. Raises Mistake, where it stands, for a value that does not fit the cell.
    """
    stages = family(config.dataset).stage_count
    applicable = tuple(each for each in parameters if applies(each, fields))
    for each in applicable:
        check_not_given(each, fields, raw)
        Space((each,), fields, raw, stages).check()
    whole = Space(applicable, fields, raw, stages)
    whole.check()
    outlook = whole.outlook()
    matter = {each.name: each.path for each in whole.dimensions if len(set(outlook[each.name])) > 1}
    kept = tuple(each for each in applicable if each.path in matter.values())
    dropped = {each.name for each in applicable if each.is_whole_field and each not in kept}
    return Space(
        kept,
        fields,
        {name: value for name, value in raw.items() if name not in dropped},
        stages,
        frozenset(each.name for each in whole.dimensions if each.per_stage and each.name not in matter),
    )
