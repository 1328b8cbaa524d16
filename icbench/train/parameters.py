"""The parameter groups of a recipe's weight decay."""

from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from icbench.config import WeightDecay
from icbench.nets.lstm import LSTMLayer


def groups(net: nn.Module, decay: WeightDecay) -> list[dict[str, Any]]:
    """Convolution kernels, classifier weights, and all else (biases, norms, scales), each with its coupled decay.

    An LSTM's matrices count as kernels. Of a weight that is computed from several parameters (weight normalisation),
    all of them count as the weight.
    """
    weights = {
        parameter: "classifier" if isinstance(module, nn.Linear) else "convolution"
        for module in net.modules()
        if isinstance(module, nn.Conv2d | nn.Linear | LSTMLayer)
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


def _weight(module: nn.Conv2d | nn.Linear | LSTMLayer) -> list[Tensor]:
    """What the layer's weight is computed from."""
    if isinstance(module, LSTMLayer):
        return [module.input_weight, module.recurrent_weight]
    if is_parametrized(module, "weight"):
        return list(module.get_submodule("parametrizations.weight").parameters())
    return [module.weight]
