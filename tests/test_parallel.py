"""Several ranks that train one run: they compute what one would, stop and go on together, and notice a death."""

import math
import multiprocessing
import os
import pickle
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import Bits, Watcher, bits, digits, same
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from icbench import grid
from icbench.config import RunConfig, Variant
from icbench.errors import UserError
from icbench.nets.build import build
from icbench.nets.syncbatchnorm import SyncBatchNorm
from icbench.plan import require_shares, smallest_batch
from icbench.train import seeds
from icbench.train.engines import EAGER, Engine
from icbench.train.evaluation import Stopped
from icbench.train.loop import train
from icbench.train.ranks import ALONE, PeerLost, Ranks, join
from icbench.train.state import State
from icbench.train.steps import Eager

CPU = torch.device("cpu")
# 1438 images: seven batches of 201 and one of 31, which neither two, three nor four ranks share evenly.
TINY = """
recipe: {name: digits, epochs: 2, batch_size: 201, sync_batch_norm: true}
fixed: {dataset: digits, depth: 8, width: 4, ordering: conv-relu-ic, precision: float64, dropout: 0}
"""
STEPS = 8


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def load(folder: Path, text: str = TINY) -> RunConfig:
    (folder / "grid.yaml").write_text(text)
    return grid.load(folder / "grid.yaml").runs()[0][1]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """Exact: float64, and normalisation over all ranks."""
    return load(tmp_path)


@pytest.fixture
def random_config(config: RunConfig) -> RunConfig:
    """As most runs are: float32, dropout, and each rank normalises by its own share."""
    return replace(config, precision="float32", dropout=0.3, recipe=replace(config.recipe, sync_batch_norm=False))


def serve(connection: Connection) -> None:
    """A process of the pool: calls what it is sent and sends back what that returns or raises."""
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    while True:
        function, arguments = pickle.loads(connection.recv_bytes())
        try:
            result = function(*arguments)
        except Exception as error:
            error.add_note(traceback.format_exc())
            result = error
        connection.send_bytes(pickle.dumps(result))


class Process:
    """One process of the pool."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "icbench.train.loop"])  # imported once, by the server
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def alive(self) -> bool:
        return self._process.is_alive()

    def send(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._connection.send_bytes(pickle.dumps((function, arguments)))

    def receive(self) -> Any:
        """What the function returned or raised; None from a process that was killed."""
        assert self._connection.poll(60), "no answer"
        try:
            return pickle.loads(self._connection.recv_bytes())
        except EOFError:
            self._process.join()
            return None

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


class Pool:
    """Processes that are started once and make up groups as asked."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.processes: list[Process] = []
        self.groups = 0

    def start(self, *sizes: int, timeout: float = 30) -> list[list[Process]]:
        """Have groups of such sizes meet, all at once."""
        self.processes = [process for process in self.processes if process.alive()]
        self.processes += [Process() for _ in range(sum(sizes) - len(self.processes))]
        idle, groups = iter(self.processes), []
        for size in sizes:
            self.groups += 1
            groups.append([next(idle) for _ in range(size)])
            for rank, process in enumerate(groups[-1]):
                process.send(meet, rank, size, self.folder / f"rendezvous{self.groups}", timeout)
        return groups

    def run(self, size: int, function: Callable[..., Any], *arguments: Any, timeout: float = 30) -> list[Any]:
        """Call `function(ranks, *arguments)` on each of `size` ranks: what each returned or raised."""
        (group,) = self.start(size, timeout=timeout)
        assert [process.receive() for process in group] == [None] * size
        return self.call(group, function, *arguments)

    def call(self, group: list[Process], function: Callable[..., Any], *arguments: Any) -> list[Any]:
        for process in group:
            process.send(in_group, function, *arguments)
        return [process.receive() for process in group]


_GROUP: list[Ranks] = []


def meet(rank: int, size: int, rendezvous: Path, timeout: float) -> None:
    _GROUP[:] = [join(rank, size, rendezvous, CPU, timeout, host="localhost")]


def in_group(function: Callable[..., Any], *arguments: Any) -> Any:
    with _GROUP.pop() as ranks:
        result = function(ranks, *arguments)
    assert not torch.distributed.is_initialized()
    return result


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    pool = Pool(tmp_path_factory.mktemp("pool"))
    yield pool
    for process in pool.processes:
        process.end()


@dataclass
class Asking(Watcher):
    """A watcher of one rank, which may kill its own process after so many steps."""

    die_after: float = math.inf

    def stepped(self, epochs: float) -> None:
        super().stepped(epochs)
        if len(self.progress) == self.die_after:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Told:
    """What one rank has to tell of a training."""

    watcher: Watcher
    bits: Bits | None
    ended: float = field(default_factory=time.monotonic)
    error: str = ""


def training(
    ranks: Ranks, config: RunConfig, checkpoint: Path, watchers: dict[int, Watcher], engine: Engine = EAGER
) -> Told:
    """Train until the end, a stop or another rank's death; `watchers` by rank."""
    watcher = watchers.get(ranks.rank, Watcher())
    try:
        state, _ = train(config, digits(config), checkpoint, watcher, ranks, engine=engine)
    except (Stopped, PeerLost) as error:
        return Told(watcher, None, error=type(error).__name__)
    return Told(watcher, bits(state))


def alone(config: RunConfig, checkpoint: Path) -> Bits:
    state, _ = train(config, digits(config), checkpoint, Watcher())
    return bits(state)


def close(a: Bits, b: Bits, tolerance: float) -> bool:
    """Figures, weights and running statistics agree to `tolerance`, relative."""
    rows = all(x == pytest.approx(y, rel=tolerance, abs=0) for x, y in zip(a[0], b[0], strict=True))
    return rows and all(torch.allclose(a[1][key], b[1][key], rtol=tolerance, atol=tolerance) for key in a[1])


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_together_compute_what_one_does(size: int, pool: Pool, config: RunConfig, tmp_path: Path) -> None:
    """The same batches, shared: but for rounding the same losses, accuracies, weights and running statistics."""
    expected = alone(config, tmp_path / "alone.pt")
    for told in pool.run(size, training, config, tmp_path / "shared.pt", {}):
        assert close(told.bits, expected, 1e-10)


def test_without_synchronisation_it_is_another_training(pool: Pool, config: RunConfig, tmp_path: Path) -> None:
    other = replace(config, recipe=replace(config.recipe, sync_batch_norm=False))
    expected = alone(other, tmp_path / "alone.pt")
    first, second = pool.run(2, training, other, tmp_path / "shared.pt", {})
    assert not close(first.bits, expected, 1e-3)
    assert same(first.bits, second.bits)  # weights by the summed gradients, statistics the first rank's


def test_ranks_do_batches_in_parts(pool: Pool, config: RunConfig, tmp_path: Path) -> None:
    """With a norm that looks at each image alone, what one rank computes on whole batches."""
    other = replace(config, norm=Variant("layer", (("epsilon", 1e-5),)))
    expected = alone(other, tmp_path / "alone.pt")
    for told in pool.run(2, training, other, tmp_path / "shared.pt", {}, Engine(images_at_once=20)):
        assert close(told.bits, expected, 1e-10)


def gradients_in_parts(ranks: Ranks, config: RunConfig) -> list[Tensor]:
    """Of a first batch, of which 50 images may be done at once."""
    data = digits(config)
    state = State.fresh(config, CPU, ranks.rank)
    ranks.attach(state.net)
    step = Eager(config, state, data, ranks, 50)
    step.begin_epoch(data.plan_epoch(seeds.generator(0, "epoch", 1)))
    step(0, 201)
    return [parameter.grad.clone() for parameter in state.net.parameters() if parameter.grad is not None]


def test_parts_that_all_ranks_normalise_together(pool: Pool, config: RunConfig) -> None:
    """The first rank's 101 images take three parts, so that the other's 100 are done in three as well."""
    data, net = digits(config), State.fresh(config, CPU).net
    images, labels = data.train_batch(data.plan_epoch(seeds.generator(0, "epoch", 1)), 0, 201, torch.float64)
    for first, second in (((0, 33), (101, 134)), ((33, 67), (134, 167)), ((67, 101), (167, 201))):
        rows = [*range(*first), *range(*second)]
        (cross_entropy(net(images[rows]), labels[rows], reduction="sum") / 201).backward()
    expected = [parameter.grad for parameter in net.parameters()]
    for gradients in pool.run(2, gradients_in_parts, config):
        torch.testing.assert_close(gradients, expected, rtol=1e-8, atol=1e-12)


def test_a_checkpoint_goes_from_world_to_world(pool: Pool, config: RunConfig, tmp_path: Path) -> None:
    """Begun by three, gone on with by two, ended by one: nothing is lost and nothing is done twice."""
    expected = alone(config, tmp_path / "alone.pt")
    checkpoint = tmp_path / "shared.pt"
    assert all(told.error == "Stopped" for told in pool.run(3, training, config, checkpoint, {2: Watcher(stop_at=3)}))
    for told in pool.run(2, training, config, checkpoint, {1: Watcher(stop_at=7)}):
        assert told.error == "Stopped"
        assert told.watcher.resumed_at == [(1, 3)]
    assert close(alone(config, checkpoint), expected, 1e-10)


def test_ranks_stop_at_one_step_and_go_on_bit_for_bit(pool: Pool, random_config: RunConfig, tmp_path: Path) -> None:
    """One rank alone is asked to: within an epoch, then in its evaluation."""
    whole = [told.bits for told in pool.run(3, training, random_config, tmp_path / "whole.pt", {})]
    assert same(whole[0], whole[1])
    checkpoint = tmp_path / "stopped.pt"
    for stop_at, resumed_at, position in ((3, [], 3), (5, [(1, 3)], 8)):
        for told in pool.run(3, training, random_config, checkpoint, {1: Watcher(stop_at=stop_at)}):
            assert (told.error, told.watcher.resumed_at) == ("Stopped", resumed_at)
            assert told.watcher.saves == [position / STEPS]
    again = pool.run(3, training, random_config, checkpoint, {})
    assert [told.watcher.resumed_at for told in again] == [[(1, 8)]] * 3
    assert all(same(told.bits, bits) for told, bits in zip(again, whole, strict=True))


def test_a_killed_rank_is_noticed_and_costs_no_bits(pool: Pool, random_config: RunConfig, tmp_path: Path) -> None:
    """One rank has a checkpoint stored in the second epoch, and is then killed."""
    (whole, _) = pool.run(2, training, random_config, tmp_path / "whole.pt", {})
    checkpoint = tmp_path / "killed.pt"
    dying = Asking(save_after=(STEPS + 3,), die_after=STEPS + 5)
    began = time.monotonic()
    told, nothing = pool.run(2, training, random_config, checkpoint, {1: dying}, timeout=600)
    assert nothing is None
    assert told.error == "PeerLost"
    assert told.ended - began < 30
    assert told.watcher.saves == [1, 1 + 3 / STEPS]
    assert len(told.watcher.progress) in (STEPS + 4, STEPS + 5)
    again = pool.run(2, training, random_config, checkpoint, {})
    assert [told.watcher.resumed_at for told in again] == [[(2, 3)]] * 2
    assert all(same(told.bits, whole.bits) for told in again)


def test_a_checkpoint_within_an_epoch_costs_one_rank_no_bits(random_config: RunConfig, tmp_path: Path) -> None:
    whole = alone(random_config, tmp_path / "whole.pt")
    watcher = Watcher(save_after=(3, STEPS + 5), stop_at=STEPS + 1 + 7)
    with pytest.raises(Stopped):
        train(random_config, digits(random_config), tmp_path / "saved.pt", watcher)
    assert watcher.saves == [3 / STEPS, 1, 1 + 5 / STEPS, 1 + 7 / STEPS]
    assert same(alone(random_config, tmp_path / "saved.pt"), whole)


def test_all_ranks_discard_a_damaged_checkpoint(pool: Pool, config: RunConfig, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    expected = alone(config, file)
    file.write_bytes(file.read_bytes()[:-1])
    for told in pool.run(2, training, config, file, {}):
        assert (told.watcher.discards, told.watcher.resumed_at) == (1, [])
        assert close(told.bits, expected, 1e-10)


def numbers(ranks: Ranks, values: list[int]) -> list[int]:
    return [int(value) for value in ranks.gather(torch.tensor(values[ranks.rank]))]


def test_two_groups_on_one_machine_do_not_meet(pool: Pool) -> None:
    groups = pool.start(2, 2)
    assert [process.receive() for group in groups for process in group] == [None] * 4
    for group, values in zip(groups, ([1, 2], [3, 4]), strict=True):
        for process in group:
            process.send(in_group, numbers, values)
    assert [[process.receive() for process in group] for group in groups] == [[[1, 2]] * 2, [[3, 4]] * 2]


def mistaken(ranks: Ranks) -> None:
    if ranks.rank == 0:
        torch.zeros(2) + torch.zeros(3)
    ranks.agree(True)


def test_a_run_s_own_error_stays_what_it_is(pool: Pool) -> None:
    own, other = pool.run(2, mistaken)
    assert type(own) is RuntimeError
    assert "size of tensor" in str(own)
    assert type(other) is PeerLost


def silent(ranks: Ranks) -> None:
    if ranks.rank == 1:
        time.sleep(3)
    ranks.agree(True)


def test_a_rank_that_does_not_answer_is_lost(pool: Pool) -> None:
    first, second = pool.run(2, silent, timeout=1)
    assert type(first) is PeerLost
    assert type(second) is PeerLost


def patient(ranks: Ranks, dies: bool) -> float:
    def work() -> None:
        time.sleep(3)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)

    began = time.monotonic()
    ranks.first_alone(work)
    ranks.agree(True)
    ranks.first_alone(int)
    return time.monotonic() - began


def test_what_the_first_rank_does_alone_has_no_time_limit(pool: Pool) -> None:
    assert all(seconds > 3 for seconds in pool.run(2, patient, False, timeout=1))


def late(ranks: Ranks) -> None:
    """The others look after the first one has done its work; it leaves at once."""
    time.sleep(ranks.rank)
    ranks.first_alone(int)


def test_the_first_rank_does_not_leave_before_all_know_that_its_work_is_done(pool: Pool) -> None:
    assert pool.run(2, late) == [None, None]


def test_a_first_rank_that_dies_at_work_alone_is_lost(pool: Pool) -> None:
    first, second = pool.run(2, patient, True, timeout=20)
    assert first is None
    assert type(second) is PeerLost


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_never_comes_is_lost(rank: int, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(PeerLost):
        join(rank, 2, tmp_path / "rendezvous", CPU, 1, host="localhost")
    assert time.monotonic() - began < 20
    assert not torch.distributed.is_initialized()


def test_alone_there_is_no_group(tmp_path: Path) -> None:
    with join(0, 1, tmp_path / "rendezvous", CPU, 1) as ranks:
        assert ranks is ALONE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_are_contiguous_and_even(size: int) -> None:
    shares = []
    for rank in range(size):
        ranks = Ranks()
        ranks.rank, ranks.size = rank, size
        shares.append(ranks.share(5, 36))
    assert [row for start, stop in shares for row in range(start, stop)] == list(range(5, 36))
    sizes = [stop - start for start, stop in shares]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1


def test_every_rank_needs_an_image_of_every_batch(config: RunConfig, tmp_path: Path) -> None:
    assert [smallest_batch(1438, size) for size in (201, 719, 1438, 5000)] == [31, 719, 1438, 1438]
    require_shares(1438, 201, 31)
    with pytest.raises(UserError, match=r"^32 GPUs cannot share a batch of 31: .* gpus_per_run should be at most 31"):
        require_shares(1438, 201, 32)
    many = Ranks()
    many.size = 32
    with pytest.raises(UserError, match="at most 31"):
        train(config, digits(config), tmp_path / "checkpoint.pt", Watcher(), many)


def test_each_rank_draws_dropout_from_its_own_stream(config: RunConfig) -> None:
    draws = []
    for rank in range(3):
        State.fresh(config, CPU, rank)
        draws.append(torch.rand(4))
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[1], draws[2])
    torch.manual_seed(seeds.derive(config.seed, "dropout"))
    assert torch.equal(draws[0], torch.rand(4))  # as one rank alone always did


Normalised = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def normalised(module: nn.BatchNorm2d, x: Tensor, upstream: Tensor) -> Normalised:
    """Outputs, gradients and running statistics of two batches, the second twice the first."""
    x = x.clone().requires_grad_()
    out = torch.cat([module(x), module(2 * x)])
    (out * upstream).sum().backward()
    return out.detach(), x.grad, module.weight.grad, module.bias.grad, module.running_mean, module.running_var


def synchronised(ranks: Ranks, x: Tensor, upstream: Tensor, shares: list[int]) -> Normalised:
    """As `normalised`, of this rank's share; the weights' gradients of all."""
    module = ready(SyncBatchNorm(x.shape[1], momentum=0.3), x.dtype)
    module.peers = ranks
    start = sum(shares[: ranks.rank])
    rows = slice(start, start + shares[ranks.rank])
    out, gradient, weight, bias, mean, variance = normalised(module, x[rows], upstream[:, rows].flatten(0, 1))
    return out.unflatten(0, (2, -1)), gradient, ranks.total(weight), ranks.total(bias), mean, variance


def ready(module: nn.BatchNorm2d, dtype: torch.dtype) -> Any:
    with torch.no_grad():
        module.weight.copy_(torch.linspace(-1, 2, module.num_features))
        module.bias.copy_(torch.linspace(1, 3, module.num_features))
    return module.to(dtype)


@pytest.mark.parametrize(("offset", "dtype", "tolerance"), [(0, torch.float64, 1e-13), (100, torch.float32, 2e-4)])
def test_synchronised_batch_norm_is_batch_norm_of_the_joined_batch(
    offset: float, dtype: torch.dtype, tolerance: float, pool: Pool
) -> None:
    """Unequal shares; in float32 with means a hundred deviations away, which a difference of squares would not bear."""
    torch.manual_seed(0)
    x = (torch.randn(11, 5, 3, 2, dtype=torch.float64) + offset).to(dtype)
    upstream = torch.randn(2, 11, 5, 3, 2, dtype=dtype)
    module = ready(nn.BatchNorm2d(5, momentum=0.3), torch.float64)
    out, gradient, *others = normalised(module, x.double(), upstream.double().flatten(0, 1))
    told = pool.run(3, synchronised, x, upstream, [7, 1, 3])
    joined = (torch.cat([one[0] for one in told], dim=1).flatten(0, 1), torch.cat([one[1] for one in told]))
    scale = max(1.0, offset)
    for ours, theirs in zip(joined, (out, gradient), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=10 * tolerance)
    for one in told:
        for ours, theirs in zip(one[2:], others, strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=tolerance * scale)


def test_alone_synchronised_batch_norm_is_batch_norm() -> None:
    torch.manual_seed(0)
    x, upstream = torch.randn(6, 5, 3, 2), torch.randn(12, 5, 3, 2)
    ours, theirs = (normalised(ready(kind(5), x.dtype), x, upstream) for kind in (SyncBatchNorm, nn.BatchNorm2d))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


class Still:
    """Another rank with fixed images, on which nothing hangs."""

    def gather(self, own: Tensor) -> Tensor:
        mean, variance, count = torch.full((3,), 0.7), torch.full((3,), 1.9), torch.full((1,), 5.0)
        return torch.stack([own, torch.cat([mean, variance, count]).to(own.dtype)])

    def total(self, tensor: Tensor) -> Tensor:
        return tensor.clone()


def test_synchronised_batch_norm_s_gradient() -> None:
    torch.manual_seed(0)
    module = SyncBatchNorm(3).double()
    module.peers = Still()
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)

    def out(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(module, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(out, (x, module.weight, module.bias))


def test_only_batch_norm_is_synchronised(config: RunConfig) -> None:
    def kinds(norm: str, sync: bool) -> set[type]:
        options = () if norm == "layer" else config.norm.options
        recipe = replace(config.recipe, sync_batch_norm=sync)
        net = build(replace(config, norm=replace(config.norm, name=norm, options=options), recipe=recipe))
        return {type(module) for module in net.modules() if isinstance(module, nn.BatchNorm2d)}

    assert [kinds("batch", True), kinds("batch", False), kinds("layer", True)] == [
        {SyncBatchNorm},
        {nn.BatchNorm2d},
        set(),
    ]
    net = build(config)
    module = next(module for module in net.modules() if isinstance(module, SyncBatchNorm))
    assert {"epsilon": module.eps, "momentum": module.momentum} == dict(config.norm.options)
    plain = build(replace(config, recipe=replace(config.recipe, sync_batch_norm=False)))
    assert list(net.state_dict()) == list(plain.state_dict())


def test_float64_is_double_throughout(config: RunConfig, tmp_path: Path) -> None:
    """The same training as in float32, but for rounding."""
    double = alone(config, tmp_path / "double.pt")
    single = alone(replace(config, precision="float32"), tmp_path / "single.pt")
    assert {value.dtype for value in double[1].values()} == {torch.float64, torch.int64, torch.uint8}
    assert double[0][0][2] == pytest.approx(single[0][0][2], rel=1e-2)
    assert double[0] != single[0]
    data = digits(config)
    assert data.test_batch(0, 2, torch.float64)[0].dtype == torch.float64
