"""The probe `dependence` on small nets, against plain computations from the same activations."""

import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import mutual_info_score
from torch import Tensor, nn

from icbench import catalog, grid
from icbench.data import store
from icbench.data.device import DeviceData
from icbench.probes.dependence import _Choose
from icbench.probing.measurement import Measurement
from icbench.probing.subject import Subject, undisturbed
from icbench.train.state import State

Found = dict[tuple[str, str], Measurement]


def subject(folder: Path, fields: str, initialization: str = "he-normal") -> Subject:
    """A net of depth 8 for the digits before its first step."""
    file = folder / "grid.yaml"
    file.write_text(
        f"recipe: {{name: digits, initialization: {initialization}}}\n"
        f"fixed: {{dataset: digits, depth: 8, width: 8, {fields}}}\n"
    )
    ((_, config),) = grid.load(file).runs()
    recipe = config.recipe
    data = DeviceData(
        store.split(store.load("digits", None), config.split),
        pixel_maximum=catalog.load("datasets", "digits").PIXEL_MAXIMUM,
        subtract_mean=recipe.subtract_pixel_mean,
        standardize_channels=recipe.standardize_channels,
        augmentation=recipe.augmentation,
        device=torch.device("cpu"),
    )
    return Subject(config, data, State.fresh(config, torch.device("cpu")), "dependence")


def probe(at: Subject, **options: int) -> Found:
    measured = list(catalog.load("probes", "dependence").build(**options)(at))
    found = {(each.layer, each.statistic): each for each in measured}
    assert len(found) == len(measured)
    return found


@pytest.fixture(autouse=True)
def apart():
    with undisturbed(torch.device("cpu")):
        yield


def gates(found: Found, net: nn.Module) -> list[str]:
    names = [name for name, _ in net.named_modules() if (name, "zero_share_after") in found]
    assert names
    return names


def deviations(found: Found, layer: str, measured: str, truth: float) -> float:
    """By how many standard errors a figure misses."""
    figure = found[layer, measured]
    assert figure.standard_error is not None
    return abs(figure.value - truth) / figure.standard_error


# Alpha dropout drops to -1.758 and not to the mean: p / (1 + (1 - p) 1.758^2).
@pytest.mark.parametrize(
    ("fields", "initialization", "scaled"),
    [("procedures: fast-dropout", "he-normal", 0.5), ("activation: snn", "lecun-normal", 0.196)],
)
def test_behind_a_batch_norm_factors_are_those_of_theory(
    tmp_path: Path, fields: str, initialization: str, scaled: float
) -> None:
    at = subject(tmp_path, f"ordering: relu-ic-conv, dropout: 0.5, {fields}", initialization)
    found = probe(at)
    for layer in gates(found, at.net):
        assert found[layer, "predicted_mutual_information_factor"].value == 0.25
        for statistic in ("mutual_information_factor", "mutual_information_gate_aware_factor"):
            assert deviations(found, layer, statistic, 0.25) < 4
        predicted = found[layer, "predicted_correlation_factor"].value
        assert predicted == pytest.approx(scaled, abs=0.01)
        assert deviations(found, layer, "correlation_factor", predicted) < 4
        for statistic in ("entropy", "expectation"):
            predicted = found[layer, f"predicted_{statistic}_after"].value
            assert deviations(found, layer, f"{statistic}_after", predicted) < 4
        assert found[layer, "zero_share_before"].value == 0
        assert deviations(found, layer, "zero_share_after", 0.5) < 4
        assert found[layer, "mutual_information_before"].n == 1438
    errors = [
        found[layer, "mutual_information_gate_aware_factor"].standard_error or 1 for layer in gates(found, at.net)
    ]
    assert min(errors) < 0.03


def test_behind_a_relu_without_a_norm_zeros_and_means_matter(tmp_path: Path) -> None:
    """P(x = 0) is about a half, so that only the estimate that knows the gates has p^2, and r is scaled by less."""
    at = subject(tmp_path, "ordering: relu-ic-conv, norm: none, dropout: 0.5")
    found = probe(at, pairs=1000)
    layer = "units.0.branch.1.dropout"
    assert 0.2 < found[layer, "zero_share_before"].value < 0.8
    assert deviations(found, layer, "mutual_information_gate_aware_factor", 0.25) < 4
    blind = found[layer, "mutual_information_factor"]
    assert blind.standard_error is not None
    assert blind.value + 4 * blind.standard_error < 0.25
    predicted = found[layer, "predicted_correlation_factor"].value
    assert predicted < 0.45
    assert deviations(found, layer, "correlation_factor", predicted) < 4
    assert deviations(found, layer, "expectation_after", found[layer, "predicted_expectation_after"].value) < 4
    assert deviations(found, layer, "entropy_after", found[layer, "predicted_entropy_after"].value) < 4


def test_a_flat_input_against_a_plain_computation(tmp_path: Path) -> None:
    """The classifier's: all its channels, of all images, in all pairs."""
    at = subject(tmp_path, "ordering: baseline-v2")
    seen: list[Tensor] = []
    classifier = at.net.get_submodule("classifier")
    classifier.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach()))
    found = probe(at, pairs=10_000)
    x = torch.cat(seen).double().numpy()
    assert x.shape == (1438, 32)
    pairs = list(combinations(range(32), 2))
    correlations = np.corrcoef(x.T)
    squares = [correlations[i, j] ** 2 for i, j in pairs]
    # Sampling adds about 1 / N to each square.
    assert found["classifier", "correlation"].value == pytest.approx(np.mean(squares) ** 0.5, rel=0.02)
    assert found["classifier", "correlation"].value < np.mean(squares) ** 0.5
    assert found["classifier", "zero_share"].value == pytest.approx((x == 0).mean(), abs=1e-12)
    information = np.mean([plain_information(x[:, i], x[:, j]) for i, j in pairs])
    assert found["classifier", "mutual_information"].value == pytest.approx(information, abs=1e-10)


def plain_information(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    first, second = plain_codes(x), plain_codes(y)
    joint = np.unique(np.stack([first, second]), axis=1).shape[1]
    degrees = joint - len(np.unique(first)) - len(np.unique(second)) + 1
    return float(mutual_info_score(first, second)) - degrees / (2 * len(x))


def plain_codes(x: NDArray[np.float64]) -> NDArray[np.int64]:
    other = x != 0
    # 13 of 1,438 images: 8 to a pair's cell.
    bins = round(13 * other.mean())
    binned = np.full(len(x), -1)
    binned[other] = (rankdata(x[other], method="min") - 1) * bins // other.sum()
    return binned


def test_positions_are_random_and_padding_is_none_of_them(tmp_path: Path) -> None:
    """Keras' 'same' pads with a module of its own; its zeros are 12 to 23 % of what the convolution is given."""
    at = subject(tmp_path, "ordering: ic-conv-relu, dropout: 0.5")
    maps: dict[str, list[Tensor]] = {}
    padded = {"units.1.branch.1.1": "units.1.branch.1.0", "units.2.branch.1.1": "units.2.branch.1.0"}
    for layer, padding in padded.items():
        assert isinstance(at.net.get_submodule(padding), nn.ZeroPad2d)
        seen = maps.setdefault(layer, [])
        at.net.get_submodule(padding).register_forward_pre_hook(lambda _, given, to=seen: to.append(given[0]))
    found = probe(at)
    for layer, seen in maps.items():
        x = torch.cat(seen)
        share = float((x == 0).double().mean())
        assert deviations(found, layer, "zero_share", share) < 4
        # As much as of all positions: one corner alone would be further off.
        channels = x.permute(1, 0, 2, 3).flatten(1).double().numpy()
        squares = np.corrcoef(channels)[np.triu_indices(len(channels), 1)] ** 2
        assert found[layer, "correlation"].value == pytest.approx(float(squares.mean()) ** 0.5, rel=0.35)


@pytest.mark.parametrize("ordering", catalog.names("orderings"))
def test_every_weight_layer_of_every_ordering_has_its_inputs_measured(tmp_path: Path, ordering: str) -> None:
    at = subject(tmp_path, f"ordering: {ordering}")
    found = probe(at, images=300, pairs=8)
    weights = [(name, m) for name, m in at.net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weights) >= 8
    for name, module in weights:
        assert (name, "zero_share") in found
        # A grey image has one channel, so no pair.
        assert ((name, "mutual_information") in found) == (module.weight.shape[1] > 1)
    assert all(np.isfinite(each.value) and each.n == 300 for each in found.values())


def test_the_same_pairs_at_each_epoch_and_the_same_figures_again(tmp_path: Path) -> None:
    options = {"images": 200, "pairs": 4}
    first, again = (probe(subject(tmp_path, "ordering: relu-ic-conv"), **options) for _ in range(2))
    assert first == again
    elsewhere = subject(tmp_path, "ordering: relu-ic-conv")
    elsewhere.generator.manual_seed(1)
    assert probe(elsewhere, **options) != first
    channels, pairs = _Choose.at("stem", elsewhere, 4).channels(16)
    others, same = _Choose.at("stem", subject(tmp_path, "ordering: relu-ic-conv"), 4).channels(16)
    assert channels.tolist() == others.tolist()
    assert pairs.tolist() == same.tolist()


def test_dead_channels_and_nets_that_diverged(tmp_path: Path) -> None:
    at = subject(tmp_path, "ordering: relu-ic-conv, norm: none")
    with torch.no_grad():
        for name, parameter in at.net.named_parameters():
            if name.startswith("stem"):
                parameter.zero_()
    found = probe(at, images=200)
    layer = "units.0.branch.1.dropout"
    assert found[layer, "mutual_information_before"].value == 0
    assert found[layer, "entropy_after"].value == 0
    assert (layer, "mutual_information_factor") not in found
    assert (layer, "correlation_before") not in found
    with torch.no_grad():
        next(at.net.parameters()).fill_(float("nan"))
    assert {layer for layer, _ in probe(at, images=200)} == {"stem.0"}


def test_it_is_quick(tmp_path: Path) -> None:
    """CPU seconds of this process; about 0.4 on a core of 2020."""
    at = subject(tmp_path, "ordering: relu-ic-conv")
    before = time.process_time()
    probe(at)
    assert time.process_time() - before < 4
