"""A search's YAML file: a grid, each of whose cells gets a study, and what is searched in it, how, and by what.

Every mistake is named with file, line and what would have been right.
"""

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from icbench import grid
from icbench.architecture import family
from icbench.config import Cell, RunConfig, Variant
from icbench.errors import suggest
from icbench.grid import Sweep
from icbench.resolve import DEFAULTS, Fields, Given, parse_field
from icbench.search import methods, objective, space
from icbench.search.methods import Seeding
from icbench.search.objective import Objective
from icbench.search.space import Parameter, Space, Value
from icbench.wording import cell as in_words
from icbench.yamlfile import Document, Mistake, Path_, read

_KEYS = ("parameters", "trials", "seeds", "seed", "sampler", "pruner", "objective", "budget")
_SECTION = "search"
_EXAMPLE = "search: {parameters: {dropout: {low: 0, high: 0.5}}, trials: 20}"
HELDOUT = "heldout"
# Far from the seeds of sweeps, which count from 0: no seed that chose a rate shall report on it.
_FIRST_SEED = 1000
_CONFIRMING_SEEDS = 5
_MOST_TRIALS = 10_000
_MOST_SEEDS = 100
# The confirming sweep has the search's name and a word more, and names have 100 characters.
_LONGEST_NAME = 90
# Of the budget, in words: hours, or what they are hours of.
_UNITS = {"gpu-hours": 3600.0, "core-hours": 3600.0, "hours": 3600.0, "minutes": 60.0}


@dataclass(frozen=True)
class Budget:
    """After so many seconds of wall time, or of GPUs or cores, a search asks for no more trials. unit: of _UNITS."""

    amount: float
    unit: str

    @property
    def seconds(self) -> float:
        return self.amount * _UNITS[self.unit]

    @property
    def is_wall_time(self) -> bool:
        return self.unit in ("hours", "minutes")

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit}"


@dataclass(frozen=True)
class SearchCell:
    """A cell of the grid with what is searched in it. config: with the last values of that; key: names its study.

    baseline: the key of the cell that it is to be compared with. distinction: what tells it from others of its name.
    """

    config: RunConfig
    space: Space
    key: str
    baseline: str | None = None
    distinction: str = ""

    @property
    def words(self) -> str:
        """The cell, as nobody else in this search is called."""
        return f"{self.name} {self.distinction}".strip()

    @cached_property
    def name(self) -> str:
        """The cell, without what is searched; a star for what is always said."""
        config, searched = self.config, [parameter.name for parameter in self.space.parameters]
        usual: dict[str, Any] = DEFAULTS | {"width": family(config.dataset).width, "dropout": None}
        unsaid = {name: value for name, value in usual.items() if name in searched and name != "block"}
        for head, _, option in (name.partition(".") for name in searched):
            variant = unsaid.get(head, getattr(config, head, None))
            if option and isinstance(variant, Variant):
                unsaid[head] = variant.without(option)
        words = in_words(replace(config, **unsaid, split="test")).split()
        for place, fields in enumerate((("ordering",), ("dataset",), ("block", "depth"))):
            words[place] = "-".join("*" if name in searched else str(getattr(config, name)) for name in fields)
        return " ".join(words)

    def runs(self, values: Mapping[str, Value], seeds: tuple[int, ...]) -> tuple[tuple[str, RunConfig], ...]:
        """The runs of a trial: one for each seed. Raises Mistake where the values do not fit together."""
        config = replace(self.space.config(values), split=HELDOUT)
        seeded = (config.varied("seed", seed) for seed in seeds)
        return tuple((each.run_id, each) for each in seeded)


@dataclass(frozen=True)
class Search:
    """What a search file says. seeds: of each trial; confirming_seeds: of the sweep at the end."""

    name: str
    question: str
    text: str
    cells: tuple[SearchCell, ...]
    objectives: tuple[Objective, ...]
    sampler: Variant
    pruner: Variant
    trials: int
    seeds: tuple[int, ...]
    confirming_seeds: tuple[int, ...]
    seed: int
    budget: Budget | None
    document: Document = field(repr=False, compare=False)
    baseline_change: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def objective(self) -> Objective:
        """The first of them, by which learning curves are judged while they grow."""
        return self.objectives[0]

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """All that is searched in any of the cells."""
        every = {each.path: each for cell in self.cells for each in cell.space.parameters}
        return tuple(every.values())

    def trials_of(self, cell: SearchCell) -> int:
        """How many trials a cell's study has: as many for all, but one where there is nothing to search for."""
        if not cell.space.parameters:
            return 1
        return min(self.trials, methods.points(cell.space)) if self.sampler.name == "grid" else self.trials

    def seeding(self, cell: SearchCell) -> Seeding:
        return Seeding(self.seed, cell.key)

    def study_name(self, cell: SearchCell) -> str:
        """Unique among the studies of a storage: two that search otherwise are two."""
        return f"{self.name}: {cell.name} [{cell.key}]"

    def corners(self) -> Sweep:
        """The cells with extreme values of each parameter, one after another, as a sweep: what can be tried at once."""
        cells: dict[str, Cell] = {}
        given: dict[str, list[Fields]] = {}
        for each in self.cells:
            for config in each.space.corners():
                found = Cell.of(replace(config, split=HELDOUT), self.seeds)
                cells[found.cell_id], given[found.cell_id] = found, [each.space.fields]
        return Sweep(self.name, self.question, self.text, tuple(cells.values()), {}, self.document, given)

    @cached_property
    def by_key(self) -> dict[str, SearchCell]:
        return {cell.key: cell for cell in self.cells}


def load(file: Path, name: str = "") -> Search:
    """Read a search, to be called `name`, else as it says. Raises UserError for any mistake in it; writes nothing."""
    document = read(file)
    try:
        search = _search(document)
        return replace(search, name=name) if name else search
    except Mistake as mistake:
        raise document.error(mistake) from None


def _search(document: Document) -> Search:
    data = document.data
    section = _section(data)
    parameters = space.parse(section["parameters"], (_SECTION, "parameters"))
    _check_baseline(data, parameters)
    _check_without_seed_and_split(data)
    sweep = grid.parse(document, _searched(parameters))
    spaces = _spaces(document, sweep, parameters)
    method = _Method.parse(section)
    method.check(spaces)
    keys = {cell.cell_id: method.key(found) for cell, found in zip(sweep.cells, spaces, strict=True)}
    cells = tuple(
        SearchCell(found.last, found, keys[cell.cell_id], keys.get(sweep.baselines.get(cell.cell_id, "")))
        for cell, found in zip(sweep.cells, spaces, strict=True)
    )
    return Search(
        name=_name(sweep),
        question=sweep.question,
        text=sweep.text,
        cells=_told_apart(cells, sweep),
        trials=_whole(section, "trials", 1, _MOST_TRIALS),
        confirming_seeds=_confirming_seeds(data, section, sweep, method.seeds),
        budget=_budget(section),
        document=document,
        baseline_change=data.get("baseline", {}),
        **vars(method),
    )


def _spaces(document: Document, sweep: Sweep, parameters: tuple[Parameter, ...]) -> list[Space]:
    """Of each cell. Raises Mistake where a parameter does not fit."""
    ways = [[(fields, _raw(document, fields)) for fields in sweep.given[cell.cell_id]] for cell in sweep.cells]
    for index, each in enumerate(parameters):
        fitting = [raw for way in ways for fields, raw in way if space.applies(each, fields)]
        typed = space.typed(each, (fitting or [ways[0][0][1]])[0])
        parameters = (*parameters[:index], typed, *parameters[index + 1 :])
    spaces = []
    for cell, given in zip(sweep.cells, ways, strict=True):
        found = [space.space(parameters, fields, raw, cell.config) for fields, raw in given]
        _check_one(found)
        spaces.append(found[0])
    for each in parameters:
        matters = [found for found in spaces if each in found.parameters]
        if not matters:
            raise Mistake(each.path, f"{each.name!r} changes nothing in any cell of the grid.", "Leave it out.")
        _check_choices(each, matters)
    return spaces


def _check_one(ways: list[Space]) -> None:
    """Raise Mistake where a cell that is given in several ways is one with some values of what is searched only."""
    first = ways[0].outlook()
    for other in ways[1:]:
        outlook = other.outlook()
        for name in first | outlook:
            if first.get(name) == outlook.get(name):
                continue
            parameter = next(each for each in (*ways[0].dimensions, *other.dimensions) if each.name == name)
            problem = f"cells of the grid are one with the last value of {name!r}, and several with others."
            remedy = "Give it another last value, or have a search for each of the cells."
            raise Mistake(parameter.path, problem, remedy)


def _check_choices(parameter: Parameter, spaces: list[Space]) -> None:
    """Raise Mistake where two choices come to the same in all cells."""
    if not parameter.choices:
        return
    seen: dict[tuple[object, ...], object] = {}
    outlooks = [found.outlook()[parameter.name] for found in spaces]
    for index, (label, *comes_to) in enumerate(zip(parameter.ends, *outlooks, strict=True)):
        if tuple(comes_to) in seen:
            problem = f"{parameter.name}: {label} comes to the same as {seen[tuple(comes_to)]}."
            raise Mistake((*parameter.path, index), problem, "Keep one of them.")
        seen[tuple(comes_to)] = label


def _told_apart(cells: tuple[SearchCell, ...], sweep: Sweep) -> tuple[SearchCell, ...]:
    """The cells with different words: with the recipe or the norm in full where the short ones are the same."""
    given = [cell.config for cell in sweep.cells]
    for every in ([f"recipe {each.recipe.label}" for each in given], [f"norm {each.norm}" for each in given]):
        told: defaultdict[str, set[str]] = defaultdict(set)
        for cell, said in zip(cells, every, strict=True):
            told[cell.words].add(said)
        cells = tuple(
            replace(cell, distinction=f"{cell.distinction} {said}".strip()) if len(told[cell.words]) > 1 else cell
            for cell, said in zip(cells, every, strict=True)
        )
    return cells


def _name(sweep: Sweep) -> str:
    """The search's name, which names the sweep at its end too."""
    if len(sweep.name) > _LONGEST_NAME:
        raise Mistake(("name",), f"the name {sweep.name!r} is too long.", f"At most {_LONGEST_NAME} characters.")
    return sweep.name


def _section(data: Any) -> dict[str, Any]:
    section = data.get(_SECTION) if isinstance(data, dict) else None
    if not isinstance(section, dict):
        at: Path_ = (_SECTION,) if isinstance(data, dict) and _SECTION in data else ()
        problem = "the file holds no search: the key 'search' is missing, or maps nothing."
        raise Mistake(at, problem, f"A search is a grid and, with more keys as needed, {_EXAMPLE}.")
    for key in section:
        if key not in _KEYS:
            raise Mistake((_SECTION, key), f"a search has no key {key!r}.", suggest(key, _KEYS))
    for key in data:
        if key in _KEYS and key not in grid.KEYS:
            raise Mistake((key,), f"a grid has no key {key!r}.", f"Write it in search: {{{key}: ...}}.")
    for key in ("parameters", "trials"):
        if key not in section:
            raise Mistake((_SECTION,), f"the search lacks {key!r}.", f"As in {_EXAMPLE}.")
    return section


@dataclass(frozen=True)
class _Method:
    """How and by what a search goes: what makes its studies others than those of another search."""

    objectives: tuple[Objective, ...]
    sampler: Variant
    pruner: Variant
    seeds: tuple[int, ...]
    seed: int

    @classmethod
    def parse(cls, section: dict[str, Any]) -> "_Method":
        return cls(
            objective.parse(section.get("objective", objective.ACCURACY), (_SECTION, "objective")),
            methods.parse("sampler", methods.SAMPLERS, section.get("sampler", "tpe"), (_SECTION, "sampler")),
            methods.parse("pruner", methods.PRUNERS, section.get("pruner", "none"), (_SECTION, "pruner")),
            _seeds(section),
            _whole(section, "seed", 0, 2**31, default=0),
        )

    def check(self, spaces: list[Space]) -> None:
        """Raise Mistake where its parts do not fit together, or not to one of the spaces."""
        at = (_SECTION, "pruner")
        if self.pruner.name != "none" and len(self.objectives) > 1:
            raise Mistake(at, "a pruner judges by one objective.", "Leave the pruner out, or all objectives but one.")
        if self.pruner.name == methods.WILCOXON and len(self.seeds) <= (least := methods.seeds_to_tell(self.pruner)):
            problem = f"wilcoxon compares seeds, and spares none of {len(self.seeds)}: it can tell from {least} on."
            raise Mistake(at, problem, f"Give {least + 1} seeds or more, or another pruner.")
        epochs = min(config.recipe.epochs for found in spaces for config in found.corners())
        if int(dict(self.pruner.options).get("min_resource", 1)) > epochs:
            problem = f"min_resource is an epoch from which trials are pruned, and there are runs of {epochs}."
            raise Mistake((*at, "min_resource"), problem, "Give a smaller one.")
        for found in spaces:
            if found.parameters and (wrong := methods.check(self.sampler, found, len(self.objectives))):
                raise Mistake((_SECTION, "sampler"), *wrong)

    def key(self, found: Space) -> str:
        """Of a cell: 8 hex digits of the SHA-256 of all that makes its study another one."""
        content = {
            "cell": found.last.cell_json(),
            "parameters": [each.describe() for each in found.parameters],
            "objectives": [each.describe() for each in self.objectives],
            "sampler": self.sampler.canonical(),
            "pruner": self.pruner.canonical(),
            "seeds": self.seeds,
            "seed": self.seed,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def _searched(parameters: tuple[Parameter, ...]) -> Fields:
    """The fields that are searched as a whole, each with its last value: a dropout rate that is not 0 keeps apart what
    differs in dropout alone.
    """
    whole = [each for each in parameters if each.is_whole_field]
    return {
        each.name: parse_field(each.name, each.raw(value), path)
        for each in whole
        for value, path in [list(each.tried())[-1]]
    }


def _check_baseline(data: Any, parameters: tuple[Parameter, ...]) -> None:
    include = data.get("include")
    entries = include if isinstance(include, list) else []
    places: list[tuple[Any, Path_]] = [(data, ()), *((entry, ("include", at)) for at, entry in enumerate(entries))]
    for where, path in places:
        change = where.get("baseline") if isinstance(where, dict) else None
        for each in parameters:
            if each.is_whole_field and isinstance(change, dict) and each.name in change:
                problem = f"{each.name!r} of the baseline is given, and it is searched for in every cell."
                raise Mistake((*path, "baseline", each.name), problem, "Leave one of them out.")


def _check_without_seed_and_split(data: Any) -> None:
    """Raise Mistake where a section of the grid gives what the search says itself."""
    sections: list[tuple[Any, Path_]] = [(data.get(key), (key,)) for key in ("fixed", "grid", "zip", "baseline")]
    for key in ("include", "exclude"):
        entries = data.get(key)
        sections += [(each, (key, at)) for at, each in enumerate(entries if isinstance(entries, list) else [])]
    for section, path in sections:
        if not isinstance(section, dict):
            continue
        if "seed" in section:
            raise Mistake((*path, "seed"), "a search's trials have seeds of their own.", "Leave the seed out.")
        if "split" in section:
            problem = "trials are judged on held-out training images, and the sweep that confirms them on test images."
            raise Mistake((*path, "split"), problem, "Leave the split out.")


def _raw(document: Document, fields: Fields) -> dict[str, Any]:
    """The fields of a cell as they stand in the file."""
    return {name: _at(document.data, given) for name, given in fields.items()}


def _at(data: Any, given: Given) -> Any:
    for key in given.path:
        data = data[key]
    return data


def _whole(section: dict[str, Any], key: str, least: int, most: int, default: int | None = None) -> int:
    value = section.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Mistake((_SECTION, key), f"{key}: {value!r} should be a whole number from {least} to {most:,}.")
    return value


def _seeds(section: dict[str, Any]) -> tuple[int, ...]:
    raw = section.get("seeds", 1)
    if isinstance(raw, int) and not isinstance(raw, bool) and 1 <= raw <= _MOST_SEEDS:
        return tuple(range(_FIRST_SEED, _FIRST_SEED + raw))
    right = f"a number from 1 to {_MOST_SEEDS}, or a list of different whole numbers below 2^63"
    if not isinstance(raw, list) or not raw or len(raw) > _MOST_SEEDS:
        raise Mistake((_SECTION, "seeds"), f"seeds: {raw!r} should be {right}.")
    for index, seed in enumerate(raw):
        whole = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**63
        if not whole or seed in raw[:index]:
            raise Mistake((_SECTION, "seeds", index), f"seeds: {seed!r} is no other seed; seeds should be {right}.")
    return tuple(raw)


def _confirming_seeds(
    data: dict[str, Any], section: dict[str, Any], sweep: Sweep, seeds: tuple[int, ...]
) -> tuple[int, ...]:
    """The seeds of the sweep at the end, which are none of the search's."""
    confirming = sweep.cells[0].seeds if "seeds" in data else tuple(range(_CONFIRMING_SEEDS))
    if both := set(seeds) & set(confirming):
        at = (_SECTION, "seeds") if "seeds" in section else ("seeds",)
        problem = f"seed {min(both)} would choose and report: what was chosen for its figure has too good a one."
        raise Mistake(at, problem, f"If only their number is given, the search's seeds are {_FIRST_SEED} and up.")
    return confirming


def _budget(section: dict[str, Any]) -> Budget | None:
    if "budget" not in section:
        return None
    raw, example = section["budget"], "budget: 2hours, or 30minutes, 20gpu-hours, 8core-hours"
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-z-]+)\s*", str(raw).lower())
    unit = _unit(match[2]) if match else ""
    if match is None or not unit or not 0 < float(match[1]) < math.inf:
        raise Mistake((_SECTION, "budget"), f"budget: {raw!r} is no amount of time.", f"Write {example}.")
    return Budget(float(match[1]), unit)


def _unit(word: str) -> str:
    """A unit, also of one hour; empty for what is none."""
    return next((unit for unit in _UNITS if word in (unit, unit.removesuffix("s"))), "")
