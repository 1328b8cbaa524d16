"""From a configuration to its network."""

from torch import nn

from icbench import catalog
from icbench.config import RunConfig
from icbench.nets.initialization import initialize
from icbench.nets.resnet import Parts, ResNet
from icbench.nets.syncbatchnorm import SyncBatchNorm


def build(config: RunConfig) -> nn.Module:
    """The network of `config` with initial weights drawn from torch's global generator, on the CPU."""
    dataset = catalog.load("datasets", config.dataset)
    parts = Parts(
        lambda channels: _norm(config, channels),
        config.dropout or 0.0,
        bias=config.recipe.convolution_bias,
        trailing_padding=config.recipe.downsample_padding == "trailing",
    )
    net = ResNet(
        parts,
        catalog.load("orderings", config.ordering).ORDERING.of(config.block),
        block=config.block,
        depth=config.depth,
        width=config.width,
        image_channels=dataset.SHAPE[2],
        classes=dataset.CLASSES,
    )
    initialize(net, config.recipe.initialization)
    return net


def _norm(config: RunConfig, channels: int) -> nn.Module:
    norm: nn.Module = catalog.load("norms", config.norm.name).build(channels, **dict(config.norm.options))
    if config.recipe.sync_batch_norm and isinstance(norm, nn.BatchNorm2d):
        return SyncBatchNorm(channels, eps=norm.eps, momentum=norm.momentum)
    return norm


def parameter_count(net: nn.Module) -> int:
    """The number of learnable parameters."""
    return sum(parameter.numel() for parameter in net.parameters())
