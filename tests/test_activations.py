"""Activations, the dropout and the initial weights that go with them."""

import math

import pytest
import torch
from scipy import integrate, stats
from torch import Tensor, nn

from icbench import catalog
from icbench.nets.activations import relu, snn
from icbench.nets.initialization import initialize


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

    def test_the_gain_keeps_the_power(self, name: str) -> None:
        """Of a standard normal z, GAIN^2 E f(z)^2 is 1: the next layer's sums have the variance of these."""
        module = catalog.load("activations", name)
        assert module.GAIN**2 * moment(module.build(), 2) == pytest.approx(1, abs=1e-9)


def moment(activation: nn.Module, order: int) -> float:
    """E f(z)^order of a standard normal z, by numerical integration."""

    def density(z: float) -> float:
        return float(activation(torch.tensor(z, dtype=torch.float64))) ** order * float(stats.norm.pdf(z))

    return sum(integrate.quad(density, *limits, epsabs=1e-13)[0] for limits in ((-12, 0), (0, 12)))


def test_relu_is_he_s() -> None:
    x = torch.randn(100)
    assert torch.equal(relu.build()(x), x.clamp(min=0))
    assert math.sqrt(2) == relu.GAIN
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
    initialize(net, "he-normal", snn.GAIN)
    x = torch.randn(512, 512) if kind == "linear" else torch.randn(64, 64, 4, 4)
    with torch.no_grad():
        y = net(x)
    assert y.mean().item() == pytest.approx(0, abs=0.1)
    assert y.var().item() == pytest.approx(1, abs=0.2)


def draw(how: str, **gain: float) -> list[Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 256, 3), nn.Conv2d(16, 64, 3), nn.Linear(64, 1000))
    initialize(net, how, **gain)
    return [layer.weight.detach() for layer in net]


@pytest.mark.parametrize(("how", "cut"), [("he-normal", math.inf), ("he-truncated-normal", 2 / 0.87962566)])
@pytest.mark.parametrize("gain", [1.0, math.sqrt(2), 1.7])
def test_initial_weights_have_the_gain(how: str, cut: float, gain: float) -> None:
    for weight in draw(how, gain=gain):
        deviation = gain / math.sqrt(weight[0].numel())
        assert weight.std().item() == pytest.approx(deviation, rel=5 / math.sqrt(2 * weight.numel()))
        assert weight.abs().max().item() <= cut * deviation * 1.001


@pytest.mark.parametrize("how", ["he-normal", "he-truncated-normal"])
def test_the_default_gain_draws_the_bits_of_the_fraction_2_by_fan_in(how: str) -> None:
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


def test_torch_s_own_weights_have_no_gain() -> None:
    assert all(torch.equal(a, b) for a, b in zip(draw("torch-default"), draw("torch-default", gain=1.0), strict=True))
