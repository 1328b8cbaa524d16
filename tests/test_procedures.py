"""What procedures do around the steps of a training, by their closed forms and by torch's own."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train import Watcher, bits, digits, same
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.optim.swa_utils import update_bn

from icbench import catalog, grid, wording
from icbench.config import RunConfig, Variant
from icbench.nets.build import build
from icbench.nets.reference import ReferenceBatch
from icbench.procedure import Moment, batch_sizes, together
from icbench.train.course import Course
from icbench.train.evaluation import Stopped, evaluate
from icbench.train.loop import train
from icbench.train.state import State

GRID = """
recipe: {recipe}
fixed:
  {{dataset: digits, depth: 8, width: 4, ordering: {ordering}, dropout: 0.3, norm: {norm}, procedures: {procedures}}}
"""
RECIPE = "{name: digits, epochs: 3, batch_size: 200, learning_rate: 0.01, learning_rate_steps: []}"
STEPS = 8  # of 1,438 images in batches of 200


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., RunConfig]:
    def load(procedures: str, recipe: str = RECIPE, ordering: str = "conv-relu-ic", norm: str = "batch") -> RunConfig:
        file = tmp_path / "grid.yaml"
        file.write_text(GRID.format(procedures=procedures, recipe=recipe, ordering=ordering, norm=norm))
        return grid.load(file).runs()[0][1]

    return load


Load = Callable[..., RunConfig]


@pytest.fixture
def steps() -> Iterator[list[float]]:
    """The learning rate of every step of every optimiser."""
    rates: list[float] = []
    hook = register_optimizer_step_post_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    yield rates
    hook.remove()


def finished(config: RunConfig, folder: Path) -> State:
    folder.mkdir(exist_ok=True)
    state, diverged = train(config, digits(config), folder / "checkpoint.pt", Watcher())
    assert not diverged
    return state


def test_the_rate_warms_up_step_by_step(load: Load, steps: list[float], tmp_path: Path) -> None:
    config = load("[{name: warm-up, epochs: 1.5, start: 0.25}]")
    state = finished(config, tmp_path)
    warm = 1.5 * STEPS
    expected = [0.01 * (0.25 + 0.75 * min(1, step / warm)) for step in range(3 * STEPS)]
    assert steps == pytest.approx(expected, rel=1e-12)
    assert [row.learning_rate for row in state.rows] == steps[STEPS - 1 :: STEPS]


def test_the_batch_grows_where_the_rate_would_fall(load: Load, steps: list[float], tmp_path: Path) -> None:
    recipe = RECIPE.replace("learning_rate_steps: []}", "learning_rate_steps: [[1, 0.5], [2, 0.1]]}")
    config = load("[{name: bigger-batch, largest: 1000}]", recipe)
    assert batch_sizes(config.recipe, config.procedures, 1438) == [200, 400, 1000]
    finished(config, tmp_path)
    # 8 steps of 200, 4 of 400, 2 of 1,000: of the factor of 20 a half remains for the last rate.
    assert steps == pytest.approx(8 * [0.01] + 4 * [0.01] + 2 * [0.01 * 0.05 * 1000 / 200], rel=1e-12)


def test_a_batch_that_may_not_grow_stays(load: Load) -> None:
    """Where nothing would change, the procedure is left out of the run id."""
    recipe = RECIPE.replace("learning_rate_steps: []}", "learning_rate_steps: [[1, 0.5]]}")
    assert load("[{name: bigger-batch, largest: 100}]", recipe).run_id == load("[]", recipe).run_id
    assert load("bigger-batch").run_id == load("[]").run_id
    grown = (Variant("bigger-batch", (("largest", 100),)),)
    assert batch_sizes(load("[]", recipe).recipe, grown, 1438) == [200, 200, 200]


def test_a_course_counts_its_steps(load: Load) -> None:
    recipe = RECIPE.replace("learning_rate_steps: []}", "learning_rate_steps: [[1, 0.5]]}")
    course = Course(load("bigger-batch", recipe), 1438)
    assert [course.steps(epoch) for epoch in (1, 2, 3)] == [8, 4, 4]
    assert [course.steps_before(epoch) for epoch in (1, 2, 3)] == [0, 8, 12]
    assert course.batch(1, 7) == (1400, 1438)
    assert course.batch(2, 3) == (1200, 1438)
    assert [course.moment(2, step).done for step in (0, 3)] == pytest.approx([1 / 3, (1 + 3 / 4) / 3])


def test_batches_are_never_larger_than_the_training_images(load: Load) -> None:
    recipe = RECIPE.replace("learning_rate_steps: []}", "learning_rate_steps: [[1, 0.001]]}")
    config = load("bigger-batch", recipe)
    assert batch_sizes(config.recipe, config.procedures, 1438) == [200, 1438, 1438]
    moment = Moment(config.recipe, 2, 0.5, 1438)
    rate = together(config.procedures).learning_rate(0.01 * 0.001, moment)
    assert rate == pytest.approx(0.01 * 0.001 * 1438 / 200)


def test_longer_training_takes_as_many_steps(load: Load) -> None:
    recipe = "{name: digits, epochs: 10, batch_size: 512, learning_rate: 0.1, learning_rate_steps: [[5, 0.1]]}"
    longer, usual = load("longer-training", recipe).recipe, load("[]", recipe).recipe
    assert longer.epochs == 40
    assert longer.learning_rate == 0.1 * 2
    assert longer.learning_rate_steps == ((20, 0.1),)
    assert usual.epochs == 10
    assert longer.label.startswith("digits ")
    assert longer.label.endswith(" batch_size=512 longer-training epochs=40 learning_rate=0.2")
    images = 50_000
    assert 40 * math.ceil(images / 512) == pytest.approx(10 * images / 128, rel=0.01)


@pytest.mark.parametrize(
    ("procedure", "rate"),
    [
        ("{name: linear-dropout, start: 0.5}", lambda t: 0.3 * (0.5 + 0.5 * t)),
        ("curriculum-dropout", lambda t: 0.3 * (1 - math.exp(-10 * t))),
        ("{name: curriculum-dropout, steepness: 2}", lambda t: 0.3 * (1 - math.exp(-2 * t))),
    ],
)
@pytest.mark.parametrize("activation", ["relu", "snn"])
def test_dropout_rates_rise(
    procedure: str, rate: Callable[[float], float], activation: str, load: Load, tmp_path: Path
) -> None:
    config = load(procedure)
    config = replace(config, activation=replace(config.activation, name=activation))
    seen: list[set[float]] = []

    def look(module: nn.Module, *_: object) -> None:
        if module.training and type(module).__name__ == "ResNet":
            seen.append({m.p for m in module.modules() if isinstance(m, nn.Dropout | nn.AlphaDropout)})

    hook = nn.modules.module.register_module_forward_pre_hook(look)
    try:
        finished(config, tmp_path)
    finally:
        hook.remove()
    assert all(len(rates) == 1 for rates in seen)
    expected = [rate(step / (3 * STEPS)) for step in range(3 * STEPS)]
    assert [p for rates in seen for p in rates] == pytest.approx(expected, rel=1e-12)


def test_a_channel_s_gates_are_one(load: Load) -> None:
    net = build(load("channel-gates")).train()
    gates = [module for module in net.modules() if isinstance(module, nn.Dropout2d)]
    assert len(gates) == 1 + 2 * 3
    assert not [module for module in net.modules() if type(module) is nn.Dropout]
    kept = gates[0](torch.ones(50, 4, 3, 3))
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert torch.equal(kept.amax((2, 3)), kept.amin((2, 3)))


def test_channel_gates_of_li2018_have_nothing_to_do(load: Load) -> None:
    with pytest.raises(ValueError, match="no dropout on maps"):
        build(load("channel-gates", ordering="li2018"))


def test_singular_values_are_bounded(load: Load, tmp_path: Path) -> None:
    config = load("[{name: svb, every: 4, factor: 1.2}]")
    inside = []

    def look(optimizer: Any, *_: object) -> None:
        kernels = [p.detach().flatten(1).numpy() for p in optimizer.param_groups[0]["params"]]
        values = np.concatenate([np.linalg.svd(kernel, compute_uv=False) for kernel in kernels])
        inside.append(bool(values.max() <= 1.2 + 1e-5 and values.min() >= 1 / 1.2 - 1e-5))

    hook = register_optimizer_step_post_hook(look)
    try:
        state = finished(config, tmp_path)
    finally:
        hook.remove()
    assert not any(inside)  # right after a step of the optimiser, before the projection, they have left
    for module in state.net.modules():  # the last step is the 24th
        if isinstance(module, nn.Conv2d):
            values = np.linalg.svd(module.weight.detach().flatten(1).numpy(), compute_uv=False)
            assert values.max() <= 1.2 + 1e-5
            assert values.min() >= 1 / 1.2 - 1e-5


@pytest.mark.parametrize("size", [359, 100])
def test_adabn_s_statistics_are_the_test_images(size: int, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch's update_bn has them: averages over the batches."""
    config = load("adabn")
    data = digits(config)
    monkeypatch.setattr(data, "evaluation_batch", size)
    torch.manual_seed(0)
    net = build(replace(config, dropout=0.0)).to(memory_format=torch.channels_last)
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    seen = {}

    class Look(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not any(m.training for m in net.modules()):
                seen.update({name: buffer.clone() for name, buffer in net.named_buffers()})
            return net(x)

    adapted = evaluate(Look(), data, "float32", procedures=_of(net, config))
    assert all(torch.equal(before[name], buffer) for name, buffer in net.named_buffers())
    plain = evaluate(net, data, "float32")
    assert adapted.loss != plain.loss
    update_bn([data.test_batch(start, min(start + size, 359))[0] for start in range(0, 359, size)], net)
    for name, buffer in net.named_buffers():
        if "running" in name:
            torch.testing.assert_close(seen[name], buffer, rtol=1e-6, atol=1e-7)
    by_torch = evaluate(net, data, "float32")
    assert adapted.accuracy == by_torch.accuracy
    assert adapted.loss == pytest.approx(by_torch.loss, rel=1e-6)


def _of(net: nn.Module, config: RunConfig) -> Any:
    """The procedures of `config`, done to `net` whatever they are called with."""
    procedures = together(config.procedures)

    class OfNet:
        def evaluating(self, _: nn.Module, forwards: Callable[[], Iterator[None]]) -> Any:
            return procedures.evaluating(net, forwards)

    return OfNet()


def test_adabn_takes_ghost_batches_as_whole_ones(load: Load) -> None:
    accuracies = []
    for norm in ("ghost", "batch"):
        config = replace(load("adabn", norm=norm), dropout=0.0)
        torch.manual_seed(0)
        net = build(config).to(memory_format=torch.channels_last)
        accuracies.append(evaluate(net, digits(config), "float32", procedures=together(config.procedures)))
    assert accuracies[0].loss == pytest.approx(accuracies[1].loss, rel=1e-6)


def test_adabn_changes_no_training(load: Load, tmp_path: Path) -> None:
    with_it = finished(load("adabn"), tmp_path / "with")
    without = finished(load("[]"), tmp_path)
    assert [row.train_loss for row in with_it.rows] == [row.train_loss for row in without.rows]
    assert [row.test_loss for row in with_it.rows] != [row.test_loss for row in without.rows]


def test_adabn_needs_running_statistics(load: Load) -> None:
    with pytest.raises(ValueError, match="no norm that keeps running statistics"):
        build(load("adabn", norm="layer"))


OPTIONS = {
    "warm-up": ", epochs: 2",
    "bigger-batch": ", largest: 900",
    "longer-training": ", reference: 100",
    "svb": ", every: 3",
}


def test_modules_are_called_after_steps(load: Load, tmp_path: Path) -> None:
    """The weight svb and bounded batch norm ask for it: after the 24th step both are within their bounds."""
    config = load("[]", norm="{name: bounded-batch, every: 8, factor: 1.01}")
    config = replace(config, weight=Variant("svb", (("every", 4), ("factor", 1.2))))
    net = finished(config, tmp_path).net
    kernels = [m.weight.detach().flatten(1).numpy() for m in net.modules() if isinstance(m, nn.Conv2d)]
    values = np.concatenate([np.linalg.svd(kernel, compute_uv=False) for kernel in kernels])
    assert values.max() <= 1.2 + 1e-5
    assert values.min() >= 1 / 1.2 - 1e-5
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            ratio = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach().numpy()
            assert ratio.max() / ratio.min() <= 1.01**2 + 1e-5


def test_the_reference_is_of_the_run_s_seed(load: Load, tmp_path: Path) -> None:
    """Training images as they are, and other ones for another seed."""
    config = load("[]", norm="virtual")
    references = []
    for seed in (0, 1):
        net = finished(replace(config, seed=seed), tmp_path / str(seed)).net
        assert isinstance(net, ReferenceBatch)
        references.append(net.images.flatten(1))
    data = digits(config)
    plan = data.plan_unchanged(torch.Generator())
    images = data.train_batch(plan, 0, 1438)[0].flatten(1)
    for reference in references:
        assert all((image == images).all(dim=1).any() for image in reference)
        assert len(reference.unique(dim=0)) == 32
    assert not torch.equal(*references)


@pytest.mark.parametrize("name", catalog.names("procedures"))
def test_every_procedure_goes_on_bit_for_bit(name: str, load: Load, tmp_path: Path) -> None:
    recipe = RECIPE.replace("learning_rate_steps: []}", "learning_rate_steps: [[1, 0.5]]}")
    config = load(f"[{{name: {name}{OPTIONS.get(name, '')}}}]", recipe)
    whole = bits(finished(config, tmp_path))
    other = tmp_path / "other.pt"
    for stop_at in (4, 8, 3):  # in the first epoch, in the second, in the third
        with pytest.raises(Stopped):
            train(config, digits(config), other, Watcher(stop_at=stop_at))
    state, _ = train(config, digits(config), other, Watcher())
    assert same(bits(state), whole)


def test_procedures_in_the_run_id(load: Load) -> None:
    """Sorted, by name and options; one that cannot matter is left out."""
    plain = load("[]")
    assert "procedures" not in json.loads(plain.canonical_json())
    both = load("[warm-up, {name: svb, every: 5}]")
    assert both.run_id == load("[{name: svb, factor: 1.5, every: 5}, {name: warm-up, epochs: 5}]").run_id
    assert json.loads(both.canonical_json())["procedures"] == [
        {"name": "svb", "every": 5, "factor": 1.5},
        {"name": "warm-up", "epochs": 5.0, "start": 0.1},
    ]
    assert wording.run(both) == (
        "conv-relu-ic digits basic-8 width 4 dropout 0.3 "
        "with svb every=5 factor=1.5 with warm-up epochs=5.0 start=0.1 seed 0"
    )
    assert load("constant-dropout").run_id == plain.run_id
    assert load("{name: longer-training, reference: 200}").run_id == plain.run_id
    assert not load("longer-training").procedures  # what it does, the recipe says
    for name in ("linear-dropout", "curriculum-dropout", "channel-gates"):
        assert load(name).run_id != plain.run_id
        assert load(name, ordering="baseline").run_id == load("[]", ordering="baseline").run_id


@pytest.mark.parametrize(
    ("procedures", "words"),
    [
        ("[warmup]", "there is no procedure 'warmup'. Did you mean 'warm-up'?"),
        ("[warm-up, {name: warm-up, epochs: 2}]", "the procedure 'warm-up' stands there twice."),
        ("[{name: svb, factor: 1}]", "the option 'factor' of 'svb': 1 should be a number above 1"),
        ("[{name: svb, steps: 1}]", "'svb' has no option 'steps'."),
        ("3", "3 is no procedure."),
        ("[linear-dropout, curriculum-dropout]", "a run has one schedule of its dropout rate; these are 2: curriculum"),
    ],
)
def test_mistakes(procedures: str, words: str, load: Load) -> None:
    from icbench.errors import UserError

    with pytest.raises(UserError) as error:
        load(procedures)
    assert words in str(error.value)
    assert "grid.yaml:4: " in str(error.value)


def test_procedures_are_read_without_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from icbench import catalog\n"
        "for name in catalog.names('procedures'): catalog.load('procedures', name).build()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
