"""A dropout rate for each stage of a net: what it is canonically, where it stands, how it is trained with and shown."""

import json
import re
import shutil
from bisect import bisect
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest
import torch
from conftest import Icbench, sweep_here
from synthetic import make_report, rising
from test_train import Watcher, bits, digits, run, same
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

import icbench as package
from icbench import drybuild, estimate, grid, wording
from icbench.config import Dropout, RunConfig
from icbench.nets.build import build
from icbench.report.published import beside
from icbench.report.treatments import contrasts
from icbench.search import settings
from icbench.train.evaluation import Stopped
from icbench.train.loop import train

WriteGrid = Callable[..., Path]
Load = Callable[..., RunConfig]

THREE, FOUR = (0.0, 0.05, 0.1), (0.4, 0.3, 0.2, 0.1)
PLAIN = "recipe: digits\nfixed: {dataset: digits, depth: 8}\n"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def load(write_grid: WriteGrid) -> Load:
    """A run that is given by its fields."""

    def load(recipe: str = "{name: digits, epochs: 2, batch_size: 201}", **fields: object) -> RunConfig:
        usual = {"dataset": "digits", "depth": 8, "width": 4, "ordering": "conv-relu-ic"}
        given = "".join(f"\n  {name}: {value}" for name, value in (usual | fields).items())
        return grid.load(write_grid(f"recipe: {recipe}\nfixed:{given}")).runs()[0][1]

    return load


@pytest.mark.parametrize(
    ("fields", "dropout"),
    [
        ({"dropout": "[0, 0.05, 0.1]"}, THREE),
        ({"dropout": "[0.1, 0.1, 0.1]"}, 0.1),
        ({"dropout": "[0, -0.0, 0.0]"}, 0.0),
        ({"dropout": "[0, 0.05, 0.1]", "ordering": "li2018"}, 0.1),  # its one dropout layer is in the last stage
        ({"dropout": "[0, 0.05, 0]", "ordering": "li2018", "procedures": "[fast-dropout]"}, 0.0),
        ({"dropout": "[0, 0.05, 0.1]", "ordering": "baseline"}, None),
        ({"dropout": "[0, 0.05, 0.1]", "ordering": "baseline", "block": "lstm", "norm": "layer", "depth": 1}, None),
        ({"dropout": "[0, 0.05]", "ordering": "baseline", "block": "lstm", "norm": "layer", "depth": 1}, None),
    ],
)
def test_what_can_matter_is_kept(fields: dict[str, str], dropout: Dropout | None, load: Load) -> None:
    config = load(**fields)
    assert config.dropout == dropout
    assert bool(config.dropout) == (dropout not in (None, 0.0))
    assert config.run_id == replace(config, dropout=dropout).run_id
    assert json.loads(config.canonical_json()).get("dropout") == (list(THREE) if dropout == THREE else dropout)
    assert not config.procedures  # at rate 0 no dropout can be fast


def test_a_list_is_one_value_of_an_axis(write_grid: WriteGrid) -> None:
    text = """
recipe: digits
fixed: {dataset: digits}
grid: {ordering: [baseline, relu-ic-conv], dropout: [0.05, [0.0, 0.05, 0.1], [0.05, 0.05, 0.05]]}
zip: {depth: [8, 14], width: [16, 8]}
include:
- {ordering: li2018, depth: 8, dropout: [0.3, 0.2, 0.1]}
baseline: {ordering: baseline}
"""
    sweep = grid.load(write_grid(text))
    cells = [(c.config.ordering, c.config.depth, c.config.dropout) for c in sweep.cells]
    treated = [("relu-ic-conv", depth, dropout) for dropout in (0.05, THREE) for depth in (8, 14)]
    assert cells == [("baseline-v1", 8, None), ("baseline-v1", 14, None), *treated, ("li2018", 8, 0.1)]
    assert len(sweep.baselines) == 5
    zipped = "zip: {dropout: [0.05, [0.0, 0.05, 0.1]], ordering: [relu-ic-conv, conv-relu-ic]}"
    configs = [c.config for c in grid.load(write_grid(PLAIN + zipped)).cells]
    assert [(c.ordering, c.dropout) for c in configs] == [("relu-ic-conv", 0.05), ("conv-relu-ic", THREE)]


def test_exclude_and_baseline_know_both_spellings(write_grid: WriteGrid) -> None:
    text = PLAIN + (
        "grid: {ordering: [relu-ic-conv, conv-relu-ic], dropout: [0.05, [0.0, 0.05, 0.1], [0.1, 0.1, 0.1]]}\n"
        "exclude: [{dropout: 0.1}, {ordering: relu-ic-conv, dropout: [0, 0.05, 0.1]}]\n"
        "baseline: {dropout: [0.05, 0.05, 0.05]}"
    )
    sweep = grid.load(write_grid(text))
    found = [(c.config.ordering, c.config.dropout) for c in sweep.cells]
    assert found == [("relu-ic-conv", 0.05), ("conv-relu-ic", 0.05), ("conv-relu-ic", THREE)]
    assert sweep.baselines == {sweep.cells[2].cell_id: sweep.cells[1].cell_id}


# By hand, of basic blocks with (2, 2, 2) and (2, 2, 2, 2) units and of bottlenecks with (3, 4, 6, 3): two or three
# dropout layers a unit, and one more in the stem or behind the last unit.
UNITS = {("digits", "basic", 14): (2, 2, 2), ("imagenet", "basic", 18): (2, 2, 2, 2)}
UNITS[("imagenet", "bottleneck", 50)] = (3, 4, 6, 3)
LAYERS = {
    "relu-ic-conv": [(4, 4, 5), (4, 4, 4, 5), (9, 12, 18, 10)],
    "ic-conv-relu": [(4, 4, 5), (4, 4, 4, 5), (9, 12, 18, 10)],
    "conv-relu-ic": [(5, 4, 4), (5, 4, 4, 4), (10, 12, 18, 9)],
    "conv-ic-relu": [(5, 4, 4), (5, 4, 4, 4), (10, 12, 18, 9)],
}


@pytest.mark.parametrize("procedures", ["[]", "[fast-dropout]", "[channel-gates]"])
@pytest.mark.parametrize(("net", "ordering"), [(net, ordering) for net in UNITS for ordering in LAYERS])
def test_each_dropout_layer_has_its_stage_s_rate(
    net: tuple[str, str, int], ordering: str, procedures: str, load: Load
) -> None:
    dataset, block, depth = net
    rates = FOUR if dataset == "imagenet" else THREE
    recipe = "imagenet-chen2019" if dataset == "imagenet" else "digits"
    fields = {"dataset": dataset, "block": block, "depth": depth, "ordering": ordering}
    config = load(recipe, **fields, dropout=list(rates), procedures=procedures)
    with torch.device("meta"):
        found = {name: m for name, m in build(config).named_modules() if isinstance(m, _DropoutNd)}
    counts = LAYERS[ordering][list(UNITS).index(net)]
    assert Counter(m.p for m in found.values()) == dict(zip(rates, counts, strict=True))
    first_behind = list(accumulate(UNITS[net]))
    for name, module in found.items():
        unit = re.match(r"units\.(\d+)\.", name)
        place = bisect(first_behind, int(unit[1])) if unit else 0 if name.startswith("stem.") else -1
        assert module.p == rates[place], name


def test_the_layer_before_the_classifier_has_the_last_stage_s(load: Load) -> None:
    net = build(load(ordering="li2018", dropout="[0.1, 0.2, 0.3]"))
    assert [(name, m.p) for name, m in net.named_modules() if isinstance(m, nn.Dropout)] == [("head.0", 0.3)]


def test_a_projection_is_gated_by_no_layer_of_its_own(load: Load) -> None:
    for unit in build(load(depth=14, dropout="[0.1, 0.2, 0.3]")).units:
        assert not [module for module in unit.shortcut.modules() if isinstance(module, _DropoutNd)]


def test_equal_rates_are_the_run_of_one_rate_bit_for_bit(load: Load, tmp_path: Path) -> None:
    one = load(dropout=0.2)
    assert load(dropout="[0.2, 0.2, 0.2]").run_id == one.run_id
    expected = run(one, tmp_path / "one")
    assert same(run(replace(one, dropout=(0.2, 0.2, 0.2)), tmp_path / "each"), expected)
    assert not same(run(replace(one, dropout=(0.2, 0.2, 0.1)), tmp_path / "other"), expected)


SCHEDULES: dict[str, Callable[[float], float]] = {
    "[]": lambda _: 1.0,
    "[constant-dropout]": lambda _: 1.0,
    "[{name: linear-dropout, start: 0.5}]": lambda t: 0.5 + 0.5 * t,
    "[curriculum-dropout, fast-dropout]": lambda t: 1 - 2.718281828459045 ** (-10 * t),
}


@pytest.mark.parametrize("procedures", SCHEDULES)
def test_schedules_scale_each_stage_s_own_rate(procedures: str, load: Load, tmp_path: Path) -> None:
    """Also of a training that goes on from a checkpoint, which then has the same bits."""
    config = load(dropout="[0.0, 0.3, 0.1]", procedures=procedures)
    seen: list[dict[str, float]] = []

    def look(module: nn.Module, *_: object) -> None:
        if module.training and type(module).__name__ == "ResNet":
            seen.append({name: m.p for name, m in module.named_modules() if isinstance(m, nn.Dropout)})

    hook = nn.modules.module.register_module_forward_pre_hook(look)
    try:
        whole = run(config, tmp_path / "whole")
        uninterrupted = list(seen)
        file = tmp_path / "checkpoint.pt"
        with pytest.raises(Stopped):
            train(config, digits(config), file, Watcher(stop_at=5))
        state, _ = train(config, digits(config), file, Watcher())
    finally:
        hook.remove()
    assert same(bits(state), whole)
    assert seen == 2 * uninterrupted
    assert len(uninterrupted) == 16
    for step, gates in enumerate(uninterrupted):
        factor = SCHEDULES[procedures](step / 16)
        assert gates.keys() == {"stem.2.dropout", *(f"units.{u}.branch.{p}.dropout" for u in range(3) for p in (2, 5))}
        for name, rate in gates.items():
            stage = int(name.split(".")[1]) if name.startswith("units") else 0
            assert rate == pytest.approx((0.0, 0.3, 0.1)[stage] * factor, rel=1e-12)


SWEPT = """
name: stages
question: Is one rate for all stages enough?
recipe: {name: digits, epochs: 2}
fixed: {dataset: digits, depth: 8, width: 4}
grid: {ordering: [baseline, relu-ic-conv], dropout: [0.05, 0.1, [0.0, 0.05, 0.1]]}
seeds: 2
baseline: {ordering: baseline}
"""


def test_a_sweep_from_the_plan_to_the_report(icbench_here: Icbench, tmp_path: Path) -> None:
    sweep_here(tmp_path, SWEPT)
    runs = package.load_runs(tmp_path / "results")
    assert len(runs) == 8
    own = runs[runs["dropout_by_stage"].notna()]
    assert own["dropout_by_stage"].tolist() == ["0.0 0.05 0.1"] * 2
    assert own["dropout"].isna().all()
    assert runs[runs["dropout_by_stage"].isna() & runs["dropout"].isna()]["ordering"].unique() == ["baseline-v1"]
    assert [json.loads(text)["dropout"] for text in own["config"]] == [list(THREE)] * 2

    planned = icbench_here("plan", "grid.yaml")
    assert planned.code == 0, planned.err
    assert "8 finished, 0 missing" in planned.out
    assert re.search(r"relu-ic-conv +0 0\.05 0\.1 +2 +2", planned.out)
    config = icbench_here("plan", "grid.yaml", "--json", "--no-build").json()["cells"][-1]["config"]
    assert config["dropout"] == list(THREE)
    cells = icbench_here("sweep", "grid.yaml", "--json").json()["cells"]
    assert [cell["dropout"] for cell in cells] == [None, 0.05, 0.1, list(THREE)]
    shown = icbench_here("show", own["run_id"].iloc[0])
    assert "dropout_by_stage" in shown.out
    assert "0.0 0.05 0.1" in shown.out

    told = icbench_here("report", "--json")
    assert told.code == 0, told.err
    (record,) = told.json()
    treatments = [row["treatment"] for row in record["tables"]["treatments"]]
    assert treatments == [f"relu-ic-conv, dropout {rate}" for rate in ("0.05", "0.1", "0 0.05 0.1")]
    assert record["tables"]["cells"][-1]["cell"] == "relu-ic-conv digits basic-8 width 4 dropout 0 0.05 0.1"
    assert (tmp_path / "report" / "figures" / "by-dropout.svg").is_file()

    shutil.rmtree(tmp_path / "results" / "runs")
    again = icbench_here("plan", "grid.yaml", "--no-build")
    assert "8 missing" in again.out
    assert "Estimate: 8 runs" in again.out


def test_words(load: Load) -> None:
    config = load(dropout="[0, 0.05, 0.1]")
    assert wording.run(config) == "conv-relu-ic digits basic-8 width 4 dropout 0 0.05 0.1 seed 0"


def noisy(config: RunConfig) -> list[float]:
    return rising(0.8 + 0.01 * config.seed, config.recipe.epochs, 0.01, config.seed)


def test_figures_by_rate_leave_them_out_and_others_have_them(tmp_path: Path) -> None:
    text = (
        SWEPT.replace("epochs: 2", "epochs: 20").replace("depth: 8, ", "").replace("grid: {", "grid: {depth: [8, 14], ")
    )
    report = make_report(tmp_path, text, noisy)
    figures = report.figures("sensitivity", "learning-curves")
    for axes in figures["by-dropout"].axes[:2]:
        (points,) = [container[0] for container in axes.containers]
        assert points.get_xdata() == pytest.approx([0.05, 0.1], abs=0.001)
    labels = figures["by-depth"].axes[0].get_legend_handles_labels()[1]
    assert labels == ["baseline-v1", *(f"relu-ic-conv, dropout {rate}" for rate in ("0.05", "0.1", "0 0.05 0.1"))]
    curves = [line.get_label() for line in figures["learning-curves"].axes[0].get_lines()]
    assert any("0 0.05 0.1" in str(label) for label in curves)
    assert {c.treatment for c in contrasts(report.evidence.sweep)} == set(labels[1:])


def test_published_rates_beside_them(tmp_path: Path) -> None:
    text = "recipe: chen2019\nfixed: {dataset: cifar10, depth: 110, ordering: conv-relu-ic, dropout: [0, 0.05, 0.1]}"
    evidence = make_report(tmp_path, text, lambda _: rising(0.9, 200)).evidence
    assert beside(evidence)[0].differs == ("dropout 0 0.05 0.1, theirs 0.05",)


def test_they_cost_what_dropout_costs(write_grid: WriteGrid) -> None:
    """And are built for a trial as any rate is."""
    cells = grid.load(write_grid(PLAIN + "grid: {ordering: [relu-ic-conv], dropout: [0.05, [0.0, 0.0, 0.1], 0]}")).cells
    one, each, none = (cell.config for cell in cells)
    assert estimate.features_of(each) == estimate.features_of(one) != estimate.features_of(none)
    grouping = estimate.Grouping()
    assert grouping.add([each, one, none]) == [0, 0, 1]
    assert len(drybuild.distinct(cells)) == 1


def test_a_search_of_each_stage_s_rate(write_grid: WriteGrid) -> None:
    """Also where some cells have no stages."""
    text = """
recipe: digits
fixed: {dataset: digits, depth: 8, norm: layer}
include: [{ordering: relu-ic-conv}, {ordering: baseline}, {ordering: baseline, block: lstm}]
search: {parameters: {dropout: {low: 0, high: 0.5, per_stage: true}}, trials: 2}
"""
    net, *others = settings.load(write_grid(text)).cells
    names = [each.name for each in net.space.dimensions]
    assert names == ["dropout.stage1", "dropout.stage2", "dropout.stage3"]
    assert net.space.config(dict(zip(names, THREE, strict=True))).dropout == THREE
    assert net.space.config(dict.fromkeys(names, 0.1)).dropout == 0.1
    assert [cell.space.dimensions for cell in others] == [(), ()]
