"""What a run may do around the steps of its training: the hooks that a procedure has, and all of a run's as one.

The grid asks procedures too, so neither this nor a procedure's file imports torch before a net is there.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from icbench import catalog
from icbench.config import Recipe, Variant

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a training is. epoch: from 1; done: the fraction of all epochs; images: those of an epoch."""

    recipe: Recipe
    epoch: int
    done: float
    images: int


class Procedure:
    """Does nothing. A procedure's `build` returns one that does something in some of these places.

    They keep no state: everything follows from the net and from how far the training is, so that one that goes on
    from a checkpoint is as one that was never stopped.

    needs_dropout: without dropout in the net it changes nothing. is_schedule: it says how the dropout rate goes on.
    """

    needs_dropout = False
    is_schedule = False

    def changes(self, recipe: Recipe) -> bool:
        """Whether a training by `recipe`, once adapted, is another than without the procedure."""
        return True

    def adapt(self, recipe: Recipe) -> Recipe:
        """The recipe to train by."""
        return recipe

    def batch_size(self, size: int, moment: Moment) -> int:
        """The batch size of an epoch. Asked at its beginning."""
        return size

    def learning_rate(self, rate: float, moment: Moment) -> float:
        """The learning rate of a step."""
        return rate

    def dropout(self, rate: float, moment: Moment) -> float:
        """The dropout rate of a step, where the run, or the stage that a dropout layer is of, has `rate`."""
        return rate

    def attach(self, net: "nn.Module") -> None:
        """Change a net that was just built. Raises ValueError where the procedure does not go with it."""

    def stepped(self, net: "nn.Module", steps: int) -> bool:
        """Change the weights after so many steps of the optimiser in all; whether it did."""
        return False

    def evaluating(self, net: "nn.Module", forwards: Callable[[], Iterator[None]]) -> AbstractContextManager[object]:
        """Around an evaluation, with the net in evaluation mode, which it is in again inside and as before after.

        `forwards` runs the net once over all images to evaluate on, a batch at a time.
        """
        return nullcontext()


class Together(Procedure):
    """Several procedures, one after another."""

    def __init__(self, procedures: tuple[Procedure, ...]):
        self.procedures = procedures
        self.schedules_dropout = any(type(each).dropout is not Procedure.dropout for each in procedures)

    def adapt(self, recipe: Recipe) -> Recipe:
        for each in self.procedures:
            recipe = each.adapt(recipe)
        return recipe

    def batch_size(self, size: int, moment: Moment) -> int:
        for each in self.procedures:
            size = each.batch_size(size, moment)
        return size

    def learning_rate(self, rate: float, moment: Moment) -> float:
        for each in self.procedures:
            rate = each.learning_rate(rate, moment)
        return rate

    def dropout(self, rate: float, moment: Moment) -> float:
        for each in self.procedures:
            rate = each.dropout(rate, moment)
        return rate

    def attach(self, net: "nn.Module") -> None:
        for each in self.procedures:
            each.attach(net)

    def stepped(self, net: "nn.Module", steps: int) -> bool:
        changed = False
        for each in self.procedures:
            changed |= each.stepped(net, steps)
        return changed

    def evaluating(self, net: "nn.Module", forwards: Callable[[], Iterator[None]]) -> AbstractContextManager[object]:
        with ExitStack() as stack:
            for each in self.procedures:
                stack.enter_context(each.evaluating(net, forwards))
            return stack.pop_all()


@cache
def together(variants: tuple[Variant, ...]) -> Together:
    """The procedures of these names and options."""
    return Together(tuple(catalog.load("procedures", v.name).build(**dict(v.options)) for v in variants))


def batch_sizes(recipe: Recipe, procedures: tuple[Variant, ...], images: int) -> list[int]:
    """The batch size of each epoch of a training on so many images."""
    moments = (Moment(recipe, epoch, (epoch - 1) / recipe.epochs, images) for epoch in range(1, recipe.epochs + 1))
    return [min(together(procedures).batch_size(recipe.batch_size, moment), images) for moment in moments]
