"""Dropout by gaps: its gates are independent Bernoulli variables, and it is dropout in all else."""

import math
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import nn

from icbench import catalog, grid
from icbench.nets import gaps
from icbench.nets.build import build
from icbench.nets.gaps import GapDropout, successes


@pytest.mark.parametrize("rate", [0.001, 0.05, 0.3, 0.5, 0.97])
def test_each_trial_succeeds_at_the_rate_whatever_the_others_do(rate: float) -> None:
    """2,000 times 50 trials: at each place, and of each two neighbours and others given each other (SciPy)."""
    torch.manual_seed(0)
    repeats, count = 2000, 50
    drawn = torch.zeros(repeats, count)
    for row in drawn:
        row[successes(count, rate)] = 1
    by_place = drawn.sum(0).int().tolist()
    least = min(stats.binomtest(hits, repeats, rate).pvalue for hits in by_place)
    assert least > 1e-4  # of 50 places the least is below 0.02 every third time
    assert stats.binomtest(sum(by_place), repeats * count, rate).pvalue > 1e-3
    for lag in (1, 2, 7):
        first, second = drawn[:, :-lag].flatten().bool(), drawn[:, lag:].flatten().bool()
        table = [[int((a & b).sum()) for a in (first, ~first)] for b in (second, ~second)]
        assert stats.fisher_exact(table).pvalue > 1e-3


def test_the_number_of_successes_is_binomial() -> None:
    torch.manual_seed(1)
    counts = [len(successes(1000, 0.05)) for _ in range(1000)]
    expected = [1000 * stats.binom(1000, 0.05).pmf(k) for k in range(38, 64)]
    found = [counts.count(k) for k in range(38, 64)]
    tails = 1000 - sum(expected), 1000 - sum(found)
    assert stats.chisquare([*found, tails[1]], [*expected, tails[0]]).pvalue > 1e-3


def test_places_rise_and_lie_within(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the numbers that were drawn at first do not reach the end."""
    for count, rate in ((1, 0.5), (7, 1e-9), (100_000, 0.05)):
        torch.manual_seed(2)
        places = successes(count, rate)
        assert places.dtype == torch.int64
        assert (places.diff() > 0).all()
        assert ((places >= 0) & (places < count)).all()
    torch.manual_seed(3)
    whole = successes(10_000, 0.1)
    monkeypatch.setattr(gaps.math, "sqrt", lambda x: -0.1 * x)  # less than half of what is needed
    torch.manual_seed(3)
    torch.testing.assert_close(successes(10_000, 0.1)[:300], whole[:300])
    assert abs(len(successes(10_000, 0.1)) - 1000) < 150


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_passes_are_those_of_dropout(layout: torch.memory_format, dtype: torch.dtype) -> None:
    torch.manual_seed(4)
    x = torch.rand(8, 6, 5, 5, dtype=dtype).add_(1).to(memory_format=layout).requires_grad_()
    y = GapDropout(0.3)(x)
    assert y.is_contiguous(memory_format=layout)
    mask = y != 0
    assert 0.2 < 1 - mask.float().mean() < 0.4
    torch.testing.assert_close(y, torch.where(mask, x / 0.7, 0.0))
    gradient = torch.randn(8, 6, 5, 5, dtype=dtype)  # not in the layout of x, perhaps
    y.backward(gradient)
    torch.testing.assert_close(x.grad, torch.where(mask, gradient / 0.7, 0.0))


def test_any_strides_will_do() -> None:
    torch.manual_seed(5)
    x = torch.rand(4, 10, 6).add_(1)[:, ::2].transpose(0, 2).requires_grad_()
    y = GapDropout(0.4)(x)
    y.sum().backward()
    torch.testing.assert_close(y, x * x.grad)


def test_it_is_dropout_where_gaps_are_no_help() -> None:
    x = torch.rand(1000)
    assert torch.equal(GapDropout(0.3).eval()(x), x)
    assert torch.equal(GapDropout(0.0)(x), x)
    for rate in (0.7, 1.0):
        torch.manual_seed(6)
        ours = GapDropout(rate)(x)
        torch.manual_seed(6)
        assert torch.equal(ours, nn.Dropout(rate)(x))


def test_the_seed_says_which() -> None:
    x = torch.rand(1000)
    drawn = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        drawn.append(GapDropout(0.1)(x))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_the_procedure_takes_every_gate_of_a_net(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(
        "recipe: digits\nfixed: {dataset: digits, depth: 8, width: 4, procedures: [fast-dropout]}\n"
        "grid: {ordering: [baseline, conv-relu-ic, li2018]}"
    )
    baseline, ic, head = (config for _, config in grid.load(tmp_path / "grid.yaml").runs())
    assert baseline.procedures == ()  # it has no dropout, so it is the run that it was
    for config, gates in ((ic, 7), (head, 1)):
        found = [module for module in build(config).modules() if isinstance(module, nn.Dropout)]
        assert [type(gate) for gate in found] == [GapDropout] * gates
        assert math.isclose(found[0].p, 0.05)
    procedure = catalog.load("procedures", "fast-dropout").build()
    with pytest.raises(ValueError, match="no elementwise dropout"):
        procedure.attach(nn.Linear(1, 1))
