"""Parametrisations of convolutions: a contract that all keep, each by its formula, and their weight decay."""

import copy
import inspect
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor, nn
from torch.nn import functional as F

from icbench import catalog, grid
from icbench.config import WeightDecay
from icbench.nets.build import build as build_net
from icbench.nets.singular_values import bound
from icbench.train import parameters
from icbench.values import TYPES

SHAPES = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False},
    {"kernel_size": 3, "stride": 2},  # after a ZeroPad2d: Keras' padding
    {"kernel_size": 1, "stride": 2},
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def made(name: str, convolution: nn.Conv2d | None = None, **options: object) -> nn.Module:
    """The parametrisation of a copy of `convolution`."""
    plain = nn.Conv2d(4, 6, 3, padding=1) if convolution is None else copy.deepcopy(convolution)
    module: nn.Module = catalog.load("weights", name).build(plain, **options)
    return module


@pytest.mark.parametrize("name", catalog.names("weights"))
class TestEveryParametrisation:
    """What every one must do in a plain convolution's place."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_keeps_shape_and_type(self, name: str, shape: dict[str, int], dtype: torch.dtype) -> None:
        plain = nn.Conv2d(4, 6, **shape)
        module = made(name, plain).to(dtype)
        x = torch.randn(2, 4, 9, 8, dtype=dtype)
        y = module(x)
        assert (y.shape, y.dtype) == (plain.to(dtype)(x).shape, dtype)
        assert isinstance(module, nn.Conv2d)
        assert (module.bias is None) == (name == "cosine" or plain.bias is None)
        y.square().sum().backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())

    def test_is_built_in_another_type(self, name: str) -> None:
        module = made(name, nn.Conv2d(4, 6, 3, dtype=torch.float64))
        assert {p.dtype for p in module.parameters()} == {torch.float64}

    def test_draws_nothing_but_initial_weights(self, name: str) -> None:
        plain = nn.Conv2d(4, 6, 3)
        before = torch.get_rng_state()
        made(name, plain)
        assert torch.equal(torch.get_rng_state(), before) == (name != "svb")

    def test_gradient(self, name: str) -> None:
        module = made(name).double()
        names, values = zip(*module.named_parameters(), strict=True)

        def outputs(x: Tensor, *values: Tensor) -> Tensor:
            return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x,))

        x = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(outputs, (x, *(v.detach().requires_grad_() for v in values)))

    def test_runs_without_data(self, name: str) -> None:
        with torch.device("meta"):
            module = made(name)
            y = module(torch.randn(2, 4, 8, 8))
        y.sum().backward()
        assert y.shape == (2, 6, 8, 8)
        assert all(p.is_meta and p.grad is not None for p in module.parameters())

    def test_memory_format_changes_nothing(self, name: str) -> None:
        module = made(name)
        x = torch.randn(2, 4, 8, 8)
        before = module(x)
        module.to(memory_format=torch.channels_last)
        y = module(x.to(memory_format=torch.channels_last))
        assert y.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(y, before)

    @pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
    @pytest.mark.parametrize("entering", [torch.float32, torch.bfloat16])
    def test_in_bfloat16(self, name: str, entering: torch.dtype, scale: float) -> None:
        """What a plain convolution would give, but for bfloat16's eight bits of the inputs, weights and outputs."""
        module = made(name)
        x = (torch.randn(4, 4, 8, 8) * scale).bfloat16()
        exact = copy.deepcopy(module).double()(x.double())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = module(x.to(entering))
        assert y.dtype == torch.bfloat16
        assert (y - exact).abs().max().item() < 2**-7 * exact.abs().max().item()
        y.float().square().sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in module.parameters())

    def test_keeps_its_state(self, name: str) -> None:
        """A copy, and a module of other weights that loads the state, give the same bits."""
        module, other = made(name), made(name)
        x = torch.randn(2, 4, 8, 8)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            assert not torch.equal(module(x), other(x))
            assert torch.equal(copy.deepcopy(module)(x), module(x))
            other.load_state_dict(module.state_dict())
            assert torch.equal(other(x), module(x))

    def test_a_copy_shares_nothing(self, name: str) -> None:
        module = made(name)
        x = torch.randn(2, 4, 8, 8)
        before = module(x)
        with torch.no_grad():
            for parameter in copy.deepcopy(module).parameters():
                parameter.mul_(2).add_(1)
        assert torch.equal(module(x), before)

    def test_options_are_those_of_the_catalogue(self, name: str) -> None:
        keywords = inspect.signature(catalog.load("weights", name).build).parameters.values()
        actual = {p.name: p.default for p in keywords if p.kind is p.KEYWORD_ONLY}
        options = catalog.options("weights", name)
        assert actual == {key: option.default for key, option in options.items()}
        assert all(option.type.parse(option.default) == option.default for option in options.values())

    def test_all_parameters_are_sorted_for_weight_decay(self, name: str) -> None:
        """What makes up the filters decays as a convolution's weight, what makes up their bias or scale does not."""
        net = nn.Sequential(made(name), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6, 2))
        sorted_ = {
            group["weight_decay"]: group["params"] for group in parameters.groups(net, WeightDecay(3.0, 2.0, 1.0))
        }
        (classifier,) = sorted_[2.0]
        assert classifier is net[3].weight
        filters = {"weight-norm": 2}
        assert len(sorted_[3.0]) == filters.get(name, 1)
        assert all(p.shape[0] == 6 and p.dim() == 4 for p in sorted_[3.0])
        assert all(p.dim() == 1 for p in sorted_[1.0])
        together = [id(p) for group in sorted_.values() for p in group]
        assert sorted(together) == sorted(id(p) for p in net.parameters())


def test_plain_is_the_convolution() -> None:
    convolution = nn.Conv2d(4, 6, 3)
    assert catalog.load("weights", "plain").build(convolution) is convolution


def old_groups(net: nn.Module) -> dict[str, list[int]]:
    """How parameters were sorted before there were parametrisations: optimisers' stored states hang on the order."""
    members: dict[str, list[int]] = {"convolution": [], "classifier": [], "other": []}
    kinds = {nn.Conv2d: "convolution", nn.Linear: "classifier"}
    for module in net.modules():
        for name, parameter in module.named_parameters(recurse=False):
            members[kinds.get(type(module), "other") if name == "weight" else "other"].append(id(parameter))
    return members


def test_groups_of_nets_are_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text("recipe: chen2019\nfixed: {dataset: cifar10, depth: 20, ordering: relu-ic-conv}")
    config = grid.load(file).runs()[0][1]
    for ordering in catalog.names("orderings"):
        net = build_net(replace(config, ordering=ordering))
        groups = parameters.groups(net, WeightDecay(3.0, 2.0, 1.0))
        assert [group["weight_decay"] for group in groups] == [3.0, 2.0, 1.0]
        assert [[id(p) for p in group["params"]] for group in groups] == list(old_groups(net).values())


def test_a_parametrised_linear_layer_is_the_classifier() -> None:
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    groups = parameters.groups(net, WeightDecay(3.0, 2.0, 1.0))
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(2.0, 2), (1.0, 1)]


class TestWeightNorm:
    """Weights g v / |v|."""

    def test_the_initial_function_is_the_convolution_s(self) -> None:
        plain = nn.Conv2d(4, 6, 3)
        x = torch.randn(2, 4, 8, 8)
        torch.testing.assert_close(made("weight-norm", plain)(x), plain(x))

    def test_is_invariant_to_the_length_of_v(self) -> None:
        module = made("weight-norm")
        x = torch.randn(2, 4, 8, 8)
        before = module(x)
        with torch.no_grad():
            module.get_parameter("parametrizations.weight.original1").mul_(torch.rand(6, 1, 1, 1) + 0.5)
        torch.testing.assert_close(module(x), before)

    def test_gradient_is_the_paper_s(self) -> None:
        """Equation 3: of g, the gradient of w along v/|v|; of v, g/|v| times what is left of it, orthogonal to v."""
        plain = nn.Conv2d(4, 6, 3).double()
        x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
        module = made("weight-norm", plain)
        for net in (plain, module):
            net(x).pow(3).sum().backward()
        g, v = (module.get_parameter(f"parametrizations.weight.original{i}") for i in (0, 1))
        gradient = plain.weight.grad.numpy().reshape(6, -1)
        rows = v.detach().numpy().reshape(6, -1)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        along = (gradient * rows).sum(1, keepdims=True) / lengths
        assert g.grad.numpy().reshape(6, 1) == pytest.approx(along)
        expected = g.detach().numpy().reshape(6, 1) / lengths * (gradient - along * rows / lengths)
        assert v.grad.numpy().reshape(6, -1) == pytest.approx(expected)


class TestCosine:
    """Cosines between filters and patches."""

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
    def test_is_torch_s_cosine_similarity(self, shape: dict[str, int], scale: float) -> None:
        plain = nn.Conv2d(4, 6, **shape).double()
        x = scale * torch.randn(3, 4, 9, 8, dtype=torch.float64)
        y = made("cosine", plain)(x)
        patches = F.unfold(x, plain.kernel_size, stride=plain.stride, padding=plain.padding)
        filters = plain.weight.reshape(1, 6, -1, 1)
        expected = F.cosine_similarity(patches[:, None], filters, dim=2, eps=1e-300)
        torch.testing.assert_close(y.flatten(2), expected)

    def test_is_bounded(self) -> None:
        """Also where filter and patch are parallel, of any length; rounding may exceed 1 by the type's precision."""
        plain = nn.Conv2d(4, 6, 3, padding=1)
        module = made("cosine", plain)
        filters = torch.cat([plain.weight, 1e4 * plain.weight, -1e-4 * plain.weight]).detach()
        y = module(filters)[:, :, 1, 1]
        torch.testing.assert_close(y[range(18), [*range(6)] * 3], torch.cat([torch.ones(12), -torch.ones(6)]))
        assert module(torch.randn(64, 4, 8, 8)).abs().max().item() <= 1 + 1e-6
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert module(filters).abs().max().item() <= 1 + 2**-7

    def test_lengths_do_not_matter(self) -> None:
        module = made("cosine")
        x = torch.randn(2, 4, 8, 8)
        before = module(x)
        with torch.no_grad():
            module.weight.mul_(torch.rand(6, 1, 1, 1) + 0.5)
        torch.testing.assert_close(module(7 * x), before)

    @pytest.mark.parametrize("length", [0.0, 1e-30, 1e-18, 1e-12, 2e-12, 1e-6])
    def test_short_patches_have_finite_gradients(self, length: float) -> None:
        module = made("cosine")
        x = torch.randn(1, 4, 8, 8)
        x[:, :, 2:] = 0
        x[0, 0, 6, 6] = length
        x.requires_grad_()
        y = module(x)
        y.sum().backward()
        assert torch.isfinite(y).all()
        assert torch.isfinite(x.grad).all()
        assert torch.isfinite(module.weight.grad).all()
        assert not y[:, :, 4].any()
        if length == 0:
            assert not y[:, :, 4:].any()
            assert not x.grad[:, :, 4:].any()

    def test_lengths_of_patches_are_in_float32(self) -> None:
        """A patch along the filter gives 1 in bfloat16 too, whose own squares and roots are off in their eighth bit."""
        convolution = nn.Conv2d(2, 1, 1)
        with torch.no_grad():
            convolution.weight.copy_(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))
        x = torch.zeros(128, 2, 1, 1, dtype=torch.bfloat16)
        x[:, 0, 0, 0] = 1 + torch.arange(128) / 128
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(made("cosine", convolution)(x), torch.ones(128, 1, 1, 1, dtype=torch.bfloat16))

    def test_has_no_bias(self) -> None:
        assert [name for name, _ in made("cosine").named_parameters()] == ["weight"]


def moment(function: object, order: int) -> float:
    """E f(z)^order of a standard normal z, by numerical integration."""
    return sum(
        integrate.quad(lambda z: function(z) ** order * stats.norm.pdf(z), *limits, epsabs=1e-13)[0]  # type: ignore[operator]
        for limits in ((-12, 0), (0, 12))
    )


class TestNormprop:
    """Filters of unit length and a standardised ReLU."""

    def test_the_activation_s_constants(self) -> None:
        activation = catalog.load("weights", "normprop").activation()

        def value(z: float) -> float:
            return float(activation(torch.tensor(z, dtype=torch.float64)))

        assert moment(value, 1) == pytest.approx(0, abs=1e-9)
        assert moment(value, 2) == pytest.approx(1, abs=1e-9)

    def test_gaussians_in_give_mean_0_and_variance_1(self) -> None:
        module = made("normprop", nn.Conv2d(16, 32, 3))
        nn.init.zeros_(module.bias)
        with torch.no_grad():
            z = module(torch.randn(2048, 16, 3, 3))
            y = catalog.load("weights", "normprop").activation()(z)
        independent = len(y)  # outputs of the filters at one position are correlated: at worst all are one
        assert z.mean().item() == pytest.approx(0, abs=5 / math.sqrt(independent))
        assert y.mean().item() == pytest.approx(0, abs=5 / math.sqrt(independent))
        assert z.var().item() == pytest.approx(1, abs=5 * math.sqrt(2 / independent))
        kurtosis = moment(lambda z: (max(z, 0) - 0.3989423) / 0.5837819, 4)
        assert y.var().item() == pytest.approx(1, abs=5 * math.sqrt((kurtosis - 1) / independent))

    def test_formula(self) -> None:
        plain = nn.Conv2d(4, 6, 3).double()
        module = made("normprop", plain, scale=1 / 1.21)
        x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
        assert module.scale.tolist() == [1 / 1.21] * 6
        with torch.no_grad():
            module.scale.copy_(torch.rand(6))
        filters = F.normalize(plain.weight.flatten(1)).view_as(plain.weight)
        expected = F.conv2d(x, filters) * module.scale.view(1, 6, 1, 1) + plain.bias.view(1, 6, 1, 1)
        torch.testing.assert_close(module(x), expected)

    def test_is_invariant_to_the_length_of_filters(self) -> None:
        module = made("normprop")
        x = torch.randn(2, 4, 8, 8)
        before = module(x)
        with torch.no_grad():
            module.weight.mul_(torch.rand(6, 1, 1, 1) + 0.5)
        torch.testing.assert_close(module(x), before)


class TestSingularValueBounding:
    """Singular values within [1/factor, factor]."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("shape", [(5, 12), (12, 5), (7, 7), (1, 9), (9, 1)])
    def test_bounds(self, shape: tuple[int, int], dtype: torch.dtype) -> None:
        matrix = 2 * torch.randn(shape, dtype=dtype)
        bounded = bound(matrix, 1.5)
        precision = 10 * torch.finfo(dtype).eps
        values = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
        after = np.linalg.svd(bounded.double().numpy(), compute_uv=False)
        assert after == pytest.approx(np.clip(values, 1 / 1.5, 1.5), rel=precision)
        assert (bounded.dtype, bounded.shape) == (dtype, shape)
        torch.testing.assert_close(bound(bounded, 1.5), bounded, rtol=precision, atol=precision)

    def test_keeps_the_singular_vectors(self) -> None:
        left, right = (torch.linalg.qr(torch.randn(n, 4, dtype=torch.float64)).Q for n in (4, 9))
        values = torch.tensor([3.0, 1.4, 0.9, 0.2], dtype=torch.float64)
        clipped = torch.tensor([1.5, 1.4, 0.9, 1 / 1.5], dtype=torch.float64)
        torch.testing.assert_close(bound(left * values @ right.T, 1.5), left * clipped @ right.T)

    def test_leaves_what_is_within_bit_for_bit(self) -> None:
        within = torch.linalg.qr(torch.randn(9, 6)).Q.T * torch.tensor([[1.4], [1.1], [1], [0.9], [0.8], [0.7]])
        assert torch.equal(bound(within, 1.5), within)
        assert not torch.equal(bound(within, 1.3), within)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_leaves_what_has_diverged(self, value: float) -> None:
        matrix = torch.randn(3, 4)
        matrix[1, 2] = value
        torch.testing.assert_close(bound(matrix, 1.5), matrix, rtol=0, atol=0, equal_nan=True)

    def test_a_matrix_of_zeros_is_bounded_too(self) -> None:
        assert torch.linalg.svdvals(bound(torch.zeros(3, 5), 1.5)).tolist() == pytest.approx([1 / 1.5] * 3)

    @pytest.mark.parametrize(("channels", "out"), [(4, 6), (2, 32)])
    def test_initial_weights_are_orthogonal(self, channels: int, out: int) -> None:
        plain = nn.Conv2d(channels, out, 3)
        module = made("svb", plain)
        assert torch.linalg.svdvals(module.weight.flatten(1)).tolist() == pytest.approx([1] * min(out, 9 * channels))
        assert torch.equal(module.bias, plain.bias)

    def test_initial_weights_follow_torch_s_generator(self) -> None:
        first = made("svb").weight
        torch.manual_seed(0)
        assert torch.equal(made("svb").weight, first)
        assert not torch.equal(made("svb").weight, first)

    def test_after_steps(self) -> None:
        module = made("svb", every=3, factor=1.2)
        assert module.every == 3
        for layout in (torch.contiguous_format, torch.channels_last):
            module.to(memory_format=layout)
            with torch.no_grad():
                module.weight.add_(torch.randn_like(module.weight))
            before, parameter = module.weight.detach().clone(), module.weight
            module.after_steps()
            assert module.weight is parameter
            assert parameter.requires_grad
            assert parameter.is_contiguous(memory_format=layout)
            values = torch.linalg.svdvals(parameter.flatten(1))
            assert values.max().item() == pytest.approx(1.2)
            assert values.min().item() >= 1 / 1.2 - 1e-6
            torch.testing.assert_close(parameter.flatten(1), bound(before.flatten(1), 1.2))

    def test_after_steps_without_data(self) -> None:
        with torch.device("meta"):
            made("svb").after_steps()


@pytest.mark.parametrize(("value", "right"), [(1.5, True), (2, True), (1, False), (0.5, False), (True, False)])
def test_a_factor_is_above_1(value: float, right: bool) -> None:
    if right:
        assert TYPES["AboveOne"].parse(value) == value
    else:
        with pytest.raises(ValueError, match="should be a number above 1"):
            TYPES["AboveOne"].parse(value)
