"""Which way a run's steps are done: `eager`, replayed from a CUDA `graph`, or with its residual units `compiled`.

All compute the same recipe. Their roundings differ, as those of two machines do, so that a run keeps to one and its row
says which; what they are measured to differ by is in docs/performance.md.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch

from icbench import catalog
from icbench.config import RunConfig
from icbench.data.device import DeviceData
from icbench.data.source import Source
from icbench.nets.resnet import Unit
from icbench.procedure import batch_sizes, together
from icbench.train.ranks import Ranks
from icbench.train.replay import Recorded
from icbench.train.state import State
from icbench.train.steps import Eager, Step

_MOST_COMPILED = 64
_SCHEDULED = "its dropout rate changes from step to step"


class Engine(NamedTuple):
    """How steps are done. images_at_once: see steps.Eager. reason: why they are not done as they were to be, if so."""

    compiled: bool = False
    graph: bool = False
    images_at_once: int | None = None
    reason: str = ""

    def __str__(self) -> str:
        return " ".join(name for name in ("compiled", "graph") if getattr(self, name)) or "eager"

    def evaluating(self) -> AbstractContextManager[object]:
        """Around an evaluation, whose batches nothing should be compiled for: they are few and of other sizes."""
        return torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()


EAGER = Engine()


def choose(wanted: str, config: RunConfig, data: Source, ranks: Ranks, images_at_once: int | None) -> Engine:
    """The engine of a run. wanted: a profile's `engine`: auto (a graph, where one is possible) or one of the names."""
    largest = max(batch_sizes(config.recipe, config.procedures, data.train_count))
    parts = images_at_once if images_at_once and images_at_once < -(-largest // ranks.size) else None
    obstacle = "" if wanted == "eager" else _obstacle(config, data, ranks, parts)
    reason = "" if wanted != "graph" and data.device.type != "cuda" else obstacle
    compiled = wanted == "compiled"
    if compiled and config.block == "lstm":
        compiled, reason = False, "an LSTM has no residual units to compile"
    if compiled and together(config.procedures).schedules_dropout:  # each of its rates would be compiled anew
        compiled, reason = False, _SCHEDULED
    return Engine(compiled, graph=wanted != "eager" and not obstacle, images_at_once=parts, reason=reason)


def _obstacle(config: RunConfig, data: Source, ranks: Ranks, parts: int | None) -> str:
    """Why the steps of a run cannot be recorded as a graph, if so."""
    if data.device.type != "cuda":
        return "there is no GPU"
    if not isinstance(data, DeviceData):
        return f"{config.dataset} is not kept on the GPU"
    if ranks.size > 1:
        return "several GPUs share the run"
    if parts:
        return "its batches are done in parts"
    if together(config.procedures).schedules_dropout:
        return _SCHEDULED
    if not getattr(catalog.load("norms", config.norm.name), "CAPTURABLE", True):
        return f"norm {config.norm.name} waits for the GPU in each step"
    return ""


def start(engine: Engine, config: RunConfig, state: State, data: Source, ranks: Ranks) -> Step:
    """Make ready to step."""
    if engine.compiled:
        _make_room_for_compiled_units()
        for module in state.net.modules():
            if isinstance(module, Unit):  # not the whole net: equal units share what is compiled, in seconds
                module.compile(dynamic=False)
    if engine.graph:
        assert isinstance(data, DeviceData)
        return Recorded(config, state, data)
    return Eager(config, state, data, ranks, engine.images_at_once)


def _make_room_for_compiled_units() -> None:
    """Forget those of the worker's run before, and have torch fail where it would go on uncompiled in silence.

    Units of each stage, first and last ones, and each size of batch are compiled anew; torch gives up after 8.
    """
    from torch import _dynamo

    _dynamo.reset()
    _dynamo.config.recompile_limit = _MOST_COMPILED
    _dynamo.config.fail_on_recompile_limit_hit = True
