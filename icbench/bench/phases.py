"""Where the time of a step goes, seen from outside: hooks on the net and on the optimiser note the moments.

So the same is asked of every engine whose steps go through a module and a torch optimiser, whatever is around them.
"""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

# What lies between a step's moments: its begin, the net's, the net's end, the optimiser's, its end, the step's end.
PHASES = ("input", "forward", "backward", "optimizer", "rest")


def phases(
    net: nn.Module, optimizer: Optimizer, step: Callable[[], object], steps: int, device: torch.device
) -> dict[str, float]:
    """Seconds of a step by phase, the mean over `steps`; empty where the steps do not go through them.

    The loss and the zeroing of gradients are part of backward; counting losses and hits is the rest.
    """
    moments: list[Any] = []

    def note(*_: object) -> None:
        if device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            moments.append(event)
        else:
            moments.append(time.perf_counter())

    hooks = [
        net.register_forward_pre_hook(note),
        net.register_forward_hook(note),
        optimizer.register_step_pre_hook(note),
        optimizer.register_step_post_hook(note),
    ]
    totals = dict.fromkeys(PHASES, 0.0)
    try:
        for _ in range(steps):
            moments.clear()
            note()
            step()
            note()
            if len(moments) != len(PHASES) + 1:
                return {}
            for phase, (before, after) in zip(PHASES, pairwise(moments), strict=True):
                totals[phase] += _between(before, after, device) / steps
    finally:
        for hook in hooks:
            hook.remove()
    return totals


def _between(before: Any, after: Any, device: torch.device) -> float:
    """Seconds; on a GPU, of its own clock, which has to get there first."""
    if device.type == "cuda":
        after.synchronize()
        return float(before.elapsed_time(after)) / 1000
    return float(after - before)
