"""Normalisation layers: the contract that all keep, and each against an independent way to compute the same."""

import ast
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import batch_norm, layer_norm

from icbench import catalog
from icbench.nets.norms.adain import adain, style
from icbench.nets.norms.bounded_batch import BoundedBatchNorm
from icbench.nets.norms.iternorm import newton_inverse_root
from icbench.nets.norms.zca import inverse_root
from icbench.nets.reference import ReferenceBatch
from icbench.nets.running import RunningStatistics

CHANNELS = 16
SHAPE = (12, CHANNELS, 6, 6)
REFERENCE = 4
# Such as let a few small batches meet all that a norm does.
OPTIONS: dict[str, dict[str, int]] = {
    "batch-renorm": {"warmup": 1, "r_steps": 4, "d_steps": 4},
    "ghost": {"images": 5},
    "virtual": {"images": REFERENCE},
}
NORMS = [name for name in catalog.names("norms") if hasattr(catalog.load("norms", name), "build")]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def build(name: str, channels: int = CHANNELS, **options: Any) -> Any:
    return catalog.load("norms", name).build(channels, **options)


def ready(name: str) -> nn.Module:
    """A norm that takes a batch as it comes; its scales and shifts are not what they begin with."""
    norm = build(name, **OPTIONS.get(name, {}))
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.add_(torch.rand_like(parameter), alpha=0.5)
    if name != "virtual":
        return norm
    module = ReferenceBatch(norm, (REFERENCE, *SHAPE[1:]))
    module.take(images(REFERENCE).bfloat16().float())  # which no type of input rounds
    return module


def images(count: int = SHAPE[0], dtype: torch.dtype = torch.float32) -> Tensor:
    """Images of unlike brightness and contrast, of correlated channels."""
    x = torch.randn(count, *SHAPE[1:]) * (1 + torch.rand(count, 1, 1, 1)) + torch.randn(count, CHANNELS, 1, 1)
    return (x + 0.5 * x.roll(1, 1) + 1).to(dtype)


def trained(module: nn.Module) -> nn.Module:
    """The module after some training steps."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01) if list(module.parameters()) else None
    for _ in range(3):
        y = module.train()(images().to(next(iter(module.state_dict().values()), torch.zeros(())).dtype))
        if optimizer:
            optimizer.zero_grad()
            y.sin().sum().backward()
            optimizer.step()
    return module


def gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    y = module(x)
    found = torch.autograd.grad(y, [x, *module.parameters()], torch.randn_like(y))
    return list(found)


@pytest.mark.parametrize("name", NORMS)
class TestContract:
    """What every norm must do to (N, C, H, W) maps."""

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_keeps_shape_and_type_and_has_finite_gradients(self, name: str, dtype: torch.dtype, training: bool) -> None:
        module = ready(name).to(dtype).train(training)
        x = images(dtype=dtype)
        y = module(x)
        assert y.shape == x.shape
        assert y.dtype == dtype
        assert all(torch.isfinite(value).all() for value in [y, *gradients(module, x)])

    @pytest.mark.parametrize("value", [0.0, 3.0, -1000.1])
    def test_survives_constant_input(self, name: str, value: float) -> None:
        module = ready(name)
        x = torch.full(SHAPE, value)
        for training in (True, False):
            module.train(training)
            assert all(torch.isfinite(result).all() for result in [module(x), *gradients(module, x)])

    def test_trains_on_one_image(self, name: str) -> None:
        module = ready(name)
        x = images(1)
        assert all(torch.isfinite(value).all() for value in [module(x), *gradients(module, x)])

    def test_what_is_not_finite_raises_nothing(self, name: str) -> None:
        """A training that diverges must come to its loss, which says so."""
        x = images()
        x[0, 0, 0, 0] = math.nan
        assert torch.isnan(ready(name)(x).sum())

    @pytest.mark.parametrize("training", [True, False])
    def test_float64_is_computed_in_float64(self, name: str, training: bool) -> None:
        module = trained(ready(name).double()).train(training)
        x = images(dtype=torch.float64)
        exact, rounded = deepcopy(module)(x), deepcopy(module).float()(x.float())
        torch.testing.assert_close(rounded.double(), exact, rtol=1e-3, atol=1e-3)
        if name != "none":
            assert not torch.equal(exact, exact.float().double())

    @pytest.mark.parametrize("training", [True, False])
    def test_is_as_exact_within_autocast(self, name: str, training: bool) -> None:
        module = trained(ready(name)).train(training)
        x = images()
        expected, expected_state = deepcopy(module)(x), deepcopy(module)
        expected_state(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = module(x)
        assert y.dtype == torch.float32
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(module.state_dict(), expected_state.state_dict())

    @pytest.mark.parametrize(
        ("dtype", "unit", "autocast"),
        [(torch.bfloat16, 2**-8, True), (torch.bfloat16, 2**-8, False), (torch.float16, 2**-11, False)],
    )
    @pytest.mark.parametrize("training", [True, False])
    def test_low_precision_input(
        self, name: str, dtype: torch.dtype, unit: float, training: bool, autocast: bool
    ) -> None:
        """Statistics are in float32: nothing but the result is rounded."""
        module = trained(ready(name)).train(training)
        x = images().to(dtype)
        expected = deepcopy(module)(x.float())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            y = module(x)
        assert y.dtype == dtype
        torch.testing.assert_close(y.float(), expected, rtol=2 * unit, atol=2 * unit)
        assert all(torch.isfinite(value).all() for value in gradients(module, x))

    @pytest.mark.parametrize("training", [True, False])
    def test_the_layout_in_memory_changes_nothing(self, name: str, training: bool) -> None:
        module = trained(ready(name)).train(training)
        x = images()
        other = deepcopy(module).to(memory_format=torch.channels_last)
        torch.testing.assert_close(other(x.to(memory_format=torch.channels_last)), module(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other.state_dict(), module.state_dict(), rtol=1e-4, atol=1e-5)

    def test_evaluates_each_image_by_itself(self, name: str) -> None:
        module = trained(ready(name).double()).eval()
        x = images(dtype=torch.float64)
        torch.testing.assert_close(torch.cat([module(image[None]) for image in x]), module(x))

    def test_evaluation_changes_no_state(self, name: str) -> None:
        module = trained(ready(name)).eval()
        state = deepcopy(module.state_dict())
        module(images())
        assert all(torch.equal(module.state_dict()[key], value) for key, value in state.items())

    def test_the_state_is_all_there_is(self, name: str) -> None:
        module, fresh = trained(ready(name)), ready(name)
        fresh.load_state_dict(module.state_dict())
        x = images()
        for training in (False, True, False):
            assert torch.equal(fresh.train(training)(x), module.train(training)(x))

    def test_a_copy_is_independent(self, name: str) -> None:
        module = trained(ready(name)).eval()
        x = images()
        y, copy = module(x), deepcopy(module)
        assert torch.equal(copy(x), y)
        trained(copy)
        assert torch.equal(module(x), y)

    @pytest.mark.parametrize("training", [True, False])
    def test_runs_dry(self, name: str, training: bool) -> None:
        with torch.device("meta"):
            module = build(name).train(training)
            x = torch.empty(64, *SHAPE[1:], requires_grad=True)
        y = module(x)
        assert y.shape == x.shape
        y.sum().backward()
        assert all(value.grad is not None for value in [x, *module.parameters()])

    def test_the_docstring_has_its_format(self, name: str) -> None:
        file = Path(catalog.load("norms", name).__file__)
        docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        assert docstring is not None
        summary, *paragraphs = docstring.split("\n\n")
        assert "\n" not in summary
        assert len(summary) <= 120
        openings = [paragraph.split(":")[0] for paragraph in paragraphs]
        assert openings.count("Formula") == openings.count("Needs") == 1


def assert_gradients(module: nn.Module, x: Tensor) -> None:
    """By finite differences in float64, with respect to x and all parameters."""
    module = module.double()
    names = [name for name, _ in module.named_parameters()]

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        # On a copy, since a training forward moves the running statistics.
        return functional_call(deepcopy(module), dict(zip(names, parameters, strict=True)), (x,))

    inputs = [x.double(), *module.parameters()]
    inputs = [value.detach().clone().requires_grad_() for value in inputs]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("name", [name for name in NORMS if name != "instance"])  # torch's own does not
def test_keeps_channels_last(name: str) -> None:
    module = ready(name).to(memory_format=torch.channels_last)
    for training in (True, False):
        y = module.train(training)(images().to(memory_format=torch.channels_last))
        assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", [name for name in NORMS if isinstance(build(name), RunningStatistics)])
def test_momentum_can_make_plain_averages(name: str) -> None:
    """With 1 / (k + 1) for batch k, running statistics are the averages of the batches' own."""
    module = build(name)
    batches = [images() for _ in range(4)]
    own = []
    for k, batch in enumerate(batches):
        module.momentum = 1 / (k + 1)
        module(batch)
        alone = build(name)
        alone.momentum = 1
        alone(batch)
        own.append(dict(alone.named_buffers()))
    for key, buffer in module.named_buffers():
        if buffer.is_floating_point():
            torch.testing.assert_close(buffer, torch.stack([each[key] for each in own]).mean(0))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("switchable", {}),
        ("batch-renorm", {}),
        ("ghost", {"images": 4}),
        ("virtual", {"images": 4}),
        *[("lp", {"p": p, "streaming": streaming}) for p in (1.0, 1.5, 2.0, 3.0) for streaming in (False, True)],
        ("divisive", {"window": 3}),
        ("zca", {"group_size": 4}),
        ("iternorm", {"group_size": 4}),
        ("adain", {}),
        ("bounded-batch", {}),
    ],
)
def test_gradients(name: str, options: dict[str, Any], training: bool) -> None:
    module = build(name, 8, **options).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    module(torch.randn(9, 8, 3, 4, dtype=torch.float64))
    assert_gradients(module.train(training), torch.randn(9, 8, 3, 4) * 2 + 1)


def standard(x: Tensor, dimensions: tuple[int, ...], *, correction: int = 0, epsilon: float = 1e-5) -> Tensor:
    variance, mean = torch.var_mean(x, dim=dimensions, correction=correction, keepdim=True)
    return (x - mean) / torch.sqrt(variance + epsilon)


class TestSwitchable:
    @pytest.mark.parametrize(("index", "dimensions"), [(0, (2, 3)), (1, (1, 2, 3)), (2, (0, 2, 3))])
    def test_one_hot_logits_are_instance_layer_and_batch_norm(self, index: int, dimensions: tuple[int, ...]) -> None:
        module = build("switchable").double()
        x = images(dtype=torch.float64)
        with torch.no_grad():
            module.mean_logits[index] = module.var_logits[index] = 100
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=1, keepdim=True)
        other = tuple(dimension for dimension in dimensions if dimension < 2)
        if other:
            second, mean = (variance + mean.square()).mean(other, keepdim=True), mean.mean(other, keepdim=True)
            variance = second - mean.square()
        torch.testing.assert_close(module(x), (x - mean) / torch.sqrt(variance + 1e-5))
        if not other:
            torch.testing.assert_close(module(x), standard(x, (2, 3), correction=1))

    def test_means_and_variances_have_logits_of_their_own(self) -> None:
        module = build("switchable").double()
        x = images(dtype=torch.float64)
        with torch.no_grad():
            module.mean_logits.copy_(torch.tensor([0.2, 0.3, 0.5]).log())
            module.var_logits[0] = 100
        mean = sum(
            share * x.mean(dimensions, keepdim=True)
            for share, dimensions in ((0.2, (2, 3)), (0.3, (1, 2, 3)), (0.5, (0, 2, 3)))
        )
        torch.testing.assert_close(module(x), (x - mean) / torch.sqrt(x.var((2, 3), keepdim=True) + 1e-5))

    def test_one_pixel(self) -> None:
        module = build("switchable")
        x = torch.randn(8, CHANNELS, 1, 1)
        mean = (x + x.mean(1, keepdim=True) + x.mean(0, keepdim=True)) / 3
        variance = (x.var(1, correction=0, keepdim=True) + x.var(0, correction=0, keepdim=True)) / 3
        torch.testing.assert_close(module(x), (x - mean) / torch.sqrt(variance + 1e-5))

    def test_evaluation_mixes_in_the_running_moments(self) -> None:
        module = build("switchable")
        module.momentum = 1
        x = images()
        expected = module(x)
        torch.testing.assert_close(module.eval()(x), expected)


class TestBatchRenorm:
    def test_without_corrections_is_batch_norm(self) -> None:
        module, batch = build("batch-renorm", r_max=1.0, d_max=0.0, warmup=0, r_steps=1, d_steps=1), nn.BatchNorm2d(16)
        for _ in range(3):
            x = images()
            torch.testing.assert_close(module(x), batch(x))

    def test_unlimited_is_normalisation_by_the_running_statistics(self) -> None:
        module = build("batch-renorm", momentum=0.3, r_max=1e30, d_max=1e30, warmup=0, r_steps=1, d_steps=1)
        module(images())  # by whose end the ramps are
        for _ in range(3):
            x = images()
            frozen = deepcopy(module).eval()
            torch.testing.assert_close(module(x), frozen(x))

    def test_follows_mean_and_deviation(self) -> None:
        module = build("batch-renorm")
        x = images()
        module(x)
        torch.testing.assert_close(module.running_mean, 0.01 * x.mean((0, 2, 3)))
        sigma = torch.sqrt(x.var((0, 2, 3), correction=0) + 1e-5)
        torch.testing.assert_close(module.running_sigma, 0.99 + 0.01 * sigma)
        assert module.steps == 1

    @pytest.mark.parametrize(
        ("step", "r", "d"), [(5000, 1, 0), (15000, 1 + 2 * 10 / 35, 2.5), (25000, 1 + 2 * 20 / 35, 5), (99999, 3, 5)]
    )
    @pytest.mark.parametrize("sign", [1, -1])
    def test_the_bounds_grow_as_in_the_paper(self, step: int, r: float, d: float, sign: int) -> None:
        """Running statistics from which this batch is far away, in both directions, meet the bounds."""
        module = build("batch-renorm").double()
        x = standard(images(dtype=torch.float64), (0, 2, 3))
        module.steps.fill_(step)
        module.running_sigma.fill_(0.01 if sign > 0 else 100)
        module.running_mean.fill_(-1e6 * sign)
        bound = r if sign > 0 else 1 / r
        torch.testing.assert_close(module(x), x * bound + sign * d, rtol=1e-4, atol=1e-4)

    def test_no_gradient_passes_the_corrections(self) -> None:
        module = build("batch-renorm", warmup=0, r_steps=1, d_steps=1).double()
        module(images(dtype=torch.float64))
        module.running_sigma.mul_(1.5)
        x = images(dtype=torch.float64).requires_grad_()
        r = (
            torch.sqrt(x.detach().var((0, 2, 3), correction=0, keepdim=True) + 1e-5)
            / module.running_sigma[:, None, None]
        )
        weights = torch.randn_like(x)
        (ours,) = torch.autograd.grad(module(x), x, weights)
        (expected,) = torch.autograd.grad(r.clamp(1 / 3, 3) * standard(x, (0, 2, 3)), x, weights)
        torch.testing.assert_close(ours, expected)


class TestGhost:
    @pytest.mark.parametrize("count", [12, 13, 4, 3])
    def test_is_batch_norm_over_sub_batches(self, count: int) -> None:
        module, batch = build("ghost", images=4), nn.BatchNorm2d(16)
        x = images(count)
        torch.testing.assert_close(module(x), torch.cat([batch(x[i : i + 4]) for i in range(0, count, 4)]))
        torch.testing.assert_close(module.running_mean, batch.running_mean)
        torch.testing.assert_close(module.running_var, batch.running_var)
        torch.testing.assert_close(module.eval()(x), batch.eval()(x))

    def test_can_take_the_batch_as_one(self) -> None:
        module, batch = build("ghost", images=4), nn.BatchNorm2d(16)
        module.whole_batch = True
        x = images()
        assert torch.equal(module(x), batch(x))
        assert torch.equal(module.running_var, batch.running_var)


class TestVirtual:
    def test_is_the_papers_mixture(self) -> None:
        module = build("virtual", images=5).double()
        x = images(8, torch.float64)
        y = module(x)
        torch.testing.assert_close(y[:5], standard(x[:5], (0, 2, 3)))
        for image, result in zip(x[5:], y[5:], strict=True):
            mean = image.mean((1, 2)) / 6 + x[:5].mean((0, 2, 3)) * 5 / 6
            square = image.square().mean((1, 2)) / 6 + x[:5].square().mean((0, 2, 3)) * 5 / 6
            scale = torch.sqrt(square - mean.square() + 1e-5)
            torch.testing.assert_close(result, (image - mean[:, None, None]) / scale[:, None, None])

    @pytest.fixture
    def net(self) -> ReferenceBatch:
        layers = [nn.Conv2d(3, 16, 3), build("virtual", images=5), nn.ReLU(), nn.Conv2d(16, 16, 3)]
        net = nn.Sequential(*layers, build("virtual", images=5), nn.Flatten(), nn.LazyLinear(10))
        net(torch.zeros(6, 3, 7, 7))
        return ReferenceBatch(net, (5, 3, 7, 7)).double()

    def test_is_independent_of_batch_mates(self, net: ReferenceBatch) -> None:
        x = torch.randn(4, 3, 7, 7, dtype=torch.float64)
        net.take(torch.randn(5, 3, 7, 7))
        for training in (True, False):
            net.train(training)
            torch.testing.assert_close(torch.cat([net(image[None]) for image in x]), net(x))
        torch.testing.assert_close(net.train()(x), net.eval()(x))

    def test_the_reference_matters_and_is_state(self, net: ReferenceBatch) -> None:
        x, other = torch.randn(4, 3, 7, 7, dtype=torch.float64), deepcopy(net)
        net.take(torch.randn(5, 3, 7, 7))
        assert not torch.allclose(net(x), other(x))
        other.load_state_dict(net.state_dict())
        assert torch.equal(net(x), other(x))

    def test_a_reference_of_another_shape_is_refused(self, net: ReferenceBatch) -> None:
        with pytest.raises(ValueError, match=r"the reference is \(5, 3, 7, 7\), not \(1, 3, 7, 7\)"):
            net.take(torch.zeros(1, 3, 7, 7))


class TestLp:
    def test_p_2_is_batch_norm(self) -> None:
        module, batch = build("lp", p=2.0, epsilon=0.1).double(), nn.BatchNorm2d(16, eps=0.1).double()
        x = images(dtype=torch.float64)
        torch.testing.assert_close(module(x), batch(x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(module.running_mean, batch.running_mean)
        count = x.numel() / 16
        unbiased = 0.9 + (module.running_power - 0.9) * count / (count - 1)
        torch.testing.assert_close(unbiased, batch.running_var)

    @pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 4.0])
    def test_a_gaussian_s_deviation(self, p: float) -> None:
        """By the Gaussian's absolute moments, sqrt(2 / pi) for p = 1; four standard errors."""
        deviation = (2 ** (p / 2) * math.gamma((p + 1) / 2) / math.sqrt(math.pi)) ** (-1 / p)
        assert p != 1 or deviation == pytest.approx(1.2533, abs=1e-4)
        y = build("lp", 1, p=p)(5 * torch.randn(100, 1, 40, 40) + 3)
        assert y.std().item() == pytest.approx(deviation, rel=4 / math.sqrt(y.numel()))
        assert y.abs().pow(p).mean().item() == pytest.approx(1, abs=1e-5)

    @pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 4.0])
    def test_epsilon_is_a_variance_for_any_p(self, p: float) -> None:
        x = torch.tensor([-1e-9, 1e-9]).reshape(2, 1, 1, 1)
        y = build("lp", 1, p=p, epsilon=1e-2)(x)
        torch.testing.assert_close(y.flatten(), torch.tensor([-1e-8, 1e-8]), rtol=1e-4, atol=0)

    @pytest.mark.parametrize("p", [1.0, 1.5, 3.0])
    @pytest.mark.parametrize("streaming", [False, True])
    def test_constant_input_for_any_p(self, p: float, streaming: bool) -> None:
        module = build("lp", p=p, streaming=streaming)
        module.momentum = 1
        x = torch.full(SHAPE, 3.0)
        assert all(torch.isfinite(value).all() for value in [module(x), *gradients(module, x)])

    def test_streaming_evaluates_as_it_trained(self) -> None:
        module = build("lp", streaming=True, momentum=0.3)
        for _ in range(3):
            x = images()
            y = module.train()(x)
            torch.testing.assert_close(module.eval()(x), y)

    def test_streaming_moves_the_statistics_as_without(self) -> None:
        streaming, other = build("lp", streaming=True), build("lp")
        x = images()
        assert not torch.allclose(streaming(x), other(x))
        torch.testing.assert_close(streaming.state_dict(), other.state_dict())

    def test_streaming_with_all_weight_on_the_batch_does_not_stream(self) -> None:
        streaming, other = build("lp", streaming=True), build("lp")
        streaming.momentum = 1
        x = images()
        torch.testing.assert_close(streaming(x), other(x))


class TestDivisive:
    @pytest.mark.parametrize("s", [0.0, 0.5, 2.0])
    def test_a_window_over_all_is_layer_norm(self, s: float) -> None:
        module = build("divisive", window=11, s0=s)
        x = images()
        torch.testing.assert_close(module(x), layer_norm(x, x.shape[1:], eps=s**2 + 1e-5))

    def test_is_what_loops_over_pixels_find(self) -> None:
        module = build("divisive", 3, window=3).double()
        x = torch.randn(2, 3, 4, 5, dtype=torch.float64)

        def means(values: np.ndarray) -> np.ndarray:
            rows, columns = values.shape[2:]
            result = np.empty((len(values), 1, rows, columns))
            for i in range(rows):
                for j in range(columns):
                    seen = values[:, :, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
                    result[:, 0, i, j] = seen.mean((1, 2, 3))
            return result

        v = x.numpy() - means(x.numpy())
        expected = v / np.sqrt(0.25 + means(v**2) + 1e-5)
        np.testing.assert_allclose(module(x).detach().numpy(), expected)


def covariance(x: Tensor) -> Tensor:
    return torch.cov(x.transpose(0, 1).flatten(1), correction=0)


def positive_definite(*eigenvalues: float) -> Tensor:
    basis, _ = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues), dtype=torch.float64))
    return basis @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.mT


class TestZca:
    def test_whitens_each_group(self) -> None:
        module = build("zca", group_size=4, epsilon=1e-12).double()
        y = module(images(dtype=torch.float64))
        torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(16, dtype=torch.float64))
        found = covariance(y)
        for start in range(0, 16, 4):
            group = found[start : start + 4, start : start + 4]
            torch.testing.assert_close(group, torch.eye(4, dtype=torch.float64))
        assert found[:4, 4:].abs().max() > 0.01

    def test_is_the_inverse_root_times_the_centred_input(self) -> None:
        """That of all inverse roots which leaves the axes nearest to where they were."""
        module = build("zca", epsilon=0.1).double()
        x = images(dtype=torch.float64)
        root = scipy.linalg.inv(scipy.linalg.sqrtm(covariance(x).numpy() + 0.1 * np.eye(16)))
        pixels = (x - x.mean((0, 2, 3), keepdim=True)).transpose(0, 1).flatten(1).numpy()
        ours = module(x).detach().transpose(0, 1).flatten(1).numpy()
        np.testing.assert_allclose(ours, root @ pixels, atol=1e-10)
        np.testing.assert_allclose(module.running_whitening[0].numpy(), 0.9 * np.eye(16) + 0.1 * root, atol=1e-10)
        np.testing.assert_allclose(module.running_mean.numpy(), 0.1 * x.mean((0, 2, 3)).numpy())

    def test_inverse_root(self) -> None:
        matrices = torch.stack([positive_definite(3, 1e-3, 1, 7), positive_definite(2, 2, 2, 5)])
        expected = [scipy.linalg.fractional_matrix_power(matrix.numpy(), -0.5) for matrix in matrices]
        np.testing.assert_allclose(inverse_root(matrices).numpy(), np.stack(expected), rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("eigenvalues", [(3, 1, 0.2), (2, 2, 0.5), (1, 1, 1), (2, 2 + 1e-9, 2)])
    def test_gradient_where_eigenvalues_are_equal(self, eigenvalues: tuple[float, ...]) -> None:
        matrix = positive_definite(*eigenvalues)[None].requires_grad_()
        # Symmetric whatever the finite differences do.
        assert torch.autograd.gradcheck(lambda m: inverse_root((m + m.mT) / 2), (matrix,))

    def test_a_matrix_that_is_not_finite_spoils_no_other(self) -> None:
        good = positive_definite(3, 1, 2)
        result = inverse_root(torch.stack([torch.full_like(good, math.nan), good]))
        assert result[0].isnan().all()
        torch.testing.assert_close(result[1] @ good @ result[1], torch.eye(3, dtype=torch.float64))

    def test_large_values_and_few_images(self) -> None:
        """Rounding makes eigenvalues negative: fewer values than channels, and epsilon is too small to help."""
        x = 1e4 * torch.randn(2, 16, 2, 2)
        module = build("zca")
        assert all(torch.isfinite(value).all() for value in [module(x), *gradients(module, x)])

    @pytest.mark.parametrize("name", ["zca", "iternorm"])
    def test_groups_that_do_not_divide_are_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="groups of 5 channels cannot divide 16"):
            build(name, group_size=5)


class TestIterNorm:
    def test_approaches_zca(self) -> None:
        x = images(dtype=torch.float64)
        expected = build("zca", epsilon=0.1).double()(x)
        errors = [
            (build("iternorm", epsilon=0.1, iterations=count).double()(x) - expected).abs().max().item()
            for count in (1, 3, 5, 8, 11)
        ]
        assert errors == sorted(errors, reverse=True)
        assert errors[0] > 0.1
        assert errors[-1] < 1e-6

    def test_is_the_papers_iteration(self) -> None:
        matrix = positive_definite(3, 1, 0.2).numpy()
        root = np.eye(3)
        for _ in range(5):
            root = (3 * root - root @ root @ root @ matrix / np.trace(matrix)) / 2
        ours = newton_inverse_root(torch.from_numpy(matrix)[None], iterations=5)[0].numpy()
        np.testing.assert_allclose(ours, root / np.sqrt(np.trace(matrix)))

    def test_evaluation_uses_the_running_mean_and_matrix(self) -> None:
        module = build("iternorm", group_size=8)
        module.momentum = 1
        x = images()
        expected = module(x)
        torch.testing.assert_close(module.eval()(x), expected)


class TestAdain:
    def test_an_image_s_own_style_changes_nothing(self) -> None:
        x = images()
        torch.testing.assert_close(adain(x, *style(x, 1e-5)), x)

    def test_gives_the_style(self) -> None:
        content, other = images(), 3 * images() - 1
        y = adain(content, *style(other, 1e-5))
        torch.testing.assert_close(y.mean((2, 3)), other.mean((2, 3)))
        torch.testing.assert_close(y.std((2, 3)), other.std((2, 3)), rtol=1e-4, atol=1e-4)

    def test_a_batch_of_one_image_is_its_own_style(self) -> None:
        x = images(1)
        torch.testing.assert_close(build("adain")(x), x)

    def test_the_style_is_the_batch_s_average(self) -> None:
        module = build("adain")
        module.momentum = 1
        x = images()
        deviation = torch.sqrt(x.var((2, 3), correction=0) + 1e-5).mean(0)[:, None, None]
        expected = deviation * standard(x, (2, 3)) + x.mean((0, 2, 3))[:, None, None]
        torch.testing.assert_close(module(x), expected)
        torch.testing.assert_close(module.eval()(x), expected)
        assert not list(module.parameters())


class TestBoundedBatch:
    @pytest.fixture
    def module(self) -> BoundedBatchNorm:
        module: BoundedBatchNorm = build("bounded-batch")
        with torch.no_grad():
            module.weight.copy_(torch.rand(16) * 3)
            module.running_var.copy_(torch.rand(16) * 4 + 0.1)
        return module

    def test_is_batch_norm(self, module: BoundedBatchNorm) -> None:
        x = images()
        expected = batch_norm(x, None, None, module.weight, module.bias, training=True)
        torch.testing.assert_close(module(x), expected)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_bounds_the_ratio_of_scale_and_deviation(self, module: BoundedBatchNorm, sign: int) -> None:
        with torch.no_grad():
            module.weight.mul_(sign)
        before = module.weight.detach().double().numpy()
        sigma = np.sqrt(module.running_var.double().numpy() + 1e-5)
        s = before / sigma
        ratio = s / s.mean()
        module.after_steps()
        expected = np.clip(ratio, 1 / 2, 2) * s.mean() * sigma
        np.testing.assert_allclose(module.weight.detach().numpy(), expected, rtol=1e-5)
        within = (ratio > 0.5) & (ratio < 2)
        assert 0 < within.sum() < 16
        assert (ratio < 0.5).any()
        assert (ratio > 2).any()
        np.testing.assert_array_equal(module.weight.detach().numpy()[within], before[within].astype(np.float32))

    def test_within_the_bounds_nothing_changes(self) -> None:
        module = build("bounded-batch", factor=1.5)
        with torch.no_grad():
            module.weight.copy_(torch.rand(16) * 0.2 + 0.9)
        before = module.weight.clone()
        module.after_steps()
        assert torch.equal(module.weight, before)
        assert module.every == 391


@pytest.mark.parametrize(
    ("norm", "option", "good", "bad", "expected"),
    [
        ("lp", "p", 1, 0.99, "a number from 1 up"),
        ("batch-renorm", "r_max", 1, 0.5, "a number from 1 up"),
        ("bounded-batch", "factor", 1.01, 1, "a number above 1"),
        ("divisive", "window", 7, 4, "an odd whole number from 1 up"),
        ("divisive", "window", 1, -1, "an odd whole number from 1 up"),
    ],
)
def test_options_without_meaning_are_refused(norm: str, option: str, good: float, bad: float, expected: str) -> None:
    kind = catalog.options("norms", norm)[option].type
    assert kind.parse(good) == good
    with pytest.raises(ValueError, match=f"{bad} should be {expected}"):
        kind.parse(bad)
