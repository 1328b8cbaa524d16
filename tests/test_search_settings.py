"""What a search's file says, what happens to mistakes in it, and which runs its values make."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY, Icbench
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from icbench import grid, metrics
from icbench.errors import UserError
from icbench.recipe import named
from icbench.search import settings
from icbench.search.objective import Objective
from icbench.search.objective import parse as parse_objectives
from icbench.search.settings import Search
from icbench.search.space import Value
from icbench.train.schedule import learning_rate

WriteGrid = Callable[..., Path]

RECIPE = "recipe: digits\n"
FIXED = "fixed: {dataset: digits, depth: 8}\n"
GRID = "grid: {ordering: [baseline, relu-ic-conv]}\n"
HEAD = RECIPE + FIXED + GRID
RANGE = "{low: 0, high: 0.5}"


def text(parameters: str = f"dropout: {RANGE}", *more: str, head: str = HEAD) -> str:
    """A search over parameters, from line 4 on."""
    lines = (*(("trials: 4",) if not any(each.startswith("trials") for each in more) else ()), *more)
    return f"{head}search:\n  parameters:\n    {parameters}\n" + "".join(f"  {line}\n" for line in lines)


def load(write_grid: WriteGrid, content: str, name: str = "search.yaml") -> Search:
    return settings.load(write_grid(content, name))


def test_a_search_with_every_key(write_grid: WriteGrid) -> None:
    search = load(
        write_grid,
        """
name: everything
question: Which dropout rate?
recipe: digits
fixed: {dataset: digits, depth: 8}
grid: {ordering: [baseline, relu-ic-conv, conv-relu-ic]}
exclude: [{ordering: conv-relu-ic}]
include: [{ordering: ic-conv-relu, depth: 14}, {ordering: baseline, depth: 14}]
seeds: 3
baseline: {ordering: baseline}
search:
  parameters:
    dropout: {low: 0, high: 0.5, step: 0.05}
    learning_rate: {low: 1e-4, high: 1e-1, log: true}
    norm: [batch, {name: group, groups: 4}]
  sampler: {name: tpe, n_startup_trials: 5, multivariate: true}
  pruner: {name: median, n_warmup_steps: 3}
  objective: {name: epochs-to-target, target: 0.95}
  trials: 30
  seeds: [7, 8]
  seed: 5
  budget: 1.5 gpu-hours
""",
    )
    assert (search.name, search.question) == ("everything", "Which dropout rate?")
    assert [(cell.words, cell.baseline) for cell in search.cells] == [
        ("baseline-v1 digits basic-8", None),
        ("relu-ic-conv digits basic-8", search.cells[0].key),
        ("ic-conv-relu digits basic-14", search.cells[3].key),
        ("baseline-v1 digits basic-14", None),
    ]
    assert [[each.name for each in cell.space.dimensions] for cell in search.cells] == [
        ["learning_rate", "norm"],
        ["dropout", "learning_rate", "norm"],
        ["dropout", "learning_rate", "norm"],
        ["learning_rate", "norm"],
    ]
    assert (str(search.sampler), str(search.pruner)) == (
        "tpe multivariate=True n_startup_trials=5",
        "median n_warmup_steps=3",
    )
    assert [(each.name, each.target, each.direction) for each in search.objectives] == [
        ("epochs-to-target", 0.95, "minimize")
    ]
    assert (search.trials, search.seeds, search.confirming_seeds, search.seed) == (30, (7, 8), (0, 1, 2), 5)
    assert search.budget is not None
    assert (search.budget.seconds, search.budget.is_wall_time, str(search.budget)) == (5400, False, "1.5 gpu-hours")
    assert {search.trials_of(cell) for cell in search.cells} == {30}


def test_what_need_not_be_said(write_grid: WriteGrid) -> None:
    search = load(write_grid, text(), "rates.yaml")
    assert (search.name, search.question) == ("rates", "")
    assert (str(search.sampler), str(search.pruner), search.objective.name) == ("tpe", "none", "accuracy")
    assert (search.seeds, search.confirming_seeds, search.seed, search.budget) == ((1000,), (0, 1, 2, 3, 4), 0, None)
    assert [search.trials_of(cell) for cell in search.cells] == [1, 4]  # a baseline has no dropout
    assert load(write_grid, text(f"dropout: {RANGE}", "seeds: 3")).seeds == (1000, 1001, 1002)


@pytest.mark.parametrize(
    ("words", "seconds", "wall"),
    [
        ("2hours", 7200, True),
        ("1 hour", 3600, True),
        ("90 minutes", 5400, True),
        ("0.5gpu-hours", 1800, False),
        ("1 GPU-hour", 3600, False),
        (".5 core-hours", 1800, False),
    ],
)
def test_budgets(words: str, seconds: float, wall: bool, write_grid: WriteGrid) -> None:
    budget = load(write_grid, text(f"dropout: {RANGE}", f"budget: {words}")).budget
    assert budget is not None
    assert (budget.seconds, budget.is_wall_time) == (seconds, wall)


def test_several_objectives(write_grid: WriteGrid) -> None:
    more = "objective: [accuracy, area, {name: epochs-to-target, target: 1}, {name: epochs-to-target, target: 0.9}]"
    search = load(write_grid, text(f"dropout: {RANGE}", more))
    assert [each.direction for each in search.objectives] == ["maximize", "maximize", "minimize", "minimize"]
    assert search.objective.name == "accuracy"


INCLUDE = "include: [{ordering: li2018, dropout: 0.1}]\n"
BASELINE = "baseline: {ordering: baseline}\n"
WILCOXON = "pruner: wilcoxon"
TWO = "objective: [accuracy, area]"
LIST = f"dropout: {RANGE}"
# What is in the file; the line that must be named; what must be said.
MISTAKES = {
    # The file and its keys.
    "empty file": ("", 1, "the file holds no search"),
    "a list": ("- a", 1, "the file holds no search"),
    "a grid alone": (HEAD, 1, "the key 'search' is missing"),
    "search of nothing": (
        HEAD + "search:",
        4,
        "search: {parameters: {dropout: {low: 0, high: 0.5}}, trials: 20}.",
    ),
    "search of a wrong type": (HEAD + "search: tpe", 4, "maps nothing"),
    "no parameters": (HEAD + "search:\n  trials: 3", 4, "lacks 'parameters'"),
    "no trials": (HEAD + f"search:\n  parameters: {{{LIST}}}", 4, "lacks 'trials'"),
    "unknown key": (text(LIST, "sampling: tpe"), 8, "Did you mean 'sampler'?"),
    "key of the grid": (text(LIST, "fixed: {width: 8}"), 8, "a search has no key 'fixed'"),
    "unknown key of the grid": (HEAD + "grids: {}\n" + text(head=""), 4, "Did you mean 'grid'?"),
    "a key too many levels up": (HEAD + "trials: 4\n" + text(head=""), 4, "Write it in search: {trials: ...}."),
    "a search's key at the top": (HEAD + "sampler: tpe\n" + text(head=""), 4, "Write it in search: {sampler: ...}."),
    "a mistake of the grid": (text(head=HEAD.replace("digits, depth", "digts, depth")), 2, "Did you mean 'digits'?"),
    "what the grid lacks": (text(head=RECIPE + "fixed: {dataset: digits}\n" + GRID), 1, "'depth' is given nowhere"),
    "a key twice": (text(LIST, "trials: 4", "trials: 5"), 8, "second time (first on line 7)"),
    "too long a name": (f"name: {'a' * 95}\n" + text(), 1, "At most 90 characters"),
    # Parameters.
    "parameters of a wrong type": (
        HEAD + "search:\n  parameters: [dropout]\n  trials: 4",
        5,
        "should map what is searched",
    ),
    "no parameter": (HEAD + "search:\n  parameters: {}\n  trials: 4", 5, "parameters: {dropout: {low: 0, high: 0.5}}"),
    "unknown parameter": (text(f"droput: {RANGE}"), 6, "Did you mean 'dropout'?"),
    "a part for a field": (text("shift: {low: 0, high: 3}"), 6, "Write augmentation.shift."),
    "seed": (text("seed: [1, 2]"), 6, "'seed' is nothing to search for"),
    "split": (text("split: [test, heldout]"), 6, "'split' is nothing to search for"),
    "recipe": (text("recipe: [digits, chen2019]"), 6, "field by field. Write learning_rate: {low: ..., high: ...}."),
    "part of a recipe": (text("recipe.epochs: {low: 1, high: 4}"), 6, "Write epochs: {low: ..., high: ...}."),
    "a number": (text("dropout: 0.1"), 6, "dropout: 0.1 is no range"),
    "a word": (text("norm: group"), 6, "'group' is no range. Write norm: {low: 0.0, high: 0.5}"),
    "nothing": (text("dropout:"), 6, "dropout: None is no range"),
    "a range's unknown key": (text("dropout: {low: 0, high: 0.5, steps: 0.1}"), 6, "Did you mean 'step'?"),
    "no low end": (text("dropout: {high: 0.5}"), 6, "the range lacks 'low'"),
    "no high end": (text("dropout: {low: 0}"), 6, "the range lacks 'high'"),
    "a word for a number": (text("dropout:\n      low: none\n      high: 0.5"), 7, "low: 'none' should be a number."),
    "a boolean for a number": (text("dropout: {low: false, high: 0.5}"), 6, "low: False should be a number."),
    "no number": (text("dropout:\n      low: 0\n      high: .nan"), 8, "high: nan should be a number."),
    "an infinite number": (text("learning_rate: {low: 0.1, high: .inf}"), 6, "high: inf should be a number."),
    "a number beyond numbers": (text(f"dropout: {{low: 0, high: 1{'0' * 400}}}"), 6, "... should be a number."),
    "low above high": (text("dropout:\n      low: 0.5\n      high: 0.1"), 8, "high: 0.1 should be above low, 0.5."),
    "low and high the same": (text("dropout: {low: 0.1, high: 0.1}"), 6, "high: 0.1 should be above low, 0.1."),
    "a step that does not divide": (text("dropout: {low: 0, high: 0.5, step: 0.3}"), 6, "The nearest: 0.6."),
    "a step longer than the range": (text("dropout: {low: 0, high: 0.5, step: 2}"), 6, "The nearest: 2."),
    "a step of 0": (text("dropout: {low: 0, high: 0.5, step: 0}"), 6, "step: 0 should be above 0."),
    "a step backwards": (text("dropout: {low: 0, high: 0.5, step: -0.1}"), 6, "step: -0.1 should be above 0."),
    "too small a step": (text("dropout: {low: 0, high: 0.5, step: 1e-9}"), 6, "makes more than 100,000 points"),
    "hardly a step": (text("dropout: {low: 0, high: 0.5, step: 1e-320}"), 6, "makes more than 100,000 points"),
    "log from 0": (text("dropout: {low: 0, high: 0.5, log: true}"), 6, "low: 0 has no logarithm"),
    "log and step": (text("dropout: {low: 0.1, high: 0.5, log: true, step: 0.1}"), 6, "Leave out step or log."),
    "log of a wrong type": (text("dropout: {low: 0.1, high: 0.5, log: 10}"), 6, "log: 10 should be true or false."),
    "per_stage of a wrong type": (text("dropout: {low: 0, high: 0.5, per_stage: 3}"), 6, "per_stage: 3 should be true"),
    "per_stage of another field": (
        text("width: {low: 8, high: 16, step: 8, per_stage: true}"),
        6,
        "Only dropout can be one a stage",
    ),
    "one choice": (text("norm: [group]"), 6, "Give two or more, or put it into fixed."),
    "no choice": (text("norm: []"), 6, "one choice is none"),
    "a choice twice": (text("norm:\n    - batch\n    - group\n    - batch"), 9, "norm: batch stands there twice."),
    "a choice in two spellings": (
        text("norm:\n    - group\n    - layer\n    - {name: group, groups: 8}"),
        9,
        "norm: group groups=8 comes to the same as group.",
    ),
    "an unknown choice": (text("norm:\n    - batch\n    - grup\n    - layer"), 8, "Did you mean 'group'?"),
    "a choice that is too large": (
        text("dropout:\n    - 0.1\n    - 1.5\n    - 0.2"),
        8,
        "dropout: 1.5 should be a number",
    ),
    "a choice of a recipe's field": (
        text("initialization:\n    - he-norml\n    - he-normal"),
        7,
        "Did you mean 'he-normal'?",
    ),
    "a choice that fits no LSTM": (
        text(
            "norm:\n    - layer\n    - batch\n    - none",
            head=RECIPE + "fixed: {dataset: digits, block: lstm, depth: 1, ordering: baseline}\n",
        ),
        7,
        "cannot stand in an LSTM",
    ),
    "a range of words": (text("ordering: {low: 0, high: 1}", head=RECIPE + FIXED), 6 - 1, "there is no ordering 1.0."),
    # Values that fields do not take.
    "a dropout rate of 1": (text("dropout:\n      low: 0\n      high: 1"), 8, "up to, but not including, 1."),
    "a dropout rate below 0": (
        text("dropout:\n      low: -0.1\n      high: 0.5"),
        7,
        "dropout: -0.1 should be a number",
    ),
    "a dropout rate of whole numbers": (
        text("dropout: {low: 0, high: 3}"),
        6,
        "dropout: 3.0 should be a number from 0",
    ),
    "a learning rate of 0": (text("learning_rate:\n      low: 0\n      high: 1"), 7, "0.0 should be a number above 0"),
    "a negative learning rate": (text("learning_rate: {low: -1, high: 1}"), 6, "-1.0 should be a number above 0"),
    "an impossible depth": (
        text("depth:\n      low: 8\n      high: 9", head=RECIPE + "fixed: {dataset: digits}\n" + GRID),
        8,
        "depth 9 is impossible: a basic ResNet has 6n+2 layers, n from 1 up. The nearest: 8 or 14.",
    ),
    "an impossible depth between": (
        text("depth: {low: 8, high: 20}", head=RECIPE + "fixed: {dataset: digits}\n" + GRID),
        6,
        "depth 9 is impossible",
    ),
    "a depth and a block": (
        text(
            "depth: {low: 8, high: 20, step: 6}\n    block: [basic, bottleneck]",
            head=RECIPE + "fixed: {dataset: digits}\n" + GRID,
        ),
        6,
        "depth 8 is impossible: a bottleneck ResNet has 9n+2 layers",
    ),
    "a fraction of a batch": (text("batch_size:\n      low: 8.5\n      high: 64"), 7, "8.5 should be a whole number"),
    "a fraction of an epoch": (
        text("epochs:\n      low: 1\n      high: 4.5"),
        8,
        "high: 4.5 should be a whole number, as",
    ),
    "a step of half a channel": (text("width: {low: 8, high: 16, step: 0.5}"), 6, "step: 0.5 should be a whole number"),
    "no batch": (text("batch_size: {low: 0, high: 64}"), 6, "0.0 should be a whole number from 1 up"),
    "too far a shift": (
        text("augmentation.shift: {low: 0, high: 9}\n    learning_rate: {low: 0.001, high: 0.1}"),
        6,
        "a shift of 9 pixels moves digits's 8x8 images out of sight",
    ),
    "a crop of digits": (text("augmentation.crop_area: {low: 0.1, high: 1}"), 6, "are shifted, not cropped"),
    "groups that do not divide": (
        text(
            "norm.groups: {low: 1, high: 16}", head=RECIPE + "fixed: {dataset: digits, depth: 8, norm: group}\n" + GRID
        ),
        6,
        "with groups: 3 cannot divide the 16 channels",
    ),
    "a switch as a range": (text("augmentation.flip: {low: 0, high: 1}"), 6, "flip: 0.0 should be true or false"),
    # Parts of fields.
    "a part of dropout": (text(f"dropout.stage1: {RANGE}"), 6, "dropout: {low: ..., high: ..., per_stage: true}"),
    "a part of a number": (text("depth.x: {low: 8, high: 14}"), 6, "depth has no parts. Search depth itself."),
    "a part of a list": (text("procedures.0: [warm-up, adabn]"), 6, "procedures has no parts"),
    "an unknown group": (text("weight_decay.conv: {low: 0, high: 1}"), 6, "Did you mean 'convolution'?"),
    "an unknown part": (text("augmentation.shft: {low: 0, high: 3}"), 6, "Did you mean 'shift'?"),
    "a part of a part": (text("weight_decay.other.x: {low: 0, high: 1}"), 6, "has no part 'other.x'"),
    "an unknown option": (text("norm.momentun: {low: 0.1, high: 0.5}"), 6, "Did you mean 'momentum'?"),
    "an option of no cell": (text("optimizer.momentum: {low: 0.5, high: 0.9}"), 6, "'adam' has no option 'momentum'"),
    "an option out of range": (
        text("optimizer.beta1: {low: 0.5, high: 1}"),
        6,
        "the option 'beta1' of 'adam': 1.0 should be",
    ),
    "a variant by name": (text("norm.name: [batch, group]"), 6, "Write norm: [...], or norm.OPTION."),
    "a norm's default": (text("norm_defaults.batch: {low: 0, high: 1}"), 6, "Write norm_defaults.batch.momentum."),
    "an empty part": (text("norm.: {low: 0, high: 1}"), 6, "'batch' has no option ''"),
    "a field and a part of it": (
        text("norm: [batch, group]\n    norm.epsilon: {low: 0.1, high: 0.2}"),
        7,
        "'norm.epsilon' is searched twice, by itself and as a part of 'norm'.",
    ),
    "a part and its field": (
        text("norm.epsilon: {low: 0.1, high: 0.2}\n    norm: [batch, group]"),
        7,
        "'norm.epsilon' is searched twice, by itself and as a part of 'norm'.",
    ),
    # Given and searched.
    "given in fixed": (
        text(head=HEAD.replace("8}", "8, dropout: 0.1}")),
        2,
        "'dropout' is given here, and searched for.",
    ),
    "given in grid": (text(head=HEAD.replace("v]}", "v], dropout: [0.1, 0.2]}")), 3, "given here, and searched for"),
    "given in zip": (text(head=HEAD + "zip: {dropout: [0.1]}\n"), 4, "given here, and searched for"),
    "given in include": (text(head=HEAD + INCLUDE), 4, "given here, and searched for"),
    "given in exclude": (text(head=HEAD + INCLUDE.replace("include", "exclude")), 4, "given here, and searched for"),
    "given in the recipe": (
        text(
            "learning_rate: {low: 0.1, high: 0.2}",
            head="recipe:\n  name: digits\n  learning_rate: 0.1\n" + FIXED + GRID,
        ),
        3,
        "'learning_rate' is given here, and searched for.",
    ),
    "given in a recipe of the grid": (
        text(
            "weight_decay.other: {low: 0.1, high: 0.2}",
            head=FIXED + GRID.replace("]}", "], recipe: [digits, {name: digits, weight_decay: {other: 0.1}}]}"),
        ),
        2,
        "'weight_decay.other' is given here, and searched for.",
    ),
    "weight decay given in the recipe": (
        text(
            "weight_decay: {low: 0.1, high: 0.2}",
            head="recipe: {name: digits, weight_decay: {other: 1}}\n" + FIXED + GRID,
        ),
        1,
        "'weight_decay' is given here, and searched for.",
    ),
    "an option that is given": (
        text(
            "norm.groups: [4, 8]",
            head=RECIPE + FIXED + "grid:\n  ordering: [baseline]\n  norm:\n  - batch\n  - {name: group, groups: 2}\n",
        ),
        7,
        "'norm.groups' is given here, and searched for.",
    ),
    "given for the baseline": (text(head=HEAD + "baseline: {dropout: 0}\n"), 4, "'dropout' of the baseline is given"),
    "given for one baseline": (
        text(head=HEAD + BASELINE + "include:\n- ordering: li2018\n  baseline: {dropout: 0.1}\n"),
        7,
        "'dropout' of the baseline is given",
    ),
    "a baseline that is not there": (
        text(head=HEAD + "baseline: {ordering: li2018}\n"),
        4,
        "the sweep lacks the baseline",
    ),
    "changes nothing": (text(head=HEAD.replace(", relu-ic-conv", "")), 6, "'dropout' changes nothing in any cell"),
    "changes nothing without padding": (
        text(
            "downsample_padding: [trailing, symmetric]",
            head=RECIPE + "fixed: {dataset: digits, depth: 20, block: bottleneck}\n" + GRID,
        ),
        6,
        "changes nothing in any cell",
    ),
    "cells that become one": (
        text("ordering: [relu-ic-conv, baseline]", head=RECIPE + FIXED + "grid: {dropout: [0.1, 0.2]}\n"),
        6,
        "cells of the grid are one with the last value of 'ordering', and several with others.",
    ),
    # Seeds and splits.
    "seed in the grid": (text(head=HEAD.replace("v]}", "v], seed: [1]}")), 3, "trials have seeds of their own"),
    "seed in an include": (text(head=HEAD + "include:\n- {ordering: li2018, seed: 1}\n"), 5, "Leave the seed out."),
    "seed in an exclude": (text(head=HEAD + "exclude:\n- {ordering: baseline, seed: 0}\n"), 5, "Leave the seed out."),
    "split in fixed": (
        text(head=HEAD.replace("8}", "8, split: heldout}")),
        2,
        "trials are judged on held-out training images",
    ),
    "split in an include": (
        text(head=HEAD + "include:\n- {ordering: li2018, split: test}\n"),
        5,
        "Leave the split out.",
    ),
    "no seeds": (text(LIST, "seeds: 0"), 8, "a number from 1 to 100, or a list of different whole numbers below 2^63"),
    "too many seeds": (text(LIST, "seeds: 101"), 8, "a number from 1 to 100"),
    "seeds true": (text(LIST, "seeds: true"), 8, "seeds: True should be"),
    "a seed of a wrong type": (text(LIST, "seeds: [1, a]"), 8, "seeds: 'a' is no other seed"),
    "a seed twice": (text(LIST, "seeds: [7, 8, 7]"), 8, "seeds: 7 is no other seed"),
    "a negative seed": (text(LIST, "seeds: [-1]"), 8, "seeds: -1 is no other seed"),
    "overlapping seeds": (text(LIST, "seeds: [5, 4]"), 8, "seed 4 would choose and report"),
    "overlapping seeds of the grid": (text(head=HEAD + "seeds: [1000]\n"), 4, "If only their number is given"),
    "seed of a wrong type": (text(LIST, "seed: many"), 8, "seed: 'many' should be a whole number from 0"),
    # How, and by what.
    "no trial": (text(LIST, "trials: 0"), 7, "trials: 0 should be a whole number from 1 to 10,000."),
    "half a trial": (text(LIST, "trials: 2.5"), 7, "trials: 2.5 should be a whole number"),
    "trials true": (text(LIST, "trials: true"), 7, "trials: True should be a whole number"),
    "trials without a value": (text(LIST, "trials:"), 7, "trials: None should be a whole number"),
    "unknown sampler": (text(LIST, "sampler: tp"), 8, "Did you mean 'tpe'? Valid: cmaes, gp, grid, qmc, random, tpe."),
    "sampler of a wrong type": (text(LIST, "sampler: 3"), 8, "3 is no sampler. Write one of: cmaes"),
    "sampler without a name": (text(LIST, "sampler: {seed: 3}"), 8, "is no sampler"),
    "unknown option of a sampler": (
        text(LIST, "sampler: {name: tpe, startup: 3}"),
        8,
        "Did you mean 'n_startup_trials'?",
    ),
    "option of a wrong type": (
        text(LIST, "sampler: {name: gp, n_startup_trials: a}"),
        8,
        "'a' should be a whole number",
    ),
    "no population": (text(LIST, "sampler: {name: cmaes, popsize: 1}"), 8, "popsize: 1 is no population"),
    "unknown sequence": (
        text(LIST, "sampler: {name: qmc, qmc_type: sobl}"),
        8,
        "there is no sequence 'sobl'. Write sobol or halton.",
    ),
    "an endless grid": (text(LIST, "sampler: grid"), 8, "a grid has no end along dropout. Give these ranges a step"),
    "too large a grid": (
        text("batch_size: {low: 1, high: 2000000000}", "sampler: grid"),
        8,
        "has 2,000,000,000 points",
    ),
    "too large a product": (
        text("dropout: {low: 0, high: 0.5, step: 0.001}\n    batch_size: {low: 1, high: 250}", "sampler: grid"),
        9,
        "has 125,250 points, more than 100,000",
    ),
    "cmaes along one line": (text(LIST, "sampler: cmaes"), 8, "cmaes needs two ranges or more"),
    "cmaes with choices": (
        text(
            "learning_rate: {low: 0.1, high: 0.2}\n    batch_size: {low: 8, high: 64}\n    norm: [batch, group]",
            "sampler: cmaes",
        ),
        10,
        "cmaes needs two ranges or more, and no choices",
    ),
    "cmaes in a cell with one range": (
        text("learning_rate: {low: 0.1, high: 0.2}\n    dropout: {low: 0, high: 0.5}", "sampler: cmaes"),
        9,
        "cmaes needs two ranges or more",
    ),
    "cmaes for two objectives": (
        text("learning_rate: {low: 0.1, high: 0.2}\n    batch_size: {low: 8, high: 64}", "sampler: cmaes", TWO),
        9,
        "cmaes takes one objective",
    ),
    "unknown pruner": (text(LIST, "pruner: halving"), 8, "Did you mean 'successive-halving'?"),
    "pruner of a wrong type": (text(LIST, "pruner: true"), 8, "True is no pruner"),
    "pruner without a value": (text(LIST, "pruner:"), 8, "None is no pruner"),
    "pruner for two objectives": (text(LIST, TWO, "pruner: median"), 9, "a pruner judges by one objective"),
    "nothing to reduce": (text(LIST, "pruner: {name: hyperband, reduction_factor: 1}"), 8, "reduces nothing"),
    "more epochs than there are": (
        text(LIST, "pruner: {name: hyperband, min_resource: 11}"),
        8,
        "min_resource is an epoch from which trials are pruned, and there are runs of 10.",
    ),
    "more epochs than some have": (
        text("epochs: {low: 2, high: 20}", "pruner: {name: successive-halving, min_resource: 3}"),
        8,
        "and there are runs of 2.",
    ),
    "wilcoxon with one seed": (
        text(LIST, WILCOXON),
        8,
        "spares none of 1: it can tell from 4 on. Give 5 seeds or more",
    ),
    "wilcoxon with few seeds": (text(LIST, WILCOXON, "seeds: 4"), 8, "spares none of 4"),
    "wilcoxon with a late start": (
        text(LIST, "pruner: {name: wilcoxon, n_startup_steps: 6}", "seeds: 6"),
        8,
        "can tell from 6 on",
    ),
    "wilcoxon with a threshold": (text(LIST, "pruner: {name: wilcoxon, p_threshold: 2}", "seeds: 6"), 8, "up to 1"),
    "unknown objective": (text(LIST, "objective: acuracy"), 8, "Did you mean 'accuracy'?"),
    "objective of a wrong type": (text(LIST, "objective: 3"), 8, "3 is no objective"),
    "no objective": (text(LIST, "objective: []"), 8, "objective: the list is empty"),
    "an objective twice": (text(LIST, "objective: [area, accuracy, area]"), 8, "'area' stands there twice"),
    "a target too many": (text(LIST, "objective: {name: area, target: 0.5}"), 8, "'area' has no 'target'"),
    "no target": (text(LIST, "objective: epochs-to-target"), 8, "Write {name: epochs-to-target, target: 0.95}."),
    "a target out of range": (text(LIST, "objective: {name: epochs-to-target, target: 95}"), 8, "above 0, up to 1"),
    "a target of 0": (text(LIST, "objective: {name: epochs-to-target, target: 0}"), 8, "above 0, up to 1"),
    "a target that is none": (text(LIST, "objective: {name: epochs-to-target, target: .nan}"), 8, "above 0, up to 1"),
    "a budget of nothing": (text(LIST, "budget: 0 hours"), 8, "no amount of time"),
    "a budget without a unit": (
        text(LIST, "budget: 20"),
        8,
        "Write budget: 2hours, or 30minutes, 20gpu-hours, 8core-hours.",
    ),
    "a budget in days": (text(LIST, "budget: 2 days"), 8, "'2 days' is no amount of time"),
    "a negative budget": (text(LIST, "budget: -2 hours"), 8, "no amount of time"),
    "a budget without end": (text(LIST, f"budget: {'9' * 400}hours"), 8, "no amount of time"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_named(case: str, write_grid: WriteGrid, tmp_path: Path) -> None:
    content, line, words = MISTAKES[case]
    file = write_grid(content)
    with pytest.raises(UserError) as caught:
        settings.load(file)
    message = str(caught.value)
    assert message.startswith(f"{file}:{line}: "), message
    assert words in message
    assert "\n" not in message
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("command", ["sweep", "plan"])
def test_a_search_is_no_sweep(command: str, icbench_here: Icbench, write_grid: WriteGrid, tmp_path: Path) -> None:
    write_grid(text())
    done = icbench_here(command, "grid.yaml")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "icbench: grid.yaml:4: a grid has no key 'search'. A file with a search is for: icbench search FILE.\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["grid.yaml"]


def test_a_mistake_at_the_command_line(icbench: Icbench, write_grid: WriteGrid, tmp_path: Path) -> None:
    write_grid(text("droput: {low: 0, high: 0.5}"))
    done = icbench("search", "grid.yaml", "--dry-run")
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(r"icbench: grid\.yaml:6: neither .* 'droput'\. Did you mean 'dropout'\? .*\n", done.err)
    assert [path.name for path in tmp_path.iterdir()] == ["grid.yaml"]


_NAMES = """
dropout norm norm.epsilon weight_decay weight_decay.other depth batch_size procedures optimizer.beta1 low high step log
per_stage name target tpe grid cmaes wilcoxon hyperband batch group min_resource epochs-to-target accuracy 2hours
parameters trials seeds sampler pruner objective budget
"""
_words = st.sampled_from(_NAMES.split())
_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.integers(),
    st.floats(),
    st.sampled_from([0.0, 0.1, 0.5, 1e-320, 1e308, 10**400]),
    _words,
    st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=5),
)
_values = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=4),
    max_leaves=6,
)
_numbers = st.one_of(st.integers(-2, 70), st.floats(-1, 100), st.sampled_from([0, 0.1, 0.5, 1, 8, 14, 20]), _leaves)
_ranges = st.fixed_dictionaries(
    {"low": _numbers, "high": _numbers},
    optional={"step": _numbers, "log": st.booleans(), "per_stage": st.booleans()},
)
_sections = st.fixed_dictionaries(
    {
        "parameters": st.dictionaries(_words, _ranges | _values, min_size=1, max_size=3) | _values,
        "trials": st.just(3) | _values,
    },
    optional=dict.fromkeys(("seeds", "seed", "sampler", "pruner", "objective", "budget"), _values),
)


@hypothesis(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(section=_sections | _values)
@example(section={"parameters": {"batch_size": {"low": 1, "high": 2**31}}, "trials": 3, "sampler": "grid"})
@example(section={"parameters": {"dropout": {"low": -1e308, "high": 1e308, "step": 1e308}}, "trials": 3})
def test_whatever_stands_there(section: Any, write_grid: WriteGrid) -> None:
    """A search, or a mistake with its line; nothing else, and all that is then asked of a search has an answer."""
    file = write_grid(HEAD + yaml.safe_dump({"search": section}))
    try:
        search = settings.load(file)
    except UserError as error:
        said = str(error)
    else:
        _ask(search)
        return
    assert said.startswith(f"{file}:")


def _ask(search: Search) -> None:
    assert search.corners().cells
    for cell in search.cells:
        assert search.trials_of(cell) >= 1
        assert search.study_name(cell)
        for each in cell.space.dimensions:
            assert all(each.exact(value) == value for value in each.ends)


# By parameters and values of one trial: what to write by hand for the same runs, beside the file's own.
EQUIVALENT: dict[str, tuple[str, dict[str, Value], str]] = {
    "dropout": ("dropout: {low: 0, high: 0.5, step: 0.05}", {"dropout": 0.15000000000000002}, "{dropout: 0.15}"),
    "dropout by choice": ("dropout: [0.05, 0.15, 0.3]", {"dropout": "0.3"}, "{dropout: 0.3}"),
    "dropout by stage": (
        "dropout: {low: 0, high: 0.5, step: 0.1, per_stage: true}",
        {"dropout.stage1": 0.1, "dropout.stage2": 0.30000000000000004, "dropout.stage3": 0.0},
        "{dropout: [0.1, 0.3, 0]}",
    ),
    "the same by stage": (
        "dropout: {low: 0, high: 0.5, per_stage: true}",
        {f"dropout.stage{n}": 0.25 for n in (1, 2, 3)},
        "{dropout: 0.25}",
    ),
    "learning rate": (
        "learning_rate: {low: 1e-4, high: 1, log: true}",
        {"learning_rate": 0.01},
        "{recipe: {name: digits, learning_rate: 0.01}}",
    ),
    "epochs": ("epochs: {low: 2, high: 20}", {"epochs": 15}, "{recipe: {name: digits, epochs: 15}}"),
    "batch size and width": (
        "batch_size: {low: 8, high: 128, log: true}\n    width: {low: 8, high: 32, step: 8}",
        {"batch_size": 37, "width": 24},
        "{recipe: {name: digits, batch_size: 37}, width: 24}",
    ),
    "weight decay of all": (
        "weight_decay: {low: 1e-6, high: 1e-2, log: true}",
        {"weight_decay": 0.001},
        "{recipe: {name: digits, weight_decay: {convolution: 0.001, classifier: 0.001}}}",
    ),
    "weight decay of a group": (
        "weight_decay.other: {low: 0, high: 0.1}",
        {"weight_decay.other": 0.001},
        "{recipe: {name: digits, weight_decay: {other: 0.001}}}",
    ),
    "weight decay by choice": (
        "weight_decay: [1e-4, {other: 1e-3}]",
        {"weight_decay": "other=0.001"},
        "{recipe: {name: digits, weight_decay: {other: 0.001}}}",
    ),
    "norms": (
        "norm: [batch, {name: group, groups: 4}]",
        {"norm": "group groups=4"},
        "{norm: {name: group, groups: 4}}",
    ),
    "a norm's option": (
        "norm.momentum: {low: 0.1, high: 0.9}",
        {"norm.momentum": 0.3},
        "{norm: {name: batch, momentum: 0.3}}",
    ),
    "an optimizer's option": (
        "optimizer.beta1: {low: 0.5, high: 0.99}\n    optimizer.epsilon: [1e-8, 1e-6]",
        {"optimizer.beta1": 0.8, "optimizer.epsilon": "1e-06"},
        "{recipe: {name: digits, optimizer: {beta1: 0.8, epsilon: 1e-6}}}",
    ),
    "optimizers": (
        "optimizer: [adam, {name: sgd, momentum: 0.5}]",
        {"optimizer": "sgd momentum=0.5"},
        "{recipe: {name: digits, optimizer: {name: sgd, momentum: 0.5}}}",
    ),
    "augmentation": (
        "augmentation: [{shift: 2, flip: true}, {shift: 1}]\n    learning_rate: {low: 0.01, high: 1}",
        {"augmentation": "shift=2 flip=true", "learning_rate": 0.05},
        "{recipe: {name: digits, augmentation: {shift: 2, flip: true}, learning_rate: 0.05}}",
    ),
    "parts of augmentation": (
        "augmentation.shift: {low: 0, high: 3}\n    augmentation.flip: [true, false]",
        {"augmentation.shift": 2, "augmentation.flip": "true"},
        "{recipe: {name: digits, augmentation: {shift: 2, flip: true}}}",
    ),
    "norm defaults": (
        "norm_defaults.batch.momentum: {low: 0.1, high: 0.9}",
        {"norm_defaults.batch.momentum": 0.2},
        "{norm: {name: batch, momentum: 0.2}}",
    ),
    "procedures": (
        "procedures: [[], [warm-up, adabn]]",
        {"procedures": "[warm-up, adabn]"},
        "{procedures: [adabn, warm-up]}",
    ),
    "precision": ("precision: [float32, float64]", {"precision": "float64"}, "{precision: float64}"),
}


@pytest.mark.parametrize("case", EQUIVALENT)
def test_values_make_the_runs_that_one_would_write(case: str, write_grid: WriteGrid) -> None:
    parameters, values, written = EQUIVALENT[case]
    search = load(write_grid, text(parameters, "seeds: [21, 22]"))
    cell = search.cells[-1]
    exact = {each.name: each.exact(values[each.name]) for each in cell.space.dimensions}
    fields = {"dataset": "digits", "depth": 8, "ordering": "relu-ic-conv", "split": "heldout", "recipe": "digits"}
    by_hand = {"fixed": fields | yaml.safe_load(written.replace("e-", ".0e-")), "seeds": [21, 22]}
    sweep = grid.load(write_grid(yaml.safe_dump(by_hand), "by-hand.yaml"))
    assert [run_id for run_id, _ in cell.runs(exact, search.seeds)] == sweep.run_ids
    again = {"include": [cell.space.yaml(exact) | {"split": "heldout"}], "seeds": [21, 22]}
    assert grid.load(write_grid(yaml.safe_dump(again), "again.yaml")).run_ids == sweep.run_ids


def test_steps_are_what_people_write(write_grid: WriteGrid) -> None:
    def points(range_: str, name: str = "dropout") -> tuple[Value, ...]:
        return load(write_grid, text(f"{name}: {range_}")).cells[-1].space.dimensions[0].points() or ()

    assert points("{low: 0.05, high: 0.4, step: 0.05}") == (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
    assert points("{low: 1e-16, high: 4e-16, step: 1e-16}", "weight_decay.other") == (1e-16, 2e-16, 3e-16, 4e-16)
    assert points("{low: 8, high: 32, step: 8}", "width") == (8, 16, 24, 32)
    assert points("{low: 5, high: 8}", "epochs") == (5, 6, 7, 8)
    assert all(type(point) is int for point in points("{low: 5, high: 8}", "epochs"))
    assert len(points("{low: 0, high: 0.9999, step: 0.3333}")) == 4
    assert points(RANGE) == ()
    assert points("{low: 5, high: 8, log: true}", "epochs") == ()


def test_what_does_not_matter_to_a_cell_is_dropped_there(write_grid: WriteGrid) -> None:
    def dimensions(parameters: str, head: str) -> list[list[str]]:
        search = load(write_grid, text(parameters, head=head))
        return [[each.name for each in cell.space.dimensions] for cell in search.cells]

    assert dimensions(f"dropout: {RANGE}", HEAD) == [[], ["dropout"]]
    norms = "norm: [batch, none, group]"
    several = RECIPE + FIXED + f"grid: {{ordering: [baseline], {norms}}}\n"
    assert dimensions("norm.groups: [4, 8]", several) == [[], [], ["norm.groups"]]
    assert dimensions("sync_batch_norm: [false, true]", several) == [["sync_batch_norm"], [], []]
    # Of curriculum dropout there is nothing where there is no dropout, at the low end.
    both = f"dropout: {RANGE}\n    procedures: [[], [curriculum-dropout]]"
    assert dimensions(both, HEAD) == [[], ["dropout", "procedures"]]
    last_stage = text("dropout: {low: 0, high: 0.5, per_stage: true}", head=HEAD.replace("relu-ic-conv", "li2018"))
    cell = load(write_grid, last_stage).cells[1]
    assert [each.name for each in cell.space.dimensions] == ["dropout.stage3"]
    assert cell.space.config({"dropout.stage3": 0.2}).dropout == 0.2


def test_cells_that_differ_by_dropout_alone_are_told_apart(write_grid: WriteGrid) -> None:
    head = RECIPE + FIXED + "grid: {ordering: [baseline, relu-ic-conv], procedures: [[], [curriculum-dropout]]}\n"
    search = load(write_grid, text(head=head))
    assert [cell.words for cell in search.cells] == [
        "baseline-v1 digits basic-8",
        "relu-ic-conv digits basic-8",
        "relu-ic-conv digits basic-8 with curriculum-dropout steepness=10.0",
    ]
    assert len({cell.key for cell in search.cells}) == 3


def test_the_words_for_a_cell_leave_out_what_is_searched(write_grid: WriteGrid) -> None:
    def words(parameters: str, head: str) -> list[str]:
        search = load(write_grid, text(parameters, head=head))
        names = [search.study_name(cell) for cell in search.cells]
        assert len(set(names)) == len(names)
        return [cell.words for cell in search.cells]

    fixed = RECIPE + "fixed: {dataset: digits}\n"
    assert words("depth: [8, 14]\n    ordering: [li2018, baseline]\n    width: [8, 16]", fixed) == ["* digits basic-*"]
    assert words(
        "block: [basic, bottleneck]\n    norm: [batch, group]\n    precision: [float32, float64]",
        fixed + "grid: {ordering: [li2018], depth: [20]}\n",
    ) == ["li2018 digits *-20 dropout 0.05"]
    recipes = FIXED + "grid: {ordering: [baseline], recipe: [digits, {name: digits, epochs: 3}]}\n"
    assert words("learning_rate: {low: 0.1, high: 0.2}", recipes) == [
        "baseline-v1 digits basic-8 recipe digits",
        "baseline-v1 digits basic-8 recipe digits epochs=3",
    ]
    grouped = RECIPE + FIXED + "grid: {ordering: [li2018], norm: [{name: group, groups: 4}]}\n"
    assert words("norm.epsilon: {low: 0.1, high: 0.2}\n    dropout: [0, 0.5]", grouped) == [
        "li2018 digits basic-8 group groups=4"
    ]
    norms = RECIPE + FIXED + "grid: {ordering: [baseline], norm: [batch, {name: batch, momentum: 0.5}]}\n"
    assert words("learning_rate: {low: 0.1, high: 0.2}", norms) == [
        "baseline-v1 digits basic-8 norm batch epsilon=1e-05 momentum=0.1",
        "baseline-v1 digits basic-8 norm batch epsilon=1e-05 momentum=0.5",
    ]


WHOLE = {"parameters": "dropout: {low: 0, high: 0.5, step: 0.05}", "head": HEAD, "more": ("trials: 4", "seeds: 2")}
CHANGED: dict[str, dict[str, Any]] = {
    "low": {"parameters": "dropout: {low: 0.05, high: 0.5, step: 0.05}"},
    "high": {"parameters": "dropout: {low: 0, high: 0.45, step: 0.05}"},
    "step": {"parameters": "dropout: {low: 0, high: 0.5, step: 0.1}"},
    "no step": {"parameters": "dropout: {low: 0, high: 0.5}"},
    "log": {"parameters": "dropout: {low: 0.05, high: 0.5, log: true}"},
    "stages": {"parameters": "dropout: {low: 0, high: 0.5, step: 0.05, per_stage: true}"},
    "choices": {"parameters": "dropout: [0.1, 0.2]"},
    "another parameter": {
        "parameters": "dropout: {low: 0, high: 0.5, step: 0.05}\n    learning_rate: {low: 0.1, high: 1}"
    },
    "seeds": {"more": ("seeds: 3",)},
    "other seeds": {"more": ("seeds: [1001, 1000]",)},
    "seed": {"more": ("seeds: 2", "seed: 1")},
    "sampler": {"more": ("seeds: 2", "sampler: random")},
    "sampler's option": {"more": ("seeds: 2", "sampler: {name: tpe, n_startup_trials: 5}")},
    "pruner": {"more": ("seeds: 2", "pruner: median")},
    "pruner's option": {"more": ("seeds: 2", "pruner: {name: median, n_startup_trials: 4}")},
    "objective": {"more": ("seeds: 2", "objective: area")},
    "target": {"more": ("seeds: 2", "objective: {name: epochs-to-target, target: 0.9}")},
    "objectives": {"more": ("seeds: 2", "objective: [accuracy, area]")},
    "recipe": {"head": HEAD.replace(RECIPE, "recipe: {name: digits, epochs: 11}\n")},
    "depth": {"head": HEAD.replace("8", "14")},
}
SAME: dict[str, dict[str, Any]] = {
    "trials": {"more": ("trials: 400", "seeds: 2")},
    "budget": {"more": ("seeds: 2", "budget: 1hour")},
    "question": {"head": "question: Why?\n" + HEAD},
    "confirming seeds": {"head": HEAD + "seeds: 20\n"},
    "baseline": {"head": HEAD + BASELINE},
    "more cells": {"head": HEAD.replace("[baseline,", "[li2018, baseline,")},
    "spelling": {
        "parameters": "{dropout: {step: 5e-2, high: .5, low: 0.0}}".strip("{}") + "}",
        "head": HEAD.replace("8}", "8.0, width: 16}"),
    },
    "what is said anyway": {
        "more": ("seeds: [1000, 1001]", "sampler: {name: tpe}", "pruner: none", "objective: [accuracy]")
    },
}


def _keys(write_grid: WriteGrid, change: dict[str, Any]) -> set[str]:
    said = WHOLE | change
    search = load(write_grid, text(said["parameters"], *said["more"], head=said["head"]))
    return {cell.key for cell in search.cells if cell.config.ordering == "relu-ic-conv"}


def test_searches_that_differ_in_what_matters_have_other_studies(write_grid: WriteGrid) -> None:
    keys = {case: _keys(write_grid, change) for case, change in {"whole": {}, **CHANGED}.items()}
    assert all(len(found) == 1 for found in keys.values())
    assert len({key for found in keys.values() for key in found}) == len(keys), keys
    unseeded = load(write_grid, text())
    assert len({cell.key for cell in unseeded.cells}) == 2


@pytest.mark.parametrize("case", SAME)
def test_what_does_not_matter_to_a_study(case: str, write_grid: WriteGrid) -> None:
    assert _keys(write_grid, SAME[case]) == _keys(write_grid, {})


def test_the_keys_of_our_search_never_change() -> None:
    """Else whoever goes on with it begins anew."""
    search = settings.load(REPOSITORY / "sweeps" / "search-dropout.yaml")
    assert {cell.words: cell.key for cell in search.cells} == {
        "baseline-v1 digits basic-8": "e30d45d0",
        "relu-ic-conv digits basic-8": "de2013b5",
        "ic-conv-relu digits basic-8": "87d007ab",
        "conv-relu-ic digits basic-8": "adf44186",
    }


def test_corners(write_grid: WriteGrid) -> None:
    """What `--dry-run` and `search` try to build: each end of each range, each choice; a cell without any."""
    search = load(write_grid, text("dropout: {low: 0.1, high: 0.5, step: 0.1}\n    norm: [batch, group, none]"))
    corners = search.corners()
    found = [(cell.config.ordering, cell.config.dropout, cell.config.norm.name) for cell in corners.cells]
    assert found == [
        *(("baseline-v1", None, norm) for norm in ("batch", "group", "none")),
        ("relu-ic-conv", 0.1, "batch"),
        ("relu-ic-conv", 0.5, "batch"),
        ("relu-ic-conv", 0.1, "group"),
        ("relu-ic-conv", 0.1, "none"),
    ]
    assert {cell.config.split for cell in corners.cells} == {"heldout"}
    assert {cell.seeds for cell in corners.cells} == {search.seeds}
    only = load(write_grid, text(head=HEAD)).corners()
    assert [(cell.config.ordering, cell.config.dropout) for cell in only.cells] == [
        ("baseline-v1", None),
        ("relu-ic-conv", 0.0),
        ("relu-ic-conv", 0.5),
    ]


DIGITS = replace(named("digits"), epochs=8, learning_rate_steps=((3, 0.1), (6, 0.1)))


def objective(raw: object) -> Objective:
    (parsed,) = parse_objectives(raw, ())
    return parsed


def test_the_last_accuracy() -> None:
    of = objective("accuracy")
    assert of.value([0.2], DIGITS) == 0.2
    assert of.value([0.2, 0.9, 0.7], DIGITS) == 0.7
    assert (of.worst(DIGITS), of.direction, of.title) == (0.0, "maximize", "held-out accuracy")


def test_the_area_ends_where_the_learning_rate_drops() -> None:
    of = objective("area")
    curve = [0.1, 0.4, 0.7, 1.0, 0.0, 1.0, 0.0, 1.0]
    assert [of.value(curve[:epoch], DIGITS) for epoch in (1, 2, 3, 4, 8)] == pytest.approx([0.1, 0.25, 0.4, 0.4, 0.4])
    rates = [learning_rate(DIGITS, epoch) for epoch in range(1, 9)]
    assert of.value(curve, DIGITS) == pytest.approx(metrics.area(curve[: metrics.epochs_before_drop(rates)]))
    never = replace(DIGITS, learning_rate_steps=())
    assert of.value(curve, never) == pytest.approx(sum(curve) / 8)
    assert (of.worst(DIGITS), of.direction) == (0.0, "maximize")


def test_epochs_to_a_target() -> None:
    of = objective({"name": "epochs-to-target", "target": 0.8})
    curve = [0.2, 0.4, 0.8, 0.7, 0.9]
    assert of.value(curve, DIGITS) == 3 == metrics.epochs_to(0.8, curve)
    assert [of.value(curve[:epoch], DIGITS) for epoch in (1, 2)] == pytest.approx([8 * 1.75, 8 * 1.5])
    assert of.value([0.0], DIGITS) == 16 == of.worst(DIGITS)
    assert of.value([0.1] * 7 + [0.8], DIGITS) == 8
    assert (of.direction, of.title) == ("minimize", "epochs to 80 % held-out accuracy")


_curves = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(curve=_curves, other=_curves, target=st.floats(0.01, 1))
def test_a_run_that_misses_its_target_is_worse_the_further_it_stays_from_it(
    curve: list[float], other: list[float], target: float
) -> None:
    of = objective({"name": "epochs-to-target", "target": target})
    told = [of.value(curve[:epoch], DIGITS) for epoch in range(1, len(curve) + 1)]
    assert told == sorted(told, reverse=True)  # what is known of a run only ever gets better
    assert told[-1] <= of.worst(DIGITS)
    if max(curve) < target:
        assert told[-1] >= DIGITS.epochs
        assert of.value(other, DIGITS) <= told[-1] or max(other) <= max(curve)


def test_another_name(write_grid: WriteGrid) -> None:
    file = write_grid(text())
    assert settings.load(file, "other") == replace(settings.load(file), name="other")
