"""What `icbench bench` says is what it measured, and whom it compares icbench with trains the same."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Icbench, environment
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from icbench import bench, catalog
from icbench.architecture import shape
from icbench.bench import conditions, gpu, measure, ours, peer, plain, train
from icbench.bench.children import Group
from icbench.bench.findings import Findings, Table, digits, percent, spread
from icbench.bench.fused import Fused
from icbench.bench.images import Arrays, arrays
from icbench.bench.measure import Comparison, Spread, in_turn
from icbench.bench.phases import PHASES, phases
from icbench.bench.task import Task, configuration
from icbench.config import RunConfig
from icbench.errors import IcbenchError, UserError
from icbench.machine import visible_gpus
from icbench.train import loop
from icbench.train.ranks import ALONE
from icbench.train.state import EpochRow, State
from icbench.train.steps import Eager

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def double() -> Iterator[None]:
    """Also what torchvision makes of PIL images is then float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_turns_are_interleaved() -> None:
    done: list[str] = []
    numbers = iter(range(6))

    def action(name: str) -> float:
        done.append(name)
        return float(next(numbers))

    found = in_turn({"a": lambda: action("a"), "b": lambda: action("b")}, 3)
    assert done == ["a", "b", "a", "b", "a", "b"]
    assert found == {"a": [0, 2, 4], "b": [1, 3, 5]}


def test_a_ratio_is_of_pairs() -> None:
    """Where the machine was four times as slow in the second pair, it says so of neither side."""
    rates = Comparison.of_rates("x", "images/s", [10.0, 2.0, 30.0], [5.0, 1.0, 10.0])
    assert rates.ratio == Spread(2.0, 2.0, 3.0, 3)
    assert rates.ours == Spread(10.0, 2.0, 30.0, 3)
    costs = Comparison.of_costs("x", "s", [1.0, 4.0], [3.0, 4.0])
    assert costs.ratio == Spread(2.0, 1.0, 3.0, 2)
    assert Comparison.of_rates("x", "images/s", [1.0], [0.0]).ratio.median == math.inf


def test_figures_as_people_and_programs_read_them() -> None:
    assert [digits(x) for x in (None, 1234.5, 99.5, 3.14159, 0.01234, 1.2e-5, -2.5)] == [
        *("", "1,234", "99.5", "3.14", "0.0123", "1.2e-05", "-2.50")
    ]
    assert percent(0.4567) == "45.7 %"
    assert spread(Spread(2.0, 1.0, 3.0, 3)) == "2.00 (1.00 to 3.00)"
    assert spread(Spread(2.0, 2.0, 2.0, 1)) == "2.00"
    table = Table("t", "T", (), [{"a": Spread(1 / 3, 0.0, math.inf, 2), "b": None, "c": "d"}])
    record = Findings([Comparison.of_rates("x", "images/s", [1.0], [0.0])], [table]).record()
    assert record["tables"]["t"] == [
        {"a": {"median": 0.333333, "least": 0.0, "most": None, "n": 2}, "b": None, "c": "d"}
    ]
    assert record["ratios"][0]["ratio"]["median"] is None
    json.dumps(record, allow_nan=False)


def honest(ordering: str, **fields: Any) -> RunConfig:
    """All that a recipe has, but for what is drawn: no augmentation, no dropout; full batches alone."""
    recipe = {
        "name": "chen2019",
        "batch_size": 64,
        "augmentation": {"shift": 0, "fill": "zero", "flip": False},
        "subtract_pixel_mean": False,
    }
    return configuration(
        dataset="digits", depth=8, width=4, ordering=ordering, recipe=recipe, dropout=0.0, precision="float64", **fields
    )


def few(images: int) -> Arrays:
    return arrays("digits", None, images, 100)


@pytest.mark.parametrize("ordering", ["baseline", "relu-ic-conv", "conv-relu-ic"])
@pytest.mark.usefixtures("double")
def test_the_plain_loop_trains_the_same(ordering: str) -> None:
    """Epochs of one batch, whose order does not matter: through PIL and the DataLoader, and Adam as torch has it."""
    config = honest(ordering)
    mine = ours.Ours(config, ours.device_data(config, few(64), CPU))
    task = Task("plain", config, None, "cpu", 64, 100)
    theirs = plain.Plain(task, few(64), ([0.0], [16 / 255]))
    for name, weight in mine.net.state_dict().items():
        assert torch.equal(weight, theirs.net.state_dict()[name]), name
    losses = []
    for _ in range(6):
        assert mine.step() == 64
        losses.append(mine.losses() / 64)
    assert losses[-1] < 0.9 * losses[0]
    assert [next(theirs.losses) for _ in range(6)] == pytest.approx(losses, rel=1e-9)
    evaluation = mine.evaluate()
    loss, accuracy = peer.evaluate(theirs.net, theirs._test, CPU, amp=False)
    assert loss == pytest.approx(evaluation.loss, rel=1e-9)
    assert accuracy == evaluation.accuracy


def test_the_plain_loop_counts_its_images_and_goes_on() -> None:
    task = Task("plain", honest("baseline"), None, "cpu", 150, 100)
    images = few(150)
    theirs = plain.prepare(task, images)
    assert [theirs.step() for _ in range(5)] == [64, 64, 22, 64, 64]
    batches = plain.batches(task, images)
    assert [next(batches) for _ in range(4)] == [64, 64, 22, 64]


def test_the_plain_loop_s_images_are_shifted_and_normalised() -> None:
    augmentation = replace(honest("baseline").recipe.augmentation, shift=2, flip=True)
    images = few(64)
    loaders = peer.loaders(images, augmentation, ([0.0], [1.0]), 64, 0, pin=False)
    (inputs, labels), (tests, _) = (next(iter(loader)) for loader in loaders)
    assert inputs.shape == (64, 1, 8, 8)
    originals = {tuple(image.ravel().tolist()) for image in images[0]}
    unchanged = [tuple((image * 255).round().int().ravel().tolist()) in originals for image in inputs]
    assert sum(unchanged) < 32
    assert sorted(labels.tolist()) == sorted(images[1].tolist())
    assert torch.equal((tests * 255).round().byte()[:, 0], torch.from_numpy(images[2][..., 0]))


class Silent(loop.Unwatched):
    """Watches a training and keeps its rows."""

    def __init__(self) -> None:
        self.rows: list[EpochRow] = []

    def epoch_ended(self, row: EpochRow) -> None:
        self.rows.append(row)


def test_what_is_measured_is_icbench_s_own_training(tmp_path: Path) -> None:
    """Step by step it gives the numbers of train/loop.py, to the bit."""
    config = configuration(
        dataset="digits",
        depth=8,
        width=4,
        ordering="relu-ic-conv",
        procedures=["linear-dropout"],
        recipe={"name": "digits", "epochs": 3, "batch_size": 200},
    )
    images = arrays("digits", None, 10_000, 10_000)
    watcher = Silent()
    data = ours.device_data(config, images, CPU)
    loop.train(config, data, tmp_path / "checkpoint.pt", watcher)
    mine = ours.Ours(config, data)
    assert mine.train_to_the_end() == [row.test_accuracy for row in watcher.rows]
    whole = sum(row.train_loss for row in watcher.rows) * 1438
    assert mine.losses() == pytest.approx(whole, rel=1e-12)


class Slow(torch.autograd.Function):
    """Takes 30 ms forward and 40 ms back."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        time.sleep(0.03)
        return x.clone()

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        time.sleep(0.04)
        return gradient


class SlowNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        slowed: Tensor = Slow.apply(x * self.weight)
        return slowed


class SlowOptimizer(torch.optim.Optimizer):
    """Not one of torch's made slower: whose `step` has hooks of its own, once there was one."""

    def step(self, closure: Any = None) -> Any:
        time.sleep(0.02)


def test_phases_are_told_apart() -> None:
    net = SlowNet()
    optimizer = SlowOptimizer(net.parameters(), {})

    def step() -> None:
        time.sleep(0.01)
        loss = net(torch.ones(3)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        time.sleep(0.05)

    found = phases(net, optimizer, step, 3, CPU)
    expected = dict(zip(PHASES, (0.01, 0.03, 0.04, 0.02, 0.05), strict=True))
    assert list(found) == list(PHASES)
    for phase, seconds in expected.items():
        assert seconds <= found[phase] < seconds + 0.03, phase
    assert not net._forward_hooks
    assert phases(net, optimizer, lambda: None, 1, CPU) == {}


def test_shares_of_an_epoch() -> None:
    """40 s of steps, 8 s of evaluation, 2 s of checkpoint: closed forms."""
    steps = dict(zip(PHASES, (0.1, 0.2, 0.3, 0.1, 0.3), strict=True))
    shares = train.shares(steps, 40.0, 8.0, 2.0)
    assert shares == pytest.approx(
        {"input": 0.08, "forward": 0.16, "backward": 0.24, "optimizer": 0.08, "rest": 0.24}
        | {"evaluation": 0.16, "checkpoint": 0.04}
    )
    assert sum(shares.values()) == pytest.approx(1)
    found = train.beside(steps, 40.0, 8.0, 2.0, start=4.0, epochs=2)
    assert found == pytest.approx({"share_beside": 24 / 52, "share_beside_first": 26 / 54})
    assert set(train.beside({}, 40.0, 8.0, 2.0, 4.0, 2).values()) == {None}


@pytest.mark.parametrize("dataset", ["digits", "cifar10"])
def test_operations_of_a_step(dataset: str) -> None:
    """Six for each multiply-add, by torch's own count, less the gradient of the images, which nobody needs."""
    config = configuration(dataset=dataset, depth=20, ordering="baseline", recipe="chen2019")
    mine = ours.prepare(Task("icbench", config, None, "cpu", 8, 1), arrays(dataset, Path("nowhere"), 8, 1))
    about = catalog.load("datasets", dataset)
    with FlopCounterMode(display=False) as counter:
        assert mine.step() == 8
    said = 8 * train._OPERATIONS * shape(dataset, "basic", 20, 16).multiply_adds()
    stem = 8 * 2 * math.prod(about.SHAPE) * 9 * 16
    assert counter.get_total_flops() == said - stem


def test_procedures_are_measured_where_they_matter() -> None:
    settings = train.Settings(procedure=("linear-dropout",))
    baseline, icbench = (list(train._tasks(settings, "resnet-20", name, 2)) for name in ("baseline", "relu-ic-conv"))
    assert [engine for engine, _ in baseline] == ["icbench", "plain loop, 2 loaders"]
    assert [engine for engine, _ in icbench] == ["icbench", "icbench with linear-dropout", "plain loop, 2 loaders"]
    assert [len(task.config.procedures) for _, task in icbench] == [0, 1, 0]
    assert icbench[-1][1].loader_workers == 2


def test_a_process_that_dies_is_an_error_with_its_last_words() -> None:
    with Group(1, 1, "math.sqrt", 4.0) as group:
        assert group.ask("__add__", 1.0) == [3.0]
        assert group.ask("hex") == [(2.0).hex()]
    with Group(2, 1, "math.sqrt", -1.0) as group, pytest.raises(IcbenchError, match=r"exit code 1(.|\n)*ValueError"):
        group.ask("hex")


def test_busy_machines_are_said_to_be() -> None:
    where = conditions.conditions(["bench", "train", "--out", "a b"])
    assert where["command"] == "icbench bench train --out 'a b'"
    assert where["libraries"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert conditions.warning(where | {"busy_at_start": False}) is None
    assert "busy: 3.5 processes" in str(conditions.warning(where | {"busy_at_start": True, "load_at_start": 3.5}))
    assert f"torch {where['libraries']['torch']}" in conditions.in_words(where)
    assert ", 1 core, " in conditions.in_words(where | {"cores": 1})
    assert ", 2 cores, " in conditions.in_words(where | {"cores": 2})


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """What all benches found in a hurry, and what was said meanwhile."""
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "icbench", "bench", "--quick", "--json", "--out", "found.json"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((folder / "found.json").read_text())
    assert [path.name for path in folder.iterdir()] == ["found.json"]
    return json.loads(done.stdout), done.stderr


def test_every_bench_finds_ratios_and_tables(everything: tuple[dict[str, Any], str]) -> None:
    found, said = everything
    assert "this takes about" in said
    assert list(found["benches"]) == bench.possible_names()
    assert found["conditions"]["command"] == "icbench bench --quick --json --out found.json"
    for name, each in found["benches"].items():
        assert each["ratios"], name
        for ratio in each["ratios"]:
            assert set(ratio) == set(measure.Comparison._fields)
            assert 0 < ratio["ratio"]["least"] <= ratio["ratio"]["median"] <= ratio["ratio"]["most"]
            assert ratio["ratio"]["n"] == each["settings"]["repeats"]
        assert all(each["tables"].values()), name


def test_a_training_s_figures_fit_together(everything: tuple[dict[str, Any], str]) -> None:
    rows = everything[0]["benches"]["train"]["tables"]["train"]
    assert [(row["net"], row["ordering"]) for row in rows] == [("resnet-8", "relu-ic-conv")] * len(rows)
    assert {row["engine"] for row in rows} >= {"icbench", "plain loop, 0 loaders"}
    for row in rows:
        assert list(row["step_seconds"]) == list(PHASES)
        assert sum(row["epoch_shares"].values()) == pytest.approx(1, abs=1e-4)
        assert 0 < row["share_of_peak"] < 1
        assert row["peak_memory"] > 1e8
        training = 1438 / row["images_per_second"]["median"]
        assert row["epoch_seconds"] == pytest.approx(
            training + row["evaluation_seconds"] + row["checkpoint_seconds"], rel=1e-4
        )
        assert row["runs_per_hour"] == pytest.approx(3600 / (10 * row["epoch_seconds"]), rel=1e-4)


def test_a_table_for_people(icbench_here: Icbench) -> None:
    done = icbench_here("bench", "analysis", "--quick", "--cells", 16)
    assert done.code == 0, done.err
    assert done.out.startswith("analysis: above 1 where icbench is better\nwhat ")
    assert "area, by cell: 32 runs" in done.out
    assert "icbench 0.1.0" in done.out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--net", "resnet20"], "there is no net 'resnet20'. Did you mean 'resnet-20'?"),
        (["train", "--net", "resnet-21"], "depth 21 is impossible: a basic ResNet has 6n+2 layers"),
        (["train", "--ordering", "baselin"], "there is no ordering 'baselin'. Did you mean 'baseline'?"),
        (["train", "--procedure", "svd"], "there is no procedure 'svd'. Did you mean 'svb'?"),
        (["train", "--dataset", "cifar"], "there is no 'cifar' to train on here. Did you mean 'cifar10'?"),
        (["train", "--repeats", "0"], "--repeats 0 should be above 0."),
        (["train", "--device", "cpu", "--precision", "tf32"], "--precision tf32 needs an NVIDIA GPU. On a CPU: "),
        (["train", "--device", "cpu", "--engine", "graph"], "--engine graph needs an NVIDIA GPU. On a CPU: "),
        (["train", "--engine", "fused"], "invalid choice: 'fused'"),
        (["train", "--engine", "streams"], "invalid choice: 'streams'"),
        (["train", "--loaders", "-1"], "--loaders should not be negative."),
        (["data", "--dataset", "digit"], "Did you mean 'digits'?"),
        (["data", "--seconds", "0"], "--seconds 0.0 should be above 0."),
        (["analysis", "--cells", "9"], "there is no grid of 9 cells; 1000 or 100 would do."),
        (["launch", "--pack", "0"], "--pack 0 should be from 1 up."),
        (["launch", "--cluster"], "there is no SLURM_CONF"),
        (["analysis", "--quick", "--out", "nowhere/found.json"], "nowhere: there is no such directory."),
        (["trian"], "invalid choice: 'trian'"),
        (["launch", "--data", "x"], "unrecognized arguments: --data x"),
    ],
)
def test_mistakes_are_said_before_anything_is_measured(
    arguments: list[str], words: str, icbench_here: Icbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_CONF", raising=False)
    done = icbench_here("bench", *arguments)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert "this takes about" not in done.err


def test_fused_nets_train_as_each_alone() -> None:
    """Their weights stacked: the losses of a few steps, dropout off, are those of separate trainings."""
    config = configuration(
        dataset="digits", depth=8, width=4, ordering="relu-ic-conv", dropout=0.0, recipe="digits", precision="float64"
    )
    data = ours.device_data(config, few(64), CPU)
    together = Fused(config, data, (0, 1, 2))
    states = [State.fresh(replace(config, seed=seed), CPU) for seed in (0, 1, 2)]
    plan = data.plan_epoch(torch.Generator().manual_seed(0))
    for state in states:
        state.net.train()
        state.step = 0
    alone = [Eager(config, state, data, ALONE, None) for state in states]
    for first in (0, 16, 32):
        losses = together.step([plan.rows(first, first + 16)] * 3)
        for state, step, loss in zip(states, alone, losses, strict=True):
            state.sums.zero_()
            step.begin_epoch(plan)
            step(first, first + 16)
            assert state.sums[0].item() / 16 == pytest.approx(loss.item(), rel=1e-9)


def test_fused_nets_have_gates_of_their_own() -> None:
    config = configuration(dataset="digits", depth=8, width=4, ordering="relu-ic-conv", dropout=0.3, recipe="digits")
    data = ours.device_data(config, few(64), CPU)
    together = Fused(config, data, (0, 0))
    rows = data.plan_epoch(torch.Generator().manual_seed(0)).rows(0, 32)
    first, second = together.step([rows, rows])
    assert first != second


def test_a_gpu_s_ways_are_tried_as_far_as_a_cpu_goes() -> None:
    found = gpu.measure(gpu.QUICK, lambda _: None)
    assert [each.what for each in found.comparisons] == ["eager", "2 processes", "2 fused"]
    (table,) = found.tables
    for row, runs in zip(table.rows, (1, 2, 2), strict=True):
        images = 1438 * 10
        assert row["runs"] == runs
        assert row["runs_per_hour"] == pytest.approx(3600 * row["images_per_second"].median / images)
        assert row["epoch_seconds"] == pytest.approx(1438 * runs / row["images_per_second"].median)
    with pytest.raises(UserError, match="needs an NVIDIA GPU"):
        gpu.check(gpu.Settings(device="cpu"))


@pytest.mark.skipif(bool(visible_gpus()), reason="there is a GPU here, which would be measured")
def test_without_a_gpu_that_is_said() -> None:
    with pytest.raises(UserError, match="no NVIDIA GPU"):
        gpu.check(gpu.Settings())
    assert "gpu" not in bench.possible_names()
