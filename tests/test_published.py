"""Published numbers, and ours beside them."""

from pathlib import Path

import pytest
from synthetic import make, rising

from icbench.report.published import Published, beside, published

# Table 1 of Chen et al. 2019 as differences of the orderings to the baseline in points, by hand: basic 110, 164,
# bottleneck 110, 164; relu-ic-conv, ic-conv-relu, conv-relu-ic.
CIFAR10 = [(0.69, 0.60, 1.16), (0.56, 0.27, 0.72), (1.15, 0.92, 1.00), (0.90, 0.69, 0.98)]
CIFAR100 = [(3.57, 2.72, 2.81), (2.43, 2.92, 2.56), (1.76, 1.45, 0.95), (1.15, 1.51, 0.83)]
REPRODUCED = [(17.72, 19.75, 19.95), (-1.07, 0.96, 2.19), (0.92, 1.96, 2.30), (-0.36, 2.01, 2.44)]
NETS = [("basic", 110), ("basic", 164), ("bottleneck", 110), ("bottleneck", 164)]
ORDERINGS = ["relu-ic-conv", "ic-conv-relu", "conv-relu-ic"]


@pytest.mark.parametrize(
    ("source", "dataset", "table"),
    [("chen2019", "cifar10", CIFAR10), ("chen2019", "cifar100", CIFAR100), ("choudhury2021", "cifar10", REPRODUCED)],
)
def test_the_published_effects(source: str, dataset: str, table: list[tuple[float, ...]]) -> None:
    found = {(p.block, p.depth, p.ordering): p for p in published() if (p.source, p.dataset) == (source, dataset)}
    assert len(found) == 16
    for net, effects in zip(NETS, table, strict=True):
        differences = [100 * (found[*net, o].accuracy - found[*net, "baseline"].accuracy) for o in ORDERINGS]
        assert differences == pytest.approx(effects)
    assert {p.epochs for p in found.values()} == {{"chen2019": 200, "choudhury2021": 100}[source]}


SAME = """
recipe: chen2019
fixed: {dataset: cifar10, depth: 110}
grid: {ordering: [baseline, conv-relu-ic]}
seeds: 3
baseline: {ordering: baseline}
"""


def test_the_same_net_is_compared_number_by_number(tmp_path: Path) -> None:
    evidence = make(tmp_path, SAME, lambda c: rising((0.93 if c.dropout is None else 0.94) + 0.001 * c.seed, 200))
    rows = beside(evidence)
    assert [(r.published.source, r.published.ordering) for r in rows] == [
        ("chen2019", "baseline"),
        ("choudhury2021", "baseline"),
        ("chen2019", "conv-relu-ic"),
        ("choudhury2021", "conv-relu-ic"),
    ]
    ours = rows[2]
    assert ours.same
    assert ours.published == Published("chen2019", "cifar10", "basic", 110, "conv-relu-ic", 0.9408, 200)
    assert ours.gap is not None
    assert ours.gap.value == pytest.approx(0.941 - 0.9408)
    assert ours.gap.half_width == pytest.approx(ours.ours.half_width)
    assert ours.our_effect is not None
    assert ours.our_effect.value == pytest.approx(0.01)
    assert ours.their_effect == pytest.approx(0.0116)
    assert rows[0].our_effect is None
    assert rows[0].their_effect is None
    assert rows[3].differs == ("200 epochs, theirs 100", "recipe chen2019, theirs choudhury2021")
    assert rows[3].gap is not None  # the net is the same: told, with what differs


OTHER = """
recipe: {name: chen2019, epochs: 8}
fixed: {dataset: cifar10, depth: 8, width: 8, split: heldout, weight: cosine, procedures: [warm-up]}
grid: {ordering: [baseline, conv-relu-ic, conv-ic-relu], norm: [batch, layer], dropout: [0.1]}
baseline: {ordering: baseline}
"""


def test_what_differs_is_said(tmp_path: Path) -> None:
    rows = beside(make(tmp_path, OTHER, lambda _: rising(0.7, 8)))
    assert {r.config.ordering for r in rows} == {"baseline-v1", "conv-relu-ic"}  # conv-ic-relu was not published
    (row,) = (
        r
        for r in rows
        if (r.config.ordering, r.config.norm.name, r.published.source) == ("conv-relu-ic", "layer", "chen2019")
    )
    assert (row.published.block, row.published.depth) == ("basic", 110)
    assert row.gap is None
    assert row.differs == (
        "net basic-8, theirs basic-110",
        "width 8, theirs 16",
        "norm layer, theirs batch",
        "cosine, theirs plain",
        "warm-up, which they did not",
        "dropout 0.1, theirs 0.05",
        "8 epochs, theirs 200",
        "recipe chen2019 epochs=8, theirs chen2019",
        "held-out training images, theirs the test images",
    )


def test_digits_were_not_published(tmp_path: Path) -> None:
    text = SAME.replace("cifar10", "digits").replace("chen2019", "digits")
    assert beside(make(tmp_path, text, lambda _: rising(0.9))) == []
