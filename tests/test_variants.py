"""What every norm, weight, activation and procedure must do in a training: one more file is tested unasked."""

from pathlib import Path

import pytest
import torch
from test_parallel import Pool, training
from test_parallel import pool as pool
from test_train import Watcher, bits, digits, same

from icbench import catalog, grid
from icbench.config import RunConfig
from icbench.train.evaluation import Stopped
from icbench.train.loop import train
from icbench.values import TYPES

TINY = """
recipe: {{name: digits, epochs: 2, batch_size: 201}}
fixed: {{dataset: digits, width: 4, dropout: 0.2, {fields}}}
"""
RESIDUAL = "depth: 8, ordering: conv-relu-ic"
RECURRENT = "block: lstm, depth: 2, ordering: baseline"


def options(kind: str, name: str) -> str:
    """Such as fit a net of width 4, and as happen within 16 steps."""
    small = {
        key: 4 if option.type is TYPES["ChannelDivisor"] else 3
        for key, option in catalog.options(kind, name).items()
        if option.type is TYPES["ChannelDivisor"] or key == "every" or key.endswith(("warmup", "steps"))
    }
    return "".join(f", {key}: {value}" for key, value in small.items())


def nets() -> dict[str, str]:
    norms = {name: catalog.functions("norms", name) for name in catalog.names("norms")}
    found = {f"norm {n}": f"{RESIDUAL}, norm: {{name: {n}{options('norms', n)}}}" for n in norms if "build" in norms[n]}
    found["norm lp, streaming"] = f"{RESIDUAL}, norm: {{name: lp, streaming: true}}"
    found |= {f"lstm {n}": f"{RECURRENT}, norm: {{name: {n}}}" for n in norms if "recurrent" in norms[n]}
    for field, kind in (("weight", "weights"), ("activation", "activations")):
        found |= {n: f"{RESIDUAL}, {field}: {{name: {n}{options(kind, n)}}}" for n in catalog.names(kind)}
    return found


NETS = nets()
PROCEDURES = {
    name: f"{RESIDUAL}, procedures: [{{name: {name}{options('procedures', name)}}}]"
    for name in catalog.names("procedures")
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def config(fields: str, tmp_path: Path) -> RunConfig:
    file = tmp_path / "grid.yaml"
    file.write_text(TINY.format(fields=fields))
    return grid.load(file).runs()[0][1]


@pytest.mark.parametrize("fields", NETS.values(), ids=NETS)
def test_it_goes_on_bit_for_bit(config: RunConfig, tmp_path: Path) -> None:
    """Stopped within an epoch, within the next, and in its evaluation."""
    whole, _ = train(config, digits(config), tmp_path / "whole.pt", Watcher())
    for stop_at in (5, 5, 7):
        with pytest.raises(Stopped):
            train(config, digits(config), tmp_path / "checkpoint.pt", Watcher(stop_at=stop_at))
    state, _ = train(config, digits(config), tmp_path / "checkpoint.pt", Watcher())
    assert same(bits(state), bits(whole))


@pytest.mark.parametrize("fields", (NETS | PROCEDURES).values(), ids=NETS | PROCEDURES)
def test_ranks_train_it_alike_and_go_on_bit_for_bit(config: RunConfig, pool: Pool, tmp_path: Path) -> None:
    first, second = (told.bits for told in pool.run(2, training, config, tmp_path / "whole.pt", {}))
    assert same(first, second)
    told = pool.run(2, training, config, tmp_path / "stopped.pt", {1: Watcher(stop_at=4)})
    assert [each.error for each in told] == ["Stopped"] * 2
    again = pool.run(2, training, config, tmp_path / "stopped.pt", {})
    assert all(same(each.bits, first) for each in again)
