"""One training, from the first step to the last epoch. It reads from top to bottom."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch
from torch.nn.functional import cross_entropy

from icbench.config import RunConfig
from icbench.data.device import DeviceData
from icbench.train import seeds
from icbench.train.schedule import learning_rate
from icbench.train.state import EpochRow, State

_TEST_BATCH = 1000


class Stopped(Exception):
    """The training was asked to stop; its checkpoint is stored."""


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


def train(config: RunConfig, data: DeviceData, checkpoint: Path, watcher: Watcher) -> tuple[State, bool]:
    """Train to the end; return the final state and whether it diverged.

    A training loss that is not finite ends it, with its epoch; one that ends with such a test loss diverged as well.
    Goes on from `checkpoint` where there is one, and stores one there after each epoch. Raises Stopped.
    """
    recipe, device = config.recipe, data.device
    set_numerics(config.precision)
    state = State.fresh(config, device)
    if state.restore(checkpoint):
        watcher.resumed(state.epoch, state.step)
    elif checkpoint.exists():
        watcher.discarded()

    steps = -(-data.train_count // recipe.batch_size)
    while state.epoch <= recipe.epochs and all(math.isfinite(row.train_loss) for row in state.rows[-1:]):
        rate = learning_rate(recipe, state.epoch)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        plan = data.plan_epoch(seeds.generator(config.seed, "epoch", state.epoch))

        began = time.perf_counter() - state.seconds
        state.net.train()
        for step in range(state.step, steps):
            if watcher.should_stop():
                state.step, state.seconds = step, time.perf_counter() - began
                state.save(checkpoint)
                raise Stopped
            images, labels = data.train_batch(
                plan, step * recipe.batch_size, min((step + 1) * recipe.batch_size, data.train_count)
            )
            with autocast(config.precision, device):
                logits = state.net(images)
                loss = cross_entropy(logits, labels)
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            state.optimizer.step()
            state.sums += batch_sums(loss.detach(), logits.detach(), labels)
            watcher.stepped(state.epoch - 1 + (step + 1) / steps)
        train_loss, train_accuracy = (state.sums / data.train_count).tolist()  # waits for the device
        seconds = time.perf_counter() - began

        try:
            test_loss, test_accuracy = evaluate(state.net, data, config.precision, watcher.should_stop)
        except Stopped:
            state.step, state.seconds = steps, seconds
            state.save(checkpoint)
            raise
        row = EpochRow(state.epoch, rate, train_loss, train_accuracy, test_loss, test_accuracy, seconds)
        state.end_epoch(row)
        state.save(checkpoint)
        watcher.epoch_ended(row)
    last = state.rows[-1]
    return state, not (math.isfinite(last.train_loss) and math.isfinite(last.test_loss))


@torch.inference_mode()
def evaluate(
    net: torch.nn.Module, data: DeviceData, precision: str, should_stop: Callable[[], bool] = lambda: False
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy over the test images, in evaluation mode. Raises Stopped where it should stop."""
    net.eval()
    count = len(data.test_labels)
    sums = torch.zeros(2, dtype=torch.float64, device=data.device)
    for start in range(0, count, _TEST_BATCH):
        if should_stop():
            raise Stopped
        images, labels = data.test_batch(start, start + _TEST_BATCH)
        with autocast(precision, data.device):
            logits = net(images)
            loss = cross_entropy(logits, labels)
        sums += batch_sums(loss, logits, labels)
    loss_mean, accuracy = (sums / count).tolist()
    return loss_mean, accuracy


def batch_sums(loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(2,) float64 on the device: the batch's loss summed over its images, and its correct answers."""
    return torch.stack([loss.double() * len(labels), (logits.argmax(dim=1) == labels).sum().double()])


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """bfloat16: matrix products and convolutions in bfloat16, the rest and the weights in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def set_numerics(precision: str) -> None:
    """TF32 only by its name (cuDNN would use it unasked), and cuDNN's deterministic algorithms."""
    products = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = products
    torch.backends.cudnn.conv.fp32_precision = products  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
