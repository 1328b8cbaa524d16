"""The ways to do a training's steps: all of them compute what the plain one does, and go on bit for bit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_train import Bits, Watcher, bits, digits, same
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from icbench import catalog, grid
from icbench.config import RunConfig, Variant
from icbench.data import store
from icbench.data.device import DeviceData
from icbench.procedure import Moment
from icbench.train import seeds
from icbench.train.engines import EAGER, Engine, choose, start
from icbench.train.evaluation import Stopped
from icbench.train.loop import train
from icbench.train.numerics import set_numerics
from icbench.train.ranks import ALONE, Ranks
from icbench.train.replay import Recorded, Static, unchanged
from icbench.train.state import State
from icbench.train.steps import Eager, Step, parts
from icbench.train.upkeep import Upkeep

CPU = torch.device("cpu")
STEPS = 50
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def load(folder: Path, **fields: object) -> RunConfig:
    """Digits, whose epochs have 22 batches of 64 and one of 30."""
    fixed = {"dataset": "digits", "depth": 8, "width": 4, "ordering": "conv-relu-ic", "dropout": 0.1, **fields}
    (folder / "grid.yaml").write_text(
        "recipe: {name: digits, epochs: 3, learning_rate_steps: [[1, 0.1]]}\n"
        f"fixed: {{{', '.join(f'{key}: {value}' for key, value in fixed.items())}}}\n"
    )
    return grid.load(folder / "grid.yaml").runs()[0][1]


def images(config: RunConfig, device: torch.device) -> DeviceData:
    if device == CPU:
        return digits(config)
    return DeviceData(
        store.split(store.load("digits", None), "test"),
        pixel_maximum=16,
        subtract_mean=True,
        augmentation=config.recipe.augmentation,
        device=device,
    )


class Course:
    """So many steps of a training, by a way of doing them, with the losses and hits of each."""

    def __init__(self, config: RunConfig, device: torch.device, make: Callable[[State, DeviceData], Step]):
        set_numerics(config.precision)
        data = images(config, device)
        self.state = State.fresh(config, device)
        step = make(self.state, data)
        upkeep = Upkeep(config, self.state.net, self.state.optimizer)
        self.state.net.train()
        self.sums: list[Tensor] = []
        per_epoch = -(-data.train_count // config.recipe.batch_size)
        for number in range(STEPS):
            epoch, index = divmod(number, per_epoch)
            if index == 0:
                step.begin_epoch(data.plan_epoch(seeds.generator(0, "epoch", epoch + 1)))
            upkeep.before_step(Moment(config.recipe, epoch + 1, number / STEPS, data.train_count))
            self.state.sums.zero_()
            first = index * config.recipe.batch_size
            step(first, min(first + config.recipe.batch_size, data.train_count))
            upkeep.after_step(number + 1, ALONE)
            self.sums.append(self.state.sums.clone().cpu())

    @property
    def losses(self) -> Tensor:
        return torch.stack(self.sums)[:, 0]


def eager(config: RunConfig, device: torch.device = CPU) -> Course:
    return Course(config, device, lambda state, data: Eager(config, state, data, ALONE, None))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"ordering": "baseline"},
        {"precision": "float64"},
        {"norm": "batch-renorm"},
        {"procedures": "[fast-dropout, {name: warm-up, epochs: 1}]"},
        {"activation": "snn", "norm": "none"},
        {"block": "lstm", "ordering": "baseline", "depth": 1, "norm": "recurrent-bn"},
    ],
    ids=str,
)
def test_a_step_that_reads_tensors_is_the_plain_one(fields: dict[str, object], tmp_path: Path) -> None:
    """The plan, where in it the batch begins and the rate, which changes after an epoch, from tensors; dropout on.

    The rate is a float32 there, 1e-7 off: after 50 steps losses differ by less than 1e-4 of themselves.
    """
    config = load(tmp_path, **fields)
    plain, static = eager(config), Course(config, CPU, lambda state, data: Static(config, state, data))
    assert plain.state.optimizer.param_groups[0]["lr"] == pytest.approx(3e-4)  # the tenth, after an epoch
    torch.testing.assert_close(static.losses, plain.losses, rtol=1e-4, atol=0)
    assert torch.equal(static.sums[0], plain.sums[0])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_trying_steps_leaves_a_training_as_it_was(optimizer: str, tmp_path: Path) -> None:
    """Before its first step, and in the middle; the tensors stay where they are."""
    config = load(tmp_path)
    given = Variant(optimizer)
    config = replace(config, recipe=replace(config.recipe, optimizer=given))

    def with_trials(state: State, data: DeviceData) -> Step:
        step = Static(config, state, data)
        plain, count = step._run, 0

        def trying(size: int) -> None:
            nonlocal count
            if count in (0, 10, 22):
                where = [tensor.data_ptr() for tensor in (*state.net.parameters(), *state.net.buffers())]
                with unchanged(state):
                    for _ in range(3):
                        plain(size)
                assert where == [tensor.data_ptr() for tensor in (*state.net.parameters(), *state.net.buffers())]
            count += 1
            plain(size)

        step._run = trying  # type: ignore[method-assign]
        return step

    without, tried = Course(config, CPU, lambda s, d: Static(config, s, d)), Course(config, CPU, with_trials)
    assert torch.equal(without.losses, tried.losses)
    assert all(map(torch.equal, without.state.net.state_dict().values(), tried.state.net.state_dict().values()))


def test_parts_of_a_batch_are_equal_and_complete() -> None:
    assert list(parts(5, 69, None)) == [(5, 69)]
    assert list(parts(0, 64, 64)) == [(0, 64)]
    assert [b - a for a, b in parts(0, 65, 64)] == [32, 33]
    assert [b - a for a, b in parts(10, 267, 100)] == [85, 86, 86]
    assert list(parts(3, 4, 7)) == [(3, 4)]


def test_all_ranks_have_as_many_parts() -> None:
    """Five images and four take three parts on either rank; or four, since there is no half an image."""
    first, second = Two(), Two()
    second.rank = 1
    for at_once, lengths in ((2, ([1, 2, 2], [1, 1, 2])), (1, ([1, 1, 1, 2], [1, 1, 1, 1])), (5, ([5], [4]))):
        shares = [list(parts(10, 19, at_once, ranks)) for ranks in (first, second)]
        assert tuple([b - a for a, b in share] for share in shares) == lengths
        assert [row for share in shares for part in share for row in range(*part)] == list(range(10, 19))


def test_gradients_of_parts_add_up_to_the_batch_s(tmp_path: Path) -> None:
    """With a norm that looks at each image alone; with batch normalisation each part is normalised by itself."""
    config = load(tmp_path, norm="layer", precision="float64", dropout=0)
    whole = eager(config)
    cut = Course(config, CPU, lambda state, data: Eager(config, state, data, ALONE, 20))
    torch.testing.assert_close(cut.losses, whole.losses, rtol=1e-9, atol=0)
    assert torch.stack(cut.sums)[:, 1].tolist() == torch.stack(whole.sums)[:, 1].tolist()

    config = load(tmp_path, precision="float64", dropout=0)
    data = digits(config)
    state, plain = State.fresh(config, CPU), State.fresh(config, CPU)
    plan = data.plan_epoch(torch.Generator())
    for each in (state, plain):
        each.net.train()
    step = Eager(config, state, data, ALONE, 20)
    step.begin_epoch(plan)
    step(0, 64)
    losses = [
        cross_entropy(plain.net(data.train_batch(plan, a, b, torch.float64)[0]), data.train_batch(plan, a, b)[1])
        for a, b in ((0, 16), (16, 32), (32, 48), (48, 64))
    ]
    torch.stack(losses).mean().backward()
    for ours, theirs in zip(state.net.parameters(), plain.net.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def finished(config: RunConfig, folder: Path, engine: Engine, device: torch.device, stop_at: int | None) -> Bits:
    """A whole training; with `stop_at` one that was stopped once."""
    data, checkpoint = images(config, device), folder / "checkpoint.pt"
    if stop_at is not None:
        with pytest.raises(Stopped):
            train(config, data, checkpoint, Watcher(stop_at=stop_at), engine=engine)
        torch.manual_seed(5)
    state, _ = train(config, data, checkpoint, Watcher(), engine=engine)
    checkpoint.unlink()
    return bits(state)


def test_a_run_in_parts_goes_on_bit_for_bit(tmp_path: Path) -> None:
    config, engine = load(tmp_path), Engine(images_at_once=25)
    whole = finished(config, tmp_path, engine, CPU, None)
    assert same(whole, finished(config, tmp_path, engine, CPU, 31))
    assert not same(whole, finished(config, tmp_path, EAGER, CPU, None))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's compiler looks there itself
def test_compiled_units_compute_the_same(tmp_path: Path) -> None:
    """Rounded otherwise; with gates of their own, so without dropout here. The compiler takes seconds."""
    config, engine = load(tmp_path, dropout=0), Engine(compiled=True)
    compiled, plain = Course(config, CPU, lambda state, data: start(engine, config, state, data, ALONE)), eager(config)
    assert not torch.equal(compiled.losses, plain.losses)
    torch.testing.assert_close(compiled.losses[:8], plain.losses[:8], rtol=1e-4, atol=0)
    torch.testing.assert_close(compiled.losses, plain.losses, rtol=1e-2, atol=0)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_a_run_with_compiled_units_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Dropout and augmentation included."""
    config, engine = load(tmp_path), Engine(compiled=True)
    assert same(finished(config, tmp_path, engine, CPU, None), finished(config, tmp_path, engine, CPU, 31))


class Two(Ranks):
    size = 2


@pytest.mark.parametrize(
    ("wanted", "fields", "device", "at_once", "expected", "reason"),
    [
        ("auto", {}, "cpu", None, "eager", ""),
        ("graph", {}, "cpu", None, "eager", "no GPU"),
        ("compiled", {}, "cpu", None, "compiled", ""),
        ("auto", {}, "cuda", None, "graph", ""),
        ("compiled", {}, "cuda", None, "compiled graph", ""),
        ("eager", {}, "cuda", None, "eager", ""),
        ("auto", {}, "cuda", 32, "eager", "in parts"),
        ("auto", {}, "cuda", 64, "graph", ""),
        ("auto", {"norm": "zca", "width": 16}, "cuda", None, "eager", "zca"),
        ("auto", {"procedures": "[linear-dropout]"}, "cuda", None, "eager", "dropout rate"),
        ("auto", {"procedures": "[bigger-batch]"}, "cuda", 100, "eager", "in parts"),
        ("compiled", {"procedures": "[curriculum-dropout]"}, "cpu", None, "eager", "dropout rate"),
        (
            "compiled",
            {"block": "lstm", "ordering": "baseline", "depth": 1, "norm": "layer"},
            "cpu",
            None,
            "eager",
            "LSTM",
        ),
    ],
)
def test_which_engine_a_run_has(
    wanted: str, fields: dict[str, object], device: str, at_once: int | None, expected: str, reason: str, tmp_path: Path
) -> None:
    config = load(tmp_path, **fields)
    data = digits(config)
    data.device = torch.device(device)  # all that is asked
    engine = choose(wanted, config, data, ALONE, at_once)
    assert str(engine) == expected
    assert bool(engine.reason) == bool(reason)
    assert reason in engine.reason
    assert (engine.images_at_once is None) == (at_once in (None, 64))
    assert str(choose("graph", config, data, Two(), None)) == "eager"


# On a GPU: python -m pytest tests -k gpu


@GPU
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_gpu_a_graph_computes_the_plain_steps(optimizer: str, precision: str, tmp_path: Path) -> None:
    """Dropout, augmentation, the short last batch and the falling rate included: the same random numbers, so 50 losses
    within 1 % of one another (5 % in bfloat16), the first within rounding.
    """
    config = load(tmp_path, precision=precision)
    config = replace(config, recipe=replace(config.recipe, optimizer=Variant(optimizer)))
    device = torch.device("cuda")
    plain, graph = eager(config, device), Course(config, device, lambda s, d: Recorded(config, s, d))
    rtol = 0.05 if precision == "bfloat16" else 0.01
    torch.testing.assert_close(graph.losses[0], plain.losses[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(graph.losses, plain.losses, rtol=rtol, atol=0)


@GPU
@pytest.mark.parametrize(
    "fields",
    [
        {"weight": "weight-norm"},
        {"weight": "cosine"},
        {"weight": "normprop"},
        {"weight": "svb"},
        {"activation": "snn", "norm": "none"},
        {"norm": "bounded-batch"},
        {"procedures": "[{name: svb, every: 5}]"},
        {"procedures": "[channel-gates, {name: warm-up, epochs: 1}]"},
        {"procedures": "[fast-dropout]"},
        {"block": "lstm", "ordering": "baseline", "depth": 1, "norm": "recurrent-bn"},
    ],
    ids=str,
)
def test_gpu_every_kind_of_net_is_recorded_as_it_is(fields: dict[str, object], tmp_path: Path) -> None:
    """What acts between steps does so between replays; 50 losses within 1 %."""
    config, device = load(tmp_path, **fields), torch.device("cuda")
    plain, graph = eager(config, device), Course(config, device, lambda s, d: Recorded(config, s, d))
    torch.testing.assert_close(graph.losses, plain.losses, rtol=0.01, atol=0)


@GPU
def test_gpu_compiled_units_gate_at_the_rate(tmp_path: Path) -> None:
    """They draw gates of their own: the mean loss of 50 steps is within four standard errors of the plain one's."""
    config, device, engine = load(tmp_path, dropout=0.3), torch.device("cuda"), Engine(compiled=True, graph=True)
    seeds_of = [replace(config, seed=seed) for seed in range(6)]
    plain = torch.stack([eager(each, device).losses.mean() for each in seeds_of])
    ours = torch.stack(
        [Course(each, device, lambda s, d, e=each: start(engine, e, s, d, ALONE)).losses.mean() for each in seeds_of]
    )
    error = (plain - ours).std() / len(seeds_of) ** 0.5
    assert abs((plain - ours).mean()) < 4 * error


@GPU
@pytest.mark.parametrize("engine", [Engine(graph=True), Engine(compiled=True, graph=True)], ids=str)
def test_gpu_a_graph_goes_on_bit_for_bit(engine: Engine, tmp_path: Path) -> None:
    config, device = load(tmp_path), torch.device("cuda")
    whole = finished(config, tmp_path, engine, device, None)
    for stop_at in (1, 3, 23, 30):
        assert same(whole, finished(config, tmp_path, engine, device, stop_at))


@GPU
@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_gpu_gates_and_shifts_of_a_graph_are_new_in_each_step(rate: float, tmp_path: Path) -> None:
    """Replays draw on: gates have the rate, and no two steps the same ones."""
    config, device = load(tmp_path, dropout=rate), torch.device("cuda")
    data, state = images(config, device), State.fresh(config, device)
    state.net.train()
    seen: list[Tensor] = []
    gate = next(module for module in state.net.modules() if isinstance(module, nn.Dropout))
    kept = torch.zeros(64, 4, 8, 8, device=device)

    def note(_module: nn.Module, _inputs: object, out: Tensor) -> None:
        if len(out) == 64:
            kept.copy_(out != 0)

    gate.register_forward_hook(note)
    step = Recorded(config, state, data)
    step.begin_epoch(data.plan_epoch(torch.Generator()))
    for index in range(20):
        step(64 * index, 64 * index + 64)
        seen.append(kept.clone())
    shares = torch.stack(seen).mean(dim=(1, 2, 3, 4))
    assert not any(torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])
    deviation = (rate * (1 - rate) / kept.numel() / 20) ** 0.5
    assert abs(1 - shares.mean().item() - rate) < 5 * deviation


@GPU
@pytest.mark.parametrize("norm", [n for n in catalog.names("norms") if "build" in catalog.functions("norms", n)])
def test_gpu_every_norm_is_recorded_or_says_that_it_cannot_be(norm: str, tmp_path: Path) -> None:
    config, device = load(tmp_path, norm=norm, width=16), torch.device("cuda")
    engine = choose("auto", config, images(config, device), ALONE, None)
    course = Course(config, device, lambda state, data: start(engine, config, state, data, ALONE))
    assert torch.isfinite(course.losses).all() or norm == "none"
