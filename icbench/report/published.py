"""Our cells beside the published ones: table 1 of Chen et al. 2019, and the reproduction of Choudhury et al. 2021."""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from icbench import wording
from icbench.config import PLAIN_WEIGHT, RELU, RunConfig
from icbench.report import stats
from icbench.report.evidence import Evidence
from icbench.report.stats import Estimate

SOURCES = {
    "chen2019": "Chen et al. 2019, table 1",
    "choudhury2021": "Choudhury, Ved, Vantipuli 2021",
}
_BASELINES = ("baseline-v1", "baseline-v2")


@dataclass(frozen=True)
class Published:
    """A published cell: one accuracy, whose seeds were not stated. ordering: `baseline` for the baseline."""

    source: str
    dataset: str
    block: str
    depth: int
    ordering: str
    accuracy: float
    epochs: int

    @property
    def effect(self) -> float | None:
        """The difference to the baseline that was published for the same net; None of a baseline."""
        if self.ordering == "baseline":
            return None
        net = (self.source, self.dataset, self.block, self.depth, "baseline")
        baselines = (p for p in published() if (p.source, p.dataset, p.block, p.depth, p.ordering) == net)
        return self.accuracy - next(baselines).accuracy


@dataclass(frozen=True)
class Beside:
    """A cell of ours beside a published one. Accuracies are fractions.

    same: whether data set, net, ordering and epochs are the published ones; differs: in words, what is not.
    ours: mean final accuracy; gap: ours less theirs, with the interval of ours alone, None where the nets differ.
    our_effect, their_effect: the differences to the respective baselines, None where there is none.
    """

    published: Published
    config: RunConfig
    seeds: int
    differs: tuple[str, ...]
    ours: Estimate
    gap: Estimate | None
    our_effect: Estimate | None
    their_effect: float | None

    @property
    def same(self) -> bool:
        return not self.differs


@cache
def published() -> tuple[Published, ...]:
    """All published cells."""
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            Published(
                row["source"],
                row["dataset"],
                row["block"],
                int(row["depth"]),
                row["ordering"],
                float(row["accuracy"]),
                int(row["epochs"]),
            )
            for row in csv.DictReader(file)
        )


def beside(evidence: Evidence) -> list[Beside]:
    """Every finished cell whose data set and ordering were published, beside the published cell nearest to its net.

    Nearest: of the same kind of block if there is one, then of the nearest depth. What differs is told in words.
    """
    return [
        _beside(evidence, cell_id, theirs)
        for cell_id, cell in evidence.cells.items()
        if evidence.rows[cell_id]
        for source in SOURCES
        if (theirs := _nearest(source, cell.config))
    ]


def _nearest(source: str, config: RunConfig) -> Published | None:
    ordering = "baseline" if config.ordering in _BASELINES else config.ordering
    same = [p for p in published() if (p.source, p.dataset, p.ordering) == (source, config.dataset, ordering)]
    return min(same, key=lambda p: (p.block != config.block, abs(p.depth - config.depth)), default=None)


def _beside(evidence: Evidence, cell_id: str, theirs: Published) -> Beside:
    config = evidence.cells[cell_id].config
    finals = evidence.of(cell_id, "final")
    ours = stats.mean(finals)
    baseline = evidence.sweep.baselines.get(cell_id)
    same_net = (config.block, config.depth, config.width) == (theirs.block, theirs.depth, 16)
    our_effect = None
    if baseline and evidence.rows[baseline]:
        our_effect = stats.difference([(finals, evidence.of(baseline, "final"))]).estimate
    return Beside(
        published=theirs,
        config=config,
        seeds=len(finals),
        differs=tuple(_differences(config, theirs)),
        ours=ours,
        gap=Estimate(*(bound - theirs.accuracy for bound in ours)) if same_net else None,
        our_effect=our_effect,
        their_effect=theirs.effect,
    )


def _differences(config: RunConfig, theirs: Published) -> list[str]:
    found = []
    if (config.block, config.depth) != (theirs.block, theirs.depth):
        found.append(f"net {config.block}-{config.depth}, theirs {theirs.block}-{theirs.depth}")
    if config.width != 16:
        found.append(f"width {config.width}, theirs 16")
    if config.norm.name != "batch":
        found.append(f"norm {config.norm.name}, theirs batch")
    for ours, usual in ((config.weight, PLAIN_WEIGHT), (config.activation, RELU)):
        if ours != usual:
            found.append(f"{ours.name}, theirs {usual.name}")
    if config.procedures:
        found.append(f"{', '.join(each.name for each in config.procedures)}, which they did not")
    if config.dropout is not None and config.dropout != 0.05:
        found.append(f"dropout {wording.dropout(config)}, theirs 0.05")
    if config.recipe.epochs != theirs.epochs:
        found.append(f"{config.recipe.epochs} epochs, theirs {theirs.epochs}")
    if config.recipe.label != theirs.source:
        found.append(f"recipe {config.recipe.label}, theirs {theirs.source}")
    if config.precision != "float32":
        found.append(f"precision {config.precision}, theirs not stated")
    if config.split != "test":
        found.append("held-out training images, theirs the test images")
    return found
