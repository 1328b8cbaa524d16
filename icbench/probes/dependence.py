"""Dependence between channels: mutual information and correlation, and what dropout makes of them, beside theory's.

Before and after each dropout layer, and at each convolution's and linear layer's input without its padding. The net is
in training mode; of each image one random position is taken, and all values are means over the same random pairs of
channels at each epoch, or over the channels in them. n is the number of images; errors are those of drawing other
images, not other pairs.

mutual_information: in nats, of values in bins: `bins` of equal frequency but for the values that many have, zero or
what a norm makes of it, which have bins of their own. Corrected for its bias after Miller and Madow. At a dropout layer
_before, _after and _gate_aware, which is told which gates were open; _factor and gate_aware_factor divide by that
before. Predicted: p^2, with p = 1 - rate, which without zeros both should be, and with zeros the second alone.

correlation: the root mean square of Pearson's over the pairs, less what sampling adds; so the mean sign does not
matter, and gates scale it as they do each. Predicted from means and deviations before, whose size matters (Chen et al.
2019 have p for means of 0).

entropy: in nats, of the same bins. expectation, zero_share: E x, P(x = 0); with alpha dropout P(x = what is dropped).
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import isqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from icbench import theory
from icbench.probing.measurement import Measurement, Probe
from icbench.probing.subject import Subject
from icbench.theory import Estimate
from icbench.train import seeds
from icbench.values import AtLeastTwo, PositiveInt

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

_IMAGES_PER_CELL = 8

# What alpha dropout drops a value to, before it scales and shifts all (Klambauer et al. 2017, section 2): SELU's limit.
_SELU_LIMIT = float(np.float32(-1.7580993408473766))


def build(*, images: PositiveInt = 2048, pairs: PositiveInt = 64, bins: AtLeastTwo = 16) -> Probe:
    """`images`: how many are looked at; `pairs`: of channels, at each layer at most; `bins`: of a variable without
    zeros, but so many only that 8 images fall to each cell of a pair: with fewer even a corrected estimate has a bias.
    """

    def probe(subject: Subject) -> Iterator[Measurement]:
        dropouts = [(name, m) for name, m in subject.net.named_modules() if isinstance(m, _DropoutNd)]
        weights = list(_entrances(subject.net))
        gates = {name: _Site(_Choose.at(name, subject, pairs)) for name, _ in dropouts}
        inputs = {name: _Site(_Choose.at(name, subject, pairs)) for name, _ in weights}
        with ExitStack() as hooks, torch.no_grad():
            for name, dropout in dropouts:
                hooks.enter_context(dropout.register_forward_hook(gates[name].see))
            for name, entrance in weights:
                hooks.enter_context(entrance.register_forward_hook(inputs[name].see))
            for batch, labels in subject.batches(images):
                subject.loss(batch, labels)
        for name, dropout in dropouts:
            yield from _at_gates(name, gates[name], _Gate.of(dropout), bins, subject.generator)
        for name, _ in weights:
            yield from _at_input(name, inputs[name], bins)

    return probe


def _entrances(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The weight layers, and for each the module that is given its input: itself, or what pads it for it.

    Padding is a module where Keras' 'same' asks for more of it on one side; positions in it are 0 in all channels.
    """
    modules = dict(net.named_modules())
    for name, module in modules.items():
        if isinstance(module, nn.Conv2d | nn.Linear):
            parent, _, place = name.rpartition(".")
            before = modules.get(f"{parent}.{int(place) - 1}") if place.isdigit() else None
            yield name, before if isinstance(before, nn.ZeroPad2d) else module


class _Site:
    """What passes a module: at one random position of each image the channels that are in any of the pairs."""

    def __init__(self, choose: "_Choose"):
        self._choose = choose
        self._channels = torch.empty(0, dtype=torch.long)
        self._inputs: list[Tensor] = []
        self._outputs: list[Tensor] = []
        self.pairs: Integers = np.empty((0, 2), np.int64)

    def see(self, _module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        """A forward hook. Inputs and outputs: (B, C, ...); only those of the inputs' shape are kept of the outputs."""
        x = arguments[0]
        if not self._inputs:
            self._channels, self.pairs = self._choose.channels(x.shape[1])
        at = self._choose.positions(x)
        self._inputs.append(x.movedim(1, -1)[at][:, self._channels].cpu())
        if output.shape == x.shape:
            self._outputs.append(output.movedim(1, -1)[at][:, self._channels].cpu())

    @property
    def batches(self) -> Integers:
        """(N,): the batch that each image was in."""
        return np.repeat(np.arange(len(self._inputs)), [len(each) for each in self._inputs])

    @property
    def before(self) -> Floats:
        """(N, channels)."""
        return _samples(self._inputs)

    @property
    def after(self) -> Floats:
        """(N, channels)."""
        return _samples(self._outputs)


def _samples(batches: list[Tensor]) -> Floats:
    return np.asarray(torch.cat(batches).double().numpy())


@dataclass(frozen=True)
class _Choose:
    """What is looked at of a layer. seed: of the pairs, the same at each epoch; generator: of positions."""

    seed: int
    pairs: int
    generator: torch.Generator

    @classmethod
    def at(cls, layer: str, subject: Subject, pairs: int) -> "_Choose":
        return cls(seeds.derive(subject.config.seed, "dependence", layer), pairs, subject.generator)

    def channels(self, count: int) -> tuple[Tensor, Integers]:
        """Channels, and pairs (P, 2) of places among them; of a single channel there is no pair."""
        every = np.stack(np.triu_indices(count, 1), axis=1)
        chosen = np.random.default_rng(self.seed).permutation(len(every))[: self.pairs]
        channels, places = np.unique(every[chosen], return_inverse=True)
        return torch.from_numpy(channels if len(every) else np.arange(count)), places.reshape(-1, 2)

    def positions(self, x: Tensor) -> tuple[Tensor, ...]:
        """An index into x with its channels last: each image, and a random position of it."""
        images, shape = torch.arange(len(x)), x.shape[2:]
        if not shape:
            return (images,)
        drawn = torch.randint(shape.numel(), (len(x),), generator=self.generator)
        # NumPy's, since torch's imports sympy, for seconds.
        return images, *map(torch.from_numpy, np.unravel_index(drawn.numpy(), shape))


@dataclass(frozen=True)
class _Gate:
    """A dropout layer: y = scale (x - dropped) + closed where the gate is open, with probability keep, else closed."""

    keep: float
    scale: float
    dropped: float = 0.0
    closed: float = 0.0

    @classmethod
    def of(cls, dropout: _DropoutNd) -> "_Gate":
        keep = 1 - dropout.p
        if isinstance(dropout, nn.AlphaDropout | nn.FeatureAlphaDropout):
            scale = (keep * (1 + dropout.p * _SELU_LIMIT**2)) ** -0.5
            return cls(keep, scale, _SELU_LIMIT, scale * keep * _SELU_LIMIT)
        return cls(keep, 1 / keep)

    def from_zero(self, before: Floats, after: Floats) -> tuple[Floats, Floats]:
        """Both, shifted so that what is dropped is 0: alpha dropout is then plain dropout."""
        closed = np.abs(after - self.closed) <= 1e-6 * abs(self.dropped)  # rounded to float32; a 0 is exact
        return before - self.dropped, np.where(closed, 0, after - self.closed)

    def opened(self, before: Floats, after: Floats, generator: torch.Generator) -> Booleans:
        """Which gates were open, by values shifted from zero. Nothing hangs on the gate of a zero: it is drawn."""
        drawn = torch.rand(before.shape, generator=generator, dtype=torch.float64).numpy() < self.keep
        return np.where(before == 0, drawn, after != 0)


def _at_gates(layer: str, site: _Site, gate: _Gate, most: int, generator: torch.Generator) -> Iterator[Measurement]:
    before, after = site.before, site.after
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return
    report = _Report(layer, len(before))
    yield from report("expectation_before", theory.estimate_mean(before).mean())
    yield from report("expectation_after", theory.estimate_mean(after).mean())
    centre = gate.scale * gate.keep * (before.mean() - gate.dropped) + gate.closed
    yield from report("predicted_expectation_after", centre)
    before, after = gate.from_zero(before, after)
    yield from report("zero_share_before", theory.estimate_mean(before == 0).mean())
    yield from report("zero_share_after", theory.estimate_mean(after == 0).mean())
    bins = _affordable(most, len(before))
    fine = theory.codes(before, bins * gate.keep, site.batches)
    gated = theory.codes(after, bins, site.batches, like=fine)
    entropy = theory.estimate_entropy(fine)
    yield from report("entropy_before", entropy.mean())
    yield from report("entropy_after", theory.estimate_entropy(gated).mean())
    predicted = theory.gated_entropy(entropy.value, gate.keep, (before == 0).mean(axis=0))
    yield from report("predicted_entropy_after", predicted.mean())
    if len(site.pairs):
        opened = gate.opened(before, after, generator)
        yield from _information(report, site.pairs, fine, gated, opened, gate.keep)
        yield from _correlation(report, site.pairs, before, after, gate.keep)


def _information(
    report: "_Report", pairs: Integers, before: Integers, after: Integers, opened: Booleans, keep: float
) -> Iterator[Measurement]:
    base = theory.estimate_mutual_information(before, pairs).mean()
    blind = theory.estimate_mutual_information(after, pairs).mean()
    aware = theory.estimate_mutual_information(after, pairs, opened).mean()
    yield from report("mutual_information_before", base)
    yield from report("mutual_information_after", blind)
    yield from report("mutual_information_gate_aware", aware)
    yield from report("mutual_information_factor", blind.over(base))
    yield from report("mutual_information_gate_aware_factor", aware.over(base))
    yield from report("predicted_mutual_information_factor", float(theory.gated_mutual_information(1.0, keep)))


def _correlation(
    report: "_Report", pairs: Integers, before: Floats, after: Floats, keep: float
) -> Iterator[Measurement]:
    pairs = _varying(before, pairs)
    if not len(pairs):
        return
    each = theory.estimate_correlation(before, pairs)
    base = theory.root_mean_square(each)
    gated = theory.root_mean_square(theory.estimate_correlation(after, _varying(after, pairs)))
    yield from report("correlation_before", base)
    yield from report("correlation_after", gated)
    yield from report("correlation_factor", gated.over(base))
    channels = np.unique(pairs)
    centre = np.zeros(before.shape[1])
    centre[channels] = before[:, channels].mean(axis=0) / before[:, channels].std(axis=0)
    first, second = pairs.T
    factors = theory.gated_correlation(1.0, keep, centre[first], centre[second])
    # Each pair's own, weighted as its square is in the root mean square.
    weights = each.value**2 / (each.value**2).sum()
    yield from report("predicted_correlation_factor", float(np.sqrt(weights @ factors**2)))


def _affordable(most: int, images: int) -> int:
    """A number of bins, at least 2."""
    return min(most, max(2, isqrt(images // _IMAGES_PER_CELL)))


def _varying(x: Floats, pairs: Integers) -> Integers:
    """The pairs neither of whose channels is constant, as dead ones are."""
    return np.asarray(pairs[(np.ptp(x, axis=0) > 0)[pairs].all(axis=1)])


def _at_input(layer: str, site: _Site, most: int) -> Iterator[Measurement]:
    x = site.before
    if not np.isfinite(x).all():
        return
    report = _Report(layer, len(x))
    yield from report("zero_share", theory.estimate_mean(x == 0).mean())
    if len(site.pairs):
        binned = theory.codes(x, _affordable(most, len(x)), site.batches)
        yield from report("mutual_information", theory.estimate_mutual_information(binned, site.pairs).mean())
        pairs = _varying(x, site.pairs)
        if len(pairs):
            yield from report("correlation", theory.root_mean_square(theory.estimate_correlation(x, pairs)))


@dataclass(frozen=True)
class _Report:
    """Measurements of one layer from so many images; what could not be estimated is left out."""

    layer: str
    images: int

    def __call__(self, statistic: str, found: Estimate | float) -> Iterator[Measurement]:
        """A prediction is a number without an error of its own."""
        value, error = (
            (float(found.value), float(found.standard_error)) if isinstance(found, Estimate) else (found, None)
        )
        if np.isfinite(value):
            yield Measurement(self.layer, statistic, float(value), error, self.images)
