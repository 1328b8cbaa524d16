"""The parameter groups of a recipe's weight decay."""

from typing import Any

from torch import nn

from icbench.config import WeightDecay


def groups(net: nn.Module, decay: WeightDecay) -> list[dict[str, Any]]:
    """Convolution kernels, classifier weights, and all else (biases, norms), each with its coupled decay."""
    members: dict[str, list[nn.Parameter]] = {"convolution": [], "classifier": [], "other": []}
    for module in net.modules():
        for name, parameter in module.named_parameters(recurse=False):
            kind = (
                "convolution"
                if isinstance(module, nn.Conv2d)
                else "classifier"
                if isinstance(module, nn.Linear)
                else None
            )
            members[kind if kind and name == "weight" else "other"].append(parameter)
    return [
        {"params": parameters, "weight_decay": getattr(decay, name)}
        for name, parameters in members.items()
        if parameters
    ]
