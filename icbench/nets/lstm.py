"""A long short-term memory that reads an image row by row (Cooijmans et al. 2017, arXiv 1603.09025, section 3).

At each step t, with gates i, f, g, o stacked in torch's order:

    gates = norm_h(W_h h) + norm_x(W_x x_t) + b
    c = sigmoid(f) c + sigmoid(i) tanh(g)
    h = sigmoid(o) tanh(norm_c(c))

norm_h and norm_x each take all four gates' 4*width values and have no shift, since b is one; norm_c has a shift. Ba et
al. 2016 (arXiv 1607.06450, supplementary material) put layer normalisation in the same places. h and c begin at 0;
Cooijmans et al. learn them, and add noise where the first rows of all images are alike.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

# features, steps, whether there is a shift -> a norm of a sequence, called with (x, step): the function `recurrent` of
# a norm's file, given its options.
RecurrentNorm = Callable[[int, int, bool], nn.Module]


class LSTM(nn.Module):
    """x: (N, C, H, W) -> logits (N, classes). The H rows are the steps, from top to bottom, of W*C features each."""

    def __init__(self, norm: RecurrentNorm, *, layers: int, width: int, shape: tuple[int, int, int], classes: int):
        """`width`: units of a layer; `shape`: height, width and channels of an image."""
        super().__init__()
        steps, columns, channels = shape
        features = [columns * channels] + [width] * (layers - 1)
        self.layers = nn.Sequential(*(LSTMLayer(norm, inputs, width, steps) for inputs in features))
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(2, 0, 3, 1).flatten(2)
        logits: Tensor = self.classifier(self.layers(rows)[-1])
        return logits


class LSTMLayer(nn.Module):
    """Inputs (steps, N, features) -> hidden states (steps, N, width)."""

    def __init__(self, norm: RecurrentNorm, features: int, width: int, steps: int):
        super().__init__()
        # Not nn.Linear, whose weights a recipe's initialisation would draw anew.
        self.input_weight = nn.Parameter(torch.empty(4 * width, features))
        self.recurrent_weight = nn.Parameter(torch.empty(4 * width, width))
        self.bias = nn.Parameter(torch.empty(4 * width))
        self.norm_input = norm(4 * width, steps, False)
        self.norm_recurrent = norm(4 * width, steps, False)
        self.norm_cell = norm(width, steps, True)
        self._initialize(width)

    @torch.no_grad()
    def _initialize(self, width: int) -> None:
        """Orthogonal, but the identity from h to g; the forget gate's bias is 1.

        The paper says that W_h is the identity; the authors' code (sequential_mnist.py, construct_lstm), where alone
        the forget gate's bias is to be found, has it for g, and one orthogonal matrix for the other three gates.
        """
        nn.init.orthogonal_(self.input_weight)
        i, f, g, o = self.recurrent_weight.chunk(4)
        orthogonal = nn.init.orthogonal_(self.recurrent_weight.new_empty(3 * width, width))
        for gate, weight in zip((i, f, o), orthogonal.chunk(3), strict=True):
            gate.copy_(weight)
        nn.init.eye_(g)
        nn.init.zeros_(self.bias)
        nn.init.ones_(self.bias[width : 2 * width])

    def forward(self, sequence: Tensor) -> Tensor:
        from_input = functional.linear(sequence, self.input_weight)
        hidden = cell = sequence.new_zeros(sequence.shape[1], self.recurrent_weight.shape[1])
        outputs = []
        for step, inputs in enumerate(from_input):
            recurrent = self.norm_recurrent(functional.linear(hidden, self.recurrent_weight), step)
            gates = recurrent + self.norm_input(inputs, step) + self.bias
            i, f, g, o = gates.chunk(4, dim=1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * self.norm_cell(cell, step).tanh()
            outputs.append(hidden)
        return torch.stack(outputs)
