"""Activations, the dropout and the initial weights that go with them."""

import math
from pathlib import Path

import pytest
import torch
from scipy import integrate, stats
from torch import nn

from icbench import catalog, grid
from icbench.nets.activations import relu, snn
from icbench.nets.build import build
from icbench.nets.initialization import initialize
from icbench.nets.weights.normprop import StandardizedReLU


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", catalog.names("activations"))
class TestEveryActivation:
    """What every activation and its dropout must do."""

    def test_keeps_shape_and_type(self, name: str) -> None:
        activation, dropout = catalog.load("activations", name).build(), catalog.load("activations", name).dropout(0.3)
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            x = torch.randn(2, 4, 3, 3, dtype=dtype)
            for module in (activation, dropout):
                assert (module(x).shape, module(x).dtype) == (x.shape, dtype)
        with torch.device("meta"):
            assert dropout(activation(torch.randn(2, 4, 3, 3))).shape == (2, 4, 3, 3)

    def test_gradient(self, name: str) -> None:
        x = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(catalog.load("activations", name).build(), (x,))

    def test_dropout_is_elementwise_and_off_in_evaluation(self, name: str) -> None:
        dropout = catalog.load("activations", name).dropout(0.25)
        x = torch.full((1000, 4, 4, 4), 0.5)
        y = dropout(x)
        gated = y == y.min()
        assert gated.float().mean().item() == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / y.numel()))
        assert not torch.equal(gated[:, :, 0, 0], gated[:, :, 0, 1])
        assert torch.equal(dropout.eval()(x), x)


def moment(activation: nn.Module, order: int) -> float:
    """E f(z)^order of a standard normal z, by numerical integration."""

    def density(z: float) -> float:
        return float(activation(torch.tensor(z, dtype=torch.float64))) ** order * float(stats.norm.pdf(z))

    return sum(integrate.quad(density, *limits, epsabs=1e-13)[0] for limits in ((-12, 0), (0, 12)))


def test_relu_is_he_s() -> None:
    x = torch.randn(100)
    assert torch.equal(relu.build()(x), x.clamp(min=0))
    y = relu.dropout(0.2)(torch.ones(1000))
    assert set(y.tolist()) == {0.0, 1.25}


def test_selu_s_fixed_point() -> None:
    """Mean 0 and variance 1, with the constants of Klambauer et al., section 3."""
    assert moment(snn.build(), 1) == pytest.approx(0, abs=1e-9)
    assert moment(snn.build(), 2) == pytest.approx(1, abs=1e-9)
    positive, lowest = snn.build()(torch.tensor([2.0, -50.0])).tolist()
    assert (positive / 2, lowest) == pytest.approx((1.0507, -1.0507 * 1.6733), abs=1e-4)


@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_self_normalising_nets_keep_mean_and_variance(kind: str, rate: float) -> None:
    layers: list[nn.Module] = []
    for _ in range(8):
        # Maps as large as the kernel, and padded around: no zeros enter.
        convolution = nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular")
        layers += [nn.Linear(512, 512) if kind == "linear" else convolution, snn.build(), snn.dropout(rate)]
    net = nn.Sequential(*layers)
    initialize(net, snn.INITIALIZATION)
    x = torch.randn(512, 512) if kind == "linear" else torch.randn(64, 64, 4, 4)
    with torch.no_grad():
        y = net(x)
    assert y.mean().item() == pytest.approx(0, abs=0.1)
    assert y.var().item() == pytest.approx(1, abs=0.2)


POWER = {"he-normal": 2, "he-truncated-normal": 2, "lecun-normal": 1}


@pytest.mark.parametrize("how", POWER)
def test_initial_weights(how: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 256, 3), nn.Conv2d(16, 64, 3), nn.Linear(64, 1000))
    initialize(net, how)
    for layer in net:
        weight = layer.weight.detach()
        deviation = math.sqrt(POWER[how] / weight[0].numel())
        assert weight.std().item() == pytest.approx(deviation, rel=5 / math.sqrt(2 * weight.numel()))
        assert (weight.abs().max().item() <= 2 / 0.87962566 * deviation * 1.001) == (how == "he-truncated-normal")


def test_he_fan_out_is_torchvision_s() -> None:
    """What its ResNets call for convolutions, and nothing for the classifier."""
    torch.manual_seed(0)
    convolution, classifier = nn.Conv2d(16, 64, 3), nn.Linear(64, 1000)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    torch.manual_seed(1)
    initialize(nn.Sequential(convolution, classifier), "he-fan-out")
    torch.manual_seed(1)
    expected = torch.empty_like(convolution.weight)
    nn.init.kaiming_normal_(expected, mode="fan_out", nonlinearity="relu")
    torch.testing.assert_close(convolution.weight.detach(), expected)
    assert not convolution.bias.any()
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


@pytest.mark.parametrize("how", ["he-normal", "he-truncated-normal"])
def test_he_s_weights_keep_their_bits(how: str) -> None:
    """Results hang on these bits. In float64, since float32 would hide a deviation that is off in its last bits."""
    layers = [nn.Linear(fan_in, 3, dtype=torch.float64) for fan_in in (*range(1, 200), 576, 2304)]
    torch.manual_seed(0)
    initialize(nn.Sequential(*layers), how)
    torch.manual_seed(0)
    for layer in layers:
        deviation = math.sqrt(2 / layer.in_features)
        expected = torch.empty_like(layer.weight)
        if how == "he-normal":
            expected.normal_(std=deviation)
        else:
            scale = deviation / 0.87962566103423978
            nn.init.trunc_normal_(expected, std=scale, a=-2 * scale, b=2 * scale)
        assert torch.equal(layer.weight, expected)


def net_of(fields: str, folder: Path) -> nn.Module:
    file = folder / "grid.yaml"
    file.write_text(f"recipe: {{name: digits}}\nfixed: {{dataset: digits, depth: 8, ordering: relu-ic-conv, {fields}}}")
    return build(grid.load(file).runs()[0][1])


def test_snn_is_what_a_net_is_built_of(tmp_path: Path) -> None:
    """SELU and alpha dropout, and weights as LeCun has them though the recipe leaves them to torch."""
    net = net_of("activation: snn, norm: none, width: 64", tmp_path)
    kinds = {type(module) for module in net.modules()}
    assert {nn.SELU, nn.AlphaDropout} <= kinds
    assert not {nn.ReLU, nn.Dropout} & kinds
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            deviation = 1 / math.sqrt(module.weight[0].numel())
            assert module.weight.std().item() == pytest.approx(deviation, rel=5 / math.sqrt(2 * module.weight.numel()))


def test_normprop_s_activation_is_what_a_net_is_built_of(tmp_path: Path) -> None:
    net = net_of("weight: normprop, norm: none", tmp_path)
    assert sum(isinstance(module, StandardizedReLU) for module in net.modules()) == 2 * 3 + 1
    assert not [module for module in net.modules() if isinstance(module, nn.ReLU)]


def test_an_initialisation_that_cannot_matter_makes_no_other_run(tmp_path: Path) -> None:
    text = (
        "recipe: {{name: digits, initialization: {}}}\n"
        "fixed: {{dataset: digits, depth: 8, ordering: li2018, activation: {}}}"
    )
    ids = []
    for activation in ("snn", "relu"):
        for how in ("he-normal", "torch-default"):
            (tmp_path / "grid.yaml").write_text(text.format(how, activation))
            ids += grid.load(tmp_path / "grid.yaml").run_ids
    assert ids[0] == ids[1]
    assert ids[2] != ids[3]
