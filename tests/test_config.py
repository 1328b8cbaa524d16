"""Run ids: what they are made of, and that they never change."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from icbench import grid
from icbench.config import Cell

CIFAR = "fixed: {dataset: cifar10, depth: 110, ordering: ic-conv-relu}"
# Grids of one run, and the ids that these have had since icbench 0.1. Never change one: results are kept by them.
GOLDEN = {
    "recipe: digits\nfixed: {dataset: digits, depth: 8, ordering: baseline}": "5a6c60fbe25d",
    "recipe: digits\nfixed: {dataset: digits, depth: 8, ordering: relu-ic-conv}": "d4c902fbda95",
    "recipe: digits\nseeds: [7]\nfixed: {dataset: digits, depth: 8, ordering: li2018, dropout: 0.1}": "f11ffad05863",
    f"recipe: chen2019\n{CIFAR}": "4dc8be460491",
    f"recipe: choudhury2021\n{CIFAR}": "69f911f14dfe",
    "recipe: chen2019\nfixed: {dataset: cifar100, block: bottleneck, depth: 164, ordering: baseline}": "ce538a91c679",
    f"recipe: chen2019\n{CIFAR.replace('}', ', norm: {name: group, groups: 4}}')}": "b6623edfbea3",
    f"recipe: {{name: chen2019, optimizer: sgd, learning_rate: 0.1}}\n{CIFAR}": "347d402d6be6",
    f"recipe: chen2019\n{CIFAR.replace('}', ', precision: bfloat16, split: heldout, width: 32}')}": "624a62665da9",
    f"recipe: chen2019\n{CIFAR.replace('}', ', weight: weight-norm, norm: lp}')}": "d64c247cadb4",
    f"recipe: chen2019\n{CIFAR.replace('}', ', activation: snn, norm: none}')}": "ce31492db9e5",
    f"recipe: chen2019\n{CIFAR.replace('}', ', procedures: [warm-up, {name: svb, every: 5}]}')}": "19de007ec714",
    "recipe: digits\nfixed: {dataset: digits, block: lstm, depth: 1, ordering: baseline, norm: layer}": "9ce4b4fdfdb3",
}


@pytest.mark.parametrize("text", GOLDEN)
def test_golden_ids(text: str, write_grid: Callable[..., Path]) -> None:
    assert grid.load(write_grid(text)).run_ids == [GOLDEN[text]]


def test_the_canonical_form(write_grid: Callable[..., Path]) -> None:
    """Sorted JSON without spaces, defaults filled in, whose SHA-256 begins with the run id."""
    ((run_id, config),) = grid.load(write_grid(f"recipe: chen2019\n{CIFAR}\nseeds: [3]")).runs()
    text = config.canonical_json()
    content = json.loads(text)
    assert text == json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest()[:12] == run_id == config.run_id
    recipe = content.pop("recipe")
    assert content == {
        "block": "basic",
        "dataset": "cifar10",
        "depth": 110,
        "dropout": 0.05,
        "norm": {"name": "batch", "epsilon": 1e-3, "momentum": 0.01},
        "ordering": "ic-conv-relu",
        "precision": "float32",
        "seed": 3,
        "split": "test",
        "width": 16,
    }
    assert recipe == {
        "optimizer": {"name": "adam", "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-7},
        "learning_rate": 1e-3,
        "learning_rate_steps": [[80, 0.1], [120, 0.1], [160, 0.1]],
        "epochs": 200,
        "batch_size": 64,
        "weight_decay": {"convolution": 2e-4, "classifier": 0.0, "other": 0.0},
        "augmentation": {"shift": 4, "fill": "edge", "flip": True},
        "subtract_pixel_mean": True,
        "convolution_bias": True,
        "initialization": "he-truncated-normal",
        "downsample_padding": "trailing",
    }


def test_more_goldens_and_what_they_are_of(write_grid: Callable[..., Path]) -> None:
    """What came after the first ids: each is named in the canonical form, sorted like the rest."""
    for text, (name, value), golden in (
        (f"recipe: chen2019\n{CIFAR.replace('}', ', precision: float64}')}", ("precision", "float64"), "625e80894e74"),
        (f"recipe: {{name: chen2019, sync_batch_norm: true}}\n{CIFAR}", ("sync_batch_norm", True), "2a7e7ac2f572"),
        (
            "recipe: imagenet-chen2019\nfixed: {dataset: imagenet, block: bottleneck, depth: 50, ordering: li2018}",
            ("width", 64),
            "fc85ef49aa10",
        ),
        (
            "recipe: digits\nfixed: {dataset: digits, depth: 8, ordering: relu-ic-conv, dropout: [0, 0.05, 0.1]}",
            ("dropout", [0.0, 0.05, 0.1]),
            "ca869f2a40dc",
        ),
        (
            "recipe: imagenet-chen2019\n"
            "fixed: {dataset: imagenet, depth: 18, ordering: conv-relu-ic, dropout: [0.2, 0.1, 0, 0.05]}",
            ("dropout", [0.2, 0.1, 0.0, 0.05]),
            "f606e99caccb",
        ),
    ):
        ((run_id, config),) = grid.load(write_grid(text)).runs()
        content = json.loads(config.canonical_json())
        assert {**content, **content["recipe"]}[name] == value
        assert config.canonical_json() == json.dumps(content, sort_keys=True, separators=(",", ":"))
        assert run_id == golden
        assert run_id not in GOLDEN.values()


def test_a_cell_is_its_runs_without_the_seed(write_grid: Callable[..., Path]) -> None:
    sweep = grid.load(write_grid(f"recipe: chen2019\n{CIFAR}\nseeds: [5, 1]"))
    (cell,) = sweep.cells
    canonical = json.loads(cell.config.canonical_json())
    del canonical["seed"]
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))
    assert cell.cell_id == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert [config.seed for _, config in cell.runs()] == [5, 1]
    assert all(config.run_id == run_id and config.cell_id == cell.cell_id for run_id, config in cell.runs())
    assert Cell.of(cell.config, (5, 1)) == cell


def test_what_cannot_matter_is_dropped(write_grid: Callable[..., Path]) -> None:
    def ids(recipe: str, more: str = "", depth: int = 8) -> list[str]:
        return grid.load(
            write_grid(f"recipe: {recipe}\nfixed: {{dataset: digits, depth: {depth}, ordering: baseline{more}}}")
        ).run_ids

    plain = ids("{name: digits, augmentation: {shift: 0}}")
    assert plain == ids("{name: digits, augmentation: {shift: 0, fill: edge}}")  # nothing to fill
    assert plain == ids("{name: digits, augmentation: {shift: 0}}", ", dropout: 0.3")  # a baseline has no dropout
    assert ids("digits") == ids("{name: digits, norm_defaults: {group: {groups: 4}}}")  # of a norm that is not used
    assert ids("digits") != ids("{name: digits, norm_defaults: {batch: {momentum: 0.2}}}")
    assert ids("digits") != ids("{name: digits, augmentation: {fill: edge}}")
    assert ids("digits") != ids("{name: digits, downsample_padding: symmetric}")
    # Runs were first trained without, and only batch normalisation can be synchronised.
    assert ids("digits") == ids("{name: digits, sync_batch_norm: false}")
    assert ids("digits") != ids("{name: digits, sync_batch_norm: true}")
    layer = ", norm: layer"
    assert ids("digits", layer) == ids("{name: digits, sync_batch_norm: true}", layer)
    # Bottlenecks stride in convolutions of 1x1.
    deep = ", block: bottleneck"
    assert ids("digits", deep, 20) == ids("{name: digits, downsample_padding: symmetric}", deep, 20)
