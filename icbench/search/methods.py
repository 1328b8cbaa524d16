"""How a search goes: Optuna's samplers and pruners by name, with those of their options that a file may give."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from icbench.config import Variant
from icbench.errors import suggest
from icbench.search.space import Space
from icbench.values import TYPES
from icbench.yamlfile import Mistake, Path_

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, TrialState

# By name: the options, as Optuna calls them, with their types (icbench/values.py).
SAMPLERS: dict[str, dict[str, str]] = {
    "tpe": {"n_startup_trials": "NonNegativeInt", "n_ei_candidates": "PositiveInt", "multivariate": "bool"},
    "gp": {"n_startup_trials": "NonNegativeInt", "deterministic_objective": "bool"},
    "cmaes": {"n_startup_trials": "NonNegativeInt", "sigma0": "PositiveFloat", "popsize": "PositiveInt"},
    "random": {},
    "grid": {},
    "qmc": {"qmc_type": "str", "scramble": "bool"},
}
PRUNERS: dict[str, dict[str, str]] = {
    "none": {},
    "median": {
        "n_startup_trials": "NonNegativeInt",
        "n_warmup_steps": "NonNegativeInt",
        "interval_steps": "PositiveInt",
        "n_min_trials": "PositiveInt",
    },
    "hyperband": {"min_resource": "PositiveInt", "reduction_factor": "PositiveInt"},
    "successive-halving": {
        "min_resource": "PositiveInt",
        "reduction_factor": "PositiveInt",
        "min_early_stopping_rate": "NonNegativeInt",
    },
    "wilcoxon": {"p_threshold": "Fraction", "n_startup_steps": "NonNegativeInt"},
}
WILCOXON = "wilcoxon"
_SEQUENCES = ("sobol", "halton")
# Optuna makes a list of all points of a grid.
_MOST_POINTS = 100_000


def parse(kind: str, known: dict[str, dict[str, str]], raw: object, path: Path_) -> Variant:
    """A sampler or pruner by name, or `{name: ..., option: ...}`. Raises Mistake."""
    given = {"name": raw} if isinstance(raw, str) else raw
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise Mistake(path, f"{raw!r} is no {kind}.", suggest("", known, what="Write one of"))
    name = given["name"]
    if name not in known:
        raise Mistake(path, f"there is no {kind} {name!r}.", suggest(name, known))
    options = {}
    for key, value in given.items():
        if key == "name":
            continue
        if key not in known[name]:
            raise Mistake((*path, key), f"{kind} {name!r} has no option {key!r}.", suggest(key, known[name]))
        try:
            options[key] = TYPES[known[name][key]].parse(value)
        except ValueError as error:
            raise Mistake((*path, key), f"the option {key!r} of {name!r}: {error}.") from None
    if options.get("qmc_type", _SEQUENCES[0]) not in _SEQUENCES:
        raise Mistake((*path, "qmc_type"), f"there is no sequence {options['qmc_type']!r}.", "Write sobol or halton.")
    if options.get("reduction_factor", 2) == 1:
        raise Mistake((*path, "reduction_factor"), "reduction_factor: 1 reduces nothing.", "Give one from 2 up.")
    if options.get("popsize", 2) == 1:
        raise Mistake((*path, "popsize"), "popsize: 1 is no population.", "Give one from 2 up.")
    return Variant(name, tuple(sorted(options.items())))


def check(sampler: Variant, space: Space, objectives: int) -> tuple[str, str] | None:
    """What is wrong with a sampler in a space that has parameters, and what would be right."""
    ranges = [each for each in space.dimensions if not each.choices]
    if sampler.name == "grid":
        remedy = "Give these ranges a step, or choose another sampler."
        if endless := [each.name for each in space.dimensions if each.count is None]:
            return f"a grid has no end along {', '.join(endless)}.", remedy
        if points(space) > _MOST_POINTS:
            return f"the grid has {points(space):,} points, more than {_MOST_POINTS:,}.", remedy.replace(
                "a step", "larger steps"
            )
    if sampler.name == "cmaes":
        if objectives > 1:
            return "cmaes takes one objective.", "Choose another sampler, such as tpe."
        if len(ranges) < 2 or len(ranges) < len(space.dimensions):
            return "cmaes needs two ranges or more, and no choices.", "Choose another sampler, such as tpe."
    return None


def seeds_to_tell(given: Variant) -> int:
    """After how many seeds the Wilcoxon pruner can first tell a trial from the best: one worse with all of them."""
    options = {"p_threshold": 0.1, "n_startup_steps": 2} | dict(given.options)  # as Optuna has them
    enough = math.floor(-math.log2(float(options["p_threshold"]))) + 1  # 2^-n below it: the test is exact, one-sided
    return max(2, int(options["n_startup_steps"]), enough)


def points(space: Space) -> int:
    """How many points a grid of the space has."""
    return math.prod(each.count or 1 for each in space.dimensions)


def pruner(given: Variant, epochs: int) -> "BasePruner":
    """Optuna's. epochs: those of a whole run."""
    from optuna import pruners

    options: dict[str, Any] = dict(given.options)
    match given.name:
        case "median":
            return pruners.MedianPruner(**options)
        case "hyperband":
            return pruners.HyperbandPruner(max_resource=epochs, **options)
        case "successive-halving":
            return pruners.SuccessiveHalvingPruner(**options)
        case "wilcoxon":
            return pruners.WilcoxonPruner(**options)
    return pruners.NopPruner()


@dataclass(frozen=True)
class Seeding:
    """Of a cell's sampler: seed and place (hex digits) make it another one than those of other searches and cells."""

    seed: int
    place: str

    def of(self, trial: int | None) -> int:
        """For one trial; without a trial, for all of them together."""
        parts = [self.seed, int(self.place, 16), *([] if trial is None else [trial + 1])]
        return int(np.random.SeedSequence(parts).generate_state(1)[0])


def sampler(given: Variant, space: Space, seeding: Seeding) -> "BaseSampler":
    """Optuna's, made anew for each trial with a seed that follows from the trial's number alone.

    So what a trial is asked for follows from the trials before it, whichever process asks, and however often a search
    was begun anew.
    """
    from optuna import samplers

    class Seeded(samplers.BaseSampler):
        """Hands everything on to the sampler of the trial that was begun last."""

        def __init__(self) -> None:
            self._own = _sampler(given, space, seeding, 0)

        def before_trial(self, study: "Study", trial: "FrozenTrial") -> None:
            self._own = _sampler(given, space, seeding, trial.number)
            self._own.before_trial(study, trial)

        def infer_relative_search_space(self, study: "Study", trial: "FrozenTrial") -> "dict[str, BaseDistribution]":
            return self._own.infer_relative_search_space(study, trial)

        def sample_relative(
            self, study: "Study", trial: "FrozenTrial", search_space: "dict[str, BaseDistribution]"
        ) -> dict[str, Any]:
            return self._own.sample_relative(study, trial, search_space)

        def sample_independent(
            self, study: "Study", trial: "FrozenTrial", param_name: str, param_distribution: "BaseDistribution"
        ) -> Any:
            return self._own.sample_independent(study, trial, param_name, param_distribution)

        def after_trial(
            self, study: "Study", trial: "FrozenTrial", state: "TrialState", values: Sequence[float] | None
        ) -> None:
            if given.name != "grid":  # which would end `optimize`, whose place the controller takes
                self._own.after_trial(study, trial, state, values)

    return Seeded()


def _sampler(given: Variant, space: Space, seeding: Seeding, trial: int) -> "BaseSampler":
    from optuna import samplers

    options: dict[str, Any] = dict(given.options)
    seed = seeding.of(trial)
    match given.name:
        case "gp":
            return samplers.GPSampler(seed=seed, **options)
        case "cmaes":
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False, **options)
        case "random":
            return samplers.RandomSampler(seed=seed)
        case "grid":  # one order of the points for all trials
            return _grid(space, seeding.of(None))
        case "qmc":  # one sequence for all trials
            return samplers.QMCSampler(
                seed=seeding.of(None),
                independent_sampler=samplers.RandomSampler(seed=seed),
                warn_asynchronous_seeding=False,
                warn_independent_sampling=False,
                **({"scramble": True} | options),
            )
    return samplers.TPESampler(seed=seed, **options)


def _grid(space: Space, seed: int) -> "BaseSampler":
    from optuna import samplers
    from optuna.trial import TrialState

    class Grid(samplers.GridSampler):
        """Has the points of failed trials asked for again, which Optuna's takes for visited."""

        def _get_unvisited_grid_ids(self, study: "Study") -> list[int]:
            trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.FAIL]
            visited = {trial.system_attrs.get("grid_id") for trial in trials}
            every = range(points(space))
            # Where none is left another controller has the last: this trial will be withdrawn.
            return [index for index in every if index not in visited] or list(every)

    return Grid({each.name: each.points() or () for each in space.dimensions}, seed=seed)
