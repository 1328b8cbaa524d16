"""One training, from the first step to the last epoch. It reads from top to bottom."""

import math
import time
from pathlib import Path
from typing import Protocol

from icbench.config import RunConfig
from icbench.data.source import Source
from icbench.nets.reference import ReferenceBatch
from icbench.procedure import together
from icbench.train import seeds
from icbench.train.course import Course
from icbench.train.engines import EAGER, Engine, start
from icbench.train.evaluation import Stopped, evaluate
from icbench.train.numerics import dtype, set_numerics
from icbench.train.ranks import ALONE, Ranks
from icbench.train.state import EpochRow, State, read_checkpoint
from icbench.train.upkeep import Upkeep


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


class Unwatched(Watcher):
    """Nobody watches; what anybody does want to hear, a class made from this one says."""

    def resumed(self, epoch: int, step: int) -> None: ...
    def discarded(self) -> None: ...
    def stepped(self, epochs: float) -> None: ...
    def epoch_ended(self, row: EpochRow) -> None: ...
    def should_stop(self) -> bool:
        return False

    def should_save(self) -> bool:
        return False

    def saved(self, epochs: float) -> None: ...


def train(
    config: RunConfig,
    data: Source,
    checkpoint: Path,
    watcher: Watcher,
    ranks: Ranks = ALONE,
    *,
    durable: bool = False,
    engine: Engine = EAGER,
) -> tuple[State, bool]:
    """Train to the end; return the final state and whether it diverged.

    A training loss that is not finite ends it, with its epoch; one that ends with such a test loss diverged as well.
    Goes on from `checkpoint` where there is one, and stores one there after each epoch. Raises Stopped.
    With `durable`, checkpoints outlast a crash of the machine, and take longer to write.
    The batches are the same however many `ranks` share them; what one rank's watcher wishes, all do. Raises PeerLost.
    """
    recipe, precision = config.recipe, config.precision
    course, procedures = Course(config, data.train_count), together(config.procedures)
    course.require_shares(ranks.size)
    set_numerics(precision)
    state = begin(config, data, checkpoint, watcher, ranks)
    upkeep = Upkeep(config, state.net, state.optimizer)
    train_on = start(engine, config, state, data, ranks)

    def store(step: int, seconds: float) -> None:
        state.step, state.seconds = step, seconds
        state.save(checkpoint, ranks, durable=durable)
        watcher.saved(state.epoch - 1 + step / steps)

    while state.epoch <= recipe.epochs and all(math.isfinite(row.train_loss) for row in state.rows[-1:]):
        steps, steps_before = course.steps(state.epoch), course.steps_before(state.epoch)
        plan = data.plan_epoch(seeds.generator(config.seed, "epoch", state.epoch))
        data.expect([ranks.share(*course.batch(state.epoch, step)) for step in range(state.step, steps)], plan)
        train_on.begin_epoch(plan)

        began = time.perf_counter() - state.seconds
        state.net.train()
        for step in range(state.step, steps):
            stop, save = ranks.agree(watcher.should_stop(), watcher.should_save())
            if stop or save:
                store(step, time.perf_counter() - began)
                if stop:
                    raise Stopped
                began = time.perf_counter() - state.seconds
            upkeep.before_step(course.moment(state.epoch, step))
            train_on(*course.batch(state.epoch, step))
            upkeep.after_step(steps_before + step + 1, ranks)
            watcher.stepped(state.epoch - 1 + (step + 1) / steps)
        train_loss, train_accuracy = (ranks.total(state.sums) / data.train_count).tolist()  # waits for the device
        seconds = time.perf_counter() - began

        ranks.spread_statistics(state.net)
        try:
            with engine.evaluating():
                test = evaluate(state.net, data, precision, watcher.should_stop, ranks, procedures)
        except Stopped:
            store(steps, seconds)
            raise
        rate = upkeep.learning_rate(course.moment(state.epoch, steps - 1))
        row = EpochRow(
            state.epoch, rate, train_loss, train_accuracy, test.loss, test.accuracy, seconds, test.top5_accuracy
        )
        state.end_epoch(row, test.correct)
        store(0, 0.0)
        watcher.epoch_ended(row)
    end = state.rows[-1]
    return state, not (math.isfinite(end.train_loss) and math.isfinite(end.test_loss))


def begin(config: RunConfig, data: Source, checkpoint: Path, watcher: Watcher, ranks: Ranks) -> State:
    """The state before the first step, or that which `checkpoint` holds."""
    state = State.fresh(config, data.device, ranks.rank)
    if isinstance(state.net, ReferenceBatch):
        plan = data.plan_unchanged(seeds.generator(config.seed, "reference"))
        state.net.take(data.train_batch(plan, 0, len(state.net.images), dtype(config.precision))[0])
    stored = read_checkpoint(checkpoint, ranks)
    if state.restore(stored, config.seed, ranks):
        watcher.resumed(state.epoch, state.step)
    elif stored is not None:
        watcher.discarded()
    ranks.attach(state.net)
    return state
