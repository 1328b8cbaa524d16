"""The sweep that confirms a search: what it found best, trained anew with fresh seeds, measured on test images."""

from collections.abc import Mapping
from typing import Any

import yaml

from icbench.files import write_whole
from icbench.layout import SweepFiles
from icbench.search.settings import Search, SearchCell
from icbench.search.space import Value
from icbench.search.study import CellStudy, params

# Chen et al. 2019, section 4.
PAPERS_DROPOUT = 0.05
_DROPOUT = "dropout"
_BASELINE = "baseline"


def name(search: Search) -> str:
    """What the confirming sweep is called."""
    return f"{search.name}-confirm"


def write(files: SweepFiles, search: Search, studies: list[CellStudy]) -> None:
    """Write the sweep's file; remove an older one where there is nothing to confirm."""
    if text := grid(search, studies):
        write_whole(files.confirmation, lambda file: file.write(text.encode()))
    else:
        files.confirmation.unlink(missing_ok=True)


def grid(search: Search, studies: list[CellStudy]) -> str:
    """The sweep's YAML: of each cell the best values, the same with the paper's dropout rate, and its baseline.

    A cell without a trial that was completed is left out, and so are those whose baseline is; empty if all are.
    """
    best = {study.cell.key: _best(study) for study in studies}
    entries: list[dict[str, Any]] = []
    for cell in search.cells:
        for values in best[cell.key]:
            if cell.baseline is None or best[cell.baseline]:
                for entry in _entries(search, cell, values, best):
                    if entry not in entries:
                        entries.append(entry)
    if not entries:
        return ""
    content: dict[str, Any] = {
        "name": name(search),
        "question": f"Do the values that {search.name} found do {_than(search)} on test images?",
        "seeds": list(search.confirming_seeds),
        "include": entries,
    }
    if search.baseline_change:
        content["baseline"] = dict(search.baseline_change)
    text = yaml.dump(content, Dumper=_Plain, sort_keys=False, default_flow_style=None, width=120)
    return _HEADER.format(name=search.name) + text


def _than(search: Search) -> str:
    if any(_searches_dropout(cell) for cell in search.cells):
        return f"better than a dropout rate of {PAPERS_DROPOUT:g}"
    return "better than the baseline" if search.baseline_change else "as well"


def _searches_dropout(cell: SearchCell) -> bool:
    return any(each.field == _DROPOUT for each in cell.space.parameters)


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
    tuned = cell.space.yaml(values)
    arms = [tuned]
    if _searches_dropout(cell):
        arms.append(tuned | {_DROPOUT: PAPERS_DROPOUT})
    if cell.baseline is not None:
        of = search.by_key[cell.baseline]
        own = _searched(of, of.space.yaml(best[cell.baseline][0]))
        return [arm | ({_BASELINE: own} if own else {}) for arm in arms]
    # A baseline's own: what is changed in others, such as the recipe, would else be changed back to the untuned.
    changed = search.baseline_change.keys() & _searched(cell, tuned).keys()
    return [arm | ({_BASELINE: _searched(cell, arm)} if changed else {}) for arm in arms]


def _searched(cell: SearchCell, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Of a cell's fields, those that are searched, or are so in parts."""
    return {parameter.field: fields[parameter.field] for parameter in cell.space.parameters}
