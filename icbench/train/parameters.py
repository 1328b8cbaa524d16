"""The parameter groups of a recipe's weight decay."""

from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from icbench.config import WeightDecay


def groups(net: nn.Module, decay: WeightDecay) -> list[dict[str, Any]]:
    """Convolution kernels, classifier weights, and all else (biases, norms, scales), each with its coupled decay.

    Of a weight that is computed from several parameters (weight normalisation), all of them count as the weight.
    """
    weights = {
        parameter: "convolution" if isinstance(module, nn.Conv2d) else "classifier"
        for module in net.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
        for parameter in _weight(module)
    }
    members: dict[str, list[nn.Parameter]] = {"convolution": [], "classifier": [], "other": []}
    for module in net.modules():
        for parameter in module.parameters(recurse=False):
            members[weights.get(parameter, "other")].append(parameter)
    return [
        {"params": parameters, "weight_decay": getattr(decay, name)}
        for name, parameters in members.items()
        if parameters
    ]


def _weight(module: nn.Conv2d | nn.Linear) -> list[Tensor]:
    """What the layer's weight is computed from."""
    if is_parametrized(module, "weight"):
        return list(module.get_submodule("parametrizations.weight").parameters())
    return [module.weight]
