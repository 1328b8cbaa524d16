"""The sweep that confirms a search: what it found best, trained anew with fresh seeds, measured on test images."""

from collections.abc import Mapping
from typing import Any

import yaml

from icbench.search.settings import Search, SearchCell
from icbench.search.space import Value
from icbench.search.study import CellStudy, params

# Chen et al. 2019, section 4.
PAPERS_DROPOUT = 0.05
_DROPOUT = "dropout"


def name(search: Search) -> str:
    """What the confirming sweep is called."""
    return f"{search.name}-confirm"


def grid(search: Search, studies: list[CellStudy]) -> str:
    """The sweep's YAML: of each cell the best values, the same with the paper's dropout rate, and its baseline.

    A cell without a trial that was completed is left out, and so are those whose baseline is.
    """
    best = {study.cell.key: _best(study) for study in studies}
    entries: list[dict[str, Any]] = []
    for cell in search.cells:
        for values in best[cell.key]:
            if cell.baseline is None or best[cell.baseline]:
                for entry in _entries(search, cell, values, best):
                    if entry not in entries:
                        entries.append(entry)
    content: dict[str, Any] = {
        "name": name(search),
        "question": f"Do the values that {search.name} found do better than a dropout rate of {PAPERS_DROPOUT:g}?",
        "seeds": list(search.confirming_seeds),
        "include": entries,
    }
    if search.baseline_change:
        content["baseline"] = dict(search.baseline_change)
    text = yaml.dump(content, Dumper=_Plain, sort_keys=False, default_flow_style=None, width=120)
    return _HEADER.format(name=search.name) + text


class _Plain(yaml.SafeDumper):
    """Without anchors and aliases, which nobody likes to read."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_HEADER = "# Written by `icbench search`: what {name} found best on held-out images, measured on test images.\n"


def _best(study: CellStudy) -> list[Mapping[str, Value]]:
    """The values of the best trial, or trials, each once."""
    found: list[Mapping[str, Value]] = []
    for trial in study.best():
        values = params(trial, study.cell)
        if values not in found:
            found.append(values)
    return found


def _entries(
    search: Search, cell: SearchCell, values: Mapping[str, Value], best: Mapping[str, list[Mapping[str, Value]]]
) -> list[dict[str, Any]]:
    """The cell with these values, and with the paper's dropout rate; each with the baseline that was tuned for it."""
    arms = [values]
    rates = [each.name for each in cell.space.dimensions if each.name.split(".")[0] == _DROPOUT]
    if rates:
        arms.append(dict(values) | dict.fromkeys(rates, PAPERS_DROPOUT))
    entries = [cell.space.yaml(each) for each in arms]
    if cell.baseline is None:
        return entries
    of = search.by_key[cell.baseline]
    tuned = of.space.yaml(best[cell.baseline][0])
    own = {parameter.field: tuned[parameter.field] for parameter in of.space.parameters}
    return [entry | ({"baseline": own} if own else {}) for entry in entries]
