"""Initial weights of convolutions and of the classifier (He et al. 2015, arXiv 1502.01852, section 2.2)."""

import math

from torch import Tensor, nn

# The standard deviation of a standard normal variable that is cut at two standard deviations.
_CUT_AT_TWO = 0.87962566103423978


def initialize(net: nn.Module, how: str) -> None:
    """Draw every convolution's and linear layer's weight from N(0, 2 / fan_in); biases are 0.

    he-truncated-normal cuts the normal at two standard deviations and rescales it, so that the variance is 2 / fan_in
    all the same (Keras' he_normal); he-normal does not cut; lecun-normal does not either, and its variance is
    1 / fan_in (LeCun et al. 1998, Efficient BackProp, section 4.6). he-fan-out has a variance of 2 / fan_out and leaves
    linear layers as torch chose, as torchvision's ResNets do; torch-default leaves all.
    """
    if how == "torch-default":
        return
    kinds = (nn.Conv2d,) if how == "he-fan-out" else (nn.Conv2d, nn.Linear)
    for module in net.modules():
        if isinstance(module, kinds):
            _draw(module.weight, how)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _draw(weight: Tensor, how: str) -> None:
    fan = weight[:, 0].numel() if how == "he-fan-out" else weight[0].numel()
    deviation = math.sqrt((1 if how == "lecun-normal" else 2) / fan)
    if how == "he-truncated-normal":
        scale = deviation / _CUT_AT_TWO
        nn.init.trunc_normal_(weight, std=scale, a=-2 * scale, b=2 * scale)
    else:
        nn.init.normal_(weight, std=deviation)
