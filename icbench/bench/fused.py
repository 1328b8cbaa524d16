"""Several nets as one, their weights stacked: torch.func.vmap makes grouped convolutions of their convolutions.

As HFTA does it by hand (Wang et al. 2021, arXiv 2102.02344): the mathematics of each net stays, and so many nets cost
as many kernels as one. A candidate for sharing a GPU, measured by `icbench bench gpu` and used nowhere else.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from icbench import catalog
from icbench.config import RunConfig
from icbench.data.device import DeviceData, EpochPlan
from icbench.train import parameters
from icbench.train.numerics import autocast, dtype
from icbench.train.state import State


class Fused:
    """Trainings of `config` with each of some seeds, in step with one another, on images of their own."""

    def __init__(self, config: RunConfig, data: DeviceData, seeds: Sequence[int]):
        self._config, self._data = config, data
        nets = [State.fresh(replace(config, seed=seed), data.device).net.train() for seed in seeds]
        # In one common layout: vmap moves axes, so that channels_last would be copied there and back.
        stacked, self._buffers = stack_module_state([net.to(memory_format=torch.contiguous_format) for net in nets])
        self.weights: dict[str, Tensor] = {name: nn.Parameter(value.detach()) for name, value in stacked.items()}
        self._net = copy.deepcopy(nets[0]).to("meta")
        recipe = config.recipe
        self.optimizer = catalog.load("optimizers", recipe.optimizer.name).build(
            self._groups(nets[0]), recipe.learning_rate, **dict(recipe.optimizer.options)
        )

    def _groups(self, net: nn.Module) -> list[dict[str, object]]:
        """The groups of weight decay of one net, of all nets' stacked parameters."""
        names = {parameter: name for name, parameter in net.named_parameters()}
        return [
            group | {"params": [self.weights[names[parameter]] for parameter in group["params"]]}
            for group in parameters.groups(net, self._config.recipe.weight_decay)
        ]

    def step(self, rows: Sequence[EpochPlan]) -> Tensor:
        """One step of each net on the images that its rows say: their losses, (nets,)."""
        batches = [self._data.augmented(each, dtype(self._config.precision)) for each in rows]
        images, labels = (torch.stack(part) for part in zip(*batches, strict=True))
        self.optimizer.zero_grad(set_to_none=True)
        losses: Tensor = vmap(self._loss, randomness="different")(self.weights, self._buffers, images, labels)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return losses.detach()

    def _loss(self, weights: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        with autocast(self._config.precision, self._data.device):
            return cross_entropy(functional_call(self._net, (weights, buffers), (images,)), labels)
