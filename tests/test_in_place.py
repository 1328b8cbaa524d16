"""Layers that overwrite what they no longer need: the same bits; batch norm and gates as one: the same numbers."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from icbench.bench.task import configuration
from icbench.nets.build import build
from icbench.nets.fast_ic import FastIC
from icbench.nets.folded import folded
from icbench.nets.gaps import GapDropout, successes
from icbench.nets.in_place import work_in_place
from icbench.nets.resnet import Unit

ORDERINGS = ("baseline", "relu-ic-conv", "ic-conv-relu", "conv-relu-ic", "conv-ic-relu", "li2018")


def nets(**fields: Any) -> tuple[nn.Module, nn.Module]:
    """The net of a configuration as it is built, and working in place."""
    usual = {"dataset": "digits", "block": "basic", "depth": 14, "recipe": "digits"}
    dropout = {} if fields["ordering"] == "baseline" else {"dropout": 0.1}
    config = configuration(**usual | dropout | fields)
    made = []
    for _ in range(2):
        torch.manual_seed(1)
        made.append(build(config).to(memory_format=torch.channels_last))
    work_in_place(made[1])
    return made[0], made[1]


def trained(net: nn.Module, steps: int = 3) -> list[torch.Tensor]:
    """Losses, all gradients of the last step, the buffers and the logits in evaluation."""
    torch.manual_seed(2)
    images, labels = torch.randn(steps, 16, 1, 8, 8), torch.randint(0, 10, (steps, 16))
    images = images.to(next(net.parameters()).dtype)
    losses = []
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for x, y in zip(images, labels, strict=True):
        optimizer.zero_grad()
        loss = cross_entropy(net.train()(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    with torch.inference_mode():
        logits = net.eval()(images[0])
    return [*losses, *(p.grad for p in net.parameters() if p.grad is not None), *net.buffers(), logits]


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_the_bits_are_the_same(ordering: str, block: str) -> None:
    plain, lean = nets(ordering=ordering, block=block, depth=14 if block == "basic" else 20)
    for a, b in zip(trained(plain), trained(lean), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("fields", [{"norm": norm} for norm in ("none", "layer", "instance", "ghost")])
def test_the_bits_are_the_same_with_other_layers(fields: dict[str, Any]) -> None:
    for ordering in ("relu-ic-conv", "conv-relu-ic", "conv-ic-relu"):
        plain, lean = nets(ordering=ordering, **fields)
        for a, b in zip(trained(plain), trained(lean), strict=True):
            assert torch.equal(a, b)


def test_what_is_overwritten() -> None:
    """ReLUs behind a convolution or batch norm, and sums; not what the shortcut still needs."""
    for ordering, relus, units in (
        ("baseline", 13, 6),
        ("relu-ic-conv", 6, 6),
        ("ic-conv-relu", 12, 0),
        ("conv-relu-ic", 13, 6),
    ):
        _, net = nets(ordering=ordering)
        assert sum(m.inplace for m in net.modules() if type(m) is nn.ReLU) == relus, ordering
        assert sum(m.in_place for m in net.modules() if isinstance(m, Unit)) == units, ordering


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("own", [True, False])
def test_norm_and_gates_as_one_are_as_one_after_another(layout: torch.memory_format, own: bool) -> None:
    """Output, gradients, running statistics, the next random number: beside torch's batch norm and the same gates."""
    torch.manual_seed(3)
    x = torch.randn(8, 6, 5, 5).mul_(3).add_(1).to(memory_format=layout)
    norm, other = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
    for module in (norm, other):
        torch.manual_seed(4)
        nn.init.uniform_(module.weight)
        nn.init.uniform_(module.bias)
    gradient = torch.randn_like(x)
    given = gradient.clone(memory_format=layout)

    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.manual_seed(5)
    y = FastIC(norm, GapDropout(0.2), gradient_is_own=own)(mine)
    y.backward(given)
    next_number = torch.rand(1)

    torch.manual_seed(5)
    gates = torch.ones(x.numel())
    gates[successes(x.numel(), 0.2)] = 0
    assert torch.equal(torch.rand(1), next_number)
    in_memory = gates.view(8, 5, 5, 6).permute(0, 3, 1, 2) if layout is torch.channels_last else gates.view(8, 6, 5, 5)
    expected = other(theirs) * in_memory / 0.8
    expected.backward(gradient)

    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(mine.grad, theirs.grad)
    for a, b in zip((*norm.parameters(), *norm.buffers()), (*other.parameters(), *other.buffers()), strict=True):
        torch.testing.assert_close(a, b)
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad)
    assert torch.equal(given, gradient) is not own


@pytest.mark.parametrize("ordering", ["relu-ic-conv", "ic-conv-relu", "conv-relu-ic", "conv-ic-relu"])
def test_a_net_of_them_is_the_net_of_gap_dropout(ordering: str) -> None:
    """Same gates, one operation after another."""
    net, lean = nets(ordering=ordering, procedures=["fast-dropout"])
    joined = [m for m in net.modules() if isinstance(m, FastIC)]
    assert len(joined) >= 12
    for each in joined:
        each.__class__ = type("Apart", (nn.Module,), {"forward": lambda self, x: self.dropout(self.norm(x))})
    for a, b in zip(trained(net.double()), trained(lean.double()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_outside_training_and_at_other_rates_it_is_its_parts() -> None:
    torch.manual_seed(6)
    x = torch.randn(4, 6, 3, 3)
    layer = FastIC(nn.BatchNorm2d(6), GapDropout(0.8), gradient_is_own=False)
    torch.manual_seed(7)
    y = layer(x)
    torch.manual_seed(7)
    torch.testing.assert_close(y, nn.Dropout(0.8)(nn.BatchNorm2d(6)(x)))
    layer.eval()
    assert torch.equal(layer(x), layer.norm(x))


@pytest.mark.parametrize(("ordering", "folds"), [("baseline", True), ("conv-ic-relu", True), ("relu-ic-conv", False)])
def test_folded_in_evaluation(ordering: str, folds: bool) -> None:
    """The same logits, of the weights as they are; the net itself stays as it was."""
    net, _ = nets(ordering=ordering)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                torch.nn.init.uniform_(tensor.data, 0.5, 2)
    net = net.double().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(16, 1, 8, 8, dtype=torch.float64)
    with torch.inference_mode():
        other = folded(net)
        expected = net(x)
        torch.testing.assert_close(other(x), expected)
    assert (other is net) is not folds
    assert sum(isinstance(module, nn.BatchNorm2d) for module in other.modules()) == (0 if folds else 13)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_one_value_a_channel_is_refused_as_by_batch_norm() -> None:
    layer = FastIC(nn.BatchNorm2d(6), GapDropout(0.2), gradient_is_own=True)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        layer(torch.randn(1, 6, 1, 1))


def test_norm_and_gates_as_one_in_bfloat16() -> None:
    torch.manual_seed(8)
    x = torch.randn(8, 6, 5, 5).to(torch.bfloat16, memory_format=torch.channels_last)
    torch.manual_seed(9)
    y = FastIC(nn.BatchNorm2d(6), GapDropout(0.2), gradient_is_own=True)(x)
    torch.manual_seed(9)
    exact = FastIC(nn.BatchNorm2d(6), GapDropout(0.2), gradient_is_own=True)(x.float())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), exact, rtol=2**-7, atol=2**-7)
