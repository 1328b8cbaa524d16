"""Dropout of whole channels in place of single elements (Tompson et al. 2015, arXiv 1411.4280: SpatialDropout).

Formula: y[n, c] = g[n, c] x[n, c] / (1 - p), one gate g of Bernoulli(1 - p) for all pixels of an image's channel.

No IC layer: elements that share a gate are zero together, which can raise their mutual information. For comparison.

Needs: dropout on maps; the dropout before li2018's classifier has one element a channel, and stays.
"""

from typing import TYPE_CHECKING

from icbench.procedure import Procedure

if TYPE_CHECKING:
    from torch import nn


def build() -> Procedure:
    """No options."""
    return _ChannelGates()


class _ChannelGates(Procedure):
    needs_dropout = True

    def attach(self, net: "nn.Module") -> None:
        from torch import nn

        by_channel = {nn.Dropout: nn.Dropout2d, nn.AlphaDropout: nn.FeatureAlphaDropout}
        gates = [
            (parent, name, gate)
            for parent_name, parent in net.named_modules()
            for name, gate in parent.named_children()
            if type(gate) in by_channel and parent_name.split(".")[-1] != "head"
        ]
        if not gates:
            raise ValueError("there is no dropout on maps, whose channels could be gated")
        for parent, name, gate in gates:
            setattr(parent, name, by_channel[type(gate)](gate.p))
