"""Dropout's gates drawn by the gaps between zeros: the same distribution, several times as fast (Devroye 1986).

Formula: as dropout; the numbers of ones between two zeros are drawn, geometric with parameter p, not each gate.

The gates are exactly Bernoulli(1 - p), but others than those that torch's dropout draws from the same seed: a run with
it is another run. On a GPU torch's dropout draws its gates, which costs nothing there.

Needs: elementwise dropout; neither channel-gates nor activation snn's, which zeros by its own rules.
"""

from typing import TYPE_CHECKING

from icbench.procedure import Procedure

if TYPE_CHECKING:
    from torch import nn


def build() -> Procedure:
    """No options."""
    return _FastDropout()


class _FastDropout(Procedure):
    needs_dropout = True

    def attach(self, net: "nn.Module") -> None:
        from torch import nn

        from icbench.nets import fast_ic
        from icbench.nets.gaps import GapDropout

        gates = [(name, module) for name, module in net.named_modules() if type(module) is nn.Dropout]
        if not gates:
            raise ValueError("there is no elementwise dropout, whose gates could be drawn faster")
        for name, gate in gates:
            net.set_submodule(name, GapDropout(gate.p))
        fast_ic.join(net)
