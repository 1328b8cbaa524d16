"""A sweep's report: the answer, the tables, the figures, and what they rest on; written as a page and as files."""

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from icbench import results
from icbench.console import plural
from icbench.errors import UserError
from icbench.files import write_whole
from icbench.grid import Sweep
from icbench.layout import Layout
from icbench.report import comparability, evidence, published, tables
from icbench.report.answer import answer, target_in_words
from icbench.report.cells import CellRow, cell_rows
from icbench.report.comparability import Mixture
from icbench.report.comparison import Comparisons, compare
from icbench.report.evidence import Evidence
from icbench.report.published import Beside
from icbench.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from icbench.report.theory.document import Theory
    from icbench.report.theory.measured import Measured

# Percentage points as a fraction: the difference that "seeds needed" is about.
DETECT = 0.005
_SHORT_WINDOW = 9
INDEX, THEORY = "index.html", "theory.html"


class Shown(Protocol):
    """What a page shows at its head, and its tables."""

    @property
    def name(self) -> str: ...

    @property
    def question(self) -> str: ...

    @property
    def answer(self) -> str: ...

    @property
    def counts_in_words(self) -> str: ...

    @property
    def mixtures(self) -> list[Mixture]: ...

    @property
    def tables(self) -> dict[str, Table]: ...


class Document(Shown, Protocol):
    """What `icbench report` makes a page of: the results of a sweep, or of a search."""

    @property
    def is_empty(self) -> bool: ...

    @property
    def theory(self) -> "Theory | None":
        """What probes measured in its runs' networks, on a page of its own."""

    def check(self, layout: Layout) -> None:
        """Raise UserError where there is nothing to report yet."""

    def record(self) -> dict[str, object]:
        """All that it says as plain JSON values."""

    def write(self, folder: Path, beside: Collection[str] = ()) -> Path:
        """Write the page, tables and figures; return the page's path. beside: reports in folders beside this one."""


@dataclass(frozen=True)
class Report:
    """What `icbench report` shows of one sweep. Everything is computed when it is first asked for.

    measured: inside its networks; None where there were no probes.
    """

    evidence: Evidence
    detect: float = DETECT
    measured: "Measured | None" = None

    @property
    def sweep(self) -> Sweep:
        return self.evidence.sweep

    @property
    def name(self) -> str:
        return self.sweep.name

    @property
    def question(self) -> str:
        return self.sweep.question

    @property
    def grid(self) -> str:
        """The grid's text."""
        return self.sweep.text

    @cached_property
    def comparisons(self) -> Comparisons:
        return compare(self.evidence)

    @cached_property
    def cells(self) -> list[CellRow]:
        return cell_rows(self.evidence)

    @cached_property
    def beside(self) -> list[Beside]:
        return published.beside(self.evidence)

    @cached_property
    def mixtures(self) -> list[Mixture]:
        return comparability.mixtures(self.evidence)

    @cached_property
    def answer(self) -> str:
        target = target_in_words(self.evidence.target)
        return answer(self.comparisons, has_baselines=bool(self.sweep.baselines), target=target)

    @cached_property
    def tables(self) -> dict[str, Table]:
        """By name: treatments, contrasts, stability, published, cells, not-as-wanted."""
        found = self.comparisons
        every = (
            tables.treatments(found, self.detect),
            tables.contrasts(found),
            tables.stability(found.pooled),
            tables.beside(self.beside),
            tables.cells(self.cells),
            tables.unfinished(self.evidence),
        )
        return {table.name: table for table in every}

    @property
    def images(self) -> str:
        """What accuracies were measured on."""
        splits = {cell.config.split for cell in self.sweep.cells}
        every = {"test": "test images", "heldout": "held-out training images"}
        return " and ".join(every[split] for split in every if split in splits)

    @property
    def counts_in_words(self) -> str:
        """How many runs there are, and what became of the others."""
        n, by_kind = self.evidence.counts(), self.evidence.failed_by_kind()
        aimed = [
            row for i, rows in self.evidence.rows.items() for row in rows if math.isfinite(self.evidence.targets[i])
        ]
        never = int(np.isinf(self.evidence.measures["epochs_to_target"][aimed]).sum())
        kinds = f" ({', '.join(f'{kind} {count}' for kind, count in by_kind.most_common())})" if by_kind else ""
        words = [
            f"{n['finished']:,} of {n['wanted']:,} runs are finished, {n['missing']:,} missing, "
            f"{n['failed']:,} failed{kinds}; {n['diverged']:,} of the finished diverged"
        ]
        if aimed:
            words.append(f", and {never:,} of {len(aimed):,} never reached the target")
        return "".join([*words, "."])

    @property
    def target_in_words(self) -> str:
        """What speed is measured by."""
        if self.evidence.target is not None:
            return (
                f"Speed is measured by the epochs to an accuracy of {100 * self.evidence.target:g} %, as was asked for."
            )
        if not self.sweep.baselines:
            return "Without a baseline there is no target to measure speed by."
        target = "the median final accuracy of the baseline's seeds"
        return f"Speed is measured by the epochs to {target} on the {self.images}."

    @property
    def pairing_in_words(self) -> str:
        """Whether runs of one seed are compared pair by pair."""
        pairing = self.comparisons.pairing
        if math.isnan(pairing.correlation):
            return ""
        told = f"r = {pairing.correlation:.2f}, one-sided p = {pairing.p:.2g}".replace("-0", "−0")
        if pairing.used:
            return f"Runs of one seed go together ({told}), so they are compared pair by pair."
        return f"That runs of one seed go together is not shown ({told}), so they are not paired."

    @property
    def short_windows(self) -> str:
        """A warning where stability rests on few epochs."""
        if not self.comparisons.pooled:
            return ""
        epochs = min(d - d // 2 for d in self.evidence.before_drop.values())
        if epochs >= _SHORT_WINDOW:
            return ""
        little = f"Stability rests on {epochs} epochs a run here, which is little"
        return f"{little}; spikes need {_SHORT_WINDOW} and are not counted."

    @property
    def provenance(self) -> list[tuple[str, str]]:
        """Each condition of the runs, with how many runs were made under it."""
        return provenance(self.evidence.runs)

    @cached_property
    def theory(self) -> "Theory | None":
        """What was measured inside the networks beside what theory predicts, on a page of its own."""
        if self.measured is None:
            return None
        from icbench.report.theory.document import Theory

        return Theory(self.measured, self.mixtures, self.provenance)

    def figures(self, *kinds: str) -> "dict[str, Figure]":
        """By name, those of some kinds or all, as far as there is something to show in them.

        Kinds: effects, learning-curves, sensitivity (by-dropout, by-norm, ...), stability, performance-profiles,
        published. A figure of many panels or rows is several: NAME-1, NAME-2.
        """
        from icbench.report.drawing import style
        from icbench.report.figures import draw

        with style():
            return draw(self.evidence, self.comparisons, self.beside, kinds)

    @property
    def is_empty(self) -> bool:
        """Whether no run is finished."""
        return not self.evidence.runs["run_id"]

    def check(self, layout: Layout) -> None:
        """Raise UserError where there is nothing to report yet."""
        if self.is_empty:
            raise UserError(f"no run of {self.name} is finished in {layout.root}/.", "Run it with: icbench sweep GRID")

    def record(self) -> dict[str, object]:
        """The report as plain JSON values."""
        theory = {"theory": self.theory.record()} if self.theory else {}
        return record(self, {"runs": self.evidence.counts(), **theory})

    def write(self, folder: Path, beside: Collection[str] = ()) -> Path:
        """Write `index.html` and beside it all that `write_files` writes; return the page's path.

        Of networks that were measured also `theory.html`.
        """
        from icbench.report.page import page

        pages = {INDEX: Page(self.tables, self.figures(), lambda drawings: page(self, drawings))}
        if self.theory:
            pages[THEORY] = Page(self.theory.tables, self.theory.figures(), self.theory.page)
        return write_pages(folder, pages)


def load(layout: Layout, sweep: Sweep, target: float | None = None, detect: float = DETECT) -> Report:
    """The report of a sweep on what a results directory holds. target, detect: fractions."""
    found = evidence.load(layout, sweep, target)
    measured = None
    if results.any_probed(layout):
        from icbench.report.theory import measured as probed

        measured = probed.load(layout, found)
    return Report(found, detect, measured)


def record(document: Shown, counts: Mapping[str, object]) -> dict[str, object]:
    """What each document's record says; infinity and NaN are null."""

    def plain(value: object) -> object:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {
        "name": document.name,
        "question": document.question,
        "answer": document.answer,
        **counts,
        "mixtures": [
            {"condition": each.condition, "values": dict(each.values), "contrasts": each.contrasts}
            for each in document.mixtures
        ],
        "tables": {
            name: [{key: plain(value) for key, value in row.items()} for row in table.records()]
            for name, table in document.tables.items()
        },
    }


def provenance(runs: comparability.Runs) -> list[tuple[str, str]]:
    """Each condition of some runs, with how many were made under it."""
    columns: dict[str, Sequence[object]] = {
        title: comparability.of_runs(runs, c) for c, title in comparability.CONDITIONS.items()
    }
    columns |= {"icbench": runs["icbench_version"], "threads": runs["threads"], "machine": runs["hostname"]}
    listed = [(title, _counted(values)) for title, values in columns.items()]
    ended = sorted(moment for moment in runs["finished_at"] if moment)
    if ended:
        listed.append(("finished", f"{ended[0]:%Y-%m-%d %H:%M} to {ended[-1]:%Y-%m-%d %H:%M} UTC"))
    hours = sum(runs["train_seconds"]) / 3600
    return [*listed, ("training time", f"{hours:,.1f} hours in all, without evaluation")]


@dataclass(frozen=True)
class Page:
    """A page, and what is written beside it. html: the page, of the figures' SVG files."""

    tables: Mapping[str, Table]
    figures: "Mapping[str, Figure]"
    html: Callable[[Sequence[Path]], str]


def write_pages(folder: Path, pages: Mapping[str, Page]) -> Path:
    """Write pages by their files' names, and beside them what `write_files` does; return the first page's path."""
    figures = {name: figure for page in pages.values() for name, figure in page.figures.items()}
    written = write_files(folder, (table for page in pages.values() for table in page.tables.values()), figures)
    drawn = {file.stem: file for file in written if file.suffix == ".svg"}
    for name, page in pages.items():
        _write(folder / name, page.html([drawn[figure] for figure in page.figures]))
    if THEORY not in pages:
        (folder / THEORY).unlink(missing_ok=True)  # of an earlier report
    return folder / next(iter(pages))


def write_files(folder: Path, tables: Iterable[Table], figures: "Mapping[str, Figure]") -> list[Path]:
    """Write `tables/` (CSV and LaTeX) and `figures/` (PNG and SVG); return the paths."""
    from icbench.report.drawing import save, style

    for name in ("tables", "figures"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    _remove_drawings(folder / "figures")
    written = []
    for table in tables:
        for suffix, text in (("csv", table.csv()), ("tex", table.latex())):
            written.append(folder / "tables" / f"{table.name}.{suffix}")
            _write(written[-1], text)
    with style():
        for name, figure in figures.items():
            for suffix in ("png", "svg"):
                written.append(folder / "figures" / f"{name}.{suffix}")
                save(figure, written[-1])
    return written


def _remove_drawings(folder: Path) -> None:
    """Remove what an earlier report drew here, which may have been of another sweep, or cut into other parts."""
    kinds = "effects|learning-curves|by-[a-z]+|stability|performance-profiles|published|theory-[a-z-]+?"
    of_searches = (
        r"(confirmed|rates|history)(-(accuracy|area|epochs-to-target-[\d_]+))?|front|importance|parallel|trial-curves"
    )
    for file in folder.iterdir():
        if re.fullmatch(rf"({kinds}|{of_searches})(-\d+)?\.(png|svg)", file.name):
            file.unlink(missing_ok=True)  # another report into the same place may be at it


def check_folder(folder: Path) -> None:
    """Raise UserError where something stands in the way of what is to be written."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    for path in (nearest, folder / "tables", folder / "figures"):
        if path.exists() and not path.is_dir():
            raise UserError("this is not a directory.", "Give one with --out DIR.", file=path)
    for path in (folder / INDEX, folder / THEORY):
        if path.is_dir():
            raise UserError("this is a directory.", "Give another place with --out DIR.", file=path)


def _write(target: Path, text: str) -> None:
    write_whole(target, lambda file: file.write(text.encode()), durable=False)


def _counted(values: Sequence[object]) -> str:
    counts = Counter(map(str, values))
    return ", ".join(f"{value} ({plural(count, 'run')})" for value, count in counts.most_common()) or "–"
