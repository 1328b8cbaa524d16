"""Running statistics of the images to evaluate, in place of the training's (Li et al. 2016, arXiv 1603.04779).

Formula: before each evaluation the norms' running statistics become the averages over the batches of the target, here
the test images without their labels, passed through the net as in training but for dropout.

Afterwards the training's own return, so that training goes on as without it. Results are transductive: what the net
says of an image depends on the others.

Needs: a norm that keeps running statistics. One more pass over the test images an epoch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from icbench.procedure import Procedure

if TYPE_CHECKING:
    from torch import nn


def build() -> Procedure:
    """No options."""
    return _AdaBN()


class _AdaBN(Procedure):
    def attach(self, net: "nn.Module") -> None:
        if not _keeping(net):
            raise ValueError("there is no norm that keeps running statistics, which could be adapted")

    @contextmanager
    def evaluating(self, net: "nn.Module", forwards: Callable[[], Iterator[None]]) -> Iterator[None]:
        norms = _keeping(net)
        own = [(norm.momentum, {name: buffer.clone() for name, buffer in norm.named_buffers()}) for norm in norms]
        peers = [getattr(norm, "peers", None) for norm in norms]
        try:
            self._adapt(norms, forwards)
            yield
        finally:
            for norm, (momentum, buffers), others in zip(norms, own, peers, strict=True):
                norm.momentum, norm.peers = momentum, others
                for name, buffer in buffers.items():
                    norm.get_buffer(name).copy_(buffer)

    def _adapt(self, norms: list[Any], forwards: Callable[[], Iterator[None]]) -> None:
        """Momentum 1/k at the k-th batch makes plain averages."""
        try:
            for norm in norms:
                norm.train()
                norm.momentum = 1.0
                norm.whole_batch = True
                norm.peers = None  # every rank runs all images
            for batches, _ in enumerate(forwards(), start=2):
                for norm in norms:
                    norm.momentum = 1 / batches
        finally:
            for norm in norms:
                norm.eval()
                norm.whole_batch = False


def _keeping(net: "nn.Module") -> list[Any]:
    return [m for m in net.modules() if any(name.startswith("running") for name, _ in m.named_buffers(recurse=False))]
