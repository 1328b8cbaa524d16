"""A grid's nets are built for a trial before anything runs: an impossible one is a mistake of the grid."""

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from conftest import REPOSITORY, SMALL, Finished, Icbench

from icbench import drybuild, grid
from icbench.config import Cell, RunConfig, Variant
from icbench.work import builder

WriteGrid = Callable[..., Path]
InTree = Callable[..., Finished]

PICKY = '''
"""A norm that wants channels by sevens, and no odd batch.

Formula: y = x.
"""

from torch import Tensor, nn

from icbench.values import PositiveInt


class Picky(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.mean().item() > 1e9:  # looks at values, which shapes alone do not have
            raise AssertionError
        if self.training and len(x) % 2:
            raise ValueError(f"{len(x)} images\\nare odd")
        return x


def build(channels: int, *, of: PositiveInt = 3) -> nn.Module:
    print("{a norm that prints}")
    if channels % of:
        raise ValueError(f"{channels} channels are no multiple of {of}.")
    return Picky()
'''

GRID = """recipe: {name: digits, epochs: 1}
fixed: {dataset: digits, depth: 8, ordering: relu-ic-conv}
grid:
  norm:
    - batch
    - picky
  width: [4, 6]
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of icbench with one more norm."""
    folder = tmp_path_factory.mktemp("tree")
    shutil.copytree(REPOSITORY / "icbench", folder / "icbench")
    (folder / "icbench" / "nets" / "norms" / "picky.py").write_text(PICKY)
    return folder


@pytest.fixture
def in_tree(tree: Path, icbench: Icbench, write_grid: WriteGrid) -> InTree:
    """Run a command of the copy on a grid's text."""

    def run(text: str, command: str, *arguments: str) -> Finished:
        write_grid(text)
        return icbench(command, "grid.yaml", *arguments, PYTHONPATH=str(tree))

    return run


@pytest.mark.parametrize("command", [("plan",), ("plan", "--json"), ("sweep",)])
def test_an_impossible_net_is_a_mistake_of_the_grid(command: tuple[str, ...], in_tree: InTree, tmp_path: Path) -> None:
    done = in_tree(GRID, *command)
    assert done.err == (
        "icbench: grid.yaml:6: no net of (relu-ic-conv digits basic-8 width 4 picky of=3 dropout 0.05) can be built: "
        "ValueError: 4 channels are no multiple of 3. "
        "With norm: batch it can: give norm another value, or leave the combination out.\n"
    )
    assert (done.code, done.out) == (2, "")
    assert [path.name for path in tmp_path.iterdir()] == ["grid.yaml"]


def test_what_is_excluded_is_not_built(in_tree: InTree) -> None:
    done = in_tree(GRID + "exclude: [{norm: picky, width: 4}]", "plan", "--json")
    assert (done.code, done.err) == (0, "")
    assert done.json()["runs"] == 3


def test_the_trial_can_be_left_out(in_tree: InTree) -> None:
    assert in_tree(GRID, "plan", "--no-build").code == 0
    assert in_tree(GRID, "sweep", "--dry-run", "--no-build").code == 0


def test_the_entry_of_include_is_named_and_the_batch(in_tree: InTree) -> None:
    recipe = "{name: digits, epochs: 1, batch_size: 1437}"  # which leaves one image
    text = GRID.replace("    - picky\n", "").replace("{name: digits, epochs: 1}", recipe)
    done = in_tree(text + "include:\n  - width: 5\n  - {width: 6, norm: picky}", "plan")
    assert done.code == 2
    assert done.err.startswith("icbench: grid.yaml:9: ")
    assert "can be trained on a batch of 1: ValueError: 1 images are odd. With norm: batch it can" in done.err


def test_what_acts_too_late_is_told(icbench: Icbench, write_grid: WriteGrid) -> None:
    """46 steps on digits, of two epochs."""
    write_grid(
        "recipe: {name: digits, epochs: 2}\nfixed: {dataset: digits, depth: 8, ordering: relu-ic-conv}\n"
        "grid: {norm: [bounded-batch, {name: bounded-batch, every: 46}], procedures: [[], [svb]]}"
    )
    done = icbench("plan", "grid.yaml")
    assert done.code == 0
    assert done.err.splitlines() == [
        "note: norm bounded-batch acts after 391 steps first, the run has 46: it cannot show.",
        "note: procedure svb acts after 391 steps first, the run has 46: it cannot show.",
    ]


def test_a_reference_is_no_larger_than_the_training_set(icbench: Icbench, write_grid: WriteGrid) -> None:
    write_grid(GRID.replace("    - picky", "    - {name: virtual, images: 1439}"))
    done = icbench("plan", "grid.yaml")
    assert done.code == 2
    assert "grid.yaml:6: no net of (relu-ic-conv digits basic-8 width 4 virtual" in done.err
    assert "a reference of 1439 images is more than the 1438 that there are to train on" in done.err


def test_a_remedy_can_be_typed(icbench: Icbench, write_grid: WriteGrid) -> None:
    write_grid(GRID.replace("    - picky", "    - layer") + "  procedures: [[adabn]]\nexclude: [{norm: batch}]\n")
    done = icbench("plan", "grid.yaml")
    assert done.code == 2
    assert "there is no norm that keeps running statistics, which could be adapted" in done.err
    assert "With procedures: [] it can" in done.err or "With norm: batch it can" in done.err


@pytest.mark.parametrize(
    "recipe", ["recipe: digits\nfixed: {dataset: digits", "recipe: chen2019\nfixed: {dataset: cifar10"]
)
def test_nets_that_cannot_learn_are_told(recipe: str, icbench: Icbench, write_grid: WriteGrid) -> None:
    """Instance norm before the global average; the gradient of the loss by anything before it is 0."""
    axes = "grid: {norm: [instance, batch, layer, adain], ordering: [relu-ic-conv, conv-relu-ic]}"
    write_grid(f"{recipe}, depth: 8}}\n{axes}")
    done = icbench("plan", "grid.yaml")
    assert done.code == 0
    assert done.err.startswith("note: relu-ic-conv ")
    assert "instance epsilon=1e-05 dropout 0.05 and 1 more: says the same of every image" in done.err


def test_a_large_net_may_look_at_its_values(in_tree: InTree) -> None:
    text = "recipe: chen2019\nfixed: {dataset: cifar10, depth: 8, width: 24, ordering: relu-ic-conv, norm: picky}"
    done = in_tree(text, "plan")
    assert (done.code, done.err) == (0, "")


def test_a_sweep_with_nothing_missing_builds_nothing(
    small_sweep: Path, tmp_path: Path, icbench: Icbench, write_grid: WriteGrid
) -> None:
    shutil.copytree(small_sweep, tmp_path / "results")
    write_grid(SMALL)
    done = icbench("sweep", "grid.yaml", PYTHONPATH=_without_torch(write_grid))
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    ("torch", "words"),
    [
        ("raise ImportError('torch is broken')", "ended with exit code 1. The last it said: ImportError: torch is br"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by signal 9. The last it said: (nothing)"),
    ],
)
def test_a_builder_that_dies_is_told_of(torch: str, words: str, icbench: Icbench, write_grid: WriteGrid) -> None:
    write_grid(GRID.replace("    - picky\n", ""))
    done = icbench("plan", "grid.yaml", PYTHONPATH=_without_torch(write_grid, torch))
    assert (done.code, done.out) == (1, "")
    assert words in done.err
    assert "--no-build" in done.err
    assert "Traceback" not in done.err


def _without_torch(write_grid: WriteGrid, torch: str = "raise ImportError") -> str:
    """A path with a torch that does not work, and icbench."""
    return f"{write_grid(torch, 'torch.py').parent}:{REPOSITORY}"


def test_a_mistake_elsewhere_does_not_wait_for_the_builder(icbench: Icbench, write_grid: WriteGrid) -> None:
    write_grid("recipe: digits\nfixed: {dataset: digits}")
    began = time.monotonic()
    done = icbench("plan", "grid.yaml", PYTHONPATH=_without_torch(write_grid, "import time; time.sleep(100)"))
    assert done.code == 2
    assert time.monotonic() - began < 30


def distinct(write_grid: WriteGrid, text: str) -> dict[RunConfig, Cell]:
    return drybuild.distinct(grid.load(write_grid(text)).cells)


def test_nets_that_differ_in_training_alone_are_one(write_grid: WriteGrid) -> None:
    text = """
        fixed: {dataset: digits, ordering: li2018}
        grid:
          depth: [14, 20, 110]
          dropout: [0.1, 0.5]
          recipe: [{name: digits, epochs: 3}, {name: digits, learning_rate: 0.5}]
        seeds: 3
    """
    nets = distinct(write_grid, text)
    assert [(net.depth, cell.config.depth) for net, cell in nets.items()] == [(14, 14)]


@pytest.mark.parametrize(
    "axis",
    [
        "depth: [8, 14]",
        "block: [basic, bottleneck]",
        "width: [8, 16]",
        "norm: [{name: group, groups: 4}, {name: group, groups: 8}]",
        "ordering: [baseline, li2018]",
        "precision: [float32, float64]",
        "split: [test, heldout]",
        "recipe: [digits, {name: digits, batch_size: 99}]",
    ],
)
def test_nets_that_differ_in_what_is_built_are_several(axis: str, write_grid: WriteGrid) -> None:
    usual = {"depth": "20", "ordering": "li2018", "recipe": "digits"}
    fixed = "".join(f", {name}: {value}" for name, value in usual.items() if name != axis.split(":")[0])
    assert len(distinct(write_grid, f"fixed: {{dataset: digits{fixed}}}\ngrid: {{{axis}}}")) == 2


def test_of_many_nets_every_two_values_are_tried(write_grid: WriteGrid) -> None:
    text = """
        recipe: digits
        fixed: {dataset: digits}
        grid:
          depth: [8, 14]
          norm: [batch, layer, none]
          width: [4, 8, 16, 32]
          ordering: [baseline, relu-ic-conv, ic-conv-relu]
        exclude: [{norm: none, width: 4}]
    """
    nets = list(distinct(write_grid, text))
    some = drybuild.covering(nets)
    assert len(nets) == 66
    assert len(some) <= 16
    assert set(some) <= set(nets)
    assert _pairs(some) == _pairs(nets)


def _pairs(nets: list[RunConfig]) -> set[tuple[object, ...]]:
    return {
        pair
        for net in nets
        for pair in combinations((("d", net.depth), net.norm, ("w", net.width), net.ordering, ("p", net.dropout)), 2)
    }


@pytest.mark.parametrize("dataset", ["digits", "cifar10"])
def test_the_field_to_blame_is_the_one_without_which_it_can_be_built(dataset: str, write_grid: WriteGrid) -> None:
    text = f"recipe: chen2019\nfixed: {{dataset: {dataset}, depth: 8, ordering: baseline, width: 18}}"
    (config,) = distinct(write_grid, text)
    assert builder.examine(config) is None
    sevens = Variant("group", (("epsilon", 1e-5), ("groups", 7)))
    failure = builder.examine(replace(config, norm=sevens))
    assert failure is not None
    assert (failure.step, failure.field) == ("built", "norm")
    assert failure.reason.startswith("ValueError: num_channels")  # of torch's GroupNorm


def test_precisions_are_built_in_their_types(write_grid: WriteGrid) -> None:
    text = "recipe: digits\nfixed: {dataset: digits, depth: 8, ordering: baseline}"
    grids = f"{text}\ngrid: {{precision: [float32, tf32, bfloat16, float64], split: [test, heldout]}}"
    assert [builder.examine(config) for config in distinct(write_grid, grids)] == [None] * 8
