"""The loop of a search: ask Optuna for trials, have their runs done, tell it what came of them.

All that it knows lies in the study, the results and the ledger: it may be killed at any moment and started again.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from icbench import ledger
from icbench.config import RunConfig
from icbench.curve import read_curve
from icbench.errors import UserError
from icbench.files import read_json, write_json, write_whole
from icbench.layout import Layout, SweepFiles
from icbench.locks import Lock, is_free
from icbench.plan import Run
from icbench.results import finished, is_finished, learning_curve
from icbench.search import methods, trials
from icbench.search.crew import Crew
from icbench.search.settings import Search
from icbench.search.storage import HEARTBEAT_SECONDS
from icbench.search.study import CellStudy, Gone, Outcome

if TYPE_CHECKING:
    import optuna

# How often the table of trials is written while they come and go.
_TABLE_SECONDS = 2.0
# And how long it is left in peace, in times that writing it took.
_TABLE_REST = 20


@dataclass(frozen=True)
class Ended:
    """A trial that has ended, for whoever follows. state: complete, pruned or failed. seeds: how many have run."""

    study: CellStudy
    number: int
    values: "dict[str, object]"
    state: str
    value: tuple[float, ...]
    outcome: Outcome


@dataclass
class _Active:
    """A trial under way. given: how many of its runs may be handed out, in the order of the seeds; by_seed: what those
    that were judged came to; told: the last step that the pruner was asked about; reported: the last that the
    study holds, which may be of a controller that died before it asked.
    """

    study: CellStudy
    trial: "optuna.Trial"
    runs: tuple[Run, ...]
    given: int = 0
    by_seed: list[tuple[float, ...]] = field(default_factory=list)
    told: int = 0
    reported: int = 0
    seconds: float = 0.0
    diverged: int = 0

    def outcome(self, reason: str = "") -> Outcome:
        return Outcome(tuple(self.by_seed), max(self.given, len(self.by_seed), 1), self.seconds, self.diverged, reason)

    def ended(self, state: str, value: tuple[float, ...] = (), reason: str = "") -> Ended:
        return Ended(self.study, self.trial.number, dict(self.trial.params), state, value, self.outcome(reason))


def prepare(layout: Layout, search: Search) -> SweepFiles:
    """Keep the search's file beside its results. Raises UserError where a sweep has its name."""
    files = layout.sweep(search.name)
    if files.grid.exists():
        problem = f"{search.name} is the name of a sweep in {layout.root}/."
        raise UserError(problem, "Give the search another one with name:.", file=search.document.file)
    files.folder.mkdir(parents=True, exist_ok=True)
    write_whole(files.search, lambda file: file.write(search.text.encode()))
    if not files.manifest.exists():
        ledger.record_runs(layout, search.name, search.question, [])
    return files


class Controller:
    """One of a search's controllers. As a context: it is known to be alive within it.

    slots: how many runs its crew does at a time. share: of a GPU or a core, how much a run has.
    """

    def __init__(
        self, search: Search, layout: Layout, studies: list[CellStudy], slots: int, share: float, began: float
    ):
        self.search = search
        self.studies = studies
        self._single = [study for study in studies if not study.cell.space.parameters]
        self._layout = layout
        self._files = layout.sweep(search.name)
        self._slots = slots
        self._share = share
        self._began = began
        self._lived_before: float = sum((read_json(self._files.spent) or {}).values())
        self._active: list[_Active] = []
        self._finished = finished(layout)
        self._given: list[str] = []
        self._beaten = time.monotonic()
        self._table_due = 0.0
        self._id = secrets.token_hex(6)
        self._stack = ExitStack()

    def __enter__(self) -> "Controller":
        self._files.controllers.mkdir(parents=True, exist_ok=True)
        alive = Lock.take(self._files.controllers / self._id)
        assert alive is not None, "a controller's name is its own"
        self._stack.enter_context(alive)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        if not self._active:  # else its trials are to be adopted
            (self._files.controllers / self._id).unlink(missing_ok=True)

    @property
    def is_done(self) -> bool:
        """Whether nothing is under way here and no trial is to be asked for."""
        return not self._active and not any(self._may_ask(study) for study in self.studies)

    @property
    def left_out(self) -> int:
        """How many trials are not asked for, since the budget is spent."""
        return sum(study.wanted - study.counted() for study in self.studies if study.wants_more())

    def follow(self, crew: Crew) -> Iterator[Ended | str]:
        """Search until nothing is left to do here. Yields trials that have ended, and words about what else happens."""
        closed = False
        self.adopt()
        yield from self._look(crew)
        for event in crew.events():
            if event is not None:
                if event["event"] == "death":
                    yield f"a worker died in {event['run_id']}; the run goes on from its last checkpoint"
                continue
            yield from self._look(crew)
            if not closed and self.is_done:
                self.adopt()  # of one that has died since we looked last
                if closed := self.is_done:
                    crew.close()
        self.record()

    def adopt(self) -> None:
        """Go on with the trials of controllers that are gone."""
        with self._alone():
            for study in self.studies:
                mine = {each.trial.number for each in self._active if each.study is study}
                for trial in study.adopt(self._is_gone, self._id, mine):
                    self._begin(study, trial)

    def _alone(self) -> Lock:
        """Held while no other controller here may do the same."""
        return Lock.wait(self._files.adopting, told=lambda: None)

    def _is_gone(self, controller: str) -> bool:
        """Whether a controller is known here, and not alive."""
        file = self._files.controllers / controller
        return file.exists() and is_free(file)

    def _look(self, crew: Crew) -> Iterator[Ended]:
        """One turn: what has ended, what should end, what comes next."""
        for active in list(self._active):
            yield from self._settle(active, crew)
        if time.monotonic() - self._beaten > HEARTBEAT_SECONDS:
            self._beaten = time.monotonic()
            for active in self._active:
                active.study.beat(active.trial)
            self.adopt()
        yield from self._ask(crew)
        self._hand_out(crew)
        if time.monotonic() > self._table_due:
            self.record()

    def _ask(self, crew: Crew) -> Iterator[Ended]:
        """New trials, as long as slots are free; of the studies, the least advanced first."""
        while sum(1 for active in self._active for _ in self._open_runs(active)) < self._slots:
            willing = [study for study in self.studies if self._may_ask(study)]
            if not willing:
                return
            study = min(willing, key=lambda each: each.counted() / each.wanted)
            trial = study.ask(self._id)
            if trial is not None:
                yield from self._settle(self._begin(study, trial), crew)

    def _may_ask(self, study: CellStudy) -> bool:
        return study.wants_more() and not self._is_spent(study)

    def _is_spent(self, study: CellStudy) -> bool:
        """Whether the study has had its share of the budget."""
        budget = self.search.budget
        if budget is None:
            return False
        if budget.is_wall_time:
            return self._lived_before + time.monotonic() - self._began > budget.seconds
        if not study.cell.space.parameters:  # its one trial is what others are compared with
            return False
        single = sum(each.seconds() * self._share for each in self._single)
        share = (budget.seconds - single) / (len(self.studies) - len(self._single))
        return study.seconds() * self._share > share

    def _begin(self, study: CellStudy, trial: "optuna.Trial") -> _Active:
        active = _Active(study, trial, study.runs(trial), reported=study.reported(trial))
        # What ended between two looks counts as under way: what is asked for next hangs on the order of looks alone.
        self._finished |= {run_id for run_id, _ in active.runs if is_finished(self._layout, run_id)}
        self._active.append(active)
        return active

    def _settle(self, active: _Active, crew: Crew) -> Iterator[Ended]:
        """See how a trial does; if it has ended, say so."""
        try:
            ended = self._judge(active)
        except Gone:  # somebody took us for lost, and has asked for another instead
            ended = active.ended("failed", reason="it was ended from elsewhere")
        if ended is None:
            return
        self._active.remove(active)
        wanted = {run_id for each in self._active for run_id, _ in self._open_runs(each)}
        for run_id, _ in self._open_runs(active):
            if run_id not in wanted:
                crew.stop(run_id)
        yield ended

    def _judge(self, active: _Active) -> Ended | None:
        """Take in what a trial's runs have come to; the trial, if it has ended. Raises Gone."""
        for run_id, _ in active.runs[: active.given]:
            if is_finished(self._layout, run_id):
                self._finished.add(run_id)
            elif failure := read_json(self._layout.run(run_id).failure):
                reason = f"run {run_id} failed: {failure['message']}"
                active.study.fail(active.trial, active.outcome(reason))
                return active.ended("failed", reason=reason)
        while len(active.by_seed) < len(active.runs):
            run_id, config = active.runs[len(active.by_seed)]
            if run_id not in self._finished:
                if self._prunes_epochs and not active.by_seed:
                    curve = read_curve(self._layout.run(run_id))
                    if pruned := self._watch(active, config, curve.accuracies, curve.seconds):
                        return pruned
                break
            if pruned := self._take_in(active, run_id, config):
                return pruned
        else:
            value = tuple(sum(values) / len(active.runs) for values in zip(*active.by_seed, strict=True))
            active.study.complete(active.trial, list(value), active.outcome())
            return active.ended("complete", value)
        active.given = self._may_be_given(active)
        return None

    def _take_in(self, active: _Active, run_id: str, config: RunConfig) -> Ended | None:
        """A finished run's figures; the trial, if they are the reason to prune it."""
        accuracies, seconds, diverged = learning_curve(self._layout, run_id)
        spent = 0.0 if self._was_known(active, run_id) else seconds
        if self._prunes_epochs and not active.by_seed and (pruned := self._watch(active, config, accuracies, spent)):
            return pruned
        recipe = config.recipe
        active.by_seed.append(
            tuple(each.worst(recipe) if diverged else each.value(accuracies, recipe) for each in self.search.objectives)
        )
        active.seconds += spent
        active.diverged += diverged
        if self.search.pruner.name == methods.WILCOXON:
            return self._report(active, active.by_seed[-1][0], len(active.by_seed))
        return None

    def _watch(self, active: _Active, config: RunConfig, accuracies: list[float], seconds: float) -> Ended | None:
        """Tell the pruner of the epochs that it has not heard of, one after another; the trial, if it prunes it.

        What the study says does not depend on how far the run has come meanwhile.
        """
        for epoch in range(active.told + 1, len(accuracies) + 1):
            value = self.search.objective.value(accuracies[:epoch], config.recipe)
            active.seconds, before = seconds, active.seconds
            if pruned := self._report(active, value, epoch):
                return pruned
            active.seconds = before
        return None

    def _report(self, active: _Active, value: float, step: int) -> Ended | None:
        active.told = step
        if step > active.reported:
            active.trial.report(value, step)
            active.reported = step
        if step < active.reported or not active.trial.should_prune():
            return None
        active.study.prune(active.trial, active.outcome())
        return active.ended("pruned", (value,))

    @property
    def _prunes_epochs(self) -> bool:
        return self.search.pruner.name not in ("none", methods.WILCOXON)

    def _may_be_given(self, active: _Active) -> int:
        """How many of a trial's runs may be done: a pruner of epochs judges by the first, wilcoxon by each in turn."""
        if self.search.pruner.name == methods.WILCOXON:
            return len(active.by_seed) + 1
        return 1 if self._prunes_epochs and not active.by_seed else len(active.runs)

    def _open_runs(self, active: _Active) -> Iterator[Run]:
        """Of a trial, the runs that are to be done now."""
        return (run for run in active.runs[len(active.by_seed) : active.given] if run[0] not in self._finished)

    def _was_known(self, active: _Active, run_id: str) -> bool:
        """Whether a finished run was there before its trial was asked for."""
        row, asked = self._layout.row("runs", run_id), active.trial.datetime_start
        return not row.exists() or asked is None or row.stat().st_mtime < asked.timestamp()

    def _hand_out(self, crew: Crew) -> None:
        runs = {run_id: config for active in self._active for run_id, config in self._open_runs(active)}
        if list(runs) != self._given:
            self._given = list(runs)
            crew.give(list(runs.items()), self._further())

    def _further(self) -> int:
        """How many runs may yet come beside those that are handed out; of a trial whose seeds take turns, the next."""
        in_turn = self.search.pruner.name == methods.WILCOXON
        trials = sum(study.wanted - study.counted() for study in self.studies if self._may_ask(study))
        held_back = (len(active.runs) - active.given for active in self._active)
        return trials * (1 if in_turn else len(self.search.seeds)) + sum(min(n, 1) if in_turn else n for n in held_back)

    def record(self) -> None:
        """Write the table of trials, which runs the search is of, and what it has spent of its time."""
        began = time.monotonic()
        if self.search.budget and self.search.budget.is_wall_time:
            with self._alone():
                lived = read_json(self._files.spent) or {}
                write_json(self._files.spent, lived | {self._id: began - self._began}, durable=False)
        rows = [row for study in self.studies for row in trials.rows(study)]
        trials.write(self._files, rows)
        run_ids = dict.fromkeys(run_id for row in rows for run_id in row["run_ids"])
        ledger.record_runs(self._layout, self.search.name, self.search.question, list(run_ids))
        now = time.monotonic()
        self._table_due = now + max(_TABLE_SECONDS, _TABLE_REST * (now - began))
