"""The study of one cell: Optuna's, and what of it icbench needs to know."""

import time
from collections import Counter
from collections.abc import Callable, Container, Mapping
from dataclasses import asdict, dataclass
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
        self._seen: list[FrozenTrial] | None = None
        self._looked = 0.0

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
        """All of them, as they were moments ago; what we ourselves have done since is seen."""
        if self._seen is None or time.monotonic() - self._looked > _LOOK_SECONDS:
            self._seen, self._looked = self.study.get_trials(deepcopy=False), time.monotonic()
        return self._seen

    def counted(self) -> int:
        """Trials under way and trials that came to something."""
        return sum(_counts(trial) for trial in self.trials())

    def counts(self) -> Counter[str]:
        """How many trials are in each of Optuna's states, by its name; what was only lost is no failure."""
        counts = Counter(trial.state.name for trial in self.trials())
        counts["FAIL"] = len(self.failed)
        return counts

    def ended(self) -> int:
        """How many trials came to something."""
        counts = self.counts()
        return counts["COMPLETE"] + counts["PRUNED"]

    def wants_more(self) -> bool:
        """Whether another trial should be asked for: those that failed are replaced, but not without end."""
        return self.counted() < self.wanted and not self.gave_up

    @property
    def failed(self) -> "list[FrozenTrial]":
        """Those whose runs failed; trials that were only lost, or one too many, are none."""
        from optuna.trial import TrialState

        failed = [trial for trial in self.trials() if trial.state == TrialState.FAIL]
        return [trial for trial in failed if Outcome.of(trial).reason not in ("", SURPLUS)]

    @property
    def gave_up(self) -> bool:
        """Whether so many have failed, since this was opened, that all would."""
        since = [each for each in self.failed if each.datetime_start and each.datetime_start > self._opened]
        return len(since) >= _MOST_FAILED

    def seconds(self) -> float:
        """Of training, what all trials that have ended took."""
        return sum(Outcome.of(trial).seconds for trial in self.trials())

    def ask(self, owner: str) -> "optuna.Trial | None":
        """A new trial; None where another controller was faster, or the values it proposes cannot be trained."""
        with unwarned():
            trial = self.study.ask(self._distributions)
        self._seen = None
        trial.set_user_attr(_OWNER, owner)
        earlier = sum(_counts(each) for each in self.trials() if each.number < trial.number)
        if earlier >= self.wanted:
            self.fail(trial, Outcome(reason=SURPLUS))
            return None
        try:
            self.runs(trial)
        except Mistake as mistake:
            self.fail(trial, Outcome(reason=f"{mistake.problem} {mistake.remedy}".strip()))
            return None
        return trial

    def runs(self, trial: "optuna.Trial | FrozenTrial") -> tuple[Run, ...]:
        """A trial's, one a seed. Raises Mistake where its values do not fit together."""
        return self.cell.runs(params(trial, self.cell), self.search.seeds)

    def adopt(self, is_gone: Callable[[str], bool], owner: str, known: Container[int]) -> "list[optuna.Trial]":
        """The trials that nobody looks after any more, ours from now on. is_gone: whether a controller known here is;
        known: the numbers of the trials that we have already.

        Those that were never asked to the end, or whose controller elsewhere has long been silent, have failed.
        """
        import optuna
        from optuna.trial import TrialState

        self._seen = None
        adopted = []
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            theirs = frozen.user_attrs.get(_OWNER)
            if frozen.number in known:
                continue
            if theirs and (theirs == owner or is_gone(theirs)):
                trial = optuna.Trial(self.study, frozen._trial_id)
                trial.set_user_attr(_OWNER, owner)
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
        self._end(trial, outcome, values=values)

    def prune(self, trial: "optuna.Trial", outcome: Outcome) -> None:
        """The trial has been stopped early: the last value that was reported is its own. Raises Gone."""
        from optuna.trial import TrialState

        self._end(trial, outcome, state=TrialState.PRUNED)

    def fail(self, trial: "optuna.Trial", outcome: Outcome) -> None:
        """The trial has come to nothing. Raises Gone."""
        from optuna.trial import TrialState

        self._end(trial, outcome, state=TrialState.FAIL)

    def _end(self, trial: "optuna.Trial", outcome: Outcome, **told: Any) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        self._seen = None
        try:
            trial.set_user_attr(_OUTCOME, asdict(outcome))
            self.study.tell(trial, **told)
        except (UpdateFinishedTrialError, ValueError) as error:
            raise Gone(str(error)) from None

    def best(self) -> "list[FrozenTrial]":
        """The best trial; of several objectives, those that none other beats in all. Of none, none."""
        from optuna.trial import TrialState

        if not self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            return []
        return [self.study.best_trial] if len(self.search.objectives) == 1 else self.study.best_trials


def params(trial: "optuna.Trial | FrozenTrial", cell: SearchCell) -> Mapping[str, Value]:
    """The values that were trained with: of a range with steps, without the rounding of Optuna's."""
    by_name = {each.name: each for each in cell.space.dimensions}
    return {name: by_name[name].exact(value) for name, value in trial.params.items() if name in by_name}


def _counts(trial: "FrozenTrial") -> bool:
    from optuna.trial import TrialState

    return trial.state in (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)


def _age(trial: "FrozenTrial") -> timedelta:
    return datetime.now() - trial.datetime_start if trial.datetime_start else timedelta.max
