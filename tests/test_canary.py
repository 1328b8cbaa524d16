"""Canaries: a few steps of real nets by real processes, and what a sweep that follows takes."""

import json
import os
import pickle
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from conftest import SMALL, Icbench, environment, wait_for
from photos import prepare_tiny, tiny_registered

from icbench import grid, timings
from icbench.config import RunConfig, Variant
from icbench.data import streamed
from icbench.data.device import DeviceData
from icbench.layout import Layout
from icbench.train.state import State
from icbench.work import canaries, canary
from icbench.work.canaries import Company

WriteGrid = Callable[..., Path]
TWO = """
recipe: {name: digits, epochs: 4}
fixed: {dataset: digits, depth: 8, norm: batch}
grid: {ordering: [baseline, conv-relu-ic]}
seeds: 2
"""


@pytest.fixture
def config(write_grid: WriteGrid) -> RunConfig:
    text = "recipe: digits\nfixed: {dataset: digits, depth: 8, width: 4, ordering: conv-relu-ic}"
    return grid.load(write_grid(text)).runs()[0][1]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "_SECONDS", 0.1)


def test_a_canary_and_the_sweep_that_follows(
    icbench: Icbench, icbench_here: Icbench, write_grid: WriteGrid, tmp_path: Path
) -> None:
    """The estimate of a run is within a factor of two of what runs take; others at work here share the machine."""
    write_grid(TWO)
    write_grid("workers: 1\ndevice: cpu", "one.yaml")
    arguments = ("grid.yaml", "--no-build", "--profile", "one.yaml")
    measured = icbench("plan", *arguments, "--canary")
    assert measured.code == 0, measured.err
    assert "measuring a few steps of 2 nets, 1 at a time" in measured.err
    assert "It comes from 2 canaries of 2 of its 2 nets on cpu (" in measured.out
    files = sorted((tmp_path / "results" / "canaries").iterdir())
    assert len(files) == 2
    content = json.loads(files[0].read_text())
    assert content["torch_version"] == torch.__version__
    assert content["device_memory"] is None
    assert 2**26 < content["memory"] < 2**32
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["canaries"]

    assert icbench("sweep", *arguments).code == 0
    after = icbench_here("plan", *arguments, "--json").json()["estimate"]
    assert after["finished"]["runs"] == 4
    (ledger,) = (tmp_path / "results" / "sweeps").glob("*/ledger/*.json")
    entry = json.loads(ledger.read_text())
    (packs,), (seconds,) = entry["packs"], entry["estimate"]["seconds"]
    took = timings.read(Layout(tmp_path / "results"), packs).seconds
    ratios = [each / took[run_id] for run_id, each in zip(packs, seconds, strict=True)]
    assert 1 / 3 < statistics.median(ratios) < 3  # other tests are at work meanwhile
    assert sorted((tmp_path / "results" / "canaries").iterdir()) == files


@pytest.mark.usefixtures("quick")
def test_a_step_is_one_of_training(config: RunConfig) -> None:
    """Every parameter moves as Adam's first step moves it: by the learning rate, where it has a gradient."""
    training = canary.Training(config, Company(1, 1, "cpu"))
    fresh = State.fresh(config, torch.device("cpu"))
    training.step()
    moves = [
        (after - before).abs().max().item()
        for before, after in zip(fresh.net.parameters(), training.state.net.parameters(), strict=True)
    ]
    assert max(moves) == pytest.approx(config.recipe.learning_rate, rel=1e-2)
    assert min(moves) > 0.5 * config.recipe.learning_rate
    assert training.batch_size == config.recipe.batch_size
    assert isinstance(training.data, DeviceData)


@pytest.mark.usefixtures("quick")
def test_nothing_is_compiled_for_an_evaluation(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    training = canary.Training(config, Company(1, 1, "cpu"))
    around = MagicMock()
    training.engine = SimpleNamespace(evaluating=lambda: around)  # type: ignore[assignment]
    monkeypatch.setattr(canary, "evaluate", lambda *_, **__: around.evaluate())
    canary._evaluate(training, 64)
    assert [name for name, *_ in around.mock_calls] == ["__enter__", "evaluate", "__exit__"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "changes", [{}, {"norm": Variant("virtual", (("epsilon", 1e-5), ("images", 8)))}, {"precision": "bfloat16"}]
)
def test_what_is_measured(config: RunConfig, changes: dict[str, object]) -> None:
    training = canary.Training(replace(config, **changes), Company(1, 1, "cpu"))  # type: ignore[arg-type]
    found = canary.measure(training)
    assert 0 < found.test_seconds_per_image < found.train_seconds_per_image < 0.1
    assert 0 < found.seconds_per_epoch_more < 5
    assert found.steps >= 1
    assert found.device.startswith("cpu (")
    assert len(training.data.test_labels) == 359  # all are there again


@pytest.mark.usefixtures("quick")
def test_a_rank_s_share_of_images_from_shards(write_grid: WriteGrid) -> None:
    """No images but those of a batch count as memory, of which ImageNet has 187 GiB."""
    text = (
        "recipe: {name: imagenet-chen2019, batch_size: 6}\n"
        "fixed: {dataset: imagenet, block: bottleneck, depth: 50, ordering: baseline}"
    )
    config = grid.load(write_grid(text)).runs()[0][1]
    training = canary.Training(config, Company(1, 1, "cpu", ranks=4))
    training.step()
    assert training.batch_size == 2
    assert canary._memory(training)[0] < 8 * 2**30


@pytest.mark.usefixtures("quick")
def test_images_from_shards_are_decoded_as_in_a_run(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the one thread that a run would have, whom each image takes so long here; where there are none, by nobody."""
    decoded: list[int] = []
    picture = streamed._Loader.picture

    def slow(self: streamed._Loader, index: int, seed: int | None) -> torch.Tensor:
        decoded.append(index)
        time.sleep(0.03)
        return picture(self, index, seed)

    monkeypatch.setattr(streamed._Loader, "picture", slow)
    with tiny_registered(tmp_path):
        data = prepare_tiny(tmp_path)
        recipe = replace(config.recipe, batch_size=20, subtract_pixel_mean=False, standardize_channels=True)
        own = replace(config, dataset="tiny", recipe=recipe)
        company = Company(1, 1, "cpu", ranks=2, data=data)
        training = canary.Training(own, company)
        for _ in range(3):
            training.step()
        # Half of either full batch of 48 images, and then of the first one again.
        order = training._plan.order
        assert decoded[:20] == [*order[:10], *order[20:30]]
        wait_for(lambda: decoded[20:30] == [*order[:10]])
        found = canary.measure(canary.Training(own, company))
        assert found.from_shards
        assert 0.02 < found.train_seconds_per_image < 0.06
        assert 0.02 < found.test_seconds_per_image < 0.055  # none decodes for later steps meanwhile
        without = canary.measure(canary.Training(own, replace(company, data=tmp_path)))
        assert not without.from_shards
        assert without.train_seconds_per_image < 0.02


def test_several_processes_measure_one_net_each_as_one(config: RunConfig) -> None:
    """Three nets by two processes: the fourth turn is the first net's again. What cannot be built says why."""
    wrong = replace(config, norm=Variant("group", (("epsilon", 1e-5), ("groups", 3))))
    told: list[int] = []
    answers = canaries.measure([config, wrong, config], Company(2, 1, "cpu"), told.append)
    assert told == [2, 3]
    assert (len(answers[0]), len(answers[2])) == (2, 1)
    assert isinstance(answers[1], str)
    assert answers[1].startswith("ValueError: num_channels")


def test_a_process_that_dies_is_told_of(icbench: Icbench, write_grid: WriteGrid, tmp_path: Path) -> None:
    write_grid(TWO)
    path = write_grid("raise ImportError('torch is broken')", "torch.py").parent
    python = f"{path}:{Path(canary.__file__).parents[2]}"
    done = icbench("plan", "grid.yaml", "--no-build", "--canary", PYTHONPATH=python)
    assert (done.code, done.out) == (1, "")
    assert (
        "a process that trains nets for a few steps ended with exit code 1. The last it said: ImportError" in done.err
    )
    assert not (tmp_path / "results").exists()


_STARTS_ONE = """
import pickle, sys, time
from icbench.work.canaries import Company, process
company = Company(1, 1, "cpu")
with process(company, 0) as child:
    child.answer()
    child.send((company, pickle.load(sys.stdin.buffer)))
    child.answer()
    print(child.pid, flush=True)
    time.sleep(100)
"""


def test_nothing_is_left_of_a_canary_that_was_killed(config: RunConfig) -> None:
    """Its processes go on with their steps only as long as who started them is there."""
    command = [sys.executable, "-c", _STARTS_ONE]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
    assert parent.stdin
    assert parent.stdout
    with parent.stdin, parent.stdout:
        pickle.dump([config], parent.stdin)
        parent.stdin.flush()
        state = Path(f"/proc/{int(parent.stdout.readline())}/task")
        assert state.exists()
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    wait_for(lambda: not state.exists())


def test_where_nothing_is_missing_nothing_is_measured(
    small_sweep: Path, icbench_here: Icbench, write_grid: WriteGrid
) -> None:
    write_grid(SMALL)
    done = icbench_here("plan", "grid.yaml", "--no-build", "--canary", "--results", str(small_sweep))
    assert done.code == 0
    assert "Nothing is missing, so there is nothing to measure." in done.err
    assert not (small_sweep / "canaries").exists()
