"""What probes measured in a sweep's finished runs, by cell, epoch and layer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from sys import intern
from typing import TYPE_CHECKING

import numpy as np

from icbench import results
from icbench.config import Cell
from icbench.layout import Layout
from icbench.metrics import Floats
from icbench.report.treatments import in_words, varying

if TYPE_CHECKING:
    import pyarrow as pa

    from icbench.report.evidence import Evidence

# Probe and statistic, as the probes table has them.
Key = tuple[str, str]
# Of a layer: the value and its standard error, NaN where it is not known.
Value = tuple[float, float]

# A layer that has no such statistic, for want of a second channel, still counts in the order of layers that have this.
_AMONG: Mapping[Key, Key] = {
    ("dependence", "mutual_information"): ("dependence", "zero_share"),
    ("dependence", "correlation"): ("dependence", "zero_share"),
}
# A million rows as Python's objects, all at once, would take half a gigabyte.
_ROWS_AT_ONCE = 50_000
_PLACE = ("dataset", "block", "depth")
_OF_PLACES = {"width", "recipe", "precision", "split"}


@dataclass(frozen=True)
class Measured:
    """Values by (probe, statistic), then (run id, epoch), then layer, in the net's order; "" is the net as a whole.

    Only finished runs are in it. options: probe -> the options that it was used with.
    """

    evidence: "Evidence"
    values: Mapping[Key, Mapping[tuple[str, int], Mapping[str, Value]]]
    options: Mapping[str, frozenset[str]]

    @cached_property
    def cells(self) -> list[Cell]:
        """Those of which a finished run was measured, in the grid's order."""
        seen = {run_id for each in self.values.values() for run_id, _ in each}
        return [cell for cell in self.evidence.sweep.cells if seen & set(cell.run_ids)]

    @cached_property
    def _differing(self) -> set[str]:
        return varying(cell.config for cell in self.evidence.sweep.cells)

    def place(self, cell: Cell) -> str:
        """Data set, net and training: only where these are alike are cells compared."""
        return in_words(cell.config, {*_PLACE, *(self._differing & _OF_PLACES)})

    def name(self, cell: Cell) -> str:
        """What tells a cell from the others of its place."""
        own = self._differing - {*_PLACE, *_OF_PLACES}
        return in_words(cell.config, {"ordering", *own, *({"dropout"} if cell.config.dropout is not None else ())})

    @cached_property
    def places(self) -> dict[str, list[Cell]]:
        """The measured cells by place."""
        found: dict[str, list[Cell]] = {}
        for cell in self.cells:
            found.setdefault(self.place(cell), []).append(cell)
        return found

    def epochs(self, key: Key, cell: Cell) -> list[int]:
        """Those at which any of a cell's runs has values of a statistic."""
        ids = set(cell.run_ids)
        return sorted({epoch for run_id, epoch in self.values.get(key, {}) if run_id in ids})

    def of_cell(self, key: Key, cell: Cell, epoch: int, layers: Sequence[str] | None = None) -> tuple[Floats, Floats]:
        """Values and standard errors, (seeds, layers) each, of these or of all layers; NaN where a run has none.

        Of those seeds that were measured, in the order of the cell's.
        """
        own = self.values.get(key, {})
        seeds = [own[run_id, epoch] for run_id in cell.run_ids if (run_id, epoch) in own]
        layers = self.layers(key, cell, epoch) if layers is None else layers
        none = (math.nan, math.nan)
        table = np.array([[each.get(layer, none) for layer in layers] for each in seeds], dtype=float)
        table = table.reshape(len(seeds), len(layers), 2)
        return table[..., 0], table[..., 1]

    def layers(self, key: Key, cell: Cell, epoch: int) -> list[str]:
        """Those that have a value, in the net's order; the net as a whole only where it is the only one."""
        own = self.values.get(key, {})
        found = dict.fromkeys(name for run_id in cell.run_ids for name in own.get((run_id, epoch), ()))
        return [name for name in found if name] or list(found)

    def positions(self, key: Key, cell: Cell, epoch: int) -> list[int]:
        """The place of each layer, from 1, among those of its kind."""
        every = self.layers(_AMONG.get(key, key), cell, epoch)
        at = {name: place for place, name in enumerate(every, start=1)}
        return [at[layer] for layer in self.layers(key, cell, epoch)]


def load(layout: Layout, evidence: "Evidence") -> Measured | None:
    """What a results directory holds of a sweep's runs; None where nothing was measured."""
    table = results.read_probes(layout, set(evidence.position))
    return of_table(table, evidence) if len(table) else None


def of_table(table: "pa.Table", evidence: "Evidence") -> Measured:
    """Of rows of the probes table, as `results.read_probes` gives them, of finished runs."""
    values: dict[Key, dict[tuple[str, int], dict[str, Value]]] = {}
    options: dict[str, set[str]] = {}
    names = ["run_id", "epoch", "layer", "probe", "statistic", "value", "standard_error", "options"]
    for batch in table.select(names).to_batches(max_chunksize=_ROWS_AT_ONCE):
        for run_id, epoch, layer, probe, statistic, value, error, own in zip(
            *(column.to_pylist() for column in batch.columns), strict=True
        ):
            of_statistic = values.setdefault((probe, statistic), {})
            of_layers = of_statistic.setdefault((run_id, epoch), {})
            of_layers[intern(layer)] = (value, math.nan if error is None else error)
            options.setdefault(probe, set()).add(own)
    return Measured(evidence, values, {probe: frozenset(each) for probe, each in options.items()})
