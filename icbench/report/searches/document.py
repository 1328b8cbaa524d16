"""A search's report: the answer, the tables, the figures, and what they rest on; written as a page and as files."""

import shlex
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icbench import grid
from icbench.console import plural
from icbench.errors import UserError
from icbench.layout import Layout, SweepFiles
from icbench.report import comparability, evidence
from icbench.report.comparability import Mixture
from icbench.report.document import INDEX, Page, provenance, record, write_pages
from icbench.report.evidence import Evidence
from icbench.report.searches import tables
from icbench.report.searches.answer import answer, verdict
from icbench.report.searches.confirmed import Confirmations, confirmations
from icbench.report.searches.found import Found, found
from icbench.report.searches.importance import Importance, importances
from icbench.report.searches.rates import Curve, curves
from icbench.report.tables import Table
from icbench.search import confirm, settings, trials
from icbench.search.settings import Search
from icbench.yamlfile import read

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RESULTS = "results"


@dataclass(frozen=True)
class SearchReport:
    """What `icbench report` shows of one search. Everything is computed when it is first asked for.

    runs: those of its trials, and of the sweep that confirms it, that are finished, as evidence.columns has them.
    confirming: None before that sweep's grid is written.
    """

    search: Search
    layout: Layout
    found: tuple[Found, ...]
    runs: dict[str, list[Any]]
    confirming: Evidence | None

    @property
    def name(self) -> str:
        return self.search.name

    @property
    def question(self) -> str:
        return self.search.question

    @property
    def file(self) -> str:
        """The search file's text."""
        return self.search.text

    @cached_property
    def confirmations(self) -> Confirmations:
        return confirmations(self.found, self.confirming)

    @cached_property
    def curves(self) -> list[Curve]:
        return [curve for each in self.found for curve in curves(each)]

    @cached_property
    def importances(self) -> list[Importance]:
        return [importance for each in self.found for importance in importances(each)]

    @cached_property
    def answer(self) -> str:
        return answer(self.found, self.confirmations, self.curves, self.to_confirm)

    @cached_property
    def verdicts(self) -> list[str]:
        """A sentence for each cell."""
        objective = self.search.objective
        return [
            verdict(
                each,
                self.confirmations.of(each),
                [curve for curve in self.curves if curve.found is each and curve.objective == objective],
            )
            for each in self.found
        ]

    @cached_property
    def tables(self) -> dict[str, Table]:
        """By name: confirmed, best, rates, importance, trials."""
        every = (
            tables.confirmed(self.confirmations, self.search),
            tables.best(self.search, self.found),
            tables.rates(self.curves),
            tables.importance(self.importances),
            tables.trials(self.search, self.found),
        )
        return {table.name: table for table in every}

    @cached_property
    def mixtures(self) -> list[Mixture]:
        """Conditions in which the runs of a cell's trials, or runs on test images that are compared, are not alike."""
        at = {run_id: row for row, run_id in enumerate(self.runs["run_id"])}
        of_cells = [{t: [at[i] for i in t.run_ids if i in at] for t in each.complete} for each in self.found]
        pooled = [[row for rows in each.values() for row in rows] for each in of_cells]
        pairs = [
            own + of_cell[best]
            for each, of_cell in zip(self.found, of_cells, strict=True)
            for best in each.best[:1]
            for own in of_cell.values()
        ]
        if self.confirming:
            cells = self.confirming.cells
            rows = {cell_id: [at[i] for i in cell.run_ids if i in at] for cell_id, cell in cells.items()}
            pooled.append([row for each in rows.values() for row in each])
            pairs += [rows[i] + rows[baseline] for i, baseline in self.confirming.sweep.baselines.items()]
        return comparability.mixtures_of(self.runs, pooled, pairs)

    @property
    def provenance(self) -> list[tuple[str, str]]:
        """Each condition of the runs, with how many runs were made under it."""
        return provenance(self.runs)

    @property
    def settings(self) -> list[tuple[str, str]]:
        """How the search goes."""
        search = self.search
        ranges = [_range(each) for each in search.parameters]
        return [
            ("parameters", "; ".join(ranges)),
            ("objective", ", ".join(each.title for each in search.objectives)),
            ("sampler", str(search.sampler)),
            ("pruner", str(search.pruner)),
            ("trials of a cell", str(search.trials)),
            ("seeds of a trial", ", ".join(map(str, search.seeds))),
            ("seeds on test images", ", ".join(map(str, search.confirming_seeds))),
            ("seed of the sampler", str(search.seed)),
            ("budget", str(search.budget) if search.budget else "none"),
        ]

    def counts(self) -> dict[str, int]:
        """How many trials are wanted, and how many are in each state."""
        return {
            "wanted": sum(each.wanted for each in self.found),
            **{
                state: sum(len(each.of_state(state)) for each in self.found)
                for state in ("complete", "pruned", "running")
            },
            "failed": sum(len(each.failed) for each in self.found),
            "repeated": sum(each.repeated for each in self.found),
            "diverged_runs": sum(each.diverged for each in self.found),
        }

    @property
    def left(self) -> int:
        """How many trials are still to come to something."""
        return sum(max(0, each.wanted - each.ended) for each in self.found)

    @property
    def counts_in_words(self) -> str:
        """How many trials there are, and what became of them."""
        n = self.counts()
        told = (
            f"{n['complete'] + n['pruned']:,} of {plural(n['wanted'], 'trial')} have ended: {n['complete']:,} "
            f"complete, {n['pruned']:,} pruned; {n['failed']:,} failed, {n['repeated']:,} repeated another; "
            f"{plural(n['diverged_runs'], 'run')} diverged."
        )
        if not self.left:
            return told
        budget = ", or its budget is spent" if self.search.budget else ""
        left = f"{plural(self.left, 'trial')} to go, {n['running']:,} under way"
        return f"{told} The search is not finished{budget}: {left}."

    @property
    def to_confirm(self) -> str:
        """The command that has what was found confirmed; empty before its grid is written."""
        grid_file = self.layout.sweep(self.name).confirmation
        if not grid_file.exists():
            return ""
        at = "" if str(self.layout.root) == _RESULTS else f" --results {shlex.quote(str(self.layout.root))}"
        return f"icbench sweep {shlex.quote(str(grid_file))}{at}"

    @property
    def is_confirmed(self) -> bool:
        """Whether each of the best trials has all its runs on test images."""
        return all(0 < each.seeds[1] <= each.seeds[0] for each in self.confirmations.every)

    @property
    def is_empty(self) -> bool:
        """Whether no trial was made."""
        return not any(each.trials for each in self.found)

    @property
    def theory(self) -> None:
        """A search's file has no probes."""

    def check(self, layout: Layout) -> None:
        """Raise UserError where there is nothing to report yet."""
        if self.is_empty:
            problem = f"no trial of {self.name} is known in {layout.root}/."
            raise UserError(problem, f"Search with: icbench search {self.search.document.file}")

    def record(self) -> dict[str, object]:
        """The report as plain JSON values."""
        return record(self, {"trials": self.counts(), "verdicts": self.verdicts})

    def figures(self, *kinds: str) -> "dict[str, Figure]":
        """By name, those of some kinds or all, as far as there is something to show in them.

        Kinds: confirmed, rates, front, history, importance, parallel, trial-curves. Where there are several objectives,
        the first two and history are one figure for each; a figure of many panels or rows is several: NAME-1, NAME-2.
        """
        from icbench.report.drawing import style
        from icbench.report.searches.figures import draw

        with style():
            return draw(self.found, self.curves, self.confirmations, self.importances, kinds)

    def write(self, folder: Path, beside: Collection[str] = ()) -> Path:
        """Write the page, tables and figures; return the page's path. beside: reports in folders beside this one."""
        from icbench.report.searches.page import page

        confirming = confirm.name(self.search)
        link = f"../{confirming}/index.html" if confirming in beside else ""
        own = Page(self.tables, self.figures(), lambda drawings: page(self, drawings, link))
        return write_pages(folder, {INDEX: own})


def _range(parameter: Any) -> str:
    """A parameter of the search with what it is searched in."""
    if parameter.choices:
        return f"{parameter.name}: {', '.join(label for label, _ in parameter.choices)}"
    step = f" in steps of {parameter.step:g}" if parameter.step else ", logarithmic" if parameter.log else ""
    stages = ", for each stage" if parameter.per_stage else ""
    return f"{parameter.name}: {parameter.low:g} to {parameter.high:g}{step}{stages}"


def names(layout: Layout) -> list[str]:
    """The searches that a results directory holds."""
    return sorted(file.parent.name for file in layout.sweeps.glob(f"*/{layout.sweep('*').search.name}"))


def is_search(layout: Layout, name: str) -> bool:
    """Whether it is a search, and no sweep, that goes by this name, or that this file describes."""
    if not name.endswith((".yaml", ".yml")):
        return layout.sweep(name).search.exists()
    data = read(Path(name)).data
    return isinstance(data, dict) and "search" in data


def load(layout: Layout, name: str) -> SearchReport:
    """The report of a search, by its name or its file, on what a results directory holds. Raises UserError."""
    is_file = name.endswith((".yaml", ".yml"))
    search = settings.load(Path(name)) if is_file else settings.load(layout.sweep(name).search, name)
    files = layout.sweep(search.name)
    rows = trials.read(files).to_pylist()
    confirming = _confirming(layout, files, search)
    every = found(search, rows, confirming.cells if confirming else ())
    run_ids = {run_id for each in every for trial in each.trials for run_id in trial.run_ids}
    run_ids |= set(confirming.sweep.run_ids) if confirming else set()
    return SearchReport(search, layout, tuple(every), evidence.columns(layout, run_ids), confirming)


def _confirming(layout: Layout, files: SweepFiles, search: Search) -> Evidence | None:
    """What is known of the sweep that confirms a search."""
    if not files.confirmation.exists():
        return None
    return evidence.load(layout, grid.load(files.confirmation, confirm.name(search)))
