"""Networks: published parameter counts, the orderings' cycle, contracts that every norm and ordering keeps."""

import inspect
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from icbench import catalog, grid
from icbench.architecture import shape
from icbench.config import RunConfig, Variant
from icbench.nets.build import build, parameter_count
from icbench.nets.ic import IC
from icbench.nets.ordering import CONV, DROPOUT, NORM, POOL, RELU, Piece
from icbench.nets.ordering import IC as IC_PIECE

IMAGE_NORMS = [name for name in catalog.names("norms") if "build" in catalog.functions("norms", name)]
THE_THREE = ("relu-ic-conv", "ic-conv-relu", "conv-relu-ic")


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    file = tmp_path / "grid.yaml"
    file.write_text("recipe: chen2019\nfixed: {dataset: cifar10, depth: 20, ordering: relu-ic-conv}")
    return grid.load(file).runs()[0][1]


def without_bias(config: RunConfig) -> RunConfig:
    return replace(config, recipe=replace(config.recipe, convolution_bias=False))


# Chen et al. demand that all orderings have the same count; 100 classes add 90 outputs of 65 (basic) or 257 weights.
COUNTS = {
    ("basic", 110): (1_734_666, 1_730_522),
    ("basic", 164): (2_611_626, 2_605_466),
    ("bottleneck", 110): (1_155_370, 1_146_842),
    ("bottleneck", 164): (1_715_818, 1_703_258),
}


@pytest.mark.parametrize("ordering", [*THE_THREE, "baseline-v1", "baseline-v2", "conv-ic-relu", "li2018"])
@pytest.mark.parametrize(("block", "depth"), COUNTS)
def test_parameter_counts(config: RunConfig, block: str, depth: int, ordering: str) -> None:
    config = replace(config, block=block, depth=depth, ordering=ordering)
    counts = COUNTS[block, depth]
    with torch.device("meta"):
        ten = [parameter_count(build(c)) for c in (config, without_bias(config))]
        hundred = parameter_count(build(replace(config, dataset="cifar100")))
    assert tuple(ten) == counts
    assert hundred == counts[0] + 90 * (65 if block == "basic" else 257)


def test_a_small_resnet_has_he_s_count(config: RunConfig) -> None:
    """ResNet-20 has 0.27 M parameters (He et al. 2015, table 6)."""
    assert round(parameter_count(build(replace(config, ordering="baseline-v1"))) / 1e6, 2) == 0.27


@pytest.mark.parametrize(("block", "depth"), [("basic", 20), ("bottleneck", 20)])
def test_multiply_adds_are_torch_s(config: RunConfig, block: str, depth: int) -> None:
    net = build(replace(config, block=block, depth=depth))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() == 2 * shape("cifar10", block, depth, 16).multiply_adds()


def test_resnet_110_costs_what_is_published() -> None:
    assert round(shape("cifar10", "basic", 110, 16).multiply_adds() / 1e6) == 253


def pieces(module: nn.Module) -> Iterator[Piece]:
    """What a sequence of modules is made of."""
    for child in module.children():
        if isinstance(child, nn.Conv2d):
            yield CONV
        elif isinstance(child, nn.ReLU):
            yield RELU
        elif isinstance(child, IC):
            yield IC_PIECE
        elif isinstance(child, nn.BatchNorm2d):
            yield NORM
        elif isinstance(child, nn.Dropout):
            yield DROPOUT
        elif isinstance(child, nn.MaxPool2d):
            yield POOL
        else:
            yield from pieces(child)


C, N, R, I, D, P = CONV, NORM, RELU, IC_PIECE, DROPOUT, POOL  # noqa: E741
# Ordering -> stem, first branch, second branch, after the addition, after the last unit, before the classifier.
BASIC = {
    "relu-ic-conv": ([C], [R, I, C, R, I, C], [R, I, C, R, I, C], [], [R, I], []),
    "ic-conv-relu": ([C], [I, C, R, I, C, R], [I, C, R, I, C, R], [], [I], []),
    "conv-relu-ic": ([C, R, I], [C, R, I, C, R, I], [C, R, I, C, R, I], [], [], []),
    "conv-ic-relu": ([C, I, R], [C, I, R, C, I, R], [C, I, R, C, I, R], [], [], []),
    "baseline-v1": ([C, N, R], [C, N, R, C, N], [C, N, R, C, N], [R], [], []),
    "baseline-v2": ([C, N, R], [C, N, R, C], [N, R, C, N, R, C], [], [N, R], []),
    "li2018": ([C, N, R], [C, N, R, C, N], [C, N, R, C, N], [R], [], [D]),
}
BOTTLENECK = {
    "relu-ic-conv": ([C], [R, I, C] * 3, [R, I, C] * 3, [], [R, I], []),
    "ic-conv-relu": ([C], [I, C, R] * 3, [I, C, R] * 3, [], [I], []),
    "conv-relu-ic": ([C, R, I], [C, R, I] * 3, [C, R, I] * 3, [], [], []),
    "conv-ic-relu": ([C, I, R], [C, I, R] * 3, [C, I, R] * 3, [], [], []),
    "baseline-v1": ([C, N, R], [C, N, R, C, N, R, C, N], [C, N, R, C, N, R, C, N], [R], [], []),
    "baseline-v2": ([C, N, R], [C, N, R, C, N, R, C], [N, R, C] * 3, [], [N, R], []),
    "li2018": ([C, N, R], [C, N, R, C, N, R, C], [N, R, C] * 3, [], [N, R], [D]),
}
# ImageNet's: the pooling ends the stem, but for an IC layer, which stands right before the next weights; li2018 is v1.
IMAGENET_STEMS = {
    "relu-ic-conv": [C, P],
    "ic-conv-relu": [C, P],
    "conv-relu-ic": [C, R, P, I],
    "conv-ic-relu": [C, I, R, P],
    "baseline-v1": [C, N, R, P],
    "baseline-v2": [C, N, R, P],
    "li2018": [C, N, R, P],
}
LI2018_AS_V1 = (*BOTTLENECK["baseline-v1"][:-1], [D])
TABLES = {
    ("cifar10", "basic", 20): BASIC,
    ("cifar10", "bottleneck", 20): BOTTLENECK,
    ("imagenet", "basic", 18): {name: (IMAGENET_STEMS[name], *places[1:]) for name, places in BASIC.items()},
    ("imagenet", "bottleneck", 50): {
        name: (IMAGENET_STEMS[name], *places[1:]) for name, places in (BOTTLENECK | {"li2018": LI2018_AS_V1}).items()
    },
}


@pytest.mark.parametrize("ordering", catalog.names("orderings"))
@pytest.mark.parametrize(("dataset", "block", "depth"), TABLES)
def test_what_stands_where(config: RunConfig, dataset: str, block: str, depth: int, ordering: str) -> None:
    """SCIENCE: each ordering is the same cycle cut at another place, as the table of the papers has it."""
    table = TABLES[dataset, block, depth]
    if ordering not in table:
        pytest.fail(f"add the ordering {ordering} to the tables of this test")
    with torch.device("meta"):
        net = build(replace(config, dataset=dataset, block=block, depth=depth, ordering=ordering))
    first, second = net.units[0], net.units[1]
    places = (net.stem, first.branch, second.branch, second.after, net.last, net.head)
    assert tuple(list(pieces(place)) for place in places) == table[ordering]


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_shortcuts_project_only_where_the_shape_changes(config: RunConfig, block: str) -> None:
    net = build(replace(config, block=block, depth=20))
    projected = [bool(list(unit.shortcut.parameters())) for unit in net.units]
    basic = [False, False, False, True, False, False, True, False, False]
    assert projected == (basic if block == "basic" else [True, False] * 3)


Place = tuple[str, str, str]  # ordering, block, norm
EVERY_PLACE = list(product(catalog.names("orderings"), ("basic", "bottleneck"), IMAGE_NORMS))


@pytest.fixture
def net(config: RunConfig, place: Place) -> nn.Module:
    ordering, block, norm = place
    torch.manual_seed(0)
    options = {key: option.default for key, option in catalog.options("norms", norm).items()}
    return build(
        replace(
            config,
            ordering=ordering,
            block=block,
            depth={"basic": 14, "bottleneck": 20}[block],
            norm=Variant(norm, tuple(sorted(options.items()))),
            dataset="digits",
            dropout=0.3,
        )
    )


@pytest.mark.parametrize("place", EVERY_PLACE)
def test_every_net_trains(net: nn.Module) -> None:
    x = torch.randn(8, 1, 8, 8)
    logits = net(x)
    assert logits.shape == (8, 10)
    logits.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("place", [p for p in EVERY_PLACE if p[2] == "batch" or p[:2] == ("conv-relu-ic", "basic")])
class TestEveryNet:
    """What every ordering with batch norm, and every norm in one ordering, must do."""

    def test_evaluates_each_image_by_itself(self, net: nn.Module) -> None:
        """Without gates and batch statistics: the same whatever else is in the batch."""
        net.double().eval()
        x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
        with torch.no_grad():
            together, alone = net(x), torch.cat([net(image[None]) for image in x])
        torch.testing.assert_close(together, alone)

    def test_gates_in_training_only_where_there_is_dropout(self, net: nn.Module, place: Place) -> None:
        x = torch.randn(4, 1, 8, 8)
        with torch.no_grad():
            net.train()
            random = not torch.equal(net(x), net(x))
        assert random == bool(catalog.load("orderings", place[0]).ORDERING.stages_with_dropout(3))

    def test_keeps_its_state(self, net: nn.Module) -> None:
        """A state that is stored and loaded gives the same outputs."""
        net(torch.randn(8, 1, 8, 8))
        state = {key: value.clone() for key, value in net.state_dict().items()}
        net.eval()
        x = torch.randn(4, 1, 8, 8)
        with torch.no_grad():
            before = net(x)
            for parameter in net.parameters():
                parameter.zero_()
            net.load_state_dict(state)
            assert torch.equal(net(x), before)


@pytest.mark.parametrize("norm", catalog.names("norms"))
def test_options_are_those_of_the_catalogue(norm: str) -> None:
    """Of `build` and of `recurrent`, whichever the file has; both have the same."""
    module = catalog.load("norms", norm)
    makers = [getattr(module, name) for name in ("build", "recurrent") if hasattr(module, name)]
    assert makers
    for maker in makers:
        keywords = inspect.signature(maker).parameters.values()
        actual = {p.name: p.default for p in keywords if p.kind is p.KEYWORD_ONLY}
        assert actual == {key: option.default for key, option in catalog.options("norms", norm).items()}


@pytest.mark.parametrize("norm", catalog.names("norms"))
def test_functions_are_those_that_the_file_defines(norm: str) -> None:
    module = catalog.load("norms", norm)
    defined = {
        name
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
    }
    assert catalog.functions("norms", norm) == defined


def test_a_norm_says_which_nets_it_fits() -> None:
    fits = {name: catalog.functions("norms", name) for name in ("batch", "layer", "none", "recurrent-bn")}
    assert fits == {
        "batch": {"build"},
        "layer": {"build", "recurrent"},
        "none": {"build", "recurrent"},
        "recurrent-bn": {"recurrent"},
    }
    defaults = {key: option.default for key, option in catalog.options("norms", "recurrent-bn").items()}
    assert defaults == {"epsilon": 1e-5, "momentum": 0.1, "gamma": 0.1}


def test_norms_are_what_they_say() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 16, 5, 5) * 3 + 1

    def of(name: str, **options: object) -> torch.Tensor:
        return catalog.load("norms", name).build(16, **options)(x)

    def standard(dimensions: tuple[int, ...]) -> torch.Tensor:
        variance, mean = torch.var_mean(x, dim=dimensions, correction=0, keepdim=True)
        return (x - mean) / torch.sqrt(variance + 1e-5)

    torch.testing.assert_close(of("batch"), standard((0, 2, 3)))
    torch.testing.assert_close(of("layer"), torch.nn.functional.layer_norm(x, (16, 5, 5)))
    torch.testing.assert_close(of("instance"), standard((2, 3)))
    torch.testing.assert_close(of("group", groups=1), of("layer"))
    torch.testing.assert_close(of("group", groups=16), of("instance"))
    assert torch.equal(of("none"), x)


def test_batch_norm_s_momentum_weighs_the_new_batch() -> None:
    module = catalog.load("norms", "batch").build(1, momentum=0.01)
    module(torch.full((2, 1, 2, 2), 5.0))
    assert module.running_mean.item() == pytest.approx(0.05)


def test_the_ic_layer_normalises_then_gates() -> None:
    torch.manual_seed(0)
    layer = IC(nn.BatchNorm2d(4), nn.Dropout(0.25))
    x = torch.randn(64, 4, 8, 8) + 2
    y = layer(x)
    kept = y != 0
    assert kept.float().mean().item() == pytest.approx(0.75, abs=4 * math.sqrt(0.25 * 0.75 / y.numel()))
    torch.testing.assert_close(y[kept], nn.BatchNorm2d(4)(x)[kept] / 0.75)
    assert not torch.equal(kept[:, :, 0, 0], kept[:, :, 0, 1])  # elementwise, not by channel


@pytest.mark.parametrize(("how", "cut"), [("he-truncated-normal", 2 / 0.8796), ("he-normal", math.inf)])
def test_he_initialisation(config: RunConfig, how: str, cut: float) -> None:
    torch.manual_seed(0)
    net = build(replace(config, width=64, recipe=replace(config.recipe, initialization=how)))
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            deviation = math.sqrt(2 / module.weight[0].numel())
            relative = 1 / math.sqrt(2 * module.weight.numel())
            assert module.weight.std().item() == pytest.approx(deviation, rel=5 * relative)
            assert module.weight.abs().max().item() <= cut * deviation * 1.001
            assert not module.bias.any()
    largest = max(
        m.weight.abs().max() / math.sqrt(2 / m.weight[0].numel()) for m in net.modules() if isinstance(m, nn.Conv2d)
    )
    assert (largest > 3) == (how == "he-normal")


def test_trailing_padding_is_keras_same(config: RunConfig) -> None:
    """Of a 4x4 map of ones, a 3x3 kernel of ones and stride 2 sees zeros only below and right."""
    seen = {}
    for padding in ("trailing", "symmetric"):
        net = build(replace(config, ordering="baseline-v1", recipe=replace(config.recipe, downsample_padding=padding)))
        convolution = net.units[3].branch[0]
        kernel = convolution[1] if padding == "trailing" else convolution
        nn.init.ones_(kernel.weight)
        seen[padding] = (convolution(torch.ones(1, 16, 4, 4))[0, 0] / 16).tolist()
    assert seen["trailing"] == [[9, 6], [6, 4]]
    assert seen["symmetric"] == [[4, 6], [6, 9]]
