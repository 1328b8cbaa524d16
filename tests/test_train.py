"""Training: what seeds control, that a stopped training goes on bit for bit, divergence, the recipe's numbers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from icbench import catalog, grid
from icbench.config import RunConfig, WeightDecay
from icbench.data import store
from icbench.data.device import DeviceData
from icbench.nets.build import build
from icbench.train import evaluation, loop, parameters, seeds
from icbench.train.evaluation import Stopped
from icbench.train.loop import train
from icbench.train.schedule import learning_rate
from icbench.train.state import EpochRow, State

TINY = """
recipe: {name: digits, epochs: 3, batch_size: 200}
fixed: {dataset: digits, depth: 8, width: 4, ordering: conv-relu-ic}
"""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    file = tmp_path / "grid.yaml"
    file.write_text(TINY)
    return grid.load(file).runs()[0][1]


def digits(config: RunConfig) -> DeviceData:
    return DeviceData(
        store.split(store.load("digits", None), config.split),
        pixel_maximum=16,
        subtract_mean=config.recipe.subtract_pixel_mean,
        augmentation=config.recipe.augmentation,
        device=torch.device("cpu"),
    )


@dataclass
class Watcher:
    """Stops the training when it has been asked so often, has it saved after so many steps; keeps what it hears."""

    stop_at: float = math.inf
    asked: int = 0
    discards: int = 0
    resumed_at: list[tuple[int, int]] = field(default_factory=list)
    rows: list[EpochRow] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)
    save_after: tuple[int, ...] = ()
    saves: list[float] = field(default_factory=list)

    def resumed(self, rows: Sequence[EpochRow], step: int) -> None:
        self.resumed_at.append((len(rows) + 1, step))

    def discarded(self) -> None:
        self.discards += 1

    def stepped(self, epochs: float) -> None:
        self.progress.append(epochs)

    def epoch_ended(self, row: EpochRow) -> None:
        self.rows.append(row)

    def should_stop(self) -> bool:
        self.asked += 1
        return self.asked > self.stop_at

    def should_save(self) -> bool:
        return len(self.progress) in self.save_after

    def saved(self, epochs: float) -> None:
        self.saves.append(epochs)


Bits = tuple[list[tuple[float, ...]], dict[str, torch.Tensor]]


def bits(state: State) -> Bits:
    """All that must not differ: every figure but the time, the weights, and which images are right."""
    rows = [
        (r.epoch, r.learning_rate, r.train_loss, r.train_accuracy, r.test_loss, r.test_accuracy) for r in state.rows
    ]
    return rows, state.net.state_dict() | {"which images are right": state.correct}


def same(a: Bits, b: Bits) -> bool:
    return a[0] == b[0] and all(torch.equal(a[1][key], b[1][key]) for key in a[1])


def run(config: RunConfig, folder: Path) -> Bits:
    folder.mkdir(exist_ok=True)
    state, diverged = train(config, digits(config), folder / "checkpoint.pt", Watcher())
    assert not diverged
    return bits(state)


def test_the_seed_controls_everything(config: RunConfig, tmp_path: Path) -> None:
    first = run(config, tmp_path / "a")
    torch.manual_seed(123)  # what the process drew before does not matter
    assert same(first, run(config, tmp_path / "b"))
    other = run(replace(config, seed=1), tmp_path / "c")
    assert first[0][0] != other[0][0]


def test_seeds_control_each_draw(config: RunConfig) -> None:
    data = digits(config)
    nets, plans, gates = [], [], []
    for seed in (0, 1):
        state = State.fresh(replace(config, seed=seed), torch.device("cpu"))
        nets.append(state.net.classifier.weight)
        gates.append(torch.rand(3))
        plans.append([data.plan_epoch(seeds.generator(seed, "epoch", epoch)) for epoch in (1, 2)])
    assert not torch.equal(nets[0], nets[1])
    assert not torch.equal(gates[0], gates[1])
    for column in ("order", "shift_down", "shift_right"):
        drawn = [getattr(plan, column) for both in plans for plan in both]
        assert not any(torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


@pytest.mark.parametrize("ordering", catalog.names("orderings"))
def test_every_ordering_goes_on_bit_for_bit(config: RunConfig, ordering: str, tmp_path: Path) -> None:
    """Stopped in the middle of the second epoch, in another process's random state, then gone on with."""
    config = replace(config, ordering=ordering, dropout=0.2)
    whole = run(config, tmp_path / "whole")
    checkpoint, watcher = tmp_path / "checkpoint.pt", Watcher(stop_at=8 + 1 + 3)
    with pytest.raises(Stopped):
        train(config, digits(config), checkpoint, watcher)
    assert len(watcher.rows) == 1
    torch.manual_seed(99)
    again = Watcher()
    state, _ = train(config, digits(config), checkpoint, again)
    assert again.resumed_at == [(2, 3)]
    assert same(bits(state), whole)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_stopped_at_every_step(config: RunConfig, optimizer: str, tmp_path: Path) -> None:
    given = replace(config.recipe.optimizer, name=optimizer, options=())
    config = replace(config, recipe=replace(config.recipe, optimizer=given, learning_rate=0.01))
    whole = run(config, tmp_path / "whole")
    stops = 0
    while True:
        try:
            state, _ = train(config, digits(config), tmp_path / "checkpoint.pt", Watcher(stop_at=1))
            break
        except Stopped:
            stops += 1
    assert stops == 3 * (8 + 1) - 1  # eight batches and one of evaluation an epoch
    assert same(bits(state), whole)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:20], lambda b: b"", lambda b: b[:99] + b"?" + b[100:]]
)
def test_a_damaged_checkpoint_costs_epochs_and_nothing_else(
    config: RunConfig, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    whole = run(config, tmp_path / "whole")
    file = tmp_path / "whole" / "checkpoint.pt"
    file.write_bytes(damage(file.read_bytes()))
    (file.parent / ".tmp-checkpoint.pt-1").write_bytes(b"left by a killed worker")
    watcher = Watcher()
    state, _ = train(config, digits(config), file, watcher)
    assert (watcher.resumed_at, watcher.discards) == ([], 1)
    assert same(bits(state), whole)
    assert [path.name for path in file.parent.iterdir()] == ["checkpoint.pt"]


def test_a_finished_checkpoint_has_nothing_to_do(config: RunConfig, tmp_path: Path) -> None:
    """Killed after the last epoch and before its results were written."""
    whole = run(config, tmp_path)
    watcher = Watcher()
    state, _ = train(config, digits(config), tmp_path / "checkpoint.pt", watcher)
    assert watcher.asked == 0
    assert same(bits(state), whole)


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(config: RunConfig, tmp_path: Path) -> None:
    config = replace(config, norm=replace(config.norm, name="none", options=()))
    config = replace(config, recipe=replace(config.recipe, learning_rate=1e12))
    state, diverged = train(config, digits(config), tmp_path / "checkpoint.pt", Watcher())
    assert diverged
    assert len(state.rows) == 1
    assert not math.isfinite(state.rows[0].train_loss)
    again, diverged = train(config, digits(config), tmp_path / "checkpoint.pt", Watcher())
    assert diverged
    assert len(again.rows) == 1


@pytest.mark.parametrize(("when", "ends_diverged"), [(0, False), (2, True)])
def test_test_images_end_no_training(
    when: int, ends_diverged: bool, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test loss that is not finite in between is a row like any other; at the end it means a diverged net."""
    figures = [evaluation.Evaluation(1.0, 0.5, torch.empty(0), None)] * 3
    figures[when] = evaluation.Evaluation(math.nan, 0.1, torch.empty(0), None)
    shown = iter(figures)
    monkeypatch.setattr(loop, "evaluate", lambda *_: next(shown))
    state, diverged = train(config, digits(config), tmp_path / "checkpoint.pt", Watcher())
    assert [math.isnan(row.test_loss) for row in state.rows] == [epoch == when for epoch in range(3)]
    assert diverged == ends_diverged


def test_the_watcher_hears_of_each_step_and_epoch(config: RunConfig, tmp_path: Path) -> None:
    watcher = Watcher()
    state, _ = train(config, digits(config), tmp_path / "checkpoint.pt", watcher)
    assert watcher.progress == [(step + 1) / 8 for step in range(24)]
    assert watcher.rows == state.rows
    assert [row.epoch for row in state.rows] == [1, 2, 3]
    assert all(row.seconds > 0 for row in state.rows)


def test_the_figures_of_an_epoch_are_the_plain_ones(config: RunConfig, tmp_path: Path) -> None:
    """Against the obvious: the last net on all test images at once, and one epoch of one batch."""
    data = digits(config)
    state, _ = train(config, data, tmp_path / "a.pt", Watcher())
    images, labels = data.test_batch(0, 10**6)
    state.net.eval()
    with torch.no_grad():
        logits = state.net(images)
    assert state.rows[-1].test_loss == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-6)
    assert round(state.rows[-1].test_accuracy * len(labels)) == int((logits.argmax(1) == labels).sum())

    one = replace(
        config, ordering="baseline-v1", dropout=None, recipe=replace(config.recipe, epochs=1, batch_size=10**6)
    )
    state, _ = train(one, data, tmp_path / "b.pt", Watcher())
    fresh = State.fresh(one, torch.device("cpu"))
    images, labels = data.train_batch(data.plan_epoch(seeds.generator(0, "epoch", 1)), 0, 10**6)
    logits = fresh.net(images)
    assert state.rows[0].train_loss == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-6)
    assert round(state.rows[0].train_accuracy * len(labels)) == int((logits.argmax(1) == labels).sum())


def test_evaluation_in_batches_is_evaluation_at_once(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    data, net = digits(config), State.fresh(config, torch.device("cpu")).net
    whole = evaluation.evaluate(net, data, "float32")
    monkeypatch.setattr(data, "evaluation_batch", 100)
    parts = evaluation.evaluate(net, data, "float32")
    assert parts[:2] == pytest.approx(whole[:2], rel=1e-6)
    assert torch.equal(parts.correct, whole.correct)
    images, labels = data.test_batch(0, 10**6)
    assert torch.equal(whole.correct.bool(), net(images).argmax(dim=1) == labels)


def test_the_learning_rate_of_each_epoch(tmp_path: Path) -> None:
    """chen2019: 1e-3, divided by 10 after 80, 120 and 160 epochs; with Keras' fourth step on request."""
    keras = "{name: chen2019, learning_rate_steps: [[80, 0.1], [120, 0.1], [160, 0.1], [180, 0.5]]}"
    file = tmp_path / "grid.yaml"
    for recipe, last in (("chen2019", 1e-6), (keras, 0.5e-6)):
        file.write_text(f"recipe: {recipe}\nfixed: {{dataset: cifar10, depth: 20, ordering: baseline}}")
        chen = grid.load(file).cells[0].config.recipe
        rates = {epoch: learning_rate(chen, epoch) for epoch in (1, 80, 81, 120, 121, 160, 161, 180, 200)}
        expected = {1: 1e-3, 80: 1e-3, 81: 1e-4, 120: 1e-4, 121: 1e-5, 160: 1e-5, 161: 1e-6, 180: 1e-6, 200: last}
        assert rates == pytest.approx(expected)


def test_the_rate_reaches_the_optimizer(config: RunConfig, tmp_path: Path) -> None:
    config = replace(config, recipe=replace(config.recipe, learning_rate_steps=((1, 0.0),)))
    state, _ = train(config, digits(config), tmp_path / "c.pt", Watcher(stop_at=math.inf))
    assert [row.learning_rate for row in state.rows] == [3e-3, 0, 0]
    assert all(group["lr"] == 0 for group in state.optimizer.param_groups)


def test_weight_decay_is_coupled_and_by_group(config: RunConfig) -> None:
    """Keras' l2(1e-4) on convolution kernels adds 1e-4 * sum(w^2) to the loss: the same step as our decay of 2e-4."""
    torch.manual_seed(0)
    ours, plain = build(config), build(config)
    plain.load_state_dict(ours.state_dict())
    groups = parameters.groups(ours, WeightDecay(convolution=2e-4, classifier=0.0, other=0.0))
    assert sorted(len(group["params"]) for group in groups)[0] == 1  # the classifier's weight
    assert sum(p.numel() for group in groups for p in group["params"]) == sum(p.numel() for p in ours.parameters())
    x, y = torch.randn(20, 1, 8, 8), torch.randint(0, 10, (20,))
    for net, optimizer in (
        (ours, catalog.load("optimizers", "adam").build(groups, 1e-2, epsilon=1e-7)),
        (plain, torch.optim.Adam(plain.parameters(), lr=1e-2, eps=1e-7, fused=False, foreach=False)),
    ):
        torch.manual_seed(1)
        for _ in range(3):
            loss = nn.functional.cross_entropy(net(x), y)
            if net is plain:
                loss = loss + 1e-4 * sum(m.weight.square().sum() for m in net.modules() if isinstance(m, nn.Conv2d))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_digits_are_learned(config: RunConfig, tmp_path: Path) -> None:
    """A whole recipe on a small net: well over 90 %, which neither a broken loop nor broken data would reach."""
    (tmp_path / "grid.yaml").write_text(
        "recipe: digits\nfixed: {dataset: digits, depth: 8, width: 8, ordering: relu-ic-conv}"
    )
    config = grid.load(tmp_path / "grid.yaml").runs()[0][1]
    state, _ = train(config, digits(config), tmp_path / "checkpoint.pt", Watcher())
    assert state.rows[-1].test_accuracy > 0.93
    held = replace(config, split="heldout")
    state, _ = train(held, digits(held), tmp_path / "heldout.pt", Watcher())
    assert state.rows[-1].test_accuracy > 0.93


@pytest.mark.parametrize(("norm", "epochs"), [("zca", 6), ("iternorm", 6), ("divisive", 10)])
def test_hard_norms_learn_digits(norm: str, epochs: int, tmp_path: Path) -> None:
    """Those whose gradients pass a decomposition, an iteration or a local division are stable at training scale."""
    (tmp_path / "grid.yaml").write_text(
        f"recipe: {{name: digits, epochs: {epochs}}}\n"
        f"fixed: {{dataset: digits, depth: 8, ordering: relu-ic-conv, norm: {norm}}}"
    )
    config = grid.load(tmp_path / "grid.yaml").runs()[0][1]
    state, diverged = train(config, digits(config), tmp_path / "checkpoint.pt", Watcher())
    assert not diverged
    assert state.rows[-1].test_accuracy > 0.95


@pytest.mark.parametrize("precision", ["bfloat16"])
def test_named_precisions_train(config: RunConfig, precision: str, tmp_path: Path) -> None:
    other = replace(config, precision=precision)
    exact, rounded = run(config, tmp_path / "a"), run(other, tmp_path / "b")
    assert rounded[0][0][2] == pytest.approx(exact[0][0][2], rel=0.1)
    assert rounded[0] != exact[0]
    assert all(value.dtype != torch.bfloat16 for value in rounded[1].values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_gives_the_same_bits_again_and_resumes(config: RunConfig, tmp_path: Path) -> None:
    device = torch.device("cuda")
    data = DeviceData(
        store.split(store.load("digits", None), "test"),
        pixel_maximum=16,
        subtract_mean=True,
        augmentation=config.recipe.augmentation,
        device=device,
    )
    whole, _ = train(config, data, tmp_path / "whole.pt", Watcher())
    with pytest.raises(Stopped):
        train(config, data, tmp_path / "checkpoint.pt", Watcher(stop_at=11))
    state, _ = train(config, data, tmp_path / "checkpoint.pt", Watcher())
    assert same(bits(state), bits(whole))
