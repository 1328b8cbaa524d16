"""Whether the runs of a sweep were made under the same conditions: what differs is said, or refused."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from icbench.console import plural
from icbench.errors import UserError
from icbench.report.evidence import Evidence
from icbench.report.treatments import contrasts

# Column -> what it is called. What makes runs with equal seeds differ in more than rounding, or may.
CONDITIONS = {
    "code": "code",
    "device": "device",
    "precision": "precision",
    "split": "test images",
    "world_size": "world size (processes that share a run)",
    "torch_version": "torch version",
    "images_at_once": "images trained on at once",
}
# Of runs the columns that evidence.py reads.
Runs = Mapping[str, Sequence[Any]]
UNCOMMITTED = " with uncommitted changes"


@dataclass(frozen=True)
class Mixture:
    """A condition in which runs differ that are pooled or compared, or that is not known for sure.

    values: each with its number of runs, the most frequent first. contrasts: how many compare runs that differ in it,
    within a cell or between it and its baseline.
    """

    condition: str
    values: tuple[tuple[str, int], ...]
    contrasts: int

    def __str__(self) -> str:
        values = ", ".join(f"{value} ({plural(count, 'run')})" for value, count in self.values)
        if len(self.values) == 1:
            return f"{CONDITIONS[self.condition]}: {values}, so what they ran is not known for sure"
        return f"{CONDITIONS[self.condition]}: {values}; {plural(self.contrasts, 'contrast')} between different ones"


def mixtures(evidence: Evidence) -> list[Mixture]:
    """The conditions in which finished runs that are pooled or compared are not all alike, or not known for sure."""
    pairs, pooled = [], dict(evidence.rows)
    for c in contrasts(evidence.sweep):
        if evidence.rows[c.cell.cell_id] and evidence.rows[c.baseline.cell_id]:
            pairs.append(evidence.rows[c.cell.cell_id] + evidence.rows[c.baseline.cell_id])
            pooled[c.treatment] = pooled.get(c.treatment, []) + pairs[-1]
    return mixtures_of(evidence.runs, list(pooled.values()), pairs)


def mixtures_of(runs: Runs, pooled: Sequence[Sequence[int]], pairs: Sequence[Sequence[int]]) -> list[Mixture]:
    """As `mixtures`, of any runs. pooled: the rows of those that belong together; pairs: of those that are compared."""
    found = []
    for condition in CONDITIONS:
        each = of_runs(runs, condition)
        counts = Counter(each)
        mixed = any(len({each[row] for row in rows}) > 1 for rows in pooled)
        if mixed or any(value.endswith(UNCOMMITTED) for value in counts):
            across = sum(len({each[row] for row in rows}) > 1 for rows in pairs)
            ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            found.append(Mixture(condition, tuple(ordered), across))
    return found


def of_runs(runs: Runs, condition: str) -> list[str]:
    """(runs,): a condition of each run, in words."""
    if condition == "images_at_once":
        return [f"{value} of a batch" if value else "whole batches" for value in runs[condition]]
    if condition != "code":
        return [str(value) for value in runs[condition]]
    return [
        f"commit {commit[:10]}{UNCOMMITTED if dirty else ''}" if commit else f"icbench {version}"
        for commit, dirty, version in zip(runs["git_commit"], runs["git_dirty"], runs["icbench_version"], strict=True)
    ]


def refuse(found: list[Mixture], name: str) -> None:
    """Raise UserError where conditions are mixed."""
    if found:
        problem = f"the runs of {name} are not known to be comparable. {'. '.join(map(str, found))}."
        remedy = "Leave --strict out to have them pooled, with this said, or have the odd runs done again."
        raise UserError(problem, remedy)
