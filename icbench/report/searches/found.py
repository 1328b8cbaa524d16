"""What a search has found: its table of trials, cell by cell, as values."""

import json
import math
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from icbench.config import RunConfig
from icbench.search.confirm import PAPERS_DROPOUT
from icbench.search.objective import Objective
from icbench.search.settings import Search, SearchCell
from icbench.search.space import Parameter, Value
from icbench.search.study import SURPLUS

_RATE = "dropout"
# Characters of a line.
_TITLE = 32


# Two trials may have the same values: each is itself alone.
@dataclass(frozen=True, eq=False)
class Trial:
    """A row of the table of trials (icbench/search/trials.py). repeats: the first trial with the same values."""

    number: int
    state: str
    parameters: Mapping[str, Value]
    values: tuple[float, ...]
    by_seed: tuple[tuple[float, ...], ...]
    run_ids: tuple[str, ...]
    steps: tuple[int, ...]
    reported: tuple[float, ...]
    diverged: int
    seconds: float
    started: datetime | None
    ended: datetime | None
    reason: str
    repeats: int | None = None

    @property
    def in_words(self) -> str:
        """Its values."""
        return ", ".join(f"{name} {in_short(value)}" for name, value in self.parameters.items())


def in_short(value: Value) -> str:
    """A parameter's value as people read it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, eq=False)
class Found:
    """A cell's trials. best: the best trial, or those that no other beats in all objectives; of trials that are equally
    good the first.
    """

    search: Search
    cell: SearchCell
    trials: tuple[Trial, ...]
    best: tuple[Trial, ...]

    @property
    def name(self) -> str:
        """The cell in words, which no other has."""
        return self.cell.words

    @cached_property
    def complete(self) -> tuple[Trial, ...]:
        return self.of_state("complete")

    @property
    def different(self) -> tuple[Trial, ...]:
        """The complete trials without those that repeat another one, and so say nothing new."""
        own = {_spelled(trial): trial for trial in reversed(self.complete)}
        return tuple(sorted(own.values(), key=lambda trial: trial.number))

    def of_state(self, state: str) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.state == state)

    @property
    def failed(self) -> tuple[Trial, ...]:
        """Those whose runs failed, or whose values cannot be trained; not those that were lost, or one too many."""
        return tuple(trial for trial in self.of_state("failed") if trial.reason not in ("", SURPLUS))

    @property
    def is_baseline(self) -> bool:
        """Whether other cells are compared with it."""
        return any(each.baseline == self.cell.key for each in self.search.cells)

    @property
    def title(self) -> str:
        """The name in two lines or more, for a panel."""
        ordering, _, place = self.name.partition(" ")
        return f"{ordering}\n{textwrap.fill(place, _TITLE)}"

    @property
    def ended(self) -> int:
        """How many trials came to something."""
        return len(self.complete) + len(self.of_state("pruned"))

    @property
    def wanted(self) -> int:
        return self.search.trials_of(self.cell)

    @property
    def repeated(self) -> int:
        return sum(trial.repeats is not None for trial in self.trials)

    @property
    def diverged(self) -> int:
        """How many runs diverged; those of a repeated trial count once."""
        return sum(trial.diverged for trial in self.trials if trial.repeats is None)

    @property
    def all_diverged(self) -> bool:
        """Whether every run of every complete trial diverged, so that none is better than another."""
        return bool(self.complete) and all(trial.diverged == len(trial.by_seed) for trial in self.complete)

    @property
    def dimensions(self) -> tuple[Parameter, ...]:
        return self.cell.space.dimensions

    @property
    def rates(self) -> tuple[Parameter, ...]:
        """The dropout rate, or those of the stages, where they are searched."""
        return tuple(each for each in self.dimensions if each.name.split(".")[0] == _RATE)

    def config(self, values: Mapping[str, Value]) -> RunConfig:
        """The cell with these values, on test images."""
        return replace(self.cell.space.config(values), split="test")

    def with_papers_rate(self, values: Mapping[str, Value]) -> RunConfig | None:
        """The same with the paper's dropout rate in all stages; None where no rate was searched, or none matters."""
        config = self.config(values)
        return replace(config, dropout=PAPERS_DROPOUT) if self.rates and config.dropout is not None else None

    def best_so_far(self, objective: int) -> tuple[list[int], list[float]]:
        """The numbers of the complete trials, and the best value of an objective up to each."""
        better = _better(self.search.objectives[objective])
        numbers: list[int] = []
        values: list[float] = []
        for trial in self.complete:
            value = trial.values[objective]
            values.append(value if not values else better(values[-1], value))
            numbers.append(trial.number)
        return numbers, values


def found(search: Search, rows: Sequence[Mapping[str, Any]], confirmed: Collection[str] = ()) -> list[Found]:
    """Each cell of a search with its trials. confirmed: ids of cells; of equally good trials, one of these is best."""
    every = []
    for cell in search.cells:
        own = _with_repeats([_trial(row) for row in rows if row["cell"] == cell.key])
        every.append(_judged(Found(search, cell, tuple(own), ()), confirmed))
    return every


def _trial(row: Mapping[str, Any]) -> Trial:
    return Trial(
        number=row["number"],
        state=row["state"],
        parameters=json.loads(row["parameters"]),
        values=tuple(row["values"] or ()),
        by_seed=tuple(tuple(each) for each in row["by_seed"] or ()),
        run_ids=tuple(row["run_ids"] or ()),
        steps=tuple(row["steps"] or ()),
        reported=tuple(row["reported"] or ()),
        diverged=row["diverged"] or 0,
        seconds=row["train_seconds"] or 0.0,
        started=row["started_at"],
        ended=row["ended_at"],
        reason=row["reason"] or "",
    )


def _with_repeats(trials: Sequence[Trial]) -> list[Trial]:
    first: dict[str, int] = {}
    marked = []
    for trial in sorted(trials, key=lambda each: each.number):
        earlier = first.setdefault(_spelled(trial), trial.number) if trial.state != "failed" else trial.number
        marked.append(trial if earlier == trial.number else replace(trial, repeats=earlier))
    return marked


def _spelled(trial: Trial) -> str:
    return json.dumps(dict(trial.parameters), sort_keys=True)


def _judged(found: Found, confirmed: Collection[str]) -> Found:
    """With its best trials."""
    objectives = found.search.objectives
    losses = {trial.number: losses_of(trial, objectives) for trial in found.different}
    kept = [t for t in found.different if not any(beats(other, losses[t.number]) for other in losses.values())]
    known = {t.number: found.config(t.parameters).cell_id in confirmed for t in kept} if confirmed else {}
    best: dict[tuple[float, ...], Trial] = {}
    for trial in sorted(kept, key=lambda t: (not known.get(t.number), t.number)):
        best.setdefault(losses[trial.number], trial)
    return replace(found, best=tuple(sorted(best.values(), key=lambda trial: losses[trial.number])))


def losses_of(trial: Trial, objectives: Sequence[Objective]) -> tuple[float, ...]:
    """Its values, of which lower ones are better."""
    signs = [1 if each.direction == "minimize" else -1 for each in objectives]
    return tuple(sign * value for sign, value in zip(signs, trial.values, strict=True))


def beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether one's losses are nowhere higher than another's, and somewhere lower."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def _better(objective: Objective) -> Callable[[float, float], float]:
    return min if objective.direction == "minimize" else max


def scale(objective: Objective) -> float:
    """What to multiply a value by for people: fractions are shown in per cent."""
    return 100.0 if objective.is_fraction else 1.0


def number_of(dimension: Parameter, value: Value) -> float:
    """A value of a dimension as a number; NaN where it is none, as a norm's name is."""
    raw = dimension.raw(value)
    return math.nan if isinstance(raw, bool) or not isinstance(raw, int | float) else float(raw)
