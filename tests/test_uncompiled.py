"""Optimisers without torch's compiler: the same numbers, and a worker that does not import it."""

import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import environment
from torch import nn, optim

from icbench import load_runs
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


def test_a_worker_imports_neither_the_compiler_nor_pandas(tmp_path: Path) -> None:
    """Which would take a second or two, and half of one, of each worker's time."""
    (tmp_path / "grid.yaml").write_text(
        "recipe: {name: digits, epochs: 1}\nfixed: {dataset: digits, depth: 8, width: 4, ordering: baseline}"
    )
    code = """
import sys
from pathlib import Path
from icbench import grid
from icbench.bench.assigned import assigned
from icbench.layout import Layout
from icbench.work.worker import work
runs = grid.load(Path("grid.yaml")).runs()
with assigned(runs, Layout(Path("results")), "grid", "one", heartbeat_seconds=1) as assignment:
    print(work(assignment).name)
print([name for name in ("torch._dynamo", "torch._inductor", "sympy", "pandas") if name in sys.modules])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "DONE\n[]\n"
    assert len(load_runs(tmp_path / "results")) == 1
