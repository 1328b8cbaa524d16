"""One training, from the first step to the last epoch. It reads from top to bottom."""

import math
import time
from collections.abc import Callable, Sequence
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

    def resumed(self, rows: Sequence[EpochRow], step: int) -> None:
        """The training goes on from a checkpoint that holds these epochs and `step` batches of the next."""

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

    def resumed(self, rows: Sequence[EpochRow], step: int) -> None: ...
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
    observe: Callable[[State], None] = lambda _: None,
) -> tuple[State, bool]:
    """Train to the end; return the final state and whether it diverged.

    A training loss that is not finite ends it, with its epoch; one that ends with such a test loss diverged as well.
    Goes on from `checkpoint` where there is one, and stores one there after each epoch. Raises Stopped.
    With `durable`, checkpoints outlast a crash of the machine, and take longer to write.
    Every rank calls `observe` before the first step and after each epoch, whose checkpoint is stored by then, and again
    where the training goes on from there. It must leave the state as it is, and may raise Stopped on all ranks at once.
    The batches are the same however many `ranks` share them; what one rank's watcher wishes, all do. Raises PeerLost.
    """
    training = _Training(config, data, checkpoint, watcher, ranks, durable, engine)
    if training.state.step == 0:
        observe(training.state)
    while training.goes_on():
        training.epoch()
        observe(training.state)
    end = training.state.rows[-1]
    return training.state, not (math.isfinite(end.train_loss) and math.isfinite(end.test_loss))


class _Training:
    """A training under way, epoch by epoch."""

    def __init__(
        self,
        config: RunConfig,
        data: Source,
        checkpoint: Path,
        watcher: Watcher,
        ranks: Ranks,
        durable: bool,
        engine: Engine,
    ):
        self._config, self._data, self._checkpoint = config, data, checkpoint
        self._watcher, self._ranks, self._durable, self._engine = watcher, ranks, durable, engine
        self._course, self._procedures = Course(config, data.train_count), together(config.procedures)
        self._course.require_shares(ranks.size)
        set_numerics(config.precision)
        self.state = begin(config, data, checkpoint, watcher, ranks)
        self._upkeep = Upkeep(config, self.state.net, self.state.optimizer)
        self._train_on = start(engine, config, self.state, data, ranks)

    def goes_on(self) -> bool:
        diverged = any(not math.isfinite(row.train_loss) for row in self.state.rows[-1:])
        return self.state.epoch <= self._config.recipe.epochs and not diverged

    def epoch(self) -> None:
        """An epoch, or what is left of one: its batches, its evaluation, its checkpoint."""
        state, data, ranks = self.state, self._data, self._ranks
        steps = self._course.steps(state.epoch)
        train_loss, train_accuracy, seconds = self._batches()
        ranks.spread_statistics(state.net)
        try:
            with self._engine.evaluating():
                test = evaluate(
                    state.net, data, self._config.precision, self._watcher.should_stop, ranks, self._procedures
                )
        except Stopped:
            self._store(steps, seconds)
            raise
        rate = self._upkeep.learning_rate(self._course.moment(state.epoch, steps - 1))
        row = EpochRow(
            state.epoch, rate, train_loss, train_accuracy, test.loss, test.accuracy, seconds, test.top5_accuracy
        )
        state.end_epoch(row, test.correct)
        self._store(0, 0.0)
        self._watcher.epoch_ended(row)

    def _batches(self) -> tuple[float, float, float]:
        """Train on the epoch's batches, or those that are left; the loss and accuracy of all, and the seconds taken."""
        state, course, upkeep, train_on = self.state, self._course, self._upkeep, self._train_on
        data, watcher, ranks = self._data, self._watcher, self._ranks
        steps, steps_before = course.steps(state.epoch), course.steps_before(state.epoch)
        plan = data.plan_epoch(seeds.generator(self._config.seed, "epoch", state.epoch))
        data.expect([ranks.share(*course.batch(state.epoch, step)) for step in range(state.step, steps)], plan)
        train_on.begin_epoch(plan)

        began = time.perf_counter() - state.seconds
        state.net.train()
        for step in range(state.step, steps):
            stop, save = ranks.agree(watcher.should_stop(), watcher.should_save())
            if stop or save:
                self._store(step, time.perf_counter() - began)
                if stop:
                    raise Stopped
                began = time.perf_counter() - state.seconds
            upkeep.before_step(course.moment(state.epoch, step))
            train_on(*course.batch(state.epoch, step))
            upkeep.after_step(steps_before + step + 1, ranks)
            watcher.stepped(state.epoch - 1 + (step + 1) / steps)
        loss, accuracy = (ranks.total(state.sums) / data.train_count).tolist()  # waits for the device
        return loss, accuracy, time.perf_counter() - began

    def _store(self, step: int, seconds: float) -> None:
        """Store a checkpoint that holds so many steps of the epoch under way, and the seconds that they took."""
        self.state.step, self.state.seconds = step, seconds
        self.state.save(self._checkpoint, self._ranks, durable=self._durable)
        part = step / self._course.steps(self.state.epoch) if step else 0.0
        self._watcher.saved(self.state.epoch - 1 + part)


def begin(config: RunConfig, data: Source, checkpoint: Path, watcher: Watcher, ranks: Ranks) -> State:
    """The state before the first step, or that which `checkpoint` holds."""
    state = State.fresh(config, data.device, ranks.rank)
    if isinstance(state.net, ReferenceBatch):
        plan = data.plan_unchanged(seeds.generator(config.seed, "reference"))
        state.net.take(data.train_batch(plan, 0, len(state.net.images), dtype(config.precision))[0])
    stored = read_checkpoint(checkpoint, ranks)
    if state.restore(stored, config.seed, ranks):
        watcher.resumed(state.rows, state.step)
    elif stored is not None:
        watcher.discarded()
    ranks.attach(state.net)
    return state
