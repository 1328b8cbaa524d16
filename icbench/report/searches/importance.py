"""How much each parameter explains of what trials differ in: Optuna's fANOVA (Hutter, Hoos, Leyton-Brown 2014)."""

from collections.abc import Sequence
from dataclasses import dataclass

from icbench.report.searches.found import Found, Trial

# Of fewer trials there is nothing to split a forest's trees by.
_FEWEST = 10
_SEED = 0


@dataclass(frozen=True)
class Importance:
    """The part of the first objective's variance that a parameter explains by itself, of what all of them do.

    trials: that it was found from.
    """

    found: Found
    parameter: str
    value: float
    trials: int


def importances(found: Found) -> list[Importance]:
    """Of each parameter of a cell, the largest first; none where there is but one, or trials are few or all alike."""
    trials = found.different
    if len(found.dimensions) < 2 or len(trials) < _FEWEST or len({trial.values[0] for trial in trials}) < 2:
        return []
    return [Importance(found, name, value, len(trials)) for name, value in _fanova(found, trials).items()]


def _fanova(found: Found, trials: Sequence[Trial]) -> dict[str, float]:
    """By Optuna, on a study of these trials in memory."""
    import optuna

    distributions = {each.name: each.distribution() for each in found.dimensions}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    study.add_trials(
        [
            optuna.create_trial(params=dict(trial.parameters), distributions=distributions, value=trial.values[0])
            for trial in trials
        ]
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=_SEED)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
