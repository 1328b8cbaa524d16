"""The LSTM and the norms of sequences: torch's own layers, the papers' equations in NumPy, contracts that all keep."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from icbench import catalog
from icbench.architecture import lstm_multiply_adds
from icbench.data.store import load
from icbench.nets.initialization import initialize
from icbench.nets.lstm import LSTM
from icbench.nets.norms import recurrent_bn

NORMS = [name for name in catalog.names("norms") if "recurrent" in catalog.functions("norms", name)]
SHAPE = (6, 5, 3)


def lstm(norm: str, *, layers: int = 1, width: int = 8, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> LSTM:
    torch.manual_seed(seed)
    return LSTM(catalog.load("norms", norm).recurrent, layers=layers, width=width, shape=shape, classes=10)


def images(count: int, dtype: torch.dtype = torch.float32, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    height, width, channels = shape
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(1), dtype=dtype)


def moved(net: LSTM) -> LSTM:
    """With parameters and running statistics away from where they begin, so that none can be left out unseen."""
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            tensor += 0.3 * torch.rand(tensor.shape, generator=random)
    return net


def test_these_norms_are_for_sequences() -> None:
    assert NORMS == ["layer", "none", "recurrent-bn"]


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_without_a_norm_it_is_torch_s(layers: int, dtype: torch.dtype, tolerance: float) -> None:
    """Logits, and the gradients of images and weights."""
    net = moved(lstm("none", layers=layers)).to(dtype)
    torchs = nn.LSTM(15, 8, layers, batch_first=True, dtype=dtype)
    with torch.no_grad():
        for index, layer in enumerate(net.layers):
            getattr(torchs, f"weight_ih_l{index}").copy_(layer.input_weight)
            getattr(torchs, f"weight_hh_l{index}").copy_(layer.recurrent_weight)
            getattr(torchs, f"bias_ih_l{index}").copy_(layer.bias)
            getattr(torchs, f"bias_hh_l{index}").zero_()
    x = images(4, dtype).requires_grad_()
    rows = torch.stack([x[:, :, row].transpose(1, 2).flatten(1) for row in range(6)], dim=1)
    logits, expected = net(x), functional.linear(torchs(rows)[0][:, -1], net.classifier.weight, net.classifier.bias)
    close = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance)
    close(logits, expected)

    def gradients(of: Tensor, module: nn.Module, parameters: list[str]) -> tuple[Tensor, ...]:
        wanted = [module.get_parameter(f"{name}{index}") for index in range(layers) for name in parameters]
        return torch.autograd.grad(of.square().mean(), [x, *wanted])

    torchs_own = gradients(expected, torchs, ["weight_ih_l", "weight_hh_l", "bias_ih_l"])
    names = ["input_weight", "recurrent_weight", "bias"]
    ours = torch.autograd.grad(
        logits.square().mean(), [x, *(layer.get_parameter(name) for layer in net.layers for name in names)]
    )
    for own, other in zip(ours, torchs_own, strict=True):
        close(own, other)


def standard(z: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return (z - mean) / np.sqrt(variance + 1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_the_papers_equations(norm: str, training: bool) -> None:
    """Cooijmans et al.'s section 3, Ba et al.'s supplementary material: the cell itself is not normalised."""
    net = moved(lstm(norm).double()).train(training)
    x = images(7, torch.float64)
    values = {name: value.numpy().copy() for name, value in net.state_dict().items()}

    def normal(which: str, z: np.ndarray, t: int) -> np.ndarray:
        own = {
            name.rpartition(".")[2]: value
            for name, value in values.items()
            if name.startswith(f"layers.0.norm_{which}")
        }
        if norm == "none":
            return z
        if norm == "layer":
            z = standard(z, z.mean(1, keepdims=True), z.var(1, keepdims=True))
        elif training:
            z = standard(z, z.mean(0), z.var(0))
        else:
            z = standard(z, own["running_mean"][t], own["running_var"][t])
        return z * own["weight"] + own.get("bias", 0.0)

    weights = [values[f"layers.0.{name}"] for name in ("input_weight", "recurrent_weight", "bias")]
    h = c = np.zeros((7, 8))
    for t in range(6):
        row = x[:, :, t].numpy().transpose(0, 2, 1).reshape(7, 15)
        gates = normal("recurrent", h @ weights[1].T, t) + normal("input", row @ weights[0].T, t) + weights[2]
        i, f, g, o = np.split(gates, 4, axis=1)
        c = expit(f) * c + expit(i) * np.tanh(g)
        h = expit(o) * np.tanh(normal("cell", c, t))
    expected = h @ values["classifier.weight"].T + values["classifier.bias"]
    np.testing.assert_allclose(net(x).detach().numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_only_the_cell_s_norm_has_a_shift(norm: str) -> None:
    """The gates' norms would only repeat the bias."""
    shifts = [name for name, _ in lstm(norm).named_parameters() if "norm" in name and name.endswith("bias")]
    assert len(shifts) == (norm != "none")
    assert all("norm_cell" in name for name in shifts)


def test_initial_weights() -> None:
    """Those of the authors' code; a recipe's initialisation draws the classifier alone anew."""
    net = lstm("none", layers=2)
    before = copy.deepcopy(net)
    initialize(net, "he-normal")
    same = {name: torch.equal(value, before.get_parameter(name)) for name, value in net.named_parameters()}
    assert {name for name, kept in same.items() if not kept} == {"classifier.weight", "classifier.bias"}
    for layer in net.layers:
        i, f, g, o = layer.recurrent_weight.chunk(4)
        torch.testing.assert_close(layer.input_weight.T @ layer.input_weight, torch.eye(layer.input_weight.shape[1]))
        assert torch.equal(g, torch.eye(8))
        torch.testing.assert_close(i.T @ i + f.T @ f + o.T @ o, torch.eye(8))
        assert layer.bias.tolist() == [0.0] * 8 + [1.0] * 8 + [0.0] * 16


class TestRecurrentBatchNorm:
    """Against torch's BatchNorm1d, one for each step."""

    @pytest.fixture(autouse=True)
    def seed(self) -> None:
        torch.manual_seed(0)

    @pytest.mark.parametrize("steps", [1, 3])
    @pytest.mark.parametrize("momentum", [0.1, 0.4])
    def test_is_a_batch_norm_at_each_step(self, steps: int, momentum: float) -> None:
        ours = recurrent_bn.recurrent(5, steps, epsilon=1e-3, momentum=momentum).double()
        torchs = [nn.BatchNorm1d(5, eps=1e-3, momentum=momentum, dtype=torch.float64) for _ in range(steps)]
        for module in torchs:
            nn.init.constant_(module.weight, 0.1)
        for batch in range(4):
            x = torch.randn(steps, 6, 5, dtype=torch.float64) * (1 + torch.arange(steps))[:, None, None] + batch
            x.requires_grad_()
            y = torch.stack([ours(x[step], step) for step in range(steps)])
            expected = torch.stack([module(x[step]) for step, module in enumerate(torchs)])
            torch.testing.assert_close(y, expected)
            weigh = torch.randn_like(y)
            own = torch.autograd.grad((y * weigh).sum(), [x, ours.weight, ours.bias])
            others = torch.autograd.grad(
                (expected * weigh).sum(), [x, *(m.weight for m in torchs), *(m.bias for m in torchs)]
            )
            torch.testing.assert_close(own[0], others[0])
            torch.testing.assert_close(own[1], sum(others[1 : steps + 1]))
            torch.testing.assert_close(own[2], sum(others[steps + 1 :]))
        torch.testing.assert_close(ours.running_mean, torch.stack([m.running_mean for m in torchs]))
        torch.testing.assert_close(ours.running_var, torch.stack([m.running_var for m in torchs]))
        for step, module in enumerate(torchs):
            torch.testing.assert_close(ours.eval()(x[step], step), module.eval()(x[step]))

    def test_a_step_leaves_the_others_statistics_alone(self) -> None:
        module = recurrent_bn.recurrent(5, 3)
        module(torch.randn(8, 5) + 4, 1)
        assert module.running_mean[1].min() > 0.2
        for step in (0, 2):
            assert module.running_mean[step].tolist() == [0.0] * 5
            assert module.running_var[step].tolist() == [1.0] * 5

    def test_one_image_trains_to_the_shift(self) -> None:
        """torch's BatchNorm1d raises; here an epoch whose last batch is one image goes on."""
        module = recurrent_bn.recurrent(5, 2).double()
        module(torch.randn(8, 5, dtype=torch.float64), 0)
        before = copy.deepcopy(module.state_dict())
        nn.init.constant_(module.bias, 0.7)
        x = torch.randn(1, 5, dtype=torch.float64, requires_grad=True)
        y = module(x, 0)
        assert y.tolist() == [[0.7] * 5]
        y.sum().backward()
        assert [t.grad.abs().sum().item() for t in (x, module.weight, module.bias)] == [0.0, 0.0, 5.0]
        assert torch.equal(module.running_mean, before["running_mean"])
        assert torch.equal(module.running_var, before["running_var"])

    def test_one_image_without_a_shift_is_zero(self) -> None:
        assert not recurrent_bn.recurrent(5, 2, False)(torch.randn(1, 5), 0).any()

    @pytest.mark.parametrize(("epsilon", "explodes"), [(1e-5, True), (0.1**2, False)])
    def test_rows_that_are_alike(self, epsilon: float, explodes: bool) -> None:
        """Where the upper rows of all images are black, as MNIST's are, rounding errors grow with every such row."""
        make = partial(recurrent_bn.recurrent, epsilon=epsilon)
        net = LSTM(make, layers=1, width=64, shape=(28, 28, 1), classes=10)
        x = images(32, shape=(28, 28, 1))
        x[:, :, :8] = -0.42
        functional.cross_entropy(net(x), torch.arange(32) % 10).backward()
        largest = max(p.grad.abs().max().item() for p in net.parameters() if p.grad is not None)
        assert (largest > 1e3) == explodes
        assert explodes or largest < 1


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("layers", [1, 2])
class TestEveryLSTM:
    """What an LSTM with any norm must do."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_trains(self, norm: str, layers: int, dtype: torch.dtype) -> None:
        net = lstm(norm, layers=layers).to(dtype)
        logits = net(images(8, dtype))
        assert logits.shape == (8, 10)
        assert logits.dtype == dtype
        logits.square().sum().backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() and p.grad.any() for p in net.parameters())

    def test_gradient(self, norm: str, layers: int) -> None:
        net = moved(lstm(norm, layers=layers, width=3, shape=(3, 2, 1)).double())
        x = images(4, torch.float64, (3, 2, 1)).requires_grad_()
        assert torch.autograd.gradcheck(net, (x,))

    def test_evaluates_each_image_by_itself(self, norm: str, layers: int) -> None:
        net = moved(lstm(norm, layers=layers)).double().eval()
        x = images(4, torch.float64)
        with torch.no_grad():
            together, alone = net(x), torch.cat([net(image[None]) for image in x])
        torch.testing.assert_close(together, alone)

    def test_trains_on_one_image(self, norm: str, layers: int) -> None:
        net = lstm(norm, layers=layers)
        net(images(1)).square().sum().backward()
        tensors = [*net.state_dict().values(), *(p.grad for p in net.parameters())]
        assert all(tensor is not None and torch.isfinite(tensor).all() for tensor in tensors)

    def test_in_bfloat16(self, norm: str, layers: int) -> None:
        net = lstm(norm, layers=layers)
        x = images(64)
        exact = copy.deepcopy(net)(x)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(x)
        assert logits.dtype == torch.bfloat16
        assert (logits - exact).abs().max() < 0.05
        logits.float().square().mean().backward()
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in net.parameters())

    def test_on_the_meta_device(self, norm: str, layers: int) -> None:
        with torch.device("meta"):
            net = LSTM(catalog.load("norms", norm).recurrent, layers=layers, width=8, shape=SHAPE, classes=10)
            net(torch.empty(4, 3, 6, 5)).sum().backward()
        assert all(p.grad is not None and p.grad.is_meta for p in net.parameters())

    def test_keeps_its_state_bit_for_bit(self, norm: str, layers: int) -> None:
        net = moved(lstm(norm, layers=layers))
        net(images(8))
        other = lstm(norm, layers=layers, seed=1)
        other.load_state_dict(net.state_dict())
        twins = [net, other, copy.deepcopy(net)]
        trained = [twin(images(8)) for twin in twins]
        evaluated = [twin.eval()(images(8)) for twin in twins]
        states = [list(twin.state_dict().values()) for twin in twins]
        for outputs in (trained, evaluated, *zip(*states, strict=True)):
            assert torch.equal(outputs[0], outputs[1])
            assert torch.equal(outputs[0], outputs[2])

    def test_multiply_adds_are_torch_s(self, norm: str, layers: int) -> None:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            lstm(norm, layers=layers)(images(1))
        assert counter.get_total_flops() == 2 * lstm_multiply_adds(layers, 8, SHAPE, 10)


@pytest.mark.parametrize("norm", NORMS)
def test_learns(norm: str) -> None:
    """Handwritten digits; chance is 10 %."""
    net = lstm(norm, width=64, shape=(8, 8, 1))
    arrays = load("digits", None)
    x, x_test = (torch.from_numpy(arrays[f"x_{part}"]).permute(0, 3, 1, 2) / 8 - 1 for part in ("train", "test"))
    y, y_test = (torch.from_numpy(arrays[f"y_{part}"]) for part in ("train", "test"))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(4):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
    net.eval()
    assert (net(x_test).argmax(1) == y_test).double().mean() > 0.9
