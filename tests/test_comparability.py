"""Runs that were made under different conditions are not pooled silently."""

from pathlib import Path
from typing import Any

import pytest
from synthetic import make, make_report, rising

from icbench.config import RunConfig
from icbench.errors import UserError
from icbench.report import comparability

GRID = """
recipe: digits
fixed: {dataset: digits, depth: 8}
grid: {ordering: [baseline, relu-ic-conv, ic-conv-relu]}
seeds: 2
baseline: {ordering: baseline}
"""


def found(folder: Path, odd: dict[str, Any], ordering: str = "relu-ic-conv") -> list[comparability.Mixture]:
    def conditions(config: RunConfig) -> dict[str, Any]:
        return odd if (config.ordering, config.seed) == (ordering, 1) else {}

    return comparability.mixtures(make(folder, GRID, lambda _: rising(0.8), conditions=conditions))


def test_runs_that_are_alike_are_not_remarked_on(tmp_path: Path) -> None:
    assert found(tmp_path, {}) == []
    assert found(tmp_path, {"hostname": "there", "threads": 4}) == []


@pytest.mark.parametrize(
    ("odd", "condition", "value"),
    [
        ({"git_commit": "fedcba9876543210"}, "code", "commit fedcba9876"),
        ({"git_commit": None}, "code", "icbench 0.1.0"),
        ({"device": "NVIDIA H100"}, "device", "NVIDIA H100"),
        ({"precision": "tf32"}, "precision", "tf32"),
        ({"world_size": 4}, "world_size", "4"),
        ({"torch_version": "2.11.0"}, "torch_version", "2.11.0"),
        ({"images_at_once": 32}, "images_at_once", "32 of a batch"),
    ],
)
def test_each_condition(tmp_path: Path, odd: dict[str, Any], condition: str, value: str) -> None:
    (mixture,) = found(tmp_path, odd)
    assert mixture.condition == condition
    assert [count for _, count in mixture.values] == [5, 1]
    assert mixture.values[1][0] == value
    assert mixture.contrasts == 1
    (of_baseline,) = found(tmp_path, odd, "baseline-v1")
    assert of_baseline.contrasts == 2  # both treatments are compared with it


def test_what_the_grid_varies_by_itself_is_not_pooled(tmp_path: Path) -> None:
    text = GRID.replace("grid: {", "grid: {precision: [float32, bfloat16], split: [test, heldout], ")
    report = make_report(tmp_path, text, lambda c: rising(0.8 + 0.01 * c.seed))
    assert report.mixtures == []
    assert [(c.treatment, len(c.pairs)) for c in report.comparisons.pooled][:2] == [
        ("relu-ic-conv, float32, test", 1),
        ("ic-conv-relu, float32, test", 1),
    ]
    assert len(report.comparisons.pooled) == 8


def test_uncommitted_code_is_not_known(tmp_path: Path) -> None:
    evidence = make(tmp_path, GRID, lambda _: rising(0.8), conditions=lambda _: {"git_dirty": True})
    (mixture,) = comparability.mixtures(evidence)
    assert str(mixture) == (
        "code: commit 0123456789 with uncommitted changes (6 runs), so what they ran is not known for sure"
    )


def test_it_is_said_and_can_be_refused(tmp_path: Path) -> None:
    def conditions(config: RunConfig) -> dict[str, Any]:
        return {"device": "NVIDIA H100"} if config.seed else {}

    report = make_report(tmp_path, GRID, lambda _: rising(0.8), conditions=conditions)
    told = "device: NVIDIA H100 (3 runs), cpu (model) (3 runs); 2 contrasts between different ones"
    assert [str(each) for each in report.mixtures] == [told]
    comparability.refuse([], "made")
    with pytest.raises(UserError, match=r"the runs of made are not known to be comparable. device: NVIDIA H100"):
        comparability.refuse(report.mixtures, "made")
