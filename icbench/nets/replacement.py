"""What convolutions with other weights are made from."""

from torch import nn


class Replacement(nn.Conv2d):
    """A convolution that takes over another's shape, weight and bias; subclasses compute something else with them."""

    def __init__(self, convolution: nn.Conv2d):
        # On the meta device, so that weights that are thrown away at once draw nothing from torch's generator.
        super().__init__(
            convolution.in_channels,
            convolution.out_channels,
            convolution.kernel_size,  # type: ignore[arg-type]
            convolution.stride,  # type: ignore[arg-type]
            convolution.padding,  # type: ignore[arg-type]
            convolution.dilation,  # type: ignore[arg-type]
            convolution.groups,
            padding_mode=convolution.padding_mode,
            device="meta",
        )
        self.weight = convolution.weight
        self.bias = convolution.bias
