"""What is searched: a parameter is a field of the configuration or of its recipe, with a range or with choices."""

import itertools
import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from icbench import recipe
from icbench.architecture import family
from icbench.config import RunConfig
from icbench.errors import suggest
from icbench.recipe import parse_recipe
from icbench.resolve import FIELDS, Fields, Given, parse_field, resolve
from icbench.values import Scalar
from icbench.yamlfile import Mistake, Path_

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value = Scalar

_RANGE_KEYS = ("low", "high", "step", "log", "per_stage")
_STAGE = "stage"
# A grid of more points than this is no search.
_MOST_POINTS = 100_000
# Of a range, how far its end may be from a whole number of steps, in steps: 0.1 + 0.2 is not 0.3.
_NEAR = 1e-6


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
    def is_decay(self) -> bool:
        """Whether it is the weight decay of several groups of parameters at once."""
        return self.keys == ("recipe", "weight_decay") and not self.choices

    @property
    def ends(self) -> tuple[Value, Value]:
        """Two different values: of a range its ends, of choices the first two."""
        if self.choices:
            return self.choices[0][0], self.choices[1][0]
        return self._typed(self.low), self._typed(self.high)

    def points(self) -> tuple[Value, ...] | None:
        """All values; None where there are endlessly many."""
        if self.choices:
            return tuple(label for label, _ in self.choices)
        step = self.step or (1.0 if self.integer and not self.log else None)
        if step is None:
            return None
        count = round((self.high - self.low) / step) + 1
        return tuple(self._typed(round(self.low + index * step, 12)) for index in range(count))

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
        return self._typed(round(self.low + round((value - self.low) / self.step) * self.step, 12))

    def describe(self) -> dict[str, Any]:
        """What makes this dimension another one, for the study's name."""
        if self.choices:
            return {"name": self.name, "choices": [raw for _, raw in self.choices]}
        return {"name": self.name, "low": self.low, "high": self.high, "step": self.step, "log": self.log}

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
    head = name.split(".")[0]
    if name == "seed" or name == "split":
        raise Mistake(
            path, f"{name!r} is nothing to search for.", "A search says itself which seeds and images it has."
        )
    if head not in FIELDS and head not in recipe.FIELDS:
        problem = f"neither a configuration nor a recipe has a field {head!r}."
        raise Mistake(path, problem, suggest(head, [*FIELDS, *recipe.FIELDS]))
    if head == "recipe":
        raise Mistake(path, "a recipe is searched field by field.", "Write learning_rate: {low: ..., high: ...}.")
    return _choices(name, raw, path) if isinstance(raw, list) else _range(name, raw, path)


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
        return " ".join(
            [str(raw.get("name", "")), *(f"{k}={_label(v)}" for k, v in raw.items() if k != "name")]
        ).strip()
    return str(raw)


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
    numbers = {key: raw[key] for key in ("low", "high", "step") if key in raw}
    for key, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise Mistake((*path, key), f"{key}: {number!r} should be a number.")
    for key in ("log", "per_stage"):
        if not isinstance(raw.get(key, False), bool):
            raise Mistake((*path, key), f"{key}: {raw[key]!r} should be true or false.")
    parameter = Parameter(
        name,
        path,
        low=float(raw["low"]),
        high=float(raw["high"]),
        step=float(raw["step"]) if "step" in raw else None,
        log=raw.get("log", False),
        per_stage=raw.get("per_stage", False),
    )
    _check_range(parameter)
    if parameter.per_stage and name != "dropout":
        raise Mistake((*path, "per_stage"), f"{name} is the same in all stages.", "Only dropout can be one a stage.")
    return parameter


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
    steps = (high - low) / step
    if abs(steps - round(steps)) > _NEAR or round(steps) < 1:
        near = low + max(1, round(steps)) * step
        problem = f"high: {high:g} is no whole number of steps above low."
        raise Mistake((*path, "high"), problem, f"The nearest: {near:g}.")
    if steps > _MOST_POINTS:
        raise Mistake((*path, "step"), f"step: {step:g} makes {steps:,.0f} points.", "Leave it out.")


def typed(parameter: Parameter, raw: Mapping[str, Any]) -> Parameter:
    """The parameter, as one of whole numbers if its field takes no others. raw: some cell's fields, as in the file."""
    if parameter.choices or _takes_fractions(parameter, raw):
        return parameter
    for key in ("low", "high", "step"):
        number = getattr(parameter, key)
        if number is not None and number != int(number):
            problem = f"{key}: {number:g} should be a whole number, as {parameter.name} is."
            raise Mistake((*parameter.path, key), problem)
    return replace(parameter, integer=True)


def _takes_fractions(parameter: Parameter, raw: Mapping[str, Any]) -> bool:
    """Whether the field takes numbers that are not whole. Raises Mistake where it does not even take the low end."""
    between = parameter.low + (parameter.high - parameter.low) / math.pi
    changed = [deepcopy(dict(raw)) for _ in range(2)]
    for each, value in zip(changed, (parameter.low, between), strict=True):
        _put(each, parameter.keys, _decay(raw["recipe"], value) if parameter.is_decay else value)
    _given(parameter.field, changed[0][parameter.field], parameter.path)
    try:
        _given(parameter.field, changed[1][parameter.field], parameter.path)
    except Mistake:
        return False
    return True


@dataclass(frozen=True)
class Space:
    """The parameters that matter to one cell, and how values of them make a configuration of it.

    fields: what the search file gives for the cell; raw: the same, as it stands there.
    """

    parameters: tuple[Parameter, ...]
    fields: Fields
    raw: Mapping[str, Any]
    stages: int

    @cached_property
    def dimensions(self) -> tuple[Parameter, ...]:
        """The parameters, those by stage once for each."""
        return tuple(self._dimensions())

    def _dimensions(self) -> Iterator[Parameter]:
        for each in self.parameters:
            if each.per_stage:
                yield from (replace(each, name=f"{each.name}.{_STAGE}{n + 1}") for n in range(self.stages))
            else:
                yield each

    def yaml(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """The fields of the cell with these values, as they would stand in a grid. values: by name of dimension."""
        raw = deepcopy(dict(self.raw))
        for parameter in self.parameters:
            if parameter.per_stage:
                names = (f"{parameter.name}.{_STAGE}{n + 1}" for n in range(self.stages))
                _put(raw, parameter.keys, [parameter.raw(values[name]) for name in names])
            elif parameter.is_decay:
                _put(raw, parameter.keys, _decay(raw["recipe"], values[parameter.name]))
            else:
                _put(raw, parameter.keys, parameter.raw(values[parameter.name]))
        return raw

    def config(self, values: Mapping[str, Value]) -> RunConfig:
        """The cell's configuration with these values, on held-out images. Raises Mistake where they do not fit."""
        raw = self.yaml(values)
        changed = {parameter.field for parameter in self.parameters}
        path = {parameter.field: parameter.path for parameter in self.parameters}
        fields = self.fields | {name: _given(name, raw[name], path[name]) for name in changed}
        return resolve(fields)

    def varied_by(self, dimension: Parameter) -> list[RunConfig]:
        """The cell with all choices of one dimension, or both ends of its range; the others as they come first."""
        first = {each.name: each.ends[0] for each in self.dimensions}
        values = dimension.points() if dimension.choices else dimension.ends
        return [self.config(first | {dimension.name: value}) for value in values or ()]

    def corners(self) -> list[RunConfig]:
        """The cell with extreme values of each dimension in turn; as it is, where nothing is searched."""
        return [config for each in self.dimensions for config in self.varied_by(each)] or [self.config({})]


def _given(field: str, raw: Any, path: Path_) -> Given:
    try:
        return parse_field(field, raw, path)
    except Mistake as mistake:
        raise Mistake(path, mistake.problem, mistake.remedy) from None


def _put(raw: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    """Set a value within nested mappings; a variant that is given by its name alone becomes a mapping."""
    at = raw
    for key in keys[:-1]:
        inside = at.get(key)
        at[key] = {"name": inside} if isinstance(inside, str) else dict(inside or {})
        at = at[key]
    at[keys[-1]] = value


def _decay(raw: Any, value: Value) -> dict[str, Value]:
    """Weight decay of all that the recipe decays; where it decays nothing, of the weights."""
    decay = parse_recipe(raw, ()).weight_decay
    groups = [name for name in ("convolution", "classifier", "other") if getattr(decay, name)]
    return dict.fromkeys(groups or ("convolution", "classifier"), value)


def space(parameters: tuple[Parameter, ...], fields: Fields, raw: Mapping[str, Any], config: RunConfig) -> Space:
    """The space of one cell: without the parameters that change nothing in it, as dropout in a baseline.

    config: the cell's with any values. Raises Mistake, at the parameter, where one of its values does not fit the cell.
    """
    stages = family(config.dataset).stages(config.block, config.depth) or (1,)
    whole = Space(parameters, fields, raw, len(stages))
    matter = {each.path for each in whole.dimensions if len({config.cell_id for config in whole.varied_by(each)}) > 1}
    idle = {each.name for each in parameters if each.is_whole_field and each.path not in matter}
    return replace(
        whole,
        parameters=tuple(each for each in parameters if each.path in matter),
        raw={name: value for name, value in raw.items() if name not in idle},
    )
