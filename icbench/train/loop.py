"""One training, from the first step to the last epoch. It reads from top to bottom."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch.nn.functional import cross_entropy

from icbench.config import RunConfig
from icbench.data.device import DeviceData
from icbench.plan import require_shares
from icbench.train import seeds
from icbench.train.numerics import autocast, dtype, set_numerics
from icbench.train.ranks import ALONE, Ranks
from icbench.train.schedule import learning_rate
from icbench.train.state import EpochRow, State, read_checkpoint

_TEST_BATCH = 1000


class Stopped(Exception):
    """The training was asked to stop; its checkpoint is stored."""


class Evaluation(NamedTuple):
    """Mean cross-entropy in nats and accuracy over the test images; correct: (images,) uint8, 1 for right ones."""

    loss: float
    accuracy: float
    correct: torch.Tensor


class Watcher(Protocol):
    """What a training tells and asks while it runs."""

    def resumed(self, epoch: int, step: int) -> None:
        """The training goes on from a checkpoint, within `epoch`, after `step` batches."""

    def discarded(self) -> None:
        """The checkpoint is damaged; the training begins anew."""

    def stepped(self, epochs: float) -> None:
        """So many epochs are done, the one under way as a fraction. Called once a step: it must cost nothing."""

    def epoch_ended(self, row: EpochRow) -> None:
        """An epoch ended and its checkpoint is stored."""

    def should_stop(self) -> bool:
        """Asked before each batch, of evaluation too; if so, the training stores its checkpoint and raises Stopped."""

    def should_save(self) -> bool:
        """Asked before each batch of training; if so, the training stores a checkpoint and goes on."""

    def saved(self, epochs: float) -> None:
        """A checkpoint is stored that holds so many epochs, the one under way as a fraction."""


def train(
    config: RunConfig,
    data: DeviceData,
    checkpoint: Path,
    watcher: Watcher,
    ranks: Ranks = ALONE,
    *,
    durable: bool = False,
) -> tuple[State, bool]:
    """Train to the end; return the final state and whether it diverged.

    A training loss that is not finite ends it, with its epoch; one that ends with such a test loss diverged as well.
    Goes on from `checkpoint` where there is one, and stores one there after each epoch. Raises Stopped.
    With `durable`, checkpoints outlast a crash of the machine, and take longer to write.
    The batches are the same however many `ranks` share them; what one rank's watcher wishes, all do. Raises PeerLost.
    """
    recipe, device, precision = config.recipe, data.device, config.precision
    require_shares(data.train_count, recipe.batch_size, ranks.size)
    set_numerics(precision)
    state = begin(config, device, checkpoint, watcher, ranks)
    steps = -(-data.train_count // recipe.batch_size)

    def store(step: int, seconds: float) -> None:
        state.step, state.seconds = step, seconds
        state.save(checkpoint, ranks, durable=durable)
        watcher.saved(state.epoch - 1 + step / steps)

    while state.epoch <= recipe.epochs and all(math.isfinite(row.train_loss) for row in state.rows[-1:]):
        rate = learning_rate(recipe, state.epoch)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        plan = data.plan_epoch(seeds.generator(config.seed, "epoch", state.epoch))

        began = time.perf_counter() - state.seconds
        state.net.train()
        for step in range(state.step, steps):
            stop, save = ranks.agree(watcher.should_stop(), watcher.should_save())
            if stop or save:
                store(step, time.perf_counter() - began)
                if stop:
                    raise Stopped
                began = time.perf_counter() - state.seconds
            first, last = step * recipe.batch_size, min((step + 1) * recipe.batch_size, data.train_count)
            images, labels = data.train_batch(plan, *ranks.share(first, last), dtype(precision))
            with autocast(precision, device):
                logits = state.net(images)
                loss = cross_entropy(logits, labels)
            state.optimizer.zero_grad(set_to_none=True)
            ranks.backward(loss, len(labels), last - first)
            state.optimizer.step()
            state.sums += batch_sums(loss.detach(), logits.detach(), labels)
            watcher.stepped(state.epoch - 1 + (step + 1) / steps)
        train_loss, train_accuracy = (ranks.total(state.sums) / data.train_count).tolist()  # waits for the device
        seconds = time.perf_counter() - began

        ranks.spread_statistics(state.net)
        try:
            test = evaluate(state.net, data, precision, watcher.should_stop, ranks)
        except Stopped:
            store(steps, seconds)
            raise
        row = EpochRow(state.epoch, rate, train_loss, train_accuracy, test.loss, test.accuracy, seconds)
        state.end_epoch(row, test.correct)
        store(0, 0.0)
        watcher.epoch_ended(row)
    end = state.rows[-1]
    return state, not (math.isfinite(end.train_loss) and math.isfinite(end.test_loss))


def begin(config: RunConfig, device: torch.device, checkpoint: Path, watcher: Watcher, ranks: Ranks) -> State:
    """The state before the first step, or that which `checkpoint` holds."""
    state = State.fresh(config, device, ranks.rank)
    stored = read_checkpoint(checkpoint, ranks)
    if state.restore(stored, config.seed, ranks):
        watcher.resumed(state.epoch, state.step)
    elif stored is not None:
        watcher.discarded()
    ranks.attach(state.net)
    return state


@torch.inference_mode()
def evaluate(
    net: torch.nn.Module,
    data: DeviceData,
    precision: str,
    should_stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """How the net does on the test images, in evaluation mode. Raises Stopped where it should stop."""
    net.eval()
    count = len(data.test_labels)
    sums = torch.zeros(2, dtype=torch.float64, device=data.device)
    correct = torch.zeros(count, dtype=torch.uint8, device=data.device)
    for start in range(0, count, _TEST_BATCH * ranks.size):
        (stop,) = ranks.agree(should_stop())
        if stop:
            raise Stopped
        own = ranks.share(start, min(start + _TEST_BATCH * ranks.size, count))
        images, labels = data.test_batch(*own, dtype(precision))
        if len(labels) == 0:
            continue
        with autocast(precision, data.device):
            logits = net(images)
            loss = cross_entropy(logits, labels)
        sums += batch_sums(loss, logits, labels)
        correct[slice(*own)] = logits.argmax(dim=1) == labels
    loss_mean, accuracy = (ranks.total(sums) / count).tolist()
    return Evaluation(loss_mean, accuracy, ranks.total(correct).cpu())


def batch_sums(loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(2,) float64 on the device: the batch's loss summed over its images, and its correct answers."""
    return torch.stack([loss.double() * len(labels), (logits.argmax(dim=1) == labels).sum().double()])
