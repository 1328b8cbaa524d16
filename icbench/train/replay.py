"""A step without Python: recorded once as a CUDA graph, then replayed.

A small net on a large GPU waits for Python: a ResNet-110's step is a thousand kernels. A CUDA graph holds them all:
augmentation, forward and backward pass, the optimiser. What differs from step to step it reads from tensors that stay
where they are: the epoch's plan, where in it the batch begins, the learning rate, the state of the random numbers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from icbench.config import RunConfig
from icbench.data.device import DeviceData, EpochPlan
from icbench.train.evaluation import batch_sums
from icbench.train.numerics import autocast, dtype
from icbench.train.state import State

_WARM_UPS = 3  # as torch's notes on CUDA graphs have it: libraries choose their ways in the first steps


class Static:
    """The step as a function of such tensors, not recorded: what `Recorded` records, on any device.

    The learning rate is then a float32, as torch's fused optimisers want it there: a relative 1e-8 off.
    """

    def __init__(self, config: RunConfig, state: State, data: DeviceData):
        self._precision = config.precision
        self._state = state
        self._data = data
        self._first = torch.zeros((), dtype=torch.int64, device=data.device)
        self._plan: EpochPlan | None = None
        for group in state.optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=data.device)
            if "capturable" in group:
                group["capturable"] = data.device.type == "cuda"

    def begin_epoch(self, plan: EpochPlan) -> None:
        if self._plan is None:
            self._plan = EpochPlan(*(column.clone() for column in plan))
        else:
            torch._foreach_copy_(list(self._plan), list(plan))

    def __call__(self, first: int, last: int) -> None:
        self._first.fill_(first)
        self._run(last - first)

    def _run(self, count: int) -> None:
        self._step(count)

    def _step(self, count: int) -> None:
        state = self._state
        assert self._plan is not None
        rows = self._plan.at(self._first + torch.arange(count, device=self._data.device))
        images, labels = self._data.augmented(rows, dtype(self._precision))
        with autocast(self._precision, self._data.device):
            logits = state.net(images)
            loss = cross_entropy(logits, labels)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        state.sums += batch_sums(loss.detach(), logits.detach(), labels)


class Recorded(Static):
    """A CUDA graph for each size of batch that comes: most epochs have two, since their last batch is shorter."""

    def __init__(self, config: RunConfig, state: State, data: DeviceData):
        super().__init__(config, state, data)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._memory = torch.cuda.graph_pool_handle()  # one for all graphs, of which one runs at a time

    def _run(self, count: int) -> None:
        if count not in self._graphs:
            self._graphs[count] = self._record(count)
        self._graphs[count].replay()

    def _record(self, count: int) -> torch.cuda.CUDAGraph:
        stream = torch.cuda.Stream(self._data.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), unchanged(self._state):
            for _ in range(_WARM_UPS):
                self._step(count)
        torch.cuda.current_stream().wait_stream(stream)
        # The last warm-up's gradients would keep memory that the graph has to have for itself.
        self._state.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory, stream=stream):
            self._step(count)
        return graph


@contextmanager
def unchanged(state: State) -> Iterator[None]:
    """Whatever trains inside, afterwards the weights, the optimiser, the sums and the random state are as before.

    All tensors stay where they are: those of the optimiser that did not exist before are there after, and are 0, which
    is what Adam's begin as, and as good as none for a momentum that is not dampened.
    """
    moved = [*state.net.parameters(), *state.net.buffers(), state.sums]
    values = [tensor.detach().clone() for tensor in moved]
    before = {parameter: _tensors(of) for parameter, of in state.optimizer.state.items()}
    kept = {parameter: {name: value.clone() for name, value in of.items()} for parameter, of in before.items()}
    random, device = torch.get_rng_state(), state.sums.device
    cuda_random = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    yield
    with torch.no_grad():
        for tensor, value in zip(moved, values, strict=True):
            tensor.copy_(value)
        for parameter, of in state.optimizer.state.items():
            for name, value in _tensors(of).items():
                value.copy_(kept[parameter][name]) if parameter in kept else value.zero_()
    torch.set_rng_state(random)
    if cuda_random is not None:
        torch.cuda.set_rng_state(cuda_random, device)


def _tensors(of: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in of.items() if isinstance(value, Tensor)}
