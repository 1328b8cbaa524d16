"""The report's tables: each said once, as columns over rows, and written as CSV, LaTeX and HTML."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from icbench import wording
from icbench.report.answer import points, size, times
from icbench.report.cells import CellRow
from icbench.report.comparison import NONE, Comparison, Comparisons, Count
from icbench.report.evidence import Evidence
from icbench.report.power import detectable, seeds_needed
from icbench.report.published import SOURCES, Beside
from icbench.report.stats import Estimate

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "<": r"$<$",
        ">": r"$>$",
        "×": r"$\times$",
        "∞": r"$\infty$",
        "−": r"$-$",
        "±": r"$\pm$",
        "–": "--",
        **{each: "\\" + each for each in "%_&#${}"},
    }
)


@dataclass(frozen=True)
class Kind:
    """How a value is shown to people, how it is sorted, and by what columns of a CSV file it is told."""

    text: Callable[[Any], str]
    key: Callable[[Any], Any] = lambda value: value
    plain: Callable[[Any], dict[str, Any]] = lambda value: {"": value}


def plain_interval(estimate: Estimate) -> dict[str, float]:
    return {"": estimate.value, "_low": estimate.low, "_high": estimate.high}


def _p(value: float) -> str:
    return "–" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.2f}"


def optional(kind: Kind, none: Any) -> Kind:
    return Kind(
        lambda value: "–" if value is None else kind.text(value),
        lambda value: math.nan if value is None else kind.key(value),
        lambda value: kind.plain(none if value is None else value),
    )


TEXT = Kind(str)
COUNT = Kind(str)
POINTS = Kind(points, lambda e: e.value, plain_interval)
ACCURACY = Kind(lambda e: points(e, signed=False), lambda e: e.value, plain_interval)
RATIO = Kind(times, lambda e: e.value, plain_interval)
CHANCE = Kind(
    lambda e: "–" if math.isnan(e.value) else f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]",
    lambda e: e.value,
    plain_interval,
)
P = Kind(_p)
NUMBER = Kind(_number)
LARGE = Kind(lambda value: f"{value:,.0f}" if math.isfinite(value) else _number(value))
BOUNDS = Kind(
    lambda e: "–" if math.isnan(e.low) else f"[{100 * e.low:.2f}, {100 * e.high:.2f}]".replace("-", "−"),
    lambda e: e.high - e.low,
    lambda e: {"_low": e.low, "_high": e.high},
)


def _counts(count: Count) -> str:
    return f"{count.treated} of {count.of_treated} / {count.control} of {count.of_control}"


COUNTS = Kind(
    _counts,
    lambda c: c.treated / c.of_treated - c.control / c.of_control,
    lambda c: {"": c.treated, "_of": c.of_treated, "_baseline": c.control, "_baseline_of": c.of_control},
)


@dataclass(frozen=True)
class Column:
    """name: in CSV files; title: for people."""

    name: str
    title: str
    kind: Kind
    of: Callable[[Any], Any]

    @property
    def is_text(self) -> bool:
        return self.kind is TEXT


@dataclass(frozen=True)
class Table:
    """name: of its files. note: what its columns mean."""

    name: str
    title: str
    note: str
    columns: tuple[Column, ...]
    rows: Sequence[Any]

    def only(self, *names: str) -> "Table":
        """The table of these columns alone, in this order."""
        by_name = {column.name: column for column in self.columns}
        return replace(self, columns=tuple(by_name[name] for name in names))

    def texts(self) -> list[list[tuple[str, Any]]]:
        """Each row's cells as they are shown, and what they are sorted by."""
        return [[(c.kind.text(value := c.of(row)), c.kind.key(value)) for c in self.columns] for row in self.rows]

    def records(self) -> list[dict[str, Any]]:
        """Each row by column, in fractions and not in per cent; an interval is three columns. For pandas.DataFrame."""
        return [
            {c.name + suffix: value for c in self.columns for suffix, value in c.kind.plain(c.of(row)).items()}
            for row in self.rows
        ]

    def csv(self) -> str:
        """The records, one a line."""
        lines, out = self.records(), io.StringIO()
        names = list(lines[0]) if lines else [column.name for column in self.columns]
        writer = csv.DictWriter(out, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        return out.getvalue()

    def latex(self) -> str:
        """A tabular for the package booktabs."""
        aligned = "".join("l" if column.is_text else "r" for column in self.columns)
        heads = " & ".join(column.title.translate(_LATEX) for column in self.columns)
        body = [" & ".join(text.translate(_LATEX) for text, _ in row) + r" \\" for row in self.texts()]
        inner = [r"\toprule", heads + r" \\", r"\midrule", *body, r"\bottomrule"]
        return "\n".join([rf"\begin{{tabular}}{{{aligned}}}", *inner, r"\end{tabular}", ""])


def _measured() -> tuple[Column, ...]:
    """What treatments and single contrasts are both measured by."""
    return (
        Column("final", "final accuracy, points", POINTS, lambda c: c.final.estimate),
        Column("p", "p", P, lambda c: c.p),
        Column("p_holm", "p (Holm)", P, lambda c: c.p_holm),
        Column("epochs_ratio", "epochs to target", RATIO, lambda c: c.epochs_ratio),
        Column("seconds_ratio", "seconds to target", RATIO, lambda c: c.seconds_ratio),
        Column("never", "never there (treated / baseline)", COUNTS, lambda c: c.never),
        Column("area", "area, points", POINTS, lambda c: c.area.estimate),
        Column("last10", "last 10 epochs, points", POINTS, lambda c: c.last10.estimate),
        Column("improvement", "P(improvement)", CHANCE, lambda c: c.improvement),
    )


def tests_in_words(*, paired: bool, pooled: bool) -> str:
    """How differences of means are tested."""
    if paired:
        return "Intervals and p of differences: Student's t of the differences between runs of one seed"
    if pooled:
        return "Intervals: Welch's t, variances of all cells added up; p: stratified permutation, of one cell Welch's"
    return "Intervals and p of differences: Welch's t"


def treatments(found: Comparisons, detect: float) -> Table:
    """One row a treatment, pooled over the places where it was tried; seeds needed to find `detect`, a fraction."""

    def still_needed(comparison: Comparison) -> int | None:
        if math.isnan(comparison.seed_deviation):
            return None
        every = seeds_needed(detect, comparison.seed_deviation, len(comparison.pairs), len(found.pooled))
        return None if every is None else max(0, every - comparison.seeds[0])

    def found_with_these(comparison: Comparison) -> float:
        if math.isnan(comparison.seed_deviation):
            return math.nan
        seeds, cells = comparison.seeds[0], len(comparison.pairs)
        return detectable(comparison.seed_deviation, seeds, cells, len(found.pooled))

    return Table(
        name="treatments",
        title="Treatments against the baseline",
        note="Means over the cells where the treatment was tried, each against its own baseline cell. "
        f"{tests_in_words(paired=found.pairing.used, pooled=True)}; Holm over treatments; intervals are of 95 % each. "
        "Seconds are the machines' own, whatever else they did. P(improvement), IQM: see below. Detectable: the "
        f"difference that these seeds find with power 0.8, corrected; seeds still needed: of each cell, for "
        f"{100 * detect:g} points.",
        columns=(
            Column("treatment", "treatment", TEXT, lambda c: c.treatment),
            Column("size", "runs", TEXT, size),
            *_measured(),
            Column("iqm", "IQM, points", POINTS, lambda c: c.iqm),
            Column("detectable", "detectable, points", Kind(lambda v: _number(100 * v)), found_with_these),
            Column("seeds_still_needed", "seeds still needed", optional(COUNT, ""), still_needed),
        ),
        rows=found.pooled,
    )


def contrasts(found: Comparisons) -> Table:
    """One row a cell that has a baseline."""
    return Table(
        name="contrasts",
        title="Cells against their baselines",
        note=f"{tests_in_words(paired=found.pairing.used, pooled=False)}; Holm over all rows. Test images: the "
        "difference's bounds if only the test images were others.",
        columns=(
            Column("stratum", "where", TEXT, lambda c: c.pairs[0].stratum),
            Column("treatment", "treatment", TEXT, lambda c: c.treatment),
            Column("cell_id", "cell", TEXT, lambda c: c.pairs[0].cell.cell_id),
            Column("seeds", "seeds", TEXT, lambda c: f"{c.never.of_treated} / {c.never.of_control}"),
            *_measured(),
            Column("images", "test images", BOUNDS, lambda c: c.images),
        ),
        rows=found.single,
    )


def stability(pooled: Sequence[Comparison]) -> Table:
    """One row a treatment: how steadily it trains."""
    return Table(
        name="stability",
        title="Stability",
        note="Differences to the baseline over the second half of the epochs before the learning rate first drops: "
        "standard deviation about a line, largest fall below the best so far, fraction of epochs more than 3 MAD below "
        "the running median. Runs that diverged before are left out there and counted beside. Seed spread: ratio of "
        "the standard deviations between seeds, p by Brown and Forsythe.",
        columns=(
            Column("treatment", "treatment", TEXT, lambda c: c.treatment),
            Column("size", "runs", TEXT, size),
            Column("deviation", "detrended deviation, points", POINTS, lambda c: c.deviation.estimate),
            Column("drawdown", "largest fall, points", POINTS, lambda c: c.drawdown.estimate),
            Column("spikes", "spikes, % of epochs", POINTS, lambda c: c.spikes.estimate),
            Column("diverged", "diverged (treated / baseline)", COUNTS, lambda c: c.diverged),
            Column("spread", "seed spread", NUMBER, lambda c: c.spread),
            Column("spread_p", "p", P, lambda c: c.spread_p),
        ),
        rows=pooled,
    )


def cells(rows: Sequence[CellRow]) -> Table:
    """One row a cell, baselines too."""
    accuracy = optional(ACCURACY, NONE)
    top5: tuple[Column, ...] = ()
    if any(row.top5 is not None for row in rows):
        top5 = (Column("top5", "top-5 accuracy, %", accuracy, lambda r: r.top5),)
    return Table(
        name="cells",
        title="Cells",
        note="Accuracy in per cent after the last epoch, and the mean of the last ten (or of all, if fewer), with "
        "t-intervals over seeds. Epochs to target: the median over seeds; a run that never gets there counts as "
        f"infinity.{' Top-5: the class is among the five likeliest, after the last epoch.' if top5 else ''}",
        columns=(
            Column("cell", "cell", TEXT, lambda r: wording.cell(r.config)),
            Column("cell_id", "id", TEXT, lambda r: r.cell_id),
            Column("recipe", "recipe", TEXT, lambda r: r.config.recipe.label),
            Column("seeds", "seeds", COUNT, lambda r: r.seeds),
            Column("seeds_wanted", "of", COUNT, lambda r: r.seeds_wanted),
            Column("failed", "failed", COUNT, lambda r: r.failed),
            Column("diverged", "diverged", COUNT, lambda r: r.diverged),
            Column("accuracy", "accuracy, %", accuracy, lambda r: r.accuracy),
            Column("last10", "last 10 epochs, %", accuracy, lambda r: r.last10),
            *top5,
            Column("epochs_to_target", "epochs to target", optional(NUMBER, math.nan), lambda r: r.epochs_to_target),
            Column("images_to_target", "images to target", optional(LARGE, math.nan), lambda r: r.images_to_target),
            Column("seconds_to_target", "seconds to target", optional(LARGE, math.nan), lambda r: r.seconds_to_target),
            Column("reached", "reached", COUNT, lambda r: r.reached),
        ),
        rows=rows,
    )


def beside(rows: Sequence[Beside]) -> Table:
    """One row for each cell of ours and published source."""
    return Table(
        name="published",
        title="Beside published numbers",
        note="Theirs: one number, whose seeds were not stated. Gap: our accuracy less theirs, with our interval "
        "alone; only where the net is the same. Effects: differences to the respective baselines. Which baseline net "
        "the paper means it does not say; v1 for basic blocks and v2 for bottlenecks come nearest to its numbers.",
        columns=(
            Column("cell", "ours", TEXT, lambda b: wording.cell(b.config)),
            Column("source", "source", TEXT, lambda b: SOURCES[b.published.source]),
            Column("accuracy", "our accuracy, %", ACCURACY, lambda b: b.ours),
            Column("published", "theirs, %", Kind(lambda a: f"{100 * a:.2f}"), lambda b: b.published.accuracy),
            Column("gap", "gap, points", optional(POINTS, NONE), lambda b: b.gap),
            Column("effect", "our effect, points", optional(POINTS, NONE), lambda b: b.our_effect),
            Column(
                "published_effect",
                "their effect, points",
                optional(Kind(lambda e: f"{100 * e:+.2f}"), math.nan),
                lambda b: b.their_effect,
            ),
            Column("differs", "what differs", TEXT, lambda b: "; ".join(b.differs) or "nothing that is stated"),
        ),
        rows=rows,
    )


@dataclass(frozen=True)
class _Unfinished:
    run_id: str
    cell: str
    seed: int
    state: str
    kind: str
    message: str


def unfinished(evidence: Evidence) -> Table:
    """One row for each run that the grid names and that has no result, or one that diverged."""
    rows = []
    for cell in evidence.sweep.cells:
        for run_id, seed in zip(cell.run_ids, cell.seeds, strict=True):
            failure, row = evidence.failures.get(run_id), evidence.position.get(run_id)
            if row is not None and not evidence.runs["diverged"][row]:
                continue
            state = "diverged" if row is not None else "failed" if failure else "missing"
            last_line = (failure.message.strip().splitlines() or [""])[-1] if failure else ""
            kind = failure.kind if failure else ""
            rows.append(_Unfinished(run_id, wording.cell(cell.config), seed, state, kind, last_line))
    return Table(
        name="not-as-wanted",
        title="Runs that are missing, failed or diverged",
        note="Diverged runs are finished and counted, with the accuracy that they ended with. The same "
        "`icbench sweep` does what is missing; --retry-failed what failed.",
        columns=(
            Column("run_id", "run", TEXT, lambda r: r.run_id),
            Column("cell", "cell", TEXT, lambda r: r.cell),
            Column("seed", "seed", COUNT, lambda r: r.seed),
            Column("state", "state", TEXT, lambda r: r.state),
            Column("kind", "kind", TEXT, lambda r: r.kind),
            Column("message", "last line", TEXT, lambda r: r.message),
        ),
        rows=rows,
    )
