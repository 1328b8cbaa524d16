"""ImageNet's ResNets: torchvision's but for the norms of their projections; counts, padding, what a grid means."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet

from icbench import catalog, grid, wording
from icbench.architecture import shape
from icbench.config import Cell, RunConfig
from icbench.drybuild import distinct
from icbench.nets.build import build, parameter_count

Make = Callable[..., RunConfig]

# torchvision's documented counts; the scales and shifts in its projections' norms.
COUNTS = {
    ("basic", 18): (11_689_512, 2 * (128 + 256 + 512)),
    ("basic", 34): (21_797_672, 2 * (128 + 256 + 512)),
    ("bottleneck", 50): (25_557_032, 2 * (256 + 512 + 1024 + 2048)),
    ("bottleneck", 101): (44_549_160, 2 * (256 + 512 + 1024 + 2048)),
    ("bottleneck", 152): (60_192_808, 2 * (256 + 512 + 1024 + 2048)),
}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A configuration of the fields given, ResNet-50 on ImageNet if they say nothing else."""

    def config(**fields: object) -> RunConfig:
        given = {"dataset": "imagenet", "block": "bottleneck", "depth": 50, "ordering": "baseline"} | fields
        recipe = given.pop("recipe", "imagenet-chen2019")
        file = tmp_path / "grid.yaml"
        file.write_text(f"recipe: {recipe}\nfixed: {given}")
        return grid.load(file).runs()[0][1]

    return config


def torchvision_s(depth: int) -> nn.Module:
    """torchvision's net, its projections without norms."""
    net: nn.Module = getattr(resnet, f"resnet{depth}")()
    for module in net.modules():
        if getattr(module, "downsample", None) is not None:
            module.downsample[1] = nn.Identity()
    return net


@pytest.mark.parametrize(("block", "depth"), COUNTS)
def test_the_baseline_is_torchvision_s(make: Make, block: str, depth: int) -> None:
    """With the same weights: the same outputs, gradients and running statistics."""
    torch.manual_seed(0)
    theirs, ours = torchvision_s(depth).double(), build(make(block=block, depth=depth)).double()
    assert make(block=block, depth=depth).ordering == "baseline-v1"
    # Both name what they have in the order in which images pass it, a branch before its shortcut.
    pairs = list(zip(theirs.state_dict().values(), ours.state_dict().values(), strict=True))
    with torch.no_grad():
        for their, our in pairs:
            our.copy_(their)
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    for net in (theirs, ours):
        net(images).square().mean().backward()
    for their, our in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(our.grad, their.grad)
    for their, our in pairs:
        torch.testing.assert_close(our, their)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


@pytest.mark.parametrize("ordering", catalog.names("orderings"))
@pytest.mark.parametrize(("block", "depth"), COUNTS)
def test_every_ordering_has_torchvision_s_parameters_but_the_projections_norms(
    make: Make, block: str, depth: int, ordering: str
) -> None:
    with torch.device("meta"):
        count = parameter_count(build(make(block=block, depth=depth, ordering=ordering)))
    published, of_norms = COUNTS[block, depth]
    assert count == published - of_norms


@pytest.mark.parametrize(("block", "depth"), COUNTS)
@pytest.mark.parametrize("ordering", ["baseline", "ic-conv-relu"])
def test_multiply_adds_are_torch_s(make: Make, block: str, depth: int, ordering: str) -> None:
    with torch.device("meta"):
        net = build(make(block=block, depth=depth, ordering=ordering))
        with FlopCounterMode(display=False) as counter:
            net(torch.zeros(1, 3, 224, 224))
    assert counter.get_total_flops() == 2 * shape("imagenet", block, depth, 64).multiply_adds()


def test_multiply_adds_are_those_that_torchvision_documents() -> None:
    documented = {depth: weights.DEFAULT.meta["_ops"] for depth, weights in WEIGHTS.items()}
    ours = {depth: shape("imagenet", block, depth, 64).multiply_adds() / 1e9 for block, depth in COUNTS}
    assert ours == pytest.approx(documented, abs=5e-4)


WEIGHTS = {
    18: resnet.ResNet18_Weights,
    34: resnet.ResNet34_Weights,
    50: resnet.ResNet50_Weights,
    101: resnet.ResNet101_Weights,
    152: resnet.ResNet152_Weights,
}


def test_maps_of_odd_sizes_are_counted_as_torch_does(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog.load("datasets", "imagenet"), "SHAPE", (75, 101, 3))
    with torch.device("meta"):
        net = build(make(width=8))
        with FlopCounterMode(display=False) as counter:
            net(torch.zeros(1, 3, 75, 101))
    assert counter.get_total_flops() == 2 * shape("imagenet", "bottleneck", 50, 8).multiply_adds()


@pytest.mark.parametrize("ordering", catalog.names("orderings"))
@pytest.mark.parametrize(("block", "depth"), [("basic", 18), ("bottleneck", 50)])
def test_every_ordering_trains(make: Make, block: str, depth: int, ordering: str) -> None:
    torch.manual_seed(0)
    net = build(make(block=block, depth=depth, ordering=ordering, width=4))
    logits = net(torch.randn(4, 3, 64, 64))
    assert logits.shape == (4, 1000)
    logits.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_only_basic_blocks_pad_as_the_recipe_says(make: Make) -> None:
    """The canonical form of bottlenecks leaves the padding out, so it must not matter to them; nor to the stem."""

    def padded(block: str, depth: int, padding: str) -> tuple[str, list[str]]:
        config = make(block=block, depth=depth, recipe=f"{{name: imagenet-chen2019, downsample_padding: {padding}}}")
        with torch.device("meta"):
            net = build(config)
        strided = [
            m for m in net.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2) and m.kernel_size > (1, 1)
        ]
        return config.run_id, [str(convolution.padding) for convolution in strided]

    symmetric, trailing = padded("bottleneck", 50, "symmetric"), padded("bottleneck", 50, "trailing")
    assert symmetric == trailing
    assert symmetric[1] == ["(3, 3)", *["(1, 1)"] * 3]
    symmetric, trailing = padded("basic", 18, "symmetric"), padded("basic", 18, "trailing")
    assert symmetric[0] != trailing[0]
    assert symmetric[1] == ["(3, 3)", *["(1, 1)"] * 3]
    assert trailing[1] == ["(3, 3)", *["(0, 0)"] * 3]  # which zeros in front of them do


def test_what_is_usual_follows_from_the_data_set(make: Make) -> None:
    usual = make()
    assert (usual.width, usual.ordering) == (64, "baseline-v1")
    assert wording.cell(usual) == "baseline-v1 imagenet bottleneck-50"
    assert make(width=64).run_id == usual.run_id
    assert wording.cell(make(width=16)) == "baseline-v1 imagenet bottleneck-50 width 16"
    small = make(dataset="cifar10", depth=20, recipe="chen2019")
    assert (small.width, small.ordering) == (16, "baseline-v2")
    assert wording.cell(small) == "baseline-v2 cifar10 bottleneck-20"


def test_an_exclude_knows_what_is_usual(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(
        "recipe: {name: imagenet-chen2019, augmentation: {crop_area: 1}}\nfixed: {block: bottleneck}\n"
        "zip: {dataset: [imagenet, cifar10], depth: [50, 20]}\n"
        "grid: {ordering: [baseline, baseline-v2, ic-conv-relu]}\n"
        "exclude: [{width: 64, ordering: baseline-v1}, {width: 16, ordering: baseline-v2}]\n"
    )
    assert [(cell.config.dataset, cell.config.ordering) for cell in grid.load(file).cells] == [
        ("imagenet", "baseline-v2"),
        ("imagenet", "ic-conv-relu"),
        ("cifar10", "ic-conv-relu"),
    ]


def test_a_trial_takes_the_shallowest_net_of_a_block(make: Make) -> None:
    for block, depths in {"basic": (18, 34), "bottleneck": (50, 101, 152)}.items():
        (net,) = distinct(Cell.of(make(block=block, depth=depth), (0,)) for depth in depths)
        assert (net.block, net.depth) == (block, depths[0])
        assert layers(net) == layers(replace(net, depth=depths[-1]))


def layers(config: RunConfig) -> set[str]:
    """Every different layer of a net, in torch's words."""
    with torch.device("meta"):
        return {repr(module) for module in build(config).modules() if not list(module.children())}


@pytest.mark.parametrize("ordering", ["baseline-v1", "conv-relu-ic"])
def test_what_shortcuts_hand_on_does_not_grow_at_first(make: Make, ordering: str) -> None:
    """They have no norms: by fan-in, each projection would double the second moment."""
    torch.manual_seed(0)
    net = build(make(ordering=ordering, width=16))
    ratios = []
    for unit in net.units:
        if isinstance(unit.shortcut, nn.Conv2d):
            unit.shortcut.register_forward_hook(
                lambda _, maps, out: ratios.append((out.square().mean() / maps[0].square().mean()).item())
            )
    with torch.no_grad():
        net(torch.randn(16, 3, 64, 64))
    assert ratios[0] == pytest.approx(0.5, rel=0.5)  # four times as many channels
    assert ratios[1:] == pytest.approx([1, 1, 1], rel=0.5)
