"""The sweep that a search ends with: a grid as it is, of what was found and of what that is compared with."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import yaml

from icbench import grid
from icbench.config import RunConfig
from icbench.grid import Sweep
from icbench.search import confirm, settings
from icbench.search.settings import Search
from icbench.search.study import CellStudy

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

HEAD = """
recipe: digits
fixed: {dataset: digits, depth: 8}
grid: {ordering: [baseline, relu-ic-conv]}
"""
BASELINE = "baseline: {ordering: baseline}\n"
RATES = "dropout: {low: 0, high: 0.5, step: 0.05}"
RATE = "learning_rate: {low: 1e-4, high: 1, log: true}"
# By cell, the values that were tried with what came of them.
Tried = list[tuple[dict[str, Any], float | tuple[float, ...]]]


def searched(
    folder: Path, parameters: list[str], tried: list[Tried], *more: str, head: str = HEAD
) -> tuple[Search, str]:
    """A search whose cells have had these trials, and the sweep that confirms it."""
    import optuna

    lines = "".join(f"    {each}\n" for each in parameters) + "".join(f"  {each}\n" for each in ("trials: 9", *more))
    file = folder / "found.yaml"
    file.write_text(f"{head}search:\n  parameters:\n{lines}")
    search = settings.load(file)
    database = cast("RDBStorage", optuna.storages.InMemoryStorage())
    studies = [CellStudy(search, cell, database) for cell in search.cells]
    for study, trials in zip(studies, tried, strict=True):
        distributions = {each.name: each.distribution() for each in study.cell.space.dimensions}
        for values, came_to in trials:
            figures = list(came_to) if isinstance(came_to, tuple) else [came_to]
            trial = optuna.trial.create_trial(values=figures, params=values, distributions=distributions)
            study.study.add_trial(trial)
    return search, confirm.grid(search, studies)


def sweep_of(folder: Path, text: str) -> Sweep:
    file = folder / "confirm.yaml"
    file.write_text(text)
    return grid.load(file)


def compared(sweep: Sweep) -> list[tuple[RunConfig, RunConfig | None]]:
    """Each cell with its baseline."""
    cells = {cell.cell_id: cell.config for cell in sweep.cells}
    return [(config, cells.get(sweep.baselines.get(cell_id, ""))) for cell_id, config in cells.items()]


def test_the_best_the_papers_and_the_baseline(tmp_path: Path) -> None:
    tried: list[Tried] = [[({}, 0.9)], [({"dropout": 0.1}, 0.91), ({"dropout": 0.30000000000000004}, 0.95)]]
    search, text = searched(tmp_path, [RATES], tried, head=HEAD + BASELINE)
    sweep = sweep_of(tmp_path, text)
    assert (sweep.name, sweep.question) == (
        "found-confirm",
        "Do the values that found found do better than a dropout rate of 0.05 on test images?",
    )
    found = [(config.ordering, config.dropout, base and base.ordering) for config, base in compared(sweep)]
    assert found == [
        ("baseline-v1", None, None),
        ("relu-ic-conv", 0.3, "baseline-v1"),
        ("relu-ic-conv", 0.05, "baseline-v1"),
    ]
    assert all(cell.config.split == "test" for cell in sweep.cells)
    assert all(cell.seeds == (0, 1, 2, 3, 4) == search.confirming_seeds for cell in sweep.cells)
    assert not set(search.seeds) & set(search.confirming_seeds)
    by_hand = HEAD.replace("]}", "], dropout: [0.3, 0.05]}") + "seeds: 5\n" + BASELINE
    assert sorted(sweep_of(tmp_path, by_hand).run_ids) == sorted(sweep.run_ids)
    assert text.startswith("# Written by `icbench search`: what found found")


def test_the_seeds_that_the_file_asks_for(tmp_path: Path) -> None:
    head = HEAD + "seeds: [11, 13]\n"
    _, text = searched(tmp_path, [RATES], [[({}, 0.9)], [({"dropout": 0.3}, 0.9)]], head=head)
    assert {cell.seeds for cell in sweep_of(tmp_path, text).cells} == {(11, 13)}


def test_one_arm_where_the_paper_is_right(tmp_path: Path) -> None:
    _, text = searched(tmp_path, [RATES], [[({}, 0.9)], [({"dropout": 0.05}, 0.95)]], head=HEAD + BASELINE)
    assert [cell.config.dropout for cell in sweep_of(tmp_path, text).cells] == [None, 0.05]


@pytest.mark.parametrize(
    ("parameter", "values", "rates"),
    [
        ("dropout: [0.1, 0.2]", {"dropout": "0.2"}, [0.2, 0.05]),
        ("dropout: [0.05, 0.2]", {"dropout": "0.05"}, [0.05]),
        ("dropout: [[0.1, 0.2, 0.3], 0.1]", {"dropout": "[0.1, 0.2, 0.3]"}, [(0.1, 0.2, 0.3), 0.05]),
        (
            "dropout: {low: 0, high: 0.5, step: 0.05, per_stage: true}",
            {"dropout.stage1": 0.0, "dropout.stage2": 0.1, "dropout.stage3": 0.35000000000000003},
            [(0.0, 0.1, 0.35), 0.05],
        ),
        (
            "dropout: {low: 0, high: 0.5, step: 0.05, per_stage: true}",
            {f"dropout.stage{n}": 0.05 for n in (1, 2, 3)},
            [0.05],
        ),
    ],
)
def test_rates_in_every_form(parameter: str, values: dict[str, Any], rates: list[Any], tmp_path: Path) -> None:
    _, text = searched(tmp_path, [parameter], [[({}, 0.9)], [(values, 0.9)]])
    assert [cell.config.dropout for cell in sweep_of(tmp_path, text).cells] == [None, *rates]


def test_baselines_are_tuned_as_well(tmp_path: Path) -> None:
    """Each arm is compared with the baseline of its own best learning rate."""
    tried: list[Tried] = [
        [({"learning_rate": 0.01}, 0.9), ({"learning_rate": 0.1}, 0.8)],
        [({"dropout": 0.2, "learning_rate": 0.003}, 0.95)],
    ]
    _, text = searched(tmp_path, [RATES, RATE], tried, head=HEAD + BASELINE)
    found = [
        (config.ordering, config.dropout, config.recipe.learning_rate, base and base.recipe.learning_rate)
        for config, base in compared(sweep_of(tmp_path, text))
    ]
    assert found == [
        ("baseline-v1", None, 0.01, None),
        ("relu-ic-conv", 0.2, 0.003, 0.01),
        ("relu-ic-conv", 0.05, 0.003, 0.01),
    ]
    assert yaml.safe_load(text)["include"][1]["baseline"] == {"recipe": {"name": "digits", "learning_rate": 0.01}}


def test_a_baseline_with_a_rate_of_its_own(tmp_path: Path) -> None:
    tried: list[Tried] = [[({"dropout": 0.4}, 0.9)], [({"dropout": 0.2}, 0.95)]]
    head = HEAD.replace("[baseline,", "[li2018,") + "baseline: {ordering: li2018}\n"
    _, text = searched(tmp_path, [RATES], tried, head=head)
    found = [
        (config.ordering, config.dropout, base and base.dropout) for config, base in compared(sweep_of(tmp_path, text))
    ]
    assert found == [
        ("li2018", 0.4, None),
        ("li2018", 0.05, None),
        ("relu-ic-conv", 0.2, 0.4),
        ("relu-ic-conv", 0.05, 0.4),
    ]


def test_recipes_are_compared_each_at_its_best(tmp_path: Path) -> None:
    """What the baseline changes is searched in parts: its own best values stay."""
    head = """
fixed: {dataset: digits, depth: 8, ordering: baseline}
grid: {recipe: [digits, {name: digits, optimizer: sgd}], norm: [batch, none]}
baseline: {recipe: digits}
"""
    tried: list[Tried] = [[({"learning_rate": rate}, 0.9)] for rate in (0.01, 0.02, 0.3, 0.4)]
    _, text = searched(tmp_path, [RATE], tried, head=head)
    found = [
        (
            config.recipe.optimizer.name,
            config.norm.name,
            config.recipe.learning_rate,
            base and base.recipe.learning_rate,
        )
        for config, base in compared(sweep_of(tmp_path, text))
    ]
    assert found == [
        ("adam", "batch", 0.01, None),
        ("adam", "none", 0.02, None),
        ("sgd", "batch", 0.3, 0.01),
        ("sgd", "none", 0.4, 0.02),
    ]
    assert "as well" not in text
    assert "do better than the baseline on test images?" in text


def test_a_front_has_several_best(tmp_path: Path) -> None:
    """Each with its arm; of the baseline's, the first is what they are compared with."""
    tried: list[Tried] = [
        [
            ({"learning_rate": 0.01}, (0.9, 0.5)),
            ({"learning_rate": 0.02}, (0.8, 0.6)),
            ({"learning_rate": 0.5}, (0.1, 0.1)),
        ],
        [
            ({"learning_rate": 0.1, "dropout": 0.1}, (0.9, 0.5)),
            ({"learning_rate": 0.2, "dropout": 0.2}, (0.8, 0.6)),
            ({"learning_rate": 0.2, "dropout": 0.2}, (0.8, 0.6)),
            ({"learning_rate": 0.3, "dropout": 0.3}, (0.7, 0.55)),
        ],
    ]
    more = "objective: [accuracy, area]"
    _, text = searched(tmp_path, [RATES, RATE], tried, more, head=HEAD + BASELINE)
    found = [
        (config.dropout, config.recipe.learning_rate, base and base.recipe.learning_rate)
        for config, base in compared(sweep_of(tmp_path, text))
    ]
    assert found == [
        (None, 0.01, None),
        (None, 0.02, None),
        (0.1, 0.1, 0.01),
        (0.05, 0.1, 0.01),
        (0.2, 0.2, 0.01),
        (0.05, 0.2, 0.01),
    ]


def test_cells_without_a_trial_are_left_out(tmp_path: Path) -> None:
    tuned: Tried = [({"learning_rate": 0.01}, 0.9)]
    both: Tried = [({"learning_rate": 0.1, "dropout": 0.2}, 0.9)]
    _, text = searched(tmp_path, [RATES, RATE], [tuned, []], head=HEAD + BASELINE)
    assert [cell.config.ordering for cell in sweep_of(tmp_path, text).cells] == ["baseline-v1"]
    # Without its baseline a cell could not be compared with anything.
    assert searched(tmp_path, [RATES, RATE], [[], both], head=HEAD + BASELINE)[1] == ""
    _, text = searched(tmp_path, [RATES, RATE], [[], both])
    assert [cell.config.dropout for cell in sweep_of(tmp_path, text).cells] == [0.2, 0.05]
    assert searched(tmp_path, [RATES, RATE], [[], []])[1] == ""


def test_what_was_searched_but_rates(tmp_path: Path) -> None:
    parameters = ["norm: [batch, {name: group, groups: 4}]", "epochs: {low: 3, high: 12}", "weight_decay: [0, 1e-8]"]
    values = {"norm": "group groups=4", "epochs": 7, "weight_decay": "1e-08"}
    search, text = searched(tmp_path, parameters, [[(values, 0.9)], [(values, 0.9)]])
    assert "Do the values that found found do as well on test images?" in text
    configs = [cell.config for cell in sweep_of(tmp_path, text).cells]
    assert [(str(c.norm), c.recipe.epochs, c.recipe.weight_decay.convolution) for c in configs] == [
        ("group epsilon=1e-05 groups=4", 7, 1e-8)
    ] * 2
    heldout = [run_id for cell in search.cells for run_id, _ in cell.runs(values, search.confirming_seeds)]
    assert not set(heldout) & set(sweep_of(tmp_path, text).run_ids)
