"""What changes from step to step besides the weights: the rates before a step, projections after it."""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer

from icbench.config import RunConfig
from icbench.procedure import Moment, together
from icbench.train.ranks import Ranks
from icbench.train.schedule import learning_rate


class Upkeep:
    """Does what a run's procedures ask for, and calls `after_steps` of the modules that have it.

    Such a module names in `every` how many steps of the optimiser lie between two calls. To be made while the net has
    the dropout rates that it was built with, which schedules are of.
    """

    def __init__(self, config: RunConfig, net: nn.Module, optimizer: Optimizer):
        self._net = net
        self._optimizer = optimizer
        self._procedures = together(config.procedures)
        self._gates = [(m, m.p) for m in net.modules() if isinstance(m, _DropoutNd)]
        self._share = any(getattr(m, "used_in_training", False) for m in net.modules())
        self._modules: list[Any] = [m for m in net.modules() if hasattr(m, "after_steps")]

    def before_step(self, moment: Moment) -> None:
        """Set the learning rate and the dropout rates."""
        rate = self.learning_rate(moment)
        for group in self._optimizer.param_groups:
            if isinstance(group["lr"], Tensor):  # which a recorded step reads
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        if self._procedures.schedules_dropout:
            for gate, rate in self._gates:
                gate.p = self._procedures.dropout(rate, moment)

    def learning_rate(self, moment: Moment) -> float:
        return self._procedures.learning_rate(learning_rate(moment.recipe, moment.epoch), moment)

    def after_step(self, steps: int, ranks: Ranks) -> None:
        """`steps` are those of the optimiser so far, in all epochs."""
        if self._share:
            ranks.spread_statistics(self._net)  # a checkpoint holds the first one's
        changed = self._procedures.stepped(self._net, steps)
        due = [module for module in self._modules if steps % module.every == 0]
        for module in due:
            module.after_steps()
        if changed or due:
            ranks.attach(self._net)  # from the first one's weights on: each has changed its own by its own statistics
