"""What a grid names, and what happens to mistakes in it."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY, Icbench

from icbench import grid
from icbench.config import Cell, Variant
from icbench.errors import UserError
from icbench.resolve import Given, parse_field, resolve
from icbench.search import settings

WriteGrid = Callable[..., Path]

ISSUE_EXAMPLE = """
name: quickstart
question: Does an IC layer help on digits?
recipe: digits
fixed: {dataset: digits, block: basic}
grid:
  ordering: [baseline, relu-ic-conv, ic-conv-relu, conv-relu-ic]
  dropout: [0.05, 0.1]
zip: {depth: [8, 14], width: [16, 8]}
include: [{ordering: baseline, depth: 20}]
exclude: [{ordering: ic-conv-relu, dropout: 0.1}]
seeds: 3
baseline: {ordering: baseline}
"""


def test_a_grid_with_every_key(write_grid: WriteGrid) -> None:
    sweep = grid.load(write_grid(ISSUE_EXAMPLE))
    described = [(c.config.ordering, c.config.dropout, c.config.depth, c.config.width) for c in sweep.cells]
    expected = []
    for ordering, dropout in [
        ("baseline-v1", None),
        ("relu-ic-conv", 0.05),
        ("relu-ic-conv", 0.1),
        ("ic-conv-relu", 0.05),
        ("conv-relu-ic", 0.05),
        ("conv-relu-ic", 0.1),
    ]:
        expected += [(ordering, dropout, 8, 16), (ordering, dropout, 14, 8)]
    assert described == [*expected, ("baseline-v1", None, 20, 16)]
    assert (sweep.name, sweep.question) == ("quickstart", "Does an IC layer help on digits?")
    assert all(cell.seeds == (0, 1, 2) for cell in sweep.cells)
    assert len(set(sweep.run_ids)) == 39
    by_id = {cell.cell_id: cell.config for cell in sweep.cells}
    assert len(sweep.baselines) == 10
    for cell, baseline in sweep.baselines.items():
        assert by_id[baseline].ordering == "baseline-v1"
        assert by_id[baseline].depth == by_id[cell].depth


def test_two_spellings_are_one_run(write_grid: WriteGrid) -> None:
    plain = grid.load(write_grid("recipe: digits\nfixed: {dataset: digits, depth: 8, ordering: relu-ic-conv}"))
    spelled = grid.load(
        write_grid(
            "recipe: {name: digits, epochs: 10, learning_rate_steps: [[6, 0.1], [9.0, 1e-1], [10, 0.5]]}\n"
            "fixed: {dataset: digits, block: basic, depth: 8.0, width: 16, ordering: relu-ic-conv, dropout: 5e-2,\n"
            "  norm: {name: batch, momentum: 0.1}, precision: float32, split: test}\nseeds: [0]"
        )
    )
    assert plain.run_ids == spelled.run_ids


def test_the_baseline_of_a_block(write_grid: WriteGrid) -> None:
    text = (
        "recipe: digits\nfixed: {dataset: digits, ordering: baseline}\ngrid: {block: [basic, bottleneck], depth: [20]}"
    )
    assert [c.config.ordering for c in grid.load(write_grid(text)).cells] == ["baseline-v1", "baseline-v2"]


def test_dropout_is_kept_where_there_is_dropout(write_grid: WriteGrid) -> None:
    text = """
recipe: digits
fixed: {dataset: digits, depth: 8}
grid: {ordering: [baseline-v1, baseline-v2, li2018, conv-ic-relu], dropout: [0, 0.2]}
"""
    rates = [(c.config.ordering, c.config.dropout) for c in grid.load(write_grid(text)).cells]
    assert rates == [
        ("baseline-v1", None),
        ("baseline-v2", None),
        ("li2018", 0.0),
        ("li2018", 0.2),
        ("conv-ic-relu", 0.0),
        ("conv-ic-relu", 0.2),
    ]


def test_exclude_sees_defaults_aliases_and_options(write_grid: WriteGrid) -> None:
    text = """
recipe: digits
fixed: {dataset: digits, depth: 8, ordering: relu-ic-conv}
grid: {norm: [batch, {name: group, groups: 4}, group, none]}
exclude: [{norm: {name: group, groups: 4}, width: 16}, {norm: none}]
include: [{norm: {name: group, groups: 2}, ordering: baseline, depth: 14}]
"""
    cells = grid.load(write_grid(text)).cells
    assert [str(c.config.norm) for c in cells] == [
        "batch epsilon=1e-05 momentum=0.1",
        "group epsilon=1e-05 groups=8",
        "group epsilon=1e-05 groups=2",
    ]
    alias = """
recipe: digits
fixed: {dataset: digits, depth: 8}
grid: {ordering: [baseline, li2018]}
exclude: [{ordering: baseline-v1}]
"""
    assert [c.config.ordering for c in grid.load(write_grid(alias)).cells] == ["li2018"]


def test_exclude_sees_weights_activations_and_procedures(write_grid: WriteGrid) -> None:
    text = """
recipe: digits
fixed: {dataset: digits, depth: 8, ordering: relu-ic-conv}
grid:
  weight: [plain, {name: svb, every: 5}, svb]
  activation: [relu, snn]
  procedures: [[], [warm-up, adabn]]
exclude:
- {weight: {name: svb, every: 391}}
- {activation: snn, procedures: []}
- {activation: relu, procedures: [{name: adabn}, {name: warm-up, epochs: 5}]}
"""
    described = [
        (c.config.weight.name, c.config.activation.name, len(c.config.procedures)) for c in load(text, write_grid)
    ]
    assert described == [("plain", "relu", 0), ("plain", "snn", 2), ("svb", "relu", 0), ("svb", "snn", 2)]


def load(text: str, write_grid: WriteGrid) -> list[Cell]:
    return list(grid.load(write_grid(text)).cells)


def test_an_lstm_has_the_baseline_alone(write_grid: WriteGrid) -> None:
    text = """
recipe: digits
fixed: {dataset: digits, block: lstm, depth: 3, ordering: baseline, dropout: 0.3}
grid: {norm: [none, layer, recurrent-bn], width: [16, 64]}
"""
    configs = [cell.config for cell in load(text, write_grid)]
    assert len(configs) == 6
    assert {(c.ordering, c.dropout) for c in configs} == {("lstm", None)}
    bias = text.replace(
        "recipe: digits", "recipe: {name: digits, convolution_bias: false, downsample_padding: symmetric}"
    )
    assert [c.run_id for c in configs] == [cell.run_ids[0] for cell in load(bias, write_grid)]


def test_exclude_tells_recipes_apart_by_their_norm_defaults(write_grid: WriteGrid) -> None:
    text = """
fixed: {dataset: digits, depth: 8, ordering: baseline}
grid: {recipe: [digits, {name: digits, norm_defaults: {batch: {momentum: 0.5}}}]}
exclude: [{recipe: digits}]
"""
    (cell,) = grid.load(write_grid(text)).cells
    assert cell.config.recipe.label == "digits norm_defaults.batch.momentum=0.5"


def test_a_cell_given_in_two_ways_has_the_baseline_that_is_there(write_grid: WriteGrid) -> None:
    text = """
recipe: digits
fixed: {dataset: digits, depth: 8}
grid: {ordering: [baseline, ic-conv-relu], dropout: [0.05, 0.1]}
exclude: [{ordering: ic-conv-relu, dropout: 0.05}]
baseline: {ordering: ic-conv-relu}
"""
    sweep = grid.load(write_grid(text))
    baseline, treated = sweep.cells
    assert sweep.baselines == {baseline.cell_id: treated.cell_id}


def test_values_are_told_apart_when_others_lay_where_they_lie() -> None:
    """Norms that nobody keeps, made one after another in the same place of memory."""
    fields = {"dataset": "digits", "depth": 8, "ordering": "relu-ic-conv", "recipe": "digits"}
    given = {name: parse_field(name, value, ()) for name, value in fields.items()}
    for epsilon in sorted(2 * [*range(1, 50)]):  # the second of two is like one that is kept, and is not kept
        config = resolve(given | {"norm": Given(Variant("layer", (("epsilon", epsilon),)), ())})
        assert dict(config.norm.options)["epsilon"] == epsilon


def test_baselines_are_told_apart_when_others_lay_where_they_lie(write_grid: WriteGrid) -> None:
    """Configurations that are made for the look alone: the cells' own have the other dropout rate first."""
    text = """
        recipe: digits
        fixed: {dataset: digits, ordering: relu-ic-conv}
        grid: {depth: [8, 14, 20, 26, 32, 38], dropout: [0.1, 0.2, 0.3]}
        baseline: {dropout: 0.2}
    """
    sweep = grid.load(write_grid(text))
    cells = {cell.cell_id: cell.config for cell in sweep.cells}
    found = [(cells[cell_id], cells[baseline]) for cell_id, baseline in sweep.baselines.items()]
    assert len(found) == 12
    assert all((baseline.depth, baseline.dropout) == (config.depth, 0.2) for config, baseline in found)


def test_any_field_may_lead_to_the_baseline(write_grid: WriteGrid) -> None:
    """The change is made to the fields as given: what follows from them follows anew."""
    recipes = """
fixed: {dataset: digits, depth: 8, ordering: relu-ic-conv}
grid: {recipe: [digits, {name: chen2019, augmentation: {shift: 1}}]}
baseline: {recipe: digits}
"""
    blocks = """
recipe: digits
fixed: {dataset: digits, depth: 20, ordering: baseline}
grid: {block: [basic, bottleneck]}
baseline: {block: basic}
"""
    for text in (recipes, blocks):
        sweep = grid.load(write_grid(text))
        first, second = sweep.cells
        assert sweep.baselines == {second.cell_id: first.cell_id}


def test_an_entry_may_have_a_baseline_of_its_own(write_grid: WriteGrid) -> None:
    """Beside what the grid changes; the runs are the same as without."""
    text = """
recipe: digits
fixed: {dataset: digits, depth: 8}
baseline: {ordering: baseline}
include:
- {ordering: baseline, norm: group}
- {ordering: baseline, recipe: {name: digits, learning_rate: 0.1}}
- {ordering: li2018, dropout: 0.2, baseline: {norm: group}}
- {ordering: li2018, dropout: 0.3, baseline: {recipe: {name: digits, learning_rate: 0.1}}}
- {ordering: relu-ic-conv, baseline: {ordering: li2018, dropout: 0.3}}
- {ordering: relu-ic-conv, norm: group}
"""
    sweep = grid.load(write_grid(text))
    grouped, quick, first, second, of_another, plain = (cell.cell_id for cell in sweep.cells)
    assert sweep.baselines == {first: grouped, second: quick, of_another: second, plain: grouped}
    without = re.sub(r"(?m)^baseline: .*$|, baseline: .*(?=\}$)", "", text)
    assert grid.load(write_grid(without)).run_ids == sweep.run_ids


def test_exclude_knows_a_norm_s_defaults(write_grid: WriteGrid) -> None:
    text = FIXED + "grid: {norm: [batch, group, {name: group, groups: 4}]}\nexclude: [{norm: {name: group, groups: 8}}]"
    assert [str(c.config.norm) for c in grid.load(write_grid(text)).cells] == [
        "batch epsilon=1e-05 momentum=0.1",
        "group epsilon=1e-05 groups=4",
    ]


def test_one_seed_more_and_one_less(write_grid: WriteGrid) -> None:
    text = """
recipe: digits
fixed: {dataset: digits, depth: 8}
grid: {ordering: [baseline, relu-ic-conv]}
include: [{ordering: baseline, depth: 8, seed: 7}]
exclude: [{ordering: relu-ic-conv, seed: 1}]
seeds: 3
baseline: {ordering: baseline}
"""
    sweep = grid.load(write_grid(text))
    assert [cell.seeds for cell in sweep.cells] == [(0, 1, 2, 7), (0, 2)]
    assert len(sweep.baselines) == 1
    axis = "recipe: digits\nfixed: {dataset: digits, depth: 8, ordering: baseline}\ngrid: {seed: [3, 1]}"
    assert [cell.seeds for cell in grid.load(write_grid(axis)).cells] == [(3, 1)]


def test_a_grid_of_includes_alone(write_grid: WriteGrid) -> None:
    entries = "[{dataset: digits, depth: 8}, {dataset: digits, depth: 14}]"
    text = f"recipe: digits\nfixed: {{ordering: baseline}}\ninclude: {entries}"
    assert [c.config.depth for c in grid.load(write_grid(text)).cells] == [8, 14]


def test_minus_zero_is_zero(write_grid: WriteGrid) -> None:
    assert len(grid.load(write_grid(FIXED + "grid: {dropout: [0, 0.0, -0.0]}")).cells) == 1


def test_the_recipe_may_be_an_axis_and_shapes_the_norm(write_grid: WriteGrid) -> None:
    text = """
fixed: {dataset: digits, depth: 8, ordering: baseline}
grid: {recipe: [chen2019, {name: digits, optimizer: {epsilon: 1e-6}}, {name: digits, optimizer: sgd, epochs: 5}]}
"""
    cells = grid.load(write_grid(text)).cells
    assert [c.config.recipe.label for c in cells] == [
        "chen2019",
        "digits optimizer.epsilon=1e-06",
        "digits optimizer=sgd optimizer.momentum=0.9 epochs=5",
    ]
    assert dict(cells[0].config.norm.options) == {"epsilon": 1e-3, "momentum": 0.01}
    assert dict(cells[1].config.norm.options) == {"epsilon": 1e-5, "momentum": 0.1}
    assert cells[1].config.recipe.optimizer.options == (("beta1", 0.9), ("beta2", 0.999), ("epsilon", 1e-6))
    assert cells[2].config.recipe.optimizer.options == (("momentum", 0.9),)
    assert cells[2].config.recipe.learning_rate_steps == ((3, 0.1), (4, 0.1))


def test_merge_keys_and_anchors(write_grid: WriteGrid) -> None:
    text = """
recipe: digits
fixed: &small {dataset: digits, depth: 8, ordering: baseline}
include: [{<<: *small, depth: 14}]
"""
    assert [c.config.depth for c in grid.load(write_grid(text)).cells] == [8, 14]


def _is_search(file: Path) -> bool:
    return "\nsearch:" in file.read_text()


@pytest.mark.parametrize("file", sorted((REPOSITORY / "sweeps").glob("*.yaml")), ids=lambda file: file.stem)
def test_our_sweeps_are_right_and_ask_a_question(file: Path) -> None:
    sweep = settings.load(file) if _is_search(file) else grid.load(file)
    assert sweep.cells
    assert sweep.question.endswith("?")
    assert sweep.name == file.stem


IMAGENET = "fixed: {dataset: imagenet, block: bottleneck, depth: 50, ordering: baseline}\n"
LSTM = "recipe: digits\nfixed: {dataset: digits, block: lstm, depth: 1, ordering: baseline}\n"
FIXED = "recipe: digits\nfixed: {dataset: digits, depth: 8, ordering: relu-ic-conv}\n"
# What is in the file; the line that must be named; what must be said.
MISTAKES = {
    "yaml syntax": ("recipe: digits\nfixed: {dataset: digits\ngrid: [", 3, "not valid YAML"),
    "tab": ("fixed:\n\tdataset: digits", 2, "not valid YAML"),
    "control character": ("name: a\nquestion: \x07", 2, "not allowed"),
    "empty file": ("", 1, "holds no grid"),
    "not a mapping": ("- a\n- b", 1, "holds no grid"),
    "duplicate key": ("recipe: digits\nseeds: 1\nrecipe: digits", 3, "second time (first on line 1)"),
    "duplicate field": ("fixed:\n  depth: 8\n  depth: 14", 3, "second time (first on line 2)"),
    "alias to itself": ("fixed: &a\n  depth: *a", 1, "its own anchor"),
    "unknown key": (FIXED + "grids: {}", 3, "Did you mean 'grid'?"),
    "field at the top": (FIXED + "dropout: 0.1", 3, "fixed: {dropout: ...}"),
    "seed at the top": (FIXED + "seed: 1", 3, "Write seeds: 3"),
    "unknown field": (FIXED + "grid:\n  droput: [0.1]", 4, "Did you mean 'dropout'?"),
    "recipe's field": (FIXED + "grid:\n  epochs: [1]", 4, "recipe: {name: digits, epochs: ...}"),
    "seed of a wrong type": (FIXED + "grid: {seed: [a]}", 3, "'a' should be a whole number"),
    "seed twice": (FIXED + "grid: {seed: [1]}\nseeds: 3", 3, "by 'seeds' and in 'grid'"),
    "seed in the baseline": (FIXED + "baseline: {seed: 1}", 3, "has all its seeds"),
    "include that lacks a field": (
        "recipe: digits\nfixed: {dataset: digits}\ngrid: {depth: [8], ordering: [baseline]}\ninclude:\n  - {depth: 14}",
        5,
        "lacks the field 'ordering'",
    ),
    "shift in a recipe of several lines": (
        "recipe:\n  name: digits\n  augmentation:\n    shift: 9\nfixed: {dataset: digits, depth: 8, ordering: li2018}",
        4,
        "out of sight",
    ),
    "depth that no bottleneck ResNet on ImageNet has": (
        "recipe: imagenet-chen2019\nfixed: {dataset: imagenet, block: bottleneck, ordering: baseline}\n"
        "grid:\n  depth: [50, 110]",
        4,
        "imagenet has no bottleneck ResNet-110. It has: basic 18, 34; bottleneck 50, 101, 152.",
    ),
    "depth that is a bottleneck's": (
        "recipe: imagenet-chen2019\nfixed:\n  dataset: imagenet\n  depth: 50\n  ordering: baseline",
        4,
        "imagenet has no basic ResNet-50",
    ),
    "crop of images of one size": (
        "recipe: imagenet-chen2019\nfixed: {dataset: cifar10, depth: 8, ordering: li2018}",
        1,
        "cifar10's images are of one size, 32x32: they are shifted, not cropped. "
        "Override it: recipe: {name: ..., augmentation: {crop_area: 1}}.",
    ),
    "shift of ImageNet's images": (
        IMAGENET + "recipe:\n  name: chen2019\n  augmentation:\n    shift: 4",
        5,
        "imagenet's images are of many sizes: they are cropped, not shifted. "
        "Override it: recipe: {name: ..., augmentation: {shift: 0}}.",
    ),
    "mean of ImageNet's pixels": (
        IMAGENET + "recipe:\n  name: imagenet-chen2019\n  subtract_pixel_mean: true",
        4,
        "imagenet's images are of many sizes: no pixel has a mean. "
        "Override it: recipe: {name: ..., subtract_pixel_mean: false}.",
    ),
    "two means": (
        FIXED.replace("recipe: digits", "recipe: {name: digits, standardize_channels: true}"),
        1,
        "either each pixel's mean is subtracted or each channel's, not both. "
        "Override it: recipe: {name: ..., subtract_pixel_mean: false}.",
    ),
    "include whose width does not fit": (
        FIXED.replace("}", ", norm: group}") + "include:\n  - {width: 12}",
        4,
        "cannot divide the 12 channels",
    ),
    "baseline whose norm does not fit": (
        FIXED + "baseline:\n  norm:\n    name: group\n    groups: 3",
        6,
        "cannot divide the 16 channels",
    ),
    "tag that is no value": ("recipe: {name: digits, convolution_bias: !!bool maybe}", 1, "'maybe' is no bool"),
    "tag of a mapping": (FIXED + "grid: !!python/object:x.y {dropout: [0.1]}", 3, "is not supported"),
    "half a character": (FIXED + 'question: "\\ud800"', 3, "is no str"),
    "no character": (FIXED + 'question: "\\UFFFFFFFF"', 3, "names no character"),
    "bell": (FIXED + "question: \x07", 3, "the character '\\x07' is not allowed"),
    "axis without a value": (FIXED + "grid:\n  dropout:", 4, "dropout has no value"),
    "name without a value": ("name:\n" + FIXED, 1, "name has no value"),
    "unknown ordering": (
        "recipe: digits\ngrid:\n  ordering:\n    - baseline\n    - relu-ic-cnv",
        5,
        "Did you mean 'relu-ic-conv'?",
    ),
    "unknown norm": (FIXED + "grid: {norm: [bach]}", 3, "Did you mean 'batch'?"),
    "unknown norm option": (FIXED + "grid:\n  norm:\n    - name: group\n      group: 4", 6, "Did you mean 'groups'?"),
    "norm without a name": (FIXED + "grid: {norm: [{groups: 4}]}", 3, "is no norm"),
    "norm that is a number": (FIXED + "grid: {norm: [3]}", 3, "is no norm"),
    "norm option of a wrong type": (
        FIXED + "grid: {norm: [{name: group, groups: many}]}",
        3,
        "'many' should be a whole number",
    ),
    "groups that do not divide": (FIXED + "grid:\n  norm: [{name: group, groups: 5}]", 4, "one of 1, 2, 4, 8, 16"),
    "unknown data set": ("recipe: digits\nfixed:\n  dataset: cifar", 3, "Did you mean 'cifar10'?"),
    "unknown block": ("fixed: {block: bottlenek}", 1, "Did you mean 'bottleneck'?"),
    "unknown precision": (FIXED + "grid: {precision: [float16]}", 3, "bfloat16"),
    "unknown split": (FIXED + "grid: {split: [train]}", 3, "heldout"),
    "unknown recipe": ("recipe: chen2018", 1, "Did you mean 'chen2019'?"),
    "unknown recipe field": ("recipe:\n  name: digits\n  epoch: 3", 3, "Did you mean 'epochs'?"),
    "recipe without a name": ("recipe: {epochs: 3}", 1, "Write its name"),
    "recipe field out of range": ("recipe: {name: digits, epochs: 0}", 1, "0 should be a whole number from 1 up"),
    "recipe step of a wrong shape": ("recipe: {name: digits, learning_rate_steps: [80]}", 1, "[epoch, factor]"),
    "recipe step between epochs": ("recipe: {name: digits, learning_rate_steps: [[1.5, 0.1]]}", 1, "no whole epoch"),
    "recipe group unknown": ("recipe: {name: digits, weight_decay: {conv: 0}}", 1, "Did you mean 'convolution'?"),
    "recipe group of a wrong type": ("recipe: {name: digits, augmentation: none}", 1, "should map shift, fill, flip"),
    "unknown optimizer option": (
        "recipe: {name: digits, optimizer: {momentum: 0.9}}",
        1,
        "'adam' has no option 'momentum'",
    ),
    "norm_defaults of no norm": ("recipe: {name: digits, norm_defaults: {bacth: {}}}", 1, "Did you mean 'batch'?"),
    "too large a shift": (FIXED.replace("digits\n", "{name: digits, augmentation: {shift: 9}}\n"), 1, "out of sight"),
    "wrong type": ("recipe: digits\nfixed: {depth: deep}", 2, "'deep' should be a whole number"),
    "boolean for a number": (FIXED + "grid: {dropout: [true]}", 3, "True should be a number"),
    "rates of two stages": (
        FIXED + "grid:\n  dropout:\n  - 0.5\n  - [0.05, 0.1]",
        6,
        "dropout: a ResNet for digits has 3 stages; the list gives rates for 2. Give each stage a rate, or one",
    ),
    "rates of ImageNet's stages": (
        "recipe: imagenet-chen2019\nfixed:\n  {dataset: imagenet, depth: 18, ordering: relu-ic-conv,\n"
        "  dropout: [0, 0.05, 0.1]}",
        4,
        "a ResNet for imagenet has 4 stages; the list gives rates for 3.",
    ),
    "an axis in fixed": (
        "recipe: digits\nfixed: {dataset: digits, depth: 8, ordering: baseline, dropout: [0.05, 0.1]}",
        2,
        "rates to try are an axis: grid: {dropout: [0.05, 0.1]}.",
    ),
    "no rates": (FIXED + "include: [{dropout: []}]", 3, "the list gives rates for 0"),
    "stage's rate out of range": (FIXED + "include:\n- dropout:\n  - 0\n  - 1.5", 6, "dropout: 1.5 should be a number"),
    "list of lists": (FIXED + "grid: {dropout: [[[0, 0.05, 0.1]]]}", 3, "dropout: [0, 0.05, 0.1] should be a number"),
    "rates of a baseline's": (FIXED + "baseline:\n  dropout: [0, 0]", 4, "the list gives rates for 2"),
    "excluded rates of two stages": (FIXED + "grid: {dropout: [0.1]}\nexclude:\n- dropout: [0.1, 0.1]", 5, "no run"),
    "rate out of range": (FIXED + "grid:\n  dropout:\n  - 0.5\n  - 1", 6, "not including, 1"),
    "not a number": (FIXED + "grid: {dropout: [.nan]}", 3, "nan should be a number"),
    "impossible basic depth": (FIXED.replace("depth: 8", "depth: 9"), 2, "The nearest: 8 or 14"),
    "impossible bottleneck depth": (
        "recipe: digits\nfixed: {dataset: digits, ordering: li2018, block: bottleneck}\ngrid:\n  depth: [11, 12]",
        4,
        "9n+2 layers",
    ),
    "orderings of an LSTM": (FIXED.replace("depth: 8", "block: lstm, depth: 1"), 2, "an LSTM has no residual branches"),
    "weights of an LSTM": (
        LSTM.replace("}", ", norm: layer}") + "grid: {weight: [plain, svb]}",
        3,
        "With block: lstm write weight: plain.",
    ),
    "a map's norm in an LSTM": (
        LSTM,
        2,
        "norm 'batch' cannot stand in an LSTM, which block: lstm makes. The norms that can: layer, none, recurrent-bn.",
    ),
    "a sequence's norm in a ResNet": (FIXED + "grid: {norm: [recurrent-bn]}", 3, "cannot stand in a ResNet"),
    "too few channels to whiten": (
        FIXED + "grid: {norm: [zca], width: [8]}",
        3,
        "group_size should be one of 1, 2, 4, 8",
    ),
    "two activations": (
        FIXED + "grid:\n  weight: [normprop]\n  activation: [snn]",
        5,
        "brings an activation of its own",
    ),
    "too small a depth": (FIXED.replace("depth: 8", "depth: 2"), 2, "The nearest: 8"),
    "zip of unequal length": (
        FIXED.replace("depth: 8, ", "") + "zip:\n  depth: [8, 14]\n  width: [16]",
        3,
        "depth has 2, width has 1",
    ),
    "empty axis": (FIXED + "grid:\n  dropout: []", 4, "the list is empty"),
    "empty grid": (FIXED + "grid: {}", 3, "the grid is empty"),
    "empty grid, no value": (FIXED + "grid:", 3, "should map fields to values"),
    "empty zip": (FIXED + "zip: {}", 3, "'zip' is empty"),
    "scalar in grid": (FIXED + "grid: {dropout: 0.1}", 3, "Write [0.1]"),
    "fixed of a wrong type": ("fixed: 3", 1, "should map fields to values"),
    "given in fixed and grid": (FIXED + "grid: {depth: [8]}", 3, "in 'fixed' and in 'grid'"),
    "given in fixed and zip": (FIXED + "zip: {depth: [8]}", 3, "in 'fixed' and in 'zip'"),
    "given in grid and zip": (FIXED + "grid: {width: [8]}\nzip: {width: [8]}", 4, "in 'grid' and in 'zip'"),
    "recipe given twice": ("recipe: digits\ngrid: {recipe: [digits]}", 2, "by itself and in 'grid'"),
    "recipe given twice, fixed": ("recipe: digits\nfixed: {recipe: digits}", 2, "given twice"),
    "exclude matches nothing": (
        FIXED + "grid: {dropout: [0.1]}\nexclude:\n  - {dropout: 0.1, width: 8}",
        5,
        "matches no run",
    ),
    "exclude removes nothing": (
        "recipe: digits\nfixed: {dataset: digits, depth: 8, ordering: baseline}\n"
        "grid: {dropout: [0.1, 0.2]}\nexclude: [{dropout: 0.1}]",
        4,
        "removes no run",
    ),
    "block that makes the depth impossible": (
        "recipe: digits\nfixed: {dataset: digits, depth: 8}\ngrid: {ordering: [baseline]}\n"
        "include:\n  - ordering: relu-ic-conv\n    block: bottleneck",
        6,
        "9n+2",
    ),
    "exclude leaves nothing": (FIXED + "exclude: [{depth: 8}]", 3, "the grid is empty"),
    "exclude of a wrong type": (FIXED + "exclude: {depth: 8}", 3, "should be a list of mappings"),
    "exclude of nothing": (FIXED + "exclude: [{}]", 3, "should map fields to values"),
    "include of an unknown field": (FIXED + "include:\n  - {deph: 8}", 4, "Did you mean 'depth'?"),
    "seeds zero": (FIXED + "seeds: 0", 3, "a number from 1 to 10,000"),
    "seeds negative": (FIXED + "seeds: [0, -1]", 3, "-1; seeds should be"),
    "seeds twice": (FIXED + "seeds: [0, 1, 1]", 3, "1 stands there twice"),
    "seeds for a seed": (FIXED + "seeds: 20261121", 3, "would be seeds: [20261121]"),
    "seeds of 64 bits": (FIXED + "seeds: [0, 9223372036854775808]", 3, "below 2^63"),
    "seeds of a wrong type": (FIXED + "seeds: many", 3, "'many'"),
    "seeds true": (FIXED + "seeds: true", 3, "True"),
    "baseline that the sweep lacks": (
        FIXED + "baseline: {ordering: baseline}",
        3,
        "(baseline-v1 digits basic-8): put it into grid or include",
    ),
    "baseline that cannot be": (FIXED + "baseline: {block: bottleneck}", 3, "9n+2"),
    "baseline that reads like its cell": (
        "fixed: {dataset: digits, depth: 8, ordering: relu-ic-conv}\n"
        "grid: {recipe: [{name: digits, epochs: 3}]}\nbaseline: {recipe: digits}",
        3,
        "(relu-ic-conv digits basic-8 dropout 0.05, recipe digits, norm batch epsilon=1e-05 momentum=0.1)",
    ),
    "baseline of a wrong type": (FIXED + "baseline: baseline-v1", 3, "as in {ordering: baseline}"),
    "baseline of an entry that the sweep lacks": (
        FIXED + "baseline: {ordering: relu-ic-conv}\ninclude:\n  - {ordering: li2018, baseline: {width: 8}}",
        5,
        "the sweep lacks the baseline of (li2018 digits basic-8 dropout 0.05)",
    ),
    "baseline of an entry that cannot be": (
        FIXED + "baseline: {ordering: relu-ic-conv}\ninclude:\n  - ordering: li2018\n    baseline:\n      depth: 9",
        7,
        "depth 9 is impossible",
    ),
    "baseline of an entry, of an unknown field": (
        FIXED + "baseline: {ordering: relu-ic-conv}\ninclude:\n  - ordering: li2018\n    baseline:\n      widht: 8",
        7,
        "Did you mean 'width'?",
    ),
    "baseline of an entry, of a wrong type": (
        FIXED + "baseline: {ordering: relu-ic-conv}\ninclude:\n  - ordering: li2018\n    baseline: li2018",
        6,
        "baseline: 'li2018' should map fields to values",
    ),
    "baseline of an entry, of nothing": (
        FIXED + "baseline: {ordering: relu-ic-conv}\ninclude:\n  - {ordering: li2018, baseline: {}}",
        5,
        "should map fields to values",
    ),
    "baseline of an entry, its seed": (
        FIXED + "baseline: {ordering: relu-ic-conv}\ninclude:\n  - {ordering: li2018, baseline: {seed: 1}}",
        5,
        "a baseline cell has all its seeds",
    ),
    "baseline of an entry alone": (
        FIXED + "include:\n  - {ordering: li2018, baseline: {ordering: relu-ic-conv}}",
        4,
        "the grid has no baselines. Give it baseline: {ordering: baseline}, or so.",
    ),
    "an entry that is a baseline alone": (
        FIXED + "baseline: {ordering: relu-ic-conv}\ninclude:\n  - {baseline: {width: 8}}",
        5,
        "should map fields to values",
    ),
    "baseline of an exclude": (
        FIXED + "exclude:\n  - {ordering: relu-ic-conv, baseline: {width: 8}}",
        4,
        "a configuration has no field 'baseline'",
    ),
    "baseline in fixed": (FIXED.replace("}", ", baseline: {width: 8}}"), 2, "has no field 'baseline'"),
    "missing field": ("recipe: digits\nfixed: {dataset: digits, depth: 8}", 1, "'ordering' is given nowhere"),
    "missing recipe": ("fixed: {dataset: digits, depth: 8, ordering: baseline}", 1, "'recipe' is given nowhere"),
    "name that is a path": ("name: ../up\n" + FIXED, 1, "cannot name a directory"),
    "name of a wrong type": ("name: 3\n" + FIXED, 1, "should be words"),
    "unsupported tag": ("name: !!python/object:os.system x", 1, "is not supported"),
    "alias inside its anchor": ("fixed: &a [*a]", 1, "inside its own anchor"),
    "merge of itself": ("fixed: &a {<<: *a, depth: 8}", 1, "inside its own anchor"),
    "depth beyond reason": (FIXED.replace("depth: 8", "depth: 600002"), 2, "At most: 10,000"),
    "number beyond numbers": (FIXED + f"grid: {{dropout: [{'9' * 400}]}}", 3, "... should be a number from 0"),
    "epochs beyond 32 bits": ("recipe: {name: digits, epochs: 3000000000}", 1, "3000000000 should be a whole number"),
    "key that is a list": ("? [a]\n: b", 1, "a key should be a word"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_named(case: str, write_grid: WriteGrid) -> None:
    text, line, words = MISTAKES[case]
    file = write_grid(text)
    with pytest.raises(UserError) as caught:
        grid.load(file)
    message = str(caught.value)
    assert message.startswith(f"{file}:{line}: "), message
    assert words in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_nesting_without_end(write_grid: WriteGrid) -> None:
    with pytest.raises(UserError, match="nested too deeply"):
        grid.load(write_grid("fixed: " + "[" * 3000))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text(FIXED)
    (tmp_path / "latin.yaml").write_bytes(b"recipe: digits\nquestion: caf\xe9?")
    with pytest.raises(UserError, match=r"missing.yaml: there is no such file.*latin.yaml, quickstart.yaml"):
        grid.load(tmp_path / "missing.yaml")
    with pytest.raises(UserError, match=r"latin.yaml:2: the file is not UTF-8"):
        grid.load(tmp_path / "latin.yaml")
    with pytest.raises(UserError, match="this is a directory"):
        grid.load(tmp_path)
    with pytest.raises(UserError, match="does not exist either"):
        grid.load(tmp_path / "nowhere" / "grid.yaml")
    (tmp_path / "my grid.yaml").write_text(FIXED)
    with pytest.raises(UserError, match="'my grid' is no name for a sweep"):
        grid.load(tmp_path / "my grid.yaml")


@pytest.mark.parametrize("command", ["sweep", "plan"])
def test_a_mistake_at_the_command_line(
    command: str, icbench_here: Icbench, write_grid: WriteGrid, tmp_path: Path
) -> None:
    write_grid(FIXED + "grid:\n  droput: [0.1]")
    done = icbench_here(command, "grid.yaml")
    assert done.code == 2
    assert done.out == ""
    assert re.fullmatch(
        r"icbench: grid\.yaml:4: a configuration has no field 'droput'\. Did you mean 'dropout'\? .*\n", done.err
    )
    assert [path.name for path in tmp_path.iterdir()] == ["grid.yaml"]


def test_a_hundred_thousand_runs_take_seconds_not_minutes(write_grid: WriteGrid) -> None:
    """A guard against quadratic behaviour, far from the measured time (docs/benchmarks.md)."""
    rates = ", ".join(f"{i / 12000:.6f}" for i in range(10000))
    text = f"""
recipe: digits
fixed: {{dataset: digits, depth: 8}}
grid:
  ordering: [relu-ic-conv, conv-relu-ic]
  dropout: [{rates}]
"""
    began = time.perf_counter()
    assert len(grid.load(write_grid(text)).run_ids) == 20000
    assert time.perf_counter() - began < 60
