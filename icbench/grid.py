"""grid.yaml -> the cells of a sweep; every mistake is named with file, line and what would have been right."""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from icbench import recording, wording
from icbench.architecture import family
from icbench.config import Cell, Recipe, RunConfig, Variant, by_stage
from icbench.errors import UserError, suggest
from icbench.recording import NOTHING, Recording
from icbench.resolve import (
    DEFAULTS,
    REQUIRED,
    Fields,
    Given,
    check_field,
    check_required,
    defaults,
    full_variants,
    ordering_name,
    parse_field,
    resolve,
    where,
)
from icbench.yamlfile import Document, Mistake, Path_, read

KEYS = (
    *("name", "question", "recipe", "fixed", "grid", "zip", "include", "exclude", "seeds", "baseline"),
    *recording.KEYS,
)
_MOST_SEEDS = 10_000
_OWN_BASELINE = "baseline"


@dataclass(frozen=True)
class Sweep:
    """What a grid names: its cells, each once, in the grid's order, and the baseline of each by cell id.

    given: by cell id, the fields that name the cell, as `document` gives them: one entry for each way that it is named.
    """

    name: str
    question: str
    text: str
    cells: tuple[Cell, ...]
    baselines: dict[str, str]
    document: Document = dataclasses.field(repr=False, compare=False)
    given: dict[str, list[Fields]] = dataclasses.field(repr=False, compare=False)
    recording: Recording = NOTHING

    @property
    def run_ids(self) -> list[str]:
        return [run_id for cell in self.cells for run_id in cell.run_ids]

    def runs(self) -> list[tuple[str, RunConfig]]:
        return [run for cell in self.cells for run in cell.runs()]

    def error(self, cell: Cell, names: tuple[str, ...], problem: str, remedy: str) -> UserError:
        """A mistake in a cell, as the error to show: where the first of the named fields that is given stands."""
        path = where(self.given[cell.cell_id][0], *names)
        return self.document.error(Mistake(path, problem, remedy))


def load(file: Path, name: str = "") -> Sweep:
    """Read a grid, to be called `name`, else as it says. Raises UserError for any mistake in it; nothing is written."""
    document = read(file)
    try:
        sweep = parse(document)
        return replace(sweep, name=name) if name else sweep
    except Mistake as mistake:
        raise document.error(mistake) from None


def parse(document: Document, searched: Fields | None = None) -> Sweep:
    """A grid. Raises Mistake. searched: of a search's file, which is a grid and more, the fields that are not given in
    it, since they are searched for, each with some value.
    """
    data = document.data
    keys = KEYS if searched is None else (*(key for key in KEYS if key not in recording.KEYS), "search")
    if not isinstance(data, dict):
        raise Mistake((), "the file holds no grid.", f"A grid maps some of these keys to values: {', '.join(keys)}.")
    for key in data:
        if key not in keys:
            raise Mistake((key,), f"a grid has no key {key!r}.", _elsewhere(key) or suggest(key, keys))
    seeds = _seeds(data)
    combinations, excluded = _combinations(data, seeds, searched or {})
    cells, given = _cells(combinations, seeds)
    _check_excluded(excluded, cells, seeds)
    return Sweep(
        name=_name(data, document.file),
        question=_text(data, "question"),
        text=document.text,
        cells=tuple(cells.values()),
        baselines=_baselines(data, cells, given),
        document=document,
        given=given,
        recording=recording.parse(data, max(cell.config.recipe.epochs for cell in cells.values())),
    )


def _combinations(
    data: dict[str, Any], seeds: tuple[int, ...], searched: Fields
) -> tuple[list[Fields], list[list[Fields]]]:
    """The fields of each configuration that the grid names, some perhaps more than once; what each exclude matches."""
    fixed = _fixed(data)
    axes, rows = _grid(data), _zip(data)
    _check_given_once(data, fixed, axes, rows)
    includes = _entries(data, "include", with_baseline=True)
    first = {field: values[0] for field, values in axes.items()}
    _check_not_searched(searched, [fixed, first, *rows, *includes, *_entries(data, "exclude")])
    fixed |= searched
    product_ = [fixed | axis | row for axis in _product(axes) for row in rows]
    if includes and not axes and rows == [{}] and not all(field in fixed for field in REQUIRED):
        product_ = []  # 'fixed' is what the entries of 'include' share
    for fields in product_[:1]:  # all of them have the same fields
        check_required(fields)
    for index, entry in enumerate(includes):
        for field in REQUIRED:
            if field not in fixed | entry:
                problem = f"this entry of 'include' lacks the field {field!r}, which 'fixed' does not give either."
                raise Mistake(("include", index), problem, "Entries do not see 'grid' and 'zip': add it to the entry.")
    kept, excluded = _excluded(data, product_, seeds)
    combinations = kept + [fixed | entry for entry in includes]
    if not combinations:
        raise Mistake(
            ("exclude",), "the grid is empty: 'exclude' leaves no run.", "Exclude less, or include something."
        )
    return combinations, excluded


def _cells(combinations: list[Fields], seeds: tuple[int, ...]) -> tuple[dict[str, Cell], dict[str, list[Fields]]]:
    """By cell id: each cell once, with all seeds that are wanted of it, and the fields that it was given by."""
    configs: dict[str, RunConfig] = {}
    given: dict[str, list[Fields]] = {}
    wanted: dict[str, dict[int, None]] = {}
    for fields in combinations:
        config = resolve(fields)
        cell_id = config.cell_id
        if cell_id not in configs:
            configs[cell_id], given[cell_id], wanted[cell_id] = config, [], {}
        given[cell_id].append(fields)
        wanted[cell_id].update(dict.fromkeys((fields["seed"].value,) if "seed" in fields else seeds))
    return {cell_id: Cell.of(config, tuple(wanted[cell_id]), cell_id) for cell_id, config in configs.items()}, given


def _elsewhere(key: str) -> str:
    """The remedy for a configuration's field that stands at the top."""
    if key == "search":
        return "A file with a search is for: icbench search FILE."
    if key in recording.KEYS:
        return "A search measures nothing inside nets; a sweep does: write it into that one's grid."
    if key == "seed":
        return "Write seeds: 3, or seeds: [0, 1, 2]."
    if key in DEFAULTS or key in REQUIRED:
        return f"It is a field of a configuration: write it in fixed: {{{key}: ...}} or grid: {{{key}: [...]}}."
    return ""


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key, "")
    if value is None:
        raise Mistake((key,), f"{key} has no value.", "Give one, or leave the key out.")
    if not isinstance(value, str):
        raise Mistake((key,), f"{key}: {value!r} should be words.", "Put it in quotes.")
    return value


def _name(data: dict[str, Any], file: Path) -> str:
    """The sweep's name; it names a directory."""
    name = _text(data, "name") if "name" in data else file.stem
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        problem = (
            f"name: {name!r} cannot name a directory."
            if "name" in data
            else f"the file's name {name!r} is no name for a sweep."
        )
        raise Mistake(
            ("name",), problem, "Write name: with letters, digits, '.', '_' and '-', a letter or digit first."
        )
    return name


def _mapping(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key, {})
    if not isinstance(value, dict):
        raise Mistake((key,), f"{key}: {value!r} should map fields to values.")
    return value


def _field_mapping(raw: object, path: Path_, what: str) -> Fields:
    if not isinstance(raw, dict) or not raw:
        raise Mistake(path, f"{what} {raw!r} should map fields to values, as in {{ordering: baseline}}.")
    for field in raw:
        check_field(field, (*path, field))
    return {field: parse_field(field, value, (*path, field)) for field, value in raw.items()}


def _fixed(data: dict[str, Any]) -> Fields:
    fixed = _field_mapping(data["fixed"], ("fixed",), "fixed:") if _mapping(data, "fixed") else {}
    if "recipe" in data:
        if "recipe" in fixed:
            raise Mistake(
                ("fixed", "recipe"), "the recipe is given twice, in 'fixed' and by itself.", "Keep one of them."
            )
        fixed["recipe"] = parse_field("recipe", data["recipe"], ("recipe",))
    return fixed


def _axis(field: str, raw: object, path: Path_) -> list[Given]:
    check_field(field, path)
    if not isinstance(raw, list):
        if raw is None:
            raise Mistake(path, f"{field} has no value.", "Give a list of values.")
        raise Mistake(path, f"{field}: {raw!r} should be a list of values.", f"Write [{raw}], or put it into fixed.")
    if not raw:
        raise Mistake(path, f"{field}: the list is empty, so the grid would be.", "Give at least one value.")
    return [parse_field(field, value, (*path, index)) for index, value in enumerate(raw)]


def _grid(data: dict[str, Any]) -> dict[str, list[Given]]:
    if "grid" in data and not _mapping(data, "grid"):
        raise Mistake(
            ("grid",), "the grid is empty.", "Give it an axis, as in {dropout: [0.05, 0.1]}, or leave 'grid' out."
        )
    return {field: _axis(field, raw, ("grid", field)) for field, raw in _mapping(data, "grid").items()}


def _zip(data: dict[str, Any]) -> list[Fields]:
    """The rows of 'zip'; one row without fields when there is none."""
    if "zip" in data and not _mapping(data, "zip"):
        raise Mistake(("zip",), "'zip' is empty.", "Give it lists of equal length, or leave it out.")
    axes = {field: _axis(field, raw, ("zip", field)) for field, raw in _mapping(data, "zip").items()}
    lengths = {field: len(values) for field, values in axes.items()}
    if len(set(lengths.values())) > 1:
        counted = ", ".join(f"{field} has {length}" for field, length in lengths.items())
        raise Mistake(
            ("zip",),
            f"the lists of 'zip' differ in length: {counted}.",
            "They move together, so give each the same number of values.",
        )
    return [dict(zip(axes, row, strict=True)) for row in zip(*axes.values(), strict=True)] if axes else [{}]


def _check_given_once(data: dict[str, Any], fixed: Fields, axes: dict[str, list[Given]], rows: list[Fields]) -> None:
    sections: dict[str, Any] = {"fixed": fixed, "grid": axes, "zip": rows[0]}
    for section, fields in sections.items():
        if "seed" in fields and "seeds" in data:
            raise Mistake(
                (section, "seed"), f"seeds are given twice, by 'seeds' and in {section!r}.", "Keep one of them."
            )
    for later, earlier in (("grid", "fixed"), ("zip", "fixed"), ("zip", "grid")):
        for field in sections[later]:
            if field in sections[earlier]:
                first = (
                    "by itself"
                    if (earlier, field) == ("fixed", "recipe") and fixed[field].path == ("recipe",)
                    else f"in {earlier!r}"
                )
                raise Mistake(
                    (later, field), f"{field!r} is given twice, {first} and in {later!r}.", "Keep one of them."
                )


def _check_not_searched(searched: Fields, given: list[Fields]) -> None:
    for fields in given:
        for field, value in fields.items():
            if field in searched:
                raise Mistake(value.path, f"{field!r} is given here, and searched for.", "Keep one of them.")


def _seeds(data: dict[str, Any]) -> tuple[int, ...]:
    raw = data.get("seeds", 1)
    right = f"seeds should be a number from 1 to {_MOST_SEEDS:,}, or a list of different whole numbers below 2^63"
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 1:
        if raw > _MOST_SEEDS:
            raise Mistake(("seeds",), f"seeds: {raw}; {right}.", f"One run with this seed would be seeds: [{raw}].")
        return tuple(range(raw))
    if not isinstance(raw, list) or not raw:
        raise Mistake(("seeds",), f"seeds: {raw!r}; {right}.")
    for index, seed in enumerate(raw):
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
            raise Mistake(("seeds", index), f"seeds: {seed!r}; {right}.")
    if len(set(raw)) < len(raw):
        twice = next(seed for seed in raw if raw.count(seed) > 1)
        raise Mistake(("seeds",), f"seeds: {twice} stands there twice; {right}.")
    return tuple(raw)


def _product(axes: dict[str, list[Given]]) -> Iterator[Fields]:
    return (dict(zip(axes, values, strict=True)) for values in product(*axes.values()))


def _entries(data: dict[str, Any], key: str, *, with_baseline: bool = False) -> list[Fields]:
    """The entries of 'include' or 'exclude'. with_baseline: they may say what their baseline changes in them beside
    what the grid's 'baseline' does; this stands among their fields as if it were one.
    """
    raw = data.get(key, [])
    if not isinstance(raw, list):
        raise Mistake(
            (key,), f"{key}: {raw!r} should be a list of mappings, as in [{{ordering: baseline, depth: 20}}]."
        )
    entries = []
    for index, entry in enumerate(raw):
        path, own = (key, index), dict[str, Given]()
        if with_baseline and isinstance(entry, dict) and _OWN_BASELINE in entry:
            at = (*path, _OWN_BASELINE)
            if _OWN_BASELINE not in data:
                raise Mistake(at, "the grid has no baselines.", "Give it baseline: {ordering: baseline}, or so.")
            own = {_OWN_BASELINE: Given(_change(entry[_OWN_BASELINE], at), at)}
            entry = {field: value for field, value in entry.items() if field != _OWN_BASELINE}
        entries.append(_field_mapping(entry, path, f"{key}:") | own)
    return entries


def _excluded(
    data: dict[str, Any], combinations: list[Fields], seeds: tuple[int, ...]
) -> tuple[list[Fields], list[list[Fields]]]:
    """The combinations that no entry of 'exclude' matches, and those that each entry does: it must match one."""
    entries = _entries(data, "exclude")
    if any("seed" in entry for entry in entries):
        each = [Given(seed, ("seeds",)) for seed in seeds]
        combinations = [{"seed": seed, **fields} for fields in combinations for seed in each]
    kept = []
    matched: list[list[Fields]] = [[] for _ in entries]
    for fields in combinations:
        hits = [index for index, entry in enumerate(entries) if _matches(entry, fields)]
        for index in hits:
            matched[index].append(fields)
        if not hits:
            kept.append(fields)
    for index, combinations_ in enumerate(matched):
        if not combinations_:
            raise Mistake(
                ("exclude", index), "this entry of 'exclude' matches no run of the grid.", "Mend or remove it."
            )
    return kept, matched


def _check_excluded(excluded: list[list[Fields]], cells: dict[str, Cell], seeds: tuple[int, ...]) -> None:
    """Raise Mistake for an entry of 'exclude' all of whose runs the grid names otherwise."""
    for index, matched in enumerate(excluded):
        if not any(_is_gone(fields, cells, seeds) for fields in matched):
            problem = "this entry of 'exclude' removes no run: others of the grid's combinations are the same runs."
            raise Mistake(("exclude", index), problem, "A field that cannot matter, such as a baseline's dropout?")


def _is_gone(fields: Fields, cells: dict[str, Cell], seeds: tuple[int, ...]) -> bool:
    try:
        cell = cells.get(resolve(fields).cell_id)
    except Mistake:  # impossible, which may be why it was excluded
        return True
    wanted = (fields["seed"].value,) if "seed" in fields else seeds
    return cell is None or not set(wanted) <= set(cell.seeds)


def _matches(entry: Fields, fields: Fields) -> bool:
    """Whether a combination, its defaults filled in, has every value of `entry`."""
    values = defaults(fields["dataset"].value) | {name: given.value for name, given in fields.items()}
    return all(name in values and _same(name, given.value, values) for name, given in entry.items())


def _same(name: str, wanted: Any, values: dict[str, Any]) -> bool:
    """Whether a field has the wanted value, or what comes to the same, among the values of all fields."""
    actual = values[name]
    if name == "ordering":
        dataset, block = values["dataset"], values["block"]
        return ordering_name(wanted, dataset, block) == ordering_name(actual, dataset, block)
    if name == "dropout":
        stages = family(values["dataset"]).stage_count
        return by_stage(wanted, stages) == by_stage(actual, stages)
    if isinstance(wanted, Variant | tuple):
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        every = full_variants(name, actual, values["recipe"])
        return [variant.name for variant in wanted] == [variant.name for variant in every] and all(
            set(ours.options) <= set(theirs.options) for ours, theirs in zip(wanted, every, strict=True)
        )
    if isinstance(wanted, Recipe) and isinstance(actual, Recipe):
        return wanted == actual and wanted.norm_defaults == actual.norm_defaults
    return bool(wanted == actual)


def _baselines(data: dict[str, Any], cells: dict[str, Cell], given: dict[str, list[Fields]]) -> dict[str, str]:
    """The baseline cell of each cell: the fields given for it, changed as 'baseline' says.

    A cell that is its own baseline has none. Of one given in several ways, the first that leads to a baseline counts.
    """
    if "baseline" not in data:
        return {}
    change = _change(data["baseline"], ("baseline",))
    baselines: dict[str, str] = {}
    ids: dict[int, tuple[str, RunConfig]] = {}  # by where a configuration lies: one is the baseline of many cells
    for cell in cells.values():
        try:
            for fields in given[cell.cell_id]:
                config = resolve(fields | change | _own_change(fields))
                baseline, _ = ids.get(id(config)) or ids.setdefault(id(config), (config.cell_id, config))
                if baseline in cells:
                    break
        except Mistake as mistake:
            problem = f"the baseline of ({wording.cell(cell.config)}): {mistake.problem}"
            path = mistake.path if "baseline" in mistake.path else _where_changed(fields)
            raise Mistake(path, problem, mistake.remedy) from None
        if baseline not in cells:
            ours, other = _describe_both(cell.config, config)
            problem = f"the sweep lacks the baseline of ({ours})."
            raise Mistake(_where_changed(fields), problem, f"It would be ({other}): put it into grid or include.")
        if baseline != cell.cell_id:
            baselines[cell.cell_id] = baseline
    return baselines


def _change(raw: object, path: Path_) -> Fields:
    """What a baseline changes in the fields given for a cell."""
    change = _field_mapping(raw, path, "baseline:")
    if "seed" in change:
        raise Mistake((*path, "seed"), "a baseline cell has all its seeds.", "Leave the seed out.")
    return change


def _where_changed(fields: Fields) -> Path_:
    return fields[_OWN_BASELINE].path if _OWN_BASELINE in fields else ("baseline",)


def _own_change(fields: Fields) -> Fields:
    """What an entry of 'include' says that its baseline changes in it."""
    own: Fields = fields[_OWN_BASELINE].value if _OWN_BASELINE in fields else {}
    return own


def _describe_both(first: RunConfig, second: RunConfig) -> tuple[str, str]:
    """Both in words that tell them apart: with recipe and norm in full where the short ones are the same."""
    if wording.cell(first) != wording.cell(second):
        return wording.cell(first), wording.cell(second)
    ours, other = (f"{wording.cell(each)}, recipe {each.recipe.label}, norm {each.norm}" for each in (first, second))
    return ours, other
