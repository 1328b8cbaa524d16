"""The theory page of a sweep: what its networks were measured for, beside what theory predicts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from icbench.console import plural
from icbench.report.comparability import Mixture
from icbench.report.tables import Table
from icbench.report.theory import tables
from icbench.report.theory.factors import CORRELATION, INFORMATION, Factor, factors
from icbench.report.theory.measured import Measured
from icbench.report.theory.relation import FEWEST_CELLS, Relation, relations

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEVEL = 0.05
_IN_FILES = ("cell_id", "key", "probe", "is_bound")


@dataclass(frozen=True)
class Theory:
    """What the theory page shows of a sweep whose networks were measured. All is computed when first asked for."""

    measured: Measured
    mixtures: list[Mixture]
    provenance: list[tuple[str, str]]

    @property
    def name(self) -> str:
        return self.measured.evidence.sweep.name

    @property
    def question(self) -> str:
        return "Theory: predicted against measured"

    @cached_property
    def factors(self) -> list[Factor]:
        return factors(self.measured)

    @cached_property
    def relations(self) -> list[Relation]:
        return relations(self.measured)

    @property
    def answer(self) -> str:
        """Both parts, in a sentence or two each."""
        return " ".join(part for part in (self._of_dropout, self._of_speed) if part)

    @property
    def _of_dropout(self) -> str:
        told = [each for each in self.factors if each.is_within is not None]
        if not told:
            return ""
        within = sum(bool(each.is_within) for each in told)
        of_factors = [each.difference.value for each in told if each.prediction.measured in (INFORMATION, CORRELATION)]
        spread = f"; factors differ from those predicted by {_signed(min(of_factors))} to {_signed(max(of_factors))}"
        sizes = {each.over for each in told}
        kinds = {size.split()[1] for size in sizes}
        over = f"over {(sizes if len(sizes) == 1 else kinds).pop()} " if len(kinds) == 1 else ""
        return (
            f"What theory predicts of dropout lies within the 95 % interval {over}of what was measured in {within} of "
            f"{len(told)} comparisons (cells, epochs and quantities){spread if of_factors else ''}."
        )

    @property
    def _of_speed(self) -> str:
        if not self.relations:
            return "Nothing that is held against speed was measured in two cells at the same epoch."
        tested = [each for each in self.relations if not math.isnan(each.rho.p)]
        if not tested:
            most = max((len(each.cells) for each in self.relations), default=0)
            return (
                f"Whether what was measured early goes with speed cannot be told: {plural(most, 'cell')} of one data "
                f"set and net, at least {FEWEST_CELLS} are needed."
            )
        most = max(len(each.cells) for each in tested)
        shown = _shown([(each, each.rho.value, each.p_holm) for each in tested])
        told = (
            f"Of {plural(len(tested), 'rank correlation')} of what was measured early with speed, over {most} cells at "
            f"most, {shown}"
        )
        equal = [each for each in tested if not math.isnan(each.rho_equal_rates.p)]
        if equal:
            shown = _shown([(each, each.rho_equal_rates.value, each.p_holm_equal_rates) for each in equal])
            told += f"; of {len(equal)} among cells of equal dropout rates, {shown}"
        return f"{told}. That they go together does not say that one is the other's cause."

    @property
    def counts_in_words(self) -> str:
        """How much was measured."""
        evidence = self.measured.evidence
        every = {moment for values in self.measured.values.values() for moment in values}
        runs = {run_id for run_id, _ in every}
        epochs = ", ".join(str(epoch) for epoch in sorted({epoch for _, epoch in every}))
        return (
            f"{len(runs):,} of {plural(len(evidence.position), 'finished run')} were measured, in "
            f"{plural(len(self.measured.cells), 'cell')}, by {', '.join(sorted(self.measured.options))}, "
            f"after epochs {epochs}."
        )

    @property
    def mixed_options(self) -> list[str]:
        """The probes that were used with several options, whose values are then not quite the same statistics."""
        return sorted(probe for probe, options in self.measured.options.items() if len(options) > 1)

    @cached_property
    def tables(self) -> dict[str, Table]:
        """By name: theory-factors, theory-relation."""
        return {table.name: table for table in (tables.factors(self.factors), tables.relations(self.relations))}

    def on_page(self, name: str) -> Table:
        """A table without the columns that only its files need."""
        table = self.tables[name]
        return table.only(*(column.name for column in table.columns if column.name not in _IN_FILES))

    def figures(self) -> "dict[str, Figure]":
        """By name, as far as there is something to show in them."""
        from icbench.report.drawing import style
        from icbench.report.theory.figures import draw

        with style():
            return draw(self.measured, self.relations)

    def record(self) -> dict[str, object]:
        """The page as plain JSON values."""
        from icbench.report.document import record

        return record(self, {"mixed_options": self.mixed_options})

    def page(self, drawings: Sequence[Path]) -> str:
        """The page as HTML, with SVG files in it."""
        from icbench.report.page import render

        names = [file.stem for file in drawings]
        contents = {
            "theory-factors": ("Dropout", bool(self.factors)),
            "layers": ("By layer", any(name.startswith("theory-layers") for name in names)),
            "epochs": ("By epoch", any(name.startswith("theory-epochs") for name in names)),
            "theory-relation": ("Early, and speed", bool(self.relations)),
            "provenance": ("Provenance", True),
            "methods": ("How to read this", True),
        }
        present = {key: title for key, (title, is_there) in contents.items() if is_there}
        return render("theory/page.html.j2", self, drawings, present)


def _shown(found: Sequence[tuple[Relation, float, float]]) -> str:
    """In words, which of the relations differ from 0, by their rho and adjusted p; the strongest first."""
    shown = sorted((each for each in found if each[2] < _LEVEL), key=lambda each: -abs(each[1]))
    if not shown:
        return "none is shown to differ from 0"
    listed = "; ".join(f"{relation.statistic.title} ({_signed(rho, 2)})" for relation, rho, _ in shown[:3])
    more = "; …" if len(shown) > 3 else ""
    return f"{len(shown)} {'is' if len(shown) == 1 else 'are'} shown to differ from 0 ({listed}{more})"


def _signed(value: float, digits: int = 3) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")
