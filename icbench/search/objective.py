"""By what a search judges a run: a figure of its learning curve on held-out images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from icbench import metrics
from icbench.config import Recipe
from icbench.errors import suggest
from icbench.train.schedule import learning_rate
from icbench.yamlfile import Mistake, Path_

ACCURACY = "accuracy"
AREA = "area"
EPOCHS = "epochs-to-target"

# By name: which way is better, and in words for an axis.
_DIRECTIONS: dict[str, Literal["maximize", "minimize"]] = {ACCURACY: "maximize", AREA: "maximize", EPOCHS: "minimize"}
_TITLES = {
    ACCURACY: "held-out accuracy",
    AREA: "mean held-out accuracy before the first drop of the learning rate",
    EPOCHS: "epochs to target",
}


@dataclass(frozen=True)
class Objective:
    """accuracy: after the last epoch. area: the mean one up to the first drop of the learning rate. epochs-to-target:
    the first epoch with the accuracy `target`; of a run that never has it, between once and twice its epochs, the more
    the further its best is from it, so that near misses are told from hopeless ones.
    """

    name: str
    target: float = math.nan

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """maximize or minimize, as Optuna has it."""
        return _DIRECTIONS[self.name]

    @property
    def title(self) -> str:
        """In words, for an axis."""
        return f"epochs to {100 * self.target:g} % held-out accuracy" if self.name == EPOCHS else _TITLES[self.name]

    @property
    def is_fraction(self) -> bool:
        return self.name != EPOCHS

    def value(self, curve: Sequence[float], recipe: Recipe) -> float:
        """Of a run that has come so far. curve: (epochs so far,) accuracies, at least one."""
        accuracies = np.asarray(curve, dtype=float)
        if self.name == ACCURACY:
            return float(accuracies[-1])
        if self.name == AREA:
            return float(metrics.area(accuracies[: _before_drop(recipe)]))
        epochs = float(metrics.epochs_to(self.target, accuracies))
        if math.isfinite(epochs):
            return epochs
        return recipe.epochs * (2 - min(1.0, float(accuracies.max()) / self.target))

    def worst(self, recipe: Recipe) -> float:
        """Of a run that diverged."""
        return 2.0 * recipe.epochs if self.name == EPOCHS else 0.0

    def describe(self) -> dict[str, Any]:
        """What makes this objective another one, for the study's name."""
        return {"name": self.name} | ({"target": self.target} if self.name == EPOCHS else {})


def parse(raw: object, path: Path_) -> tuple[Objective, ...]:
    """One objective, or a list of several for a Pareto front. Raises Mistake."""
    if not isinstance(raw, list):
        return (_parse(raw, path),)
    if not raw:
        raise Mistake(path, "objective: the list is empty.", f"Name one of {', '.join(_DIRECTIONS)}.")
    parsed = tuple(_parse(each, (*path, index)) for index, each in enumerate(raw))
    for index, each in enumerate(parsed):
        if each in parsed[:index]:
            raise Mistake((*path, index), f"the objective {each.name!r} stands there twice.", "Keep one of them.")
    return parsed


def _parse(raw: object, path: Path_) -> Objective:
    given = {"name": raw} if isinstance(raw, str) else raw
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise Mistake(path, f"{raw!r} is no objective.", suggest("", _DIRECTIONS, what="Write one of"))
    name = given["name"]
    if name not in _DIRECTIONS:
        raise Mistake(path, f"there is no objective {name!r}.", suggest(name, _DIRECTIONS))
    keys = ("name", "target") if name == EPOCHS else ("name",)
    for key in given:
        if key not in keys:
            raise Mistake((*path, key), f"the objective {name!r} has no {key!r}.", suggest(key, keys))
    if name != EPOCHS:
        return Objective(name)
    example = "{name: epochs-to-target, target: 0.95}"
    if "target" not in given:
        raise Mistake(path, f"{name} needs a target, an accuracy.", f"Write {example}.")
    target = given["target"]
    if isinstance(target, bool) or not isinstance(target, int | float) or not 0 < target <= 1:
        raise Mistake(
            (*path, "target"), f"target: {target!r} should be an accuracy above 0, up to 1.", f"As in {example}."
        )
    return Objective(name, float(target))


def _before_drop(recipe: Recipe) -> int:
    """How many epochs a recipe has before its learning rate first drops; all, if it never does."""
    rates = [learning_rate(recipe, epoch) for epoch in range(1, recipe.epochs + 1)]
    return int(metrics.epochs_before_drop(rates))
