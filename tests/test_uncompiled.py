"""Optimisers without torch's compiler: the same numbers, and a worker that does not import it."""

import subprocess
import sys
from copy import deepcopy
from typing import Any

import pytest
import torch
from conftest import environment
from torch import nn, optim

from icbench.train.uncompiled import uncompiled

KINDS = [(optim.Adam, {"lr": 0.01, "fused": True}), (optim.SGD, {"lr": 0.1, "momentum": 0.9, "fused": True})]


def train(kind: Any, options: dict[str, Any], steps: int, state: dict[str, Any] | None = None) -> tuple[Any, Any]:
    torch.manual_seed(0)
    net, x = nn.Linear(5, 3), torch.randn(4, 5)
    optimizer = kind([{"params": [net.weight], "weight_decay": 0.1}, {"params": [net.bias]}], **options)
    if state is not None:
        optimizer.load_state_dict(state)
    for _ in range(steps):
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()
    return net, optimizer


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_they_are_torch_s(kind: Any, options: dict[str, Any]) -> None:
    (ours, mine), (theirs, its) = train(uncompiled(kind), options, 5), train(kind, options, 5)
    assert isinstance(mine, kind)
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)
    assert repr(mine) == repr(its)
    again, its_again = (train(each, options, 2, deepcopy(its.state_dict()))[0] for each in (uncompiled(kind), kind))
    assert torch.equal(again.weight, its_again.weight)


def test_hooks_are_called() -> None:
    _, optimizer = train(uncompiled(optim.Adam), {"fused": True}, 1)
    called: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: called.append("before"))
    optimizer.register_step_post_hook(lambda *_: called.append("after"))
    optimizer.step()
    assert called == ["before", "after"]


def test_a_training_does_not_import_the_compiler() -> None:
    """Whose import takes a second or two of every worker's start."""
    code = """
import sys, tempfile, torch
from pathlib import Path
from icbench.bench import ours
from icbench.bench.images import arrays
from icbench.bench.task import configuration
config = configuration(dataset="digits", depth=8, width=4, ordering="baseline", recipe="digits")
data = ours.device_data(config, arrays("digits", None, 64, 10), torch.device("cpu"))
training = ours.Ours(config, data)
training.step()
training.evaluate()
with tempfile.TemporaryDirectory() as folder:
    training.store(Path(folder))
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
