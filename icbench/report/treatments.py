"""What a cell and its baseline differ in, which makes a treatment; and what pairs share, which makes a stratum."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from icbench import wording
from icbench.config import Cell, RunConfig
from icbench.grid import Sweep

# Field -> how it is said.
FIELDS: dict[str, Callable[[RunConfig], str]] = {
    "dataset": lambda c: c.dataset,
    "block": lambda c: c.block,
    "depth": lambda c: str(c.depth),
    "width": lambda c: str(c.width),
    "ordering": lambda c: c.ordering,
    "norm": wording.norm,
    "weight": lambda c: wording.in_short("weights", c.weight),
    "activation": lambda c: wording.in_short("activations", c.activation),
    "procedures": wording.procedures,
    "dropout": wording.dropout,
    "recipe": lambda c: c.recipe.label,
    "precision": lambda c: c.precision,
    "split": lambda c: c.split,
}


@dataclass(frozen=True)
class Contrast:
    """A cell against its baseline cell, in words: what was changed, and where."""

    cell: Cell
    baseline: Cell
    treatment: str
    stratum: str


def contrasts(sweep: Sweep) -> list[Contrast]:
    """Every cell that has a baseline, in the grid's order.

    A treatment is named by what the cell changes in its baseline, as far as the sweep's treatments differ in that; a
    stratum by the fields in which the sweep's baselines differ. Of another precision or split a treatment is another:
    its effects are not pooled over these.
    """
    cells = {cell.cell_id: cell for cell in sweep.cells}
    pairs = [(cells[cell_id], cells[baseline]) for cell_id, baseline in sweep.baselines.items()]
    changes = [{name: of(c.config) for name, of in _changed(c.config, b.config)} for c, b in pairs]
    varying = _varying(changes)
    places = [{name: of(b.config) for name, of in FIELDS.items()} for _, b in pairs]
    differing = _varying(places)
    with_ordering = _is_not_told_by(places, "ordering", differing - {"ordering"})
    for change, place in zip(changes, places, strict=True):
        change.update(
            {name: place[name] for name in ("precision", "split") if name in differing and name not in change}
        )
    varying |= differing & {"precision", "split"}
    return [
        Contrast(cell, baseline, _treatment(change, varying), _stratum(place, differing, with_ordering=with_ordering))
        for (cell, baseline), change, place in zip(pairs, changes, places, strict=True)
    ]


def _changed(config: RunConfig, baseline: RunConfig) -> Iterable[tuple[str, Callable[[RunConfig], str]]]:
    return ((name, of) for name, of in FIELDS.items() if of(config) != of(baseline))


def _varying(fields: list[dict[str, str]]) -> set[str]:
    names = {name for each in fields for name in each}
    return {name for name in names if len({each.get(name) for each in fields}) > 1}


def _treatment(change: dict[str, str], varying: set[str]) -> str:
    told = {name: value for name, value in change.items() if name in varying or name == "ordering"}
    return _in_words(told or change)


def _is_not_told_by(places: list[dict[str, str]], field: str, others: set[str]) -> bool:
    """Whether places that are alike in all others differ in a field."""
    seen: dict[tuple[str | None, ...], set[str]] = {}
    for place in places:
        seen.setdefault(tuple(place.get(name) for name in sorted(others)), set()).add(place[field])
    return any(len(values) > 1 for values in seen.values())


def _stratum(place: dict[str, str], differing: set[str], *, with_ordering: bool) -> str:
    """Data set and net always; the ordering of the baseline where nothing else tells the strata apart."""
    told = {name: value for name, value in place.items() if name in differing - {"ordering", "block", "depth"}}
    words = {"dataset": place["dataset"], "net": f"{place['block']}-{place['depth']}"} | told
    if with_ordering:
        words["ordering"] = place["ordering"]
    return _in_words(words)


def _in_words(fields: dict[str, str]) -> str:
    named = ("norm", "depth", "width", "dropout", "weight", "procedures")
    return ", ".join(
        f"{name} {value or 'none'}" if name in named else value
        for name, value in fields.items()
        if value or name in named
    )


def varying(configs: Iterable[RunConfig]) -> set[str]:
    """The fields in which configurations differ; a dropout rate that one has and another has not is no difference."""
    every = list(configs)
    values = {name: {of(config) for config in every} for name, of in FIELDS.items()}
    values["dropout"] -= {""}
    return {name for name, each in values.items() if len(each) > 1}


def in_words(config: RunConfig, fields: Collection[str]) -> str:
    """Some fields of a configuration."""
    told = {name: of(config) for name, of in FIELDS.items() if name in fields and (name != "dropout" or of(config))}
    if "block" in told and "depth" in told:
        told = {name: f"{told['block']}-{told['depth']}" if name == "block" else v for name, v in told.items()}
        del told["depth"]
    return _in_words(told)
