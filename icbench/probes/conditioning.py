"""Eigenvalues, condition number and effective rank of activations and of Fisher blocks (LeCun et al. 1991).

For each weight layer, five statistics of the eigenvalues e of a matrix: largest_eigenvalue; rank, how many are above
the rounding of the run's precision (k eps^2 times the largest, of k); smallest_eigenvalue and condition_number (largest
/ smallest), both of those that are; effective_rank, exp of the entropy of e / sum(e) (Roy and Vetterli 2007). The names
begin with the matrix:

covariance, correlation and second_moment (E[x x'], not centred) of the C channels of the layer's input over images and
all positions: the same matrix as whitening layers make the identity, and the channel factor of a Kronecker-factored
Fisher block. All positions, since one an image has too few observations for the last layers' channels. Channels that
never vary are left out of the correlation. The second moment is what conditions the layer's own least-squares problem,
so that a mean beside 0 makes an eigenvalue of its own (LeCun, Kanter and Solla 1991). Zeros of a padding do not count.

fisher: the layer's diagonal block of the Fisher information matrix, which for cross-entropy is that of the generalised
Gauss-Newton matrix: J' J / n, row i of J the gradient by the layer's filters of image i's loss, for a label sampled
from the net's own prediction. empirical_fisher has the true labels instead, and is another matrix (Kunstner et al.
2019, arXiv 1905.12558). The eigenvalues are those of the exact Gram matrix J J' / n, to which the block adds zeros
only: there are n at most, so compare equal n.

In training mode, with dropout's gates. Where batch statistics tie images together, image i's gradient is its share of
the gradient of the sum of all losses: what passes through its own outputs of the layer. n: images.

Cost: by default 1,000 images forward, and 128, normalised together, forward once and backward twice, with two products
of 128 x (parameters of a layer) matrices each time: of ResNet-20 as much as 1,300 images forward and backward.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from icbench.probing.layers import Backward, Forward, backwards, forwards
from icbench.probing.measurement import Measurement, Probe
from icbench.probing.subject import Subject
from icbench.train.numerics import epsilon
from icbench.values import PositiveInt


def build(*, images: PositiveInt = 1000, fisher_images: PositiveInt = 128) -> Probe:
    """`images`: of the activations; `fisher_images`: n of the Fisher blocks."""
    return _Conditioning(images, fisher_images)


class _Conditioning:
    def __init__(self, images: int, fisher_images: int):
        self.images, self.fisher_images = images, fisher_images

    def __call__(self, subject: Subject) -> Iterator[Measurement]:
        yield from self._activations(subject)
        yield from self._blocks(subject)

    def _activations(self, subject: Subject) -> Iterator[Measurement]:
        moments, rounding = dict[str, Moments](), _rounding(subject.config.precision)

        def see(passage: Forward) -> None:
            x = passage.activations()
            moments.setdefault(passage.name, Moments(x.shape[1], x.device, rounding)).add(x)

        images = 0
        with forwards(subject.net, see), torch.no_grad():
            for batch, _ in subject.batches(self.images):
                subject.logits(batch)
                images += len(batch)
        for name, seen in moments.items():
            for statistic, matrix in seen.matrices().items():
                if torch.isfinite(matrix).all():
                    yield from _spectrum(name, statistic, torch.linalg.eigvalsh(matrix), images, rounding)

    def _blocks(self, subject: Subject) -> Iterator[Measurement]:
        images, labels = subject.images(0, min(self.fisher_images, subject.data.train_count))
        grams, rounding = dict[str, Tensor](), _rounding(subject.config.precision)

        def see(passage: Backward) -> None:
            grams[passage.at.name] = gram(passage)

        with backwards(subject.net, see):
            logits = subject.logits(images)
        if not torch.isfinite(logits).all():
            return
        chances = logits.detach().softmax(1).cpu()
        sampled = torch.multinomial(chances, 1, generator=subject.generator)[:, 0].to(labels.device)
        for statistic, targets in (("fisher", sampled), ("empirical_fisher", labels)):
            cross_entropy(logits, targets).backward(retain_graph=targets is sampled)  # type: ignore[no-untyped-call]
            for name, matrix in reversed(grams.items()):
                if torch.isfinite(matrix).all():
                    eigenvalues = torch.linalg.eigvalsh(matrix / len(images))
                    yield from _spectrum(name, statistic, eigenvalues, len(images), rounding)
            grams.clear()


class Moments:
    """Sums over all positions of all images seen, in float64. rounding: what it leaves of squares, beside them."""

    def __init__(self, channels: int, device: torch.device, rounding: float):
        self.rounding = rounding
        self.count = 0
        self.sum = torch.zeros(channels, dtype=torch.float64, device=device)
        self.products = torch.zeros(channels, channels, dtype=torch.float64, device=device)

    def add(self, x: Tensor) -> None:
        """x: (N, C, H, W)."""
        rows = x.movedim(1, -1).flatten(0, -2).double()
        self.count += len(rows)
        self.sum += rows.sum(0)
        self.products += rows.T @ rows

    def matrices(self) -> dict[str, Tensor]:
        """Each (C, C); the correlation without channels that do not vary, and not at all where none does."""
        mean, second = self.sum / self.count, self.products / self.count
        covariance = second - mean.outer(mean)
        variance = covariance.diagonal()
        varying = variance > self.rounding * second.diagonal().clamp(min=0)
        found = {"covariance": covariance, "second_moment": second}
        if varying.any():
            deviation = variance[varying].sqrt()
            found["correlation"] = covariance[varying][:, varying] / deviation.outer(deviation)
        return found


def gram(passage: Backward) -> Tensor:
    """The Gram matrix of the images' gradients by a layer's filters, (N, N) in float64."""
    total = torch.zeros((), dtype=torch.float64, device=passage.gradient.device)
    for some in passage.by_filters_of_each_image():
        gradients = some.flatten(1).double()
        total = total + gradients @ gradients.T
    return total


def _spectrum(layer: str, matrix: str, eigenvalues: Tensor, images: int, rounding: float) -> Iterator[Measurement]:
    """eigenvalues: (k,) rising, of a positive semidefinite matrix; nothing of one that is 0."""
    kept = eigenvalues[eigenvalues > rounding * eigenvalues[-1].clamp(min=0) * len(eigenvalues)]
    if len(kept) == 0:
        return
    shares = kept / kept.sum()
    statistics = {
        "largest_eigenvalue": kept[-1],
        "smallest_eigenvalue": kept[0],
        "condition_number": kept[-1] / kept[0],
        "effective_rank": torch.exp(-(shares * shares.log()).sum()),
    }
    yield Measurement(layer, f"{matrix}_rank", float(len(kept)), None, images)
    for name, value in statistics.items():
        yield Measurement(layer, f"{matrix}_{name}", value.item(), None, images)


def _rounding(precision: str) -> float:
    """What a precision leaves of squares that should be 0, beside the others; they are summed in float64."""
    return max(epsilon(precision) ** 2, torch.finfo(torch.float64).eps)
