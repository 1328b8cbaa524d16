"""Probes: the contract that all keep, and each against an independent way to compute the same."""

import gc
import math
import weakref
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train import digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from icbench import catalog, grid
from icbench.config import RunConfig
from icbench.data.device import DeviceData
from icbench.probes import conditioning, sharpness, smoothness, zigzag
from icbench.probing.landscape import Landscape, flat
from icbench.probing.layers import Backward, Forward, backwards, filters, forwards, learned, weight_layers
from icbench.probing.measurement import Measurement, mean_of
from icbench.probing.subject import Subject, undisturbed
from icbench.train.state import State

GRID = """
recipe: {{name: digits, epochs: 2, batch_size: 100}}
fixed: {{dataset: digits, {fields}}}
"""
RESIDUAL = "depth: 8, width: 4"
NETS = {
    "baseline": f"{RESIDUAL}, ordering: baseline",
    "fast dropout": f"{RESIDUAL}, ordering: relu-ic-conv, dropout: 0.2, procedures: fast-dropout",
    "virtual norm, bfloat16": f"{RESIDUAL}, ordering: ic-conv-relu, norm: virtual, precision: bfloat16",
    "no norm, li2018": f"{RESIDUAL}, ordering: li2018, norm: none",
    "cosine weights": f"{RESIDUAL}, ordering: relu-ic-conv, weight: cosine, norm: layer",
    "weight norm, float64": f"{RESIDUAL}, ordering: conv-relu-ic, weight: weight-norm, precision: float64",
    "lstm": "block: lstm, depth: 1, width: 8, ordering: baseline, norm: recurrent-bn",
}
PROBES = catalog.names("probes")
ROUNDING = conditioning._rounding("float32")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def configuration(fields: str, folder: Path) -> RunConfig:
    file = folder / "grid.yaml"
    file.write_text(GRID.format(fields=fields))
    return grid.load(file).runs()[0][1]


def trained(config: RunConfig, data: DeviceData) -> State:
    """A state after an epoch."""
    state = State.fresh(config, data.device)
    virtual = [module for module in state.net.modules() if hasattr(module, "take")]
    for module in virtual:
        plan = data.plan_unchanged(torch.Generator())
        module.take(data.train_batch(plan, 0, len(module.images))[0])  # type: ignore[operator, arg-type]
    subject = Subject(config, data, state, "to train")
    for _ in subject.steps(20):
        pass
    state.take(subject._copy)
    state.epoch = 2
    return state


def measured(config: RunConfig, data: DeviceData, state: State, probe: str, **options: Any) -> list[Measurement]:
    with undisturbed(data.device):
        subject = Subject(config, data, state, probe)
        return list(catalog.load("probes", probe).build(**options)(subject))


# Such as take little time and yet come to everything.
SMALL = {
    "conditioning": {"images": 200, "fisher_images": 32},
    "effective-lr": {"steps": 3},
    "magnitudes": {"images": 200},
    "sharpness": {"images": 16, "iterations": 3, "vectors": 2},
    "smoothness": {"moments": 2, "spacing": 2, "points": 2},
    "zigzag": {"images": 400, "single_images": 100, "steps": 3},
}


def options(probe: str) -> dict[str, Any]:
    return SMALL.get(probe, {})


def everything(state: State) -> list[Tensor]:
    """All that a training is, copied."""
    optimizer = [v for s in state.optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    values = [*state.net.state_dict().values(), *optimizer, state.sums, torch.get_rng_state()]
    return [value.detach().clone() for value in values]


@pytest.fixture(scope="module", params=NETS.values(), ids=NETS)
def training(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.set_num_threads(1)
    config = configuration(request.param, tmp_path_factory.mktemp("grid"))
    data = digits(config)
    return config, data, trained(config, data)


@pytest.mark.parametrize("probe", PROBES)
class TestContract:
    """What every probe must do with every net."""

    def test_measures_and_leaves_the_training_alone(
        self, probe: str, training: tuple[RunConfig, DeviceData, State]
    ) -> None:
        before = everything(training[2])
        found = measured(*training, probe, **options(probe))
        assert found
        names = {name for name, _ in training[2].net.named_modules()}
        for each in found:
            assert each.layer in names
            assert math.isfinite(each.value), each
            assert each.standard_error is None or 0 <= each.standard_error < math.inf
            assert each.n >= 1
        assert len({(each.layer, each.statistic) for each in found}) == len(found)
        assert all(torch.equal(a, b) for a, b in zip(before, everything(training[2]), strict=True))
        assert found == measured(*training, probe, **options(probe))

    def test_survives_a_training_that_diverged(self, probe: str, tmp_path: Path) -> None:
        config = configuration(NETS["baseline"], tmp_path)
        data = digits(config)
        state = State.fresh(config, data.device)
        with torch.no_grad():
            next(state.net.parameters()).fill_(math.nan)
        measured(config, data, state, probe, **options(probe))


class Small(nn.Module):
    """Convolutions, strided and padded in each way, and a classifier; no image's result depends on another."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1),
            nn.Tanh(),
            nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, 2)),
            nn.Tanh(),
        )
        self.classifier = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.body(x).mean((2, 3)))
        return y


@pytest.fixture
def small() -> tuple[Small, Tensor, Tensor]:
    torch.manual_seed(0)
    return Small().double(), torch.randn(5, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])


def passages(net: nn.Module, x: Tensor, labels: Tensor) -> dict[str, Backward]:
    found: dict[str, Backward] = {}
    with backwards(net, lambda passage: found.update({passage.at.name: passage})):
        cross_entropy(net(x), labels).backward()  # type: ignore[no-untyped-call]
    return found


class TestLayers:
    def test_gradients_of_images_and_of_the_batch_are_autograds(self, small: tuple[Small, Tensor, Tensor]) -> None:
        net, x, labels = small
        found = passages(net, x, labels)
        assert set(found) == {"body.0", "body.2.1", "classifier"}
        for name, layer in weight_layers(net).items():
            assert layer.weight.grad is not None
            torch.testing.assert_close(found[name].by_filters(), layer.weight.grad.flatten(1))
            images = torch.cat(list(found[name].by_filters_of_each_image()), dim=1)
            for image, gradient in enumerate(images):
                loss = cross_entropy(net(x[image : image + 1]), labels[image : image + 1])
                torch.testing.assert_close(gradient, torch.autograd.grad(loss, layer.weight)[0].flatten(1))

    @pytest.mark.parametrize("norm", ["batch", "virtual"])
    def test_they_are_in_whole_nets_too(self, norm: str, tmp_path: Path) -> None:
        """With dropout, batch statistics, and a reference batch, which takes its part in the batch's gradient alone."""
        config = configuration(f"{RESIDUAL}, ordering: relu-ic-conv, norm: {norm}, precision: float64", tmp_path)
        data = digits(config)
        subject = Subject(config, data, trained(config, data), "magnitudes")
        seen: list[Backward] = []
        with backwards(subject.net, seen.append):
            subject.loss(*subject.images(0, 40)).backward()  # type: ignore[no-untyped-call]
        layers = weight_layers(subject.net)
        assert {passage.at.name for passage in seen} == set(layers)
        for passage in seen:
            gradient = layers[passage.at.name].weight.grad
            assert gradient is not None
            torch.testing.assert_close(passage.by_filters(), gradient.flatten(1))
            images = torch.cat(list(passage.by_filters_of_each_image()), dim=1)
            assert len(images) == len(passage.at.activations()) == len(passage.by_outputs()) == 40
            if norm == "batch":
                torch.testing.assert_close(images.mean(0), gradient.flatten(1))

    def test_rows_come_some_at_a_time(
        self, small: tuple[Small, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = conditioning.gram(passages(*small)["body.2.1"])
        monkeypatch.setattr("icbench.probing.layers._AT_ONCE", 1)
        passage = passages(*small)["body.2.1"]
        assert len(list(passage.by_filters_of_each_image())) == 4
        torch.testing.assert_close(conditioning.gram(passage), whole)

    @pytest.mark.parametrize("weight", catalog.names("weights"))
    def test_filters_are_what_patches_are_multiplied_with(self, weight: str) -> None:
        """The gradient by them, taken back through the parametrisation, is that by the parameter."""
        torch.manual_seed(0)
        layer = catalog.load("weights", weight).build(nn.Conv2d(3, 4, 3, padding=1)).double()
        x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
        seen: list[Backward] = []
        with backwards(nn.Sequential(layer), seen.append):
            layer(x).sin().mean().backward()
        parameter = learned(layer)
        before = filters(layer)
        change = torch.randn_like(parameter) * 1e-6
        with torch.no_grad():
            parameter.add_(change)
        moved = filters(layer) - before
        assert parameter.grad is not None
        # Means of sin, not of losses: the sums' factor of the batch is in deltas alone.
        torch.testing.assert_close(
            (seen[0].by_filters() * moved).sum(), (parameter.grad * change).sum(), rtol=1e-4, atol=1e-13
        )

    def test_zeros_of_a_padding_are_no_activations(self, small: tuple[Small, Tensor, Tensor]) -> None:
        net, x, _ = small
        seen: dict[str, Forward] = {}
        with forwards(net, lambda passage: seen.update({passage.name: passage})):
            net(x)
        assert seen["body.2.1"].x.shape == (5, 3, 7, 7)
        torch.testing.assert_close(seen["body.2.1"].activations(), net.body[:2](x))

    def test_nothing_keeps_a_graph_alive(self, small: tuple[Small, Tensor, Tensor]) -> None:
        """But for the garbage collector, which a GPU's memory does not wait for."""
        net, x, labels = small
        outputs: list[weakref.ref[Tensor]] = []
        net.body[0].register_forward_hook(lambda _, __, y: outputs.append(weakref.ref(y)))
        gc.disable()
        try:
            with backwards(net, lambda _: None):
                cross_entropy(net(x), labels).backward()  # type: ignore[no-untyped-call]
            assert outputs[0]() is None
        finally:
            gc.enable()


class TestConditioning:
    def test_moments_are_numpys(self) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(1, 1, (6, 4, 3, 3)) @ rng.normal(size=(3, 3))
        moments = conditioning.Moments(4, torch.device("cpu"), ROUNDING)
        for part in np.split(x, 2):
            moments.add(torch.from_numpy(part))
        rows = x.transpose(0, 2, 3, 1).reshape(-1, 4)
        expected = {
            "covariance": np.cov(rows.T, bias=True),
            "correlation": np.corrcoef(rows.T),
            "second_moment": rows.T @ rows / len(rows),
        }
        for name, matrix in moments.matrices().items():
            np.testing.assert_allclose(matrix.numpy(), expected[name], rtol=1e-10)

    def test_a_channel_that_never_varies_has_no_correlation(self) -> None:
        moments = conditioning.Moments(3, torch.device("cpu"), ROUNDING)
        x = torch.randn(50, 3, 2, 2)
        x[:, 1] = 0.7
        moments.add(x)
        assert moments.matrices()["correlation"].shape == (2, 2)

    def test_the_gram_matrix_has_the_blocks_eigenvalues(self, small: tuple[Small, Tensor, Tensor]) -> None:
        net, x, labels = small
        for name, passage in passages(*small).items():
            gradients = []
            for image in range(len(x)):
                loss = cross_entropy(net(x[image : image + 1]), labels[image : image + 1])
                weight = weight_layers(net)[name].weight
                gradients.append(torch.autograd.grad(loss, weight)[0].flatten().numpy())
            block = np.mean([np.outer(g, g) for g in gradients], axis=0)
            matrix = conditioning.gram(passage)
            most = min(len(x), block.shape[0])
            np.testing.assert_allclose(
                np.linalg.eigvalsh(matrix.numpy() / len(x))[-most:],
                np.linalg.eigvalsh(block)[-most:],
                rtol=1e-8,
                atol=1e-15,
            )

    def test_a_spectrum_in_numbers(self) -> None:
        values = torch.tensor([0.0, 1e-17, 1.0, 1.0, 4.0], dtype=torch.float64)
        found = {m.statistic: m.value for m in conditioning._spectrum("", "fisher", values, 7, ROUNDING)}
        shares = np.array([1 / 6, 1 / 6, 4 / 6])
        assert found == pytest.approx(
            {
                "fisher_rank": 3,
                "fisher_largest_eigenvalue": 4,
                "fisher_smallest_eigenvalue": 1,
                "fisher_condition_number": 4,
                "fisher_effective_rank": math.exp(-(shares * np.log(shares)).sum()),
            }
        )

    @pytest.mark.parametrize(("precision", "rank"), [("float32", 4), ("tf32", 3), ("bfloat16", 3)])
    def test_what_a_precision_rounds_is_no_rank(self, precision: str, rank: int) -> None:
        """Four channels of three dimensions, each rounded to bfloat16: float32's would be of rank four."""
        rounding = conditioning._rounding(precision)
        moments = conditioning.Moments(4, torch.device("cpu"), rounding)
        x = torch.randn(500, 3, 2, 2, generator=torch.Generator().manual_seed(0))
        bits = torch.bfloat16 if precision != "tf32" else torch.float16  # which has tf32's ten bits
        moments.add(torch.cat([x, x[:, :1] + x[:, 1:2]], dim=1).to(bits).float())
        eigenvalues = torch.linalg.eigvalsh(moments.matrices()["second_moment"])
        found = {m.statistic: m.value for m in conditioning._spectrum("", "of", eigenvalues, 500, rounding)}
        assert found["of_rank"] == rank

    def test_fisher_is_the_gauss_newton_matrix_on_average(self, tmp_path: Path) -> None:
        """Of the classifier: the mean of (diag p - p p') x (features features'), p the prediction."""
        config = configuration(NETS["baseline"], tmp_path)
        data = digits(config)
        state = trained(config, data)
        images = 400
        found = {
            (m.layer, m.statistic): m.value for m in measured(config, data, state, "conditioning", fisher_images=images)
        }
        subject = Subject(config, data, state, "conditioning")
        seen: dict[str, Forward] = {}
        with forwards(subject.net, lambda passage: seen.update({passage.name: passage})), torch.no_grad():
            chances = subject.logits(subject.images(0, images)[0]).softmax(1).double()
        features = seen["classifier"].activations().flatten(1).double()
        each = torch.diag_embed(chances) - chances[:, :, None] * chances[:, None, :]
        exact = torch.einsum("nij,nk,nl->ikjl", each, features, features).reshape(2 * [features.shape[1] * 10]) / images
        largest = torch.linalg.eigvalsh(exact)[-1].item()
        assert found["classifier", "fisher_largest_eigenvalue"] == pytest.approx(largest, rel=0.15)


class TestZigzag:
    def linear(self, x: Tensor, seed: int = 0) -> Backward:
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(x.shape[1], 50))
        return passages(net, x, torch.randint(0, 50, (len(x),)))["0"]

    def test_non_negative_inputs_agree_exactly(self) -> None:
        passage = self.linear(torch.randn(64, 100).relu())
        assert zigzag.of_positions(passage) == [1.0] * 64
        assert zigzag.of_images(passage) == [1.0] * 64

    def test_ic_inputs_agree_little(self) -> None:
        """ReLU, normalised, then gated: the positive quarter stands against the rest, which is one constant."""
        x = torch.randn(4000, 100).relu()
        gated = nn.functional.dropout((x - x.mean(0)) / x.std(0), 0.05)
        agreement = zigzag.of_positions(self.linear(gated))
        # A normal's ReLU is above its mean with probability P(z > 1/sqrt(2 pi)).
        above = 0.5 * math.erfc(1 / math.sqrt(2 * math.pi) / math.sqrt(2))
        assert np.mean(agreement) == pytest.approx(1 - above, abs=0.01)
        assert zigzag.of_images(self.linear(gated)) == pytest.approx(agreement)

    def test_a_batch_washes_agreement_out(self) -> None:
        """A row's elements are Gaussians with one mean, itself one: of inputs of mean 0 that is 0, and what is left is
        the chance of d signs, 1/2 + 1/sqrt(2 pi d); of ReLUs it is r times their deviation, r = mean/deviation of a
        ReLU, and 1/2 + atan(r)/pi of the signs agree.
        """
        x = torch.randn(64, 300).relu()
        rows = {}
        for name, inputs in (("relu", x), ("ic", (x - x.mean(0)) / x.std(0))):
            torch.manual_seed(1)
            delta = torch.randn(64, 2000)  # of a linear layer whose outputs are asked for something at random
            rows[name] = zigzag.sign_agreement(delta.T @ inputs).mean().item()
        assert rows["ic"] == pytest.approx(0.5 + 1 / math.sqrt(2 * math.pi * 300), abs=0.003)
        ratio = math.sqrt(1 / (2 * math.pi)) / math.sqrt((1 - 1 / math.pi) / 2)
        assert rows["relu"] == pytest.approx(0.5 + math.atan(ratio) / math.pi, abs=0.01)

    def test_counts_are_those_of_the_patches(self, small: tuple[Small, Tensor, Tensor]) -> None:
        passage = passages(*small)["body.0"]
        patches = nn.functional.unfold(small[1], 3, padding=1)
        positive, negative = passage.at.positive_and_negative()
        assert torch.equal(positive, (patches > 0).sum(1).float())
        assert torch.equal(negative, (patches < 0).sum(1).float())
        elements = passage.deltas()[:, :, None, :] * patches[:, None]
        agreement = zigzag.sign_agreement(elements.movedim(3, 1))
        assert zigzag.of_positions(passage) == pytest.approx(agreement.mean((1, 2)).tolist())

    def test_relu_inputs_agree_in_a_net(self, tmp_path: Path) -> None:
        config = configuration(NETS["baseline"], tmp_path)
        data = digits(config)
        found = measured(config, data, trained(config, data), "zigzag", **SMALL["zigzag"])
        positions = {m.layer: m.value for m in found if m.statistic == "position_sign_agreement"}
        assert {layer for layer, value in positions.items() if value == 1} == set(positions) - {"stem.0"}

    def test_a_path_in_numbers(self) -> None:
        path = zigzag.Path(torch.zeros(2, dtype=torch.float64))
        for place in ([3.0, 0.0], [3.0, 4.0], [3.0, 8.0]):
            path.go(torch.tensor(place, dtype=torch.float64))
        cosine, ratio = path.measured("")
        assert (cosine.value, cosine.n) == (0.5, 2)
        assert (ratio.value, ratio.n) == (pytest.approx(11 / math.hypot(3, 8)), 3)


class Quadratic(nn.Module):
    """Logits (w'A w, 0): what Landscape sees is log(1 + exp(-w'A w)) for label 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64))
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        value = (self.weight**2 * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)).sum() * 0.01
        return torch.stack([value, torch.zeros_like(value)]).expand(len(x), 2)


class TestSharpness:
    def exact(self, net: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
        names = [name for name, _ in net.named_parameters()]

        def loss(*values: Tensor) -> Tensor:
            return cross_entropy(torch.func.functional_call(net, dict(zip(names, values, strict=True)), x), labels)

        blocks = torch.autograd.functional.hessian(loss, tuple(p.detach() for p in net.parameters()))
        sizes = [p.numel() for p in net.parameters()]
        return torch.cat(
            [torch.cat([b.reshape(m, n) for b, n in zip(row, sizes, strict=True)], dim=1)
             for row, m in zip(blocks, sizes, strict=True)]
        )  # fmt: skip

    def test_products_are_those_of_autograds_hessian(self, small: tuple[Small, Tensor, Tensor]) -> None:
        net, x, labels = small
        hessian = self.exact(net, x, labels)
        vector = torch.randn(len(hessian), dtype=torch.float64)
        torch.testing.assert_close(sharpness.hessian_product(net, x, labels)(vector), hessian @ vector)
        differences = sharpness._by_differences(Landscape(net, x, labels))(vector)
        torch.testing.assert_close(differences, hessian @ vector, rtol=1e-3, atol=1e-4)

    def test_differences_of_a_whole_nets_gradients_are_as_good(self, tmp_path: Path) -> None:
        config = configuration(f"{NETS['baseline']}, precision: float64", tmp_path)
        data = digits(config)
        subject = Subject(config, data, trained(config, data), "sharpness")
        images, labels = subject.images(0, 50)
        exact = sharpness.hessian_product(subject.net, images, labels)
        vector = torch.randn(sum(p.numel() for p in subject.net.parameters()), dtype=torch.float64)
        product = exact(vector)
        differences = sharpness._by_differences(Landscape(subject.net, images, labels))(vector)
        assert torch.linalg.vector_norm(differences - product) < 1e-2 * torch.linalg.vector_norm(product)

    def test_the_largest_eigenvalue_and_how_far_it_may_be_off(self, small: tuple[Small, Tensor, Tensor]) -> None:
        net, x, labels = small
        eigenvalues = torch.linalg.eigvalsh(self.exact(net, x, labels))
        start = torch.randn(len(eigenvalues), dtype=torch.float64)
        product = sharpness.hessian_product(net, x, labels)
        for iterations in (2, 4, 30):
            found = sharpness.largest_eigenvalue(product, start, iterations, tolerance=1e-6)
            assert found.value <= eigenvalues[-1] + 1e-9
            assert (eigenvalues - found.value).abs().min() <= found.residual + 1e-9
        assert found.value == pytest.approx(eigenvalues[-1].item(), rel=1e-6)

    def test_lanczos_of_a_matrix_with_few_eigenvalues_ends(self) -> None:
        matrix = torch.diag(torch.tensor([1.0, 1.0, 3.0, 3.0], dtype=torch.float64))
        found = sharpness.largest_eigenvalue(lambda v: matrix @ v, torch.ones(4, dtype=torch.float64), 10)
        assert (found.value, found.products) == (pytest.approx(3), 2)
        assert sharpness.largest_eigenvalue(torch.zeros_like, torch.ones(4, dtype=torch.float64), 10).value == 0

    def test_hutchinson_is_exact_of_a_diagonal_matrix(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """And only with signs: the probe's own vectors are asked."""
        config = configuration(NETS["baseline"], tmp_path)
        data = digits(config)
        monkeypatch.setattr(sharpness, "hessian_product", lambda *_: lambda v: v * torch.arange(len(v)).double())
        state = trained(config, data)
        size = sum(p.numel() for p in state.net.parameters())
        found = {m.statistic: m for m in measured(config, data, state, "sharpness", vectors=3)}
        assert found["hessian_trace"][2:] == (size * (size - 1) / 2, 0, 3)
        assert found["hessian_largest_eigenvalue"].value <= size - 1

    def test_hutchinson_is_within_its_error(self) -> None:
        rng = np.random.default_rng(0)
        half = rng.normal(size=(60, 60))
        matrix = torch.from_numpy(half + half.T + 2 * np.eye(60))
        signs = torch.from_numpy(rng.choice([-1.0, 1.0], (400, 60)))
        (trace,) = mean_of("", "trace", sharpness.trace_estimates(lambda v: matrix @ v, signs))
        assert trace.standard_error is not None
        assert abs(trace.value - matrix.trace().item()) < 3 * trace.standard_error
        # The variance is twice the squares beside the diagonal (Hutchinson 1990).
        beside = (matrix - matrix.diag().diag()).square().sum().item()
        assert trace.standard_error == pytest.approx(math.sqrt(2 * beside / 400), rel=0.15)

    @pytest.mark.parametrize("gates", [False, True])
    def test_a_net_without_second_derivatives_is_measured_alike(self, tmp_path: Path, gates: bool) -> None:
        """Layer norm's gradient is icbench's own, and so is that of dropout drawn by gaps."""
        fields = f"{RESIDUAL}, ordering: relu-ic-conv, dropout: 0.2, procedures: fast-dropout"
        config = configuration(f"{fields}, norm: layer", tmp_path)
        data = digits(config)
        state = trained(config, data)
        found = {m.statistic: m.value for m in measured(config, data, state, "sharpness", images=32, gates=gates)}
        assert found["hessian_largest_eigenvalue"] > 0
        assert found["hessian_residual"] < 0.2 * found["hessian_largest_eigenvalue"]


class TestLandscape:
    def test_every_look_finds_gates_and_buffers_as_they_were(self) -> None:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))
        before = deepcopy(net.state_dict())
        images, labels = torch.randn(10, 2, 2, 2), torch.arange(10) % 3
        landscape = Landscape(net, images, labels)
        random = torch.get_rng_state()
        first, again = landscape.here(), landscape.here()
        assert first[0] == again[0]
        assert torch.equal(flat(first[1]), flat(again[1]))
        assert torch.equal(torch.get_rng_state(), random)
        torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
        torch.rand(1)
        assert landscape.here()[0] == first[0]
        assert Landscape(net, images, labels, seed=1).here()[0] != first[0]

    def test_smoothness_of_a_known_function(self) -> None:
        net = Quadratic()
        landscape = Landscape(net, torch.zeros(1, 1), torch.tensor([0]))
        weight, scale = net.weight.detach().numpy().copy(), np.array([1.0, 2.0, 3.0]) * 0.01

        def loss(w: Any) -> Any:
            return np.log1p(np.exp(-(w**2 * scale).sum()))

        def gradient(w: Any) -> Any:
            return -2 * scale * w / (1 + np.exp((w**2 * scale).sum()))

        first = gradient(weight)
        found = smoothness._along(landscape, 0.3, [0.5, 2.0])
        points = [weight - f * 0.3 * first / np.linalg.norm(first) for f in (0.5, 2.0)]
        changes = [np.linalg.norm(gradient(p) - first) for p in points]
        assert found == pytest.approx(
            {
                "loss_minimum": min(map(loss, points)),
                "loss_maximum": max(map(loss, points)),
                "loss_range": np.ptp([loss(p) for p in points]),
                "gradient_norm": np.linalg.norm(first),
                "gradient_change": max(changes),
                "relative_gradient_change": max(changes) / np.linalg.norm(first),
                "beta_smoothness": max(changes[0] / 0.15, changes[1] / 0.6),
            }
        )
        np.testing.assert_array_equal(net.weight.detach().numpy(), weight)

    def test_smoothness_does_not_change_what_is_trained(self, tmp_path: Path) -> None:
        config = configuration(NETS["fast dropout"], tmp_path)
        data = digits(config)
        state = trained(config, data)
        ends = []
        for probe in (True, False):
            subject = Subject(config, data, state, "smoothness")
            if probe:
                list(smoothness.build(moments=2, spacing=2)(subject))
            else:
                list(subject.steps(4))
            ends.append(flat(list(subject.net.parameters())))
        assert torch.equal(*ends)


class TestEffectiveRate:
    def test_a_weight_before_a_norm_has_no_radial_gradient(self, tmp_path: Path) -> None:
        """Cosine weights are invariant in length by construction; a net without any norm is not."""
        cosines = {}
        for name, fields in (("cosine", "weight: cosine"), ("none", "norm: none")):
            config = configuration(f"{RESIDUAL}, ordering: baseline, precision: float64, {fields}", tmp_path)
            data = digits(config)
            found = measured(config, data, trained(config, data), "effective-lr", steps=3)
            cosines[name] = [abs(m.value) for m in found if m.statistic == "radial_gradient_cosine"][:-1]
        assert max(cosines["cosine"]) < 1e-12
        assert min(cosines["none"]) > 1e-4

    def test_rates_and_steps_are_those_of_the_optimiser(self, tmp_path: Path) -> None:
        config = configuration(f"{NETS['baseline']}, precision: float64", tmp_path)
        data = digits(config)
        state = trained(config, data)
        found = {(m.layer, m.statistic): m.value for m in measured(config, data, state, "effective-lr", steps=1)}
        subject = Subject(config, data, state, "effective-lr")
        before = weight_layers(subject.net)["stem.0"].weight.detach().flatten().numpy().copy()
        list(subject.steps(1))
        after = weight_layers(subject.net)["stem.0"].weight.detach().flatten().numpy()
        length = np.linalg.norm(before)
        # The recipe's rate after its step at 0.6 of two epochs.
        assert found["stem.0", "effective_learning_rate"] == pytest.approx(3e-4 / length**2)
        assert found["stem.0", "relative_update"] == pytest.approx(np.linalg.norm(after - before) / length)
        angle = math.acos(before @ after / length / np.linalg.norm(after))
        assert found["stem.0", "update_angle"] == pytest.approx(angle, rel=1e-5)


def test_magnitudes_are_root_mean_squares(tmp_path: Path) -> None:
    config = configuration(f"{NETS['baseline']}, precision: float64", tmp_path)
    data = digits(config)
    state = trained(config, data)
    found = {(m.layer, m.statistic): m for m in measured(config, data, state, "magnitudes", images=100)}
    subject = Subject(config, data, state, "magnitudes")
    images, labels = subject.images(0, 100)
    stem = weight_layers(subject.net)["stem.0"]
    kept: list[Tensor] = []
    stem.register_forward_hook(lambda _, inputs, y: kept.extend([inputs[0], y]))
    loss = subject.loss(images, labels)
    by_output, by_weight = torch.autograd.grad(loss, [kept[1], stem.weight])
    expected = {
        "weight_rms": stem.weight,
        "input_rms": images,
        "output_rms": kept[1],
        "output_gradient_rms": by_output * 100,
        "weight_gradient_rms": by_weight,
    }
    for statistic, values in expected.items():
        assert found["stem.0", statistic].value == pytest.approx(values.square().mean().sqrt().item())
        assert found["stem.0", statistic].n == 1
