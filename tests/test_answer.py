"""The answer in a sentence: effects and their absence in the same words, with their intervals."""

import math
from pathlib import Path

import numpy as np
import pytest
from synthetic import make, rising

from icbench.config import RunConfig
from icbench.report.answer import answer, points, target_in_words, times
from icbench.report.comparison import compare
from icbench.report.stats import Estimate

GRID = """
recipe: digits
fixed: {dataset: digits, depth: 8}
grid: {ordering: [baseline, relu-ic-conv, ic-conv-relu]}
seeds: 8
baseline: {ordering: baseline}
"""


def noisy(effect: dict[str, float], config: RunConfig) -> list[float]:
    names = ["baseline-v1", "relu-ic-conv", "ic-conv-relu", "conv-relu-ic"]
    random = np.random.default_rng([config.seed, names.index(config.ordering), round(100 * (config.dropout or 0))])
    return rising(0.8 + effect.get(config.ordering, 0.0) + random.normal(0, 0.004))


def told(folder: Path, text: str, effect: dict[str, float]) -> str:
    evidence = make(folder, text, lambda c: noisy(effect, c))
    return answer(compare(evidence), has_baselines=bool(evidence.sweep.baselines))


def test_an_effect(tmp_path: Path) -> None:
    words = told(tmp_path, GRID, {"relu-ic-conv": 0.05})
    assert words.startswith("Of 2 treatments, 1 is shown to end better than the baseline: relu-ic-conv ends +"), words
    assert "points from it and reaches the baseline's final accuracy in 0." in words
    assert words.endswith("the baseline's epochs (1 cell × 8 seeds).")


def test_no_effect(tmp_path: Path) -> None:
    words = told(tmp_path, GRID, {})
    assert words.startswith("None of 2 treatments is shown to end at another accuracy than the baseline: relu-ic-conv ")


def test_one_treatment(tmp_path: Path) -> None:
    one = GRID.replace(", ic-conv-relu]", "]")
    assert told(tmp_path, one, {"relu-ic-conv": -0.05}).startswith(
        "relu-ic-conv is shown to end worse than the baseline: it ends −"
    )
    assert "mostly does not reach the baseline's final accuracy (never [" in told(
        tmp_path, one, {"relu-ic-conv": -0.05}
    )
    assert told(tmp_path, one, {}).startswith("relu-ic-conv is not shown to end otherwise than the baseline: it ends ")
    assert told(tmp_path, one.replace("seeds: 8", "seeds: 1"), {}).startswith(
        "There are too few seeds to test whether relu-ic-conv ends at another accuracy than the baseline: it ends "
    )


def test_many_treatments_are_told_by_their_range(tmp_path: Path) -> None:
    many = GRID.replace("ic-conv-relu]", "ic-conv-relu, conv-relu-ic], dropout: [0.05, 0.1]")
    words = told(tmp_path, many, {"relu-ic-conv": 0.05, "conv-relu-ic": -0.05})
    verdict = "Of 6 treatments, 2 are shown to end better and 2 worse than the baseline: the differences run from −"
    assert words.startswith(verdict)
    assert words.index("(conv-relu-ic, dropout") < words.index("(relu-ic-conv, dropout")


def test_nothing_to_compare(tmp_path: Path) -> None:
    assert told(tmp_path, GRID.replace("baseline: {ordering: baseline}", ""), {}).startswith(
        "The grid names no baseline"
    )
    evidence = make(tmp_path, GRID, lambda _: None)
    assert answer(compare(evidence), has_baselines=True).startswith("No treatment has finished runs")


def test_a_target_of_one_s_own_is_named(tmp_path: Path) -> None:
    evidence = make(tmp_path, GRID, lambda c: noisy({}, c), target=0.4)
    words = answer(compare(evidence), has_baselines=True, target=target_in_words(evidence.target))
    assert "reaches 40 % in 1.00× [1.00, 1.00] the baseline's epochs" in words
    assert "final accuracy" not in words


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        ((0.0046, 0.0012, 0.008), "+0.46 [0.12, 0.80]"),
        ((-0.0046, -0.008, 0.001), "−0.46 [−0.80, 0.10]"),
        ((0.0046, math.nan, math.nan), "+0.46"),
        ((-0.00001, -0.00002, 0.00001), "+0.00 [0.00, 0.00]"),
        ((math.nan, math.nan, math.nan), "–"),
    ],
)
def test_points(estimate: tuple[float, float, float], words: str) -> None:
    assert points(Estimate(*estimate)) == words


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        ((0.61, 0.52, 0.71), "0.61× [0.52, 0.71]"),
        ((math.inf, 1.2, math.inf), "never [1.20, ∞]"),
        ((1, 0, math.inf), "1.00× [0, ∞]"),
        ((math.nan, math.nan, math.nan), "–"),
    ],
)
def test_times(estimate: tuple[float, float, float], words: str) -> None:
    assert times(Estimate(*estimate)) == words
