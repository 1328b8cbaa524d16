"""The study of one cell: Optuna's, and what of it icbench needs to know."""

import math
import time
from collections import Counter
from collections.abc import Callable, Container, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from icbench.plan import Run
from icbench.search import methods
from icbench.search.settings import Search, SearchCell
from icbench.search.space import Value
from icbench.search.storage import GRACE_SECONDS, unwarned
from icbench.yamlfile import Mistake

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

# A trial's user attributes: who looks after it, and what came of it.
_OWNER = "controller"
_OUTCOME = "outcome"
_COUNTED = ("RUNNING", "COMPLETE", "PRUNED")
# How old what is known of a study may be, of which others may be at work too.
_LOOK_SECONDS = 5.0
# Trials that failed, for which others were asked; from then on something is wrong with all of them.
_MOST_FAILED = 10
SURPLUS = "another controller had asked for the last trial at the same moment"


@dataclass(frozen=True)
class Outcome:
    """What came of a trial, beside Optuna's value. by_seed: (seeds that ended, objectives). begun: how many of its
    runs, in the order of the seeds, were handed out. seconds: of training, for this trial alone: what was known before
    costs none. diverged: of its runs, how many. reason: why it failed.
    """

    by_seed: tuple[tuple[float, ...], ...] = ()
    begun: int = 0
    seconds: float = 0.0
    diverged: int = 0
    reason: str = ""

    @classmethod
    def of(cls, trial: "FrozenTrial") -> "Outcome":
        """Of a trial that has ended; an empty one where somebody else ended it."""
        return cls(**trial.user_attrs.get(_OUTCOME, {}))


@dataclass
class _Tally:
    """A study's trials, counted. states: by Optuna's name; failed_lately: since the study was opened here."""

    states: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    failed_lately: int = 0

    @classmethod
    def of(cls, trials: "list[FrozenTrial]", opened: datetime) -> "_Tally":
        tally = cls()
        for trial in trials:
            tally.states["RUNNING"] += 1
            if trial.state.is_finished():
                lately = trial.datetime_start is not None and trial.datetime_start > opened
                tally.note(trial.state.name, Outcome.of(trial), lately=lately)
        return tally

    def note(self, state: str, outcome: Outcome, *, lately: bool = True) -> None:
        """A trial under way has ended."""
        self.states["RUNNING"] -= 1
        self.seconds += outcome.seconds
        if state != "FAIL":
            self.states[state] += 1
        elif outcome.reason not in ("", SURPLUS):
            self.states[state] += 1
            self.failed_lately += lately


class Gone(Exception):
    """Somebody else has ended this trial: a controller that took ours for lost, or a person."""


class CellStudy:
    """A cell's study. Several controllers may have it open at once."""

    def __init__(self, search: Search, cell: SearchCell, storage: "RDBStorage"):
        import optuna

        self.search, self.cell = search, cell
        self.wanted = search.trials_of(cell)
        self._storage = storage
        with unwarned():
            self.study = optuna.create_study(
                study_name=search.study_name(cell),
                storage=storage,
                directions=[each.direction for each in search.objectives],
                sampler=methods.sampler(search.sampler, cell.space, search.seeding(cell)),
                pruner=methods.pruner(search.pruner, cell.config.recipe.epochs),
                load_if_exists=True,
            )
        self._note_objectives()
        self._opened = datetime.now()
        # Of trials that have ended, by number: their rows in the table of trials, which do not change any more.
        self.rows: dict[int, dict[str, Any]] = {}
        self._counted = _Tally()
        self._looked = -math.inf

    def _note_objectives(self) -> None:
        """For Optuna's own tools: what the values are."""
        names = [each.name for each in self.search.objectives]
        if self.study.metric_names != names:
            with unwarned():
                self.study.set_metric_names(names)

    @cached_property
    def _distributions(self) -> dict[str, Any]:
        return {each.name: each.distribution() for each in self.cell.space.dimensions}

    def trials(self) -> "list[FrozenTrial]":
        """All of them, as they are now."""
        return self.study.get_trials(deepcopy=False)

    def counted(self) -> int:
        """Trials under way and trials that came to something."""
        return sum(self.counts()[state] for state in _COUNTED)

    def ended(self) -> int:
        """How many trials came to something."""
        return self.counts()["COMPLETE"] + self.counts()["PRUNED"]

    def counts(self) -> Counter[str]:
        """How many trials are in each of Optuna's states, by its name; what was only lost is no failure."""
        return self._tally.states

    def seconds(self) -> float:
        """Of training, what all trials that have ended took."""
        return self._tally.seconds

    def wants_more(self) -> bool:
        """Whether another trial should be asked for: those that failed are replaced, but not without end."""
        return self.counted() < self.wanted and not self.gave_up

    @property
    def gave_up(self) -> bool:
        """Whether so many have failed, since this was opened, that all would."""
        return self._tally.failed_lately >= _MOST_FAILED

    @property
    def _tally(self) -> "_Tally":
        """Counted moments ago, for others may be at work here too; what we did since is counted."""
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked = time.monotonic()
            self._counted = _Tally.of(self.trials(), self._opened)
        return self._counted

    def failures(self) -> list[str]:
        """Why trials failed whose runs did, the last last."""
        from optuna.trial import TrialState

        failed = self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        return [reason for trial in failed if (reason := Outcome.of(trial).reason) not in ("", SURPLUS)]

    def ask(self, owner: str) -> "optuna.Trial | None":
        """A new trial; None where another controller was faster, or the values it proposes cannot be trained."""
        tally = self._tally  # before the trial: it may be counted anew
        with unwarned():
            trial = self.study.ask(self._distributions)
        tally.states["RUNNING"] += 1
        trial.set_user_attr(_OWNER, owner)
        if trial.number >= self.wanted and self._before(trial) >= self.wanted:
            self.fail(trial, Outcome(reason=SURPLUS))
            self._looked = -math.inf
            return None
        try:
            self.runs(trial)
        except Mistake as mistake:
            self.fail(trial, Outcome(reason=f"{mistake.problem} {mistake.remedy}".strip()))
            return None
        return trial

    def _before(self, trial: "optuna.Trial") -> int:
        """How many trials count that were asked for before this one."""
        return sum(each.state.name in _COUNTED for each in self.trials() if each.number < trial.number)

    def runs(self, trial: "optuna.Trial | FrozenTrial") -> tuple[Run, ...]:
        """A trial's, one a seed. Raises Mistake where its values do not fit together."""
        return self.cell.runs(params(trial, self.cell), self.search.seeds)

    def reported(self, trial: "optuna.Trial") -> int:
        """The last step that a pruner was told of."""
        return self._storage.get_trial(trial._trial_id).last_step or 0

    def adopt(self, is_gone: Callable[[str], bool], owner: str, known: Container[int]) -> "list[optuna.Trial]":
        """The trials that nobody looks after any more, ours from now on. is_gone: whether a controller known here is;
        known: the numbers of the trials that we have already.

        Those that were never asked to the end, or whose controller elsewhere has long been silent, have failed.
        """
        import optuna
        from optuna.trial import TrialState

        self._looked = -math.inf
        adopted = []
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            theirs = frozen.user_attrs.get(_OWNER)
            if frozen.number in known:
                continue
            if theirs and (theirs == owner or is_gone(theirs)):
                trial = optuna.Trial(self.study, frozen._trial_id)
                trial.set_user_attr(_OWNER, owner)
                self.beat(trial)  # of its controller the last sign of life may be days old
                adopted.append(trial)
            elif theirs is None and _age(frozen) > timedelta(seconds=GRACE_SECONDS):
                self.study.tell(frozen.number, state=TrialState.FAIL, skip_if_finished=True)
        with unwarned():
            optuna.storages.fail_stale_trials(self.study)
        return adopted

    def beat(self, trial: "optuna.Trial") -> None:
        """A sign of life of a trial under way."""
        self._storage.record_heartbeat(trial._trial_id)

    def complete(self, trial: "optuna.Trial", values: list[float], outcome: Outcome) -> None:
        """The trial has come to these values, one an objective. Raises Gone."""
        self._end(trial, "COMPLETE", outcome, values)

    def prune(self, trial: "optuna.Trial", outcome: Outcome) -> None:
        """The trial has been stopped early: the last value that was reported is its own. Raises Gone."""
        self._end(trial, "PRUNED", outcome)

    def fail(self, trial: "optuna.Trial", outcome: Outcome) -> None:
        """The trial has come to nothing. Raises Gone."""
        self._end(trial, "FAIL", outcome)

    def _end(self, trial: "optuna.Trial", state: str, outcome: Outcome, values: list[float] | None = None) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        tally = self._tally
        try:
            trial.set_user_attr(_OUTCOME, asdict(outcome))
            self.study.tell(trial, values, TrialState[state])
        except (UpdateFinishedTrialError, ValueError) as error:
            self._looked = -math.inf
            raise Gone(str(error)) from None
        tally.note(state, outcome)

    def best(self) -> "list[FrozenTrial]":
        """The best trial, of equally good ones the first; of several objectives, those that none other beats in all.

        None where every run of every complete trial diverged: then none is better than another.
        """
        from optuna.trial import TrialState

        complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if all(Outcome.of(trial).diverged == len(self.search.seeds) for trial in complete):
            return []
        if len(self.search.objectives) > 1:
            return self.study.best_trials
        sign = 1 if self.search.objective.direction == "maximize" else -1
        return [max(complete, key=lambda each: (sign * each.values[0], -each.number))]


def params(trial: "optuna.Trial | FrozenTrial", cell: SearchCell) -> Mapping[str, Value]:
    """The values that were trained with: of a range with steps, without the rounding of Optuna's."""
    by_name = {each.name: each for each in cell.space.dimensions}
    return {name: by_name[name].exact(value) for name, value in trial.params.items() if name in by_name}


def _age(trial: "FrozenTrial") -> timedelta:
    return datetime.now() - trial.datetime_start if trial.datetime_start else timedelta.max
