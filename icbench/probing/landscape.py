"""The loss of one batch as a function of the parameters alone."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from icbench.probing.subject import undisturbed


class Landscape:
    """The mean cross-entropy of `images` around the net's present parameters, the origin.

    Every look at it draws the same dropout gates, and finds the buffers (running statistics) as they were. It is
    computed in the parameters' type, whatever the run's precision: in bfloat16, rounding is larger than what
    neighbouring points differ by.
    """

    def __init__(self, net: nn.Module, images: Tensor, labels: Tensor, seed: int = 0):
        self._net, self._images, self._labels, self._seed = net, images, labels, seed
        self.parameters = [p for p in net.parameters() if p.requires_grad]
        self._buffers = [(buffer, buffer.clone()) for buffer in net.buffers()]

    def loss(self) -> Tensor:
        """At the origin, with its graph, which holds on to the buffers: `restore` them when it is done with."""
        self.restore()
        with undisturbed(self._images.device):
            torch.manual_seed(self._seed)
            return cross_entropy(self._net(self._images.to(self.parameters[0].dtype)), self._labels)

    @torch.no_grad()
    def restore(self) -> None:
        """Give the buffers back their values."""
        for buffer, before in self._buffers:
            buffer.copy_(before)

    def at(self, displacement: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
        """The loss and its gradient by each parameter, `displacement` from the origin; the net is then as before."""
        origin = [parameter.detach().clone() for parameter in self.parameters]
        self._move(torch._foreach_add(origin, list(displacement)))
        loss = self.loss()
        gradient = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
        self._move(origin)
        self.restore()
        return loss.item(), list(gradient)

    def here(self) -> tuple[float, list[Tensor]]:
        """The same at the origin."""
        return self.at([torch.zeros_like(parameter) for parameter in self.parameters])

    @torch.no_grad()
    def _move(self, there: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.parameters, there, strict=True):
            parameter.copy_(value)


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """All elements of all in one vector, in float64."""
    return torch.cat([tensor.detach().flatten().double() for tensor in tensors])
