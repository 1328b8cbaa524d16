"""From a configuration to its network."""

from torch import nn

from icbench import catalog
from icbench.architecture import family, shape
from icbench.config import RunConfig, by_stage
from icbench.nets.initialization import initialize
from icbench.nets.lstm import LSTM
from icbench.nets.reference import ReferenceBatch
from icbench.nets.resnet import Parts, ResNet
from icbench.nets.syncbatchnorm import SyncBatchNorm
from icbench.procedure import together


def build(config: RunConfig) -> nn.Module:
    """The network of `config` with initial weights drawn from torch's global generator, on the CPU.

    Raises ValueError where its parts do not go together.
    """
    net = _lstm(config) if config.block == "lstm" else _resnet(config)
    together(config.procedures).attach(net)
    # What a norm that needs a reference batch in front of every batch says of itself.
    images = max(getattr(module, "reference_images", 0) for module in net.modules())
    if not images:
        return net
    height, width, channels = catalog.load("datasets", config.dataset).SHAPE
    return ReferenceBatch(net, (images, channels, height, width))


def _lstm(config: RunConfig) -> nn.Module:
    dataset = catalog.load("datasets", config.dataset)
    norm = catalog.load("norms", config.norm.name).recurrent
    net = LSTM(
        lambda features, steps, shift: norm(features, steps, shift, **dict(config.norm.options)),
        layers=config.depth,
        width=config.width,
        shape=dataset.SHAPE,
        classes=dataset.CLASSES,
    )
    initialize(net, config.recipe.initialization)
    return net


def _resnet(config: RunConfig) -> nn.Module:
    weight = catalog.load("weights", config.weight.name)
    activation = catalog.load("activations", config.activation.name)
    nets = family(config.dataset)
    rates = by_stage(config.dropout or 0.0, nets.stage_count)
    parts = Parts(
        lambda channels: _norm(config, channels),
        getattr(weight, "activation", activation.build),
        lambda stage: activation.dropout(rates[stage]),
        bias=config.recipe.convolution_bias,
        # ImageNet's bottlenecks stride in 3x3 convolutions, and pad symmetrically always: run ids do not tell.
        trailing_padding=config.block == "basic" and config.recipe.downsample_padding == "trailing",
    )
    ordering = catalog.load("orderings", config.ordering).ORDERING.of(nets.baselines[config.block])
    net = ResNet(parts, ordering, shape(config.dataset, config.block, config.depth, config.width))
    initialize(net, config.recipe.initialization)
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.Conv2d):
            net.set_submodule(name, weight.build(module, **dict(config.weight.options)))
    return net


def _norm(config: RunConfig, channels: int) -> nn.Module:
    norm: nn.Module = catalog.load("norms", config.norm.name).build(channels, **dict(config.norm.options))
    if config.recipe.sync_batch_norm and type(norm) is nn.BatchNorm2d:
        return SyncBatchNorm(channels, eps=norm.eps, momentum=norm.momentum)
    return norm


def parameter_count(net: nn.Module) -> int:
    """The number of learnable parameters."""
    return sum(parameter.numel() for parameter in net.parameters())
