"""Cells against their baselines, and treatments pooled over places, by hand-made runs whose answer is known."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats as scipy_stats
from synthetic import made_run, make, rising

from icbench import grid, results
from icbench.config import RunConfig
from icbench.errors import IcbenchError
from icbench.report import evidence, stats
from icbench.report.comparison import compare
from icbench.report.evidence import Evidence
from icbench.report.treatments import contrasts

TABLE1 = """
recipe: digits
fixed: {dataset: digits}
grid:
  block: [basic, bottleneck]
  depth: [20, 56]
  ordering: [baseline, relu-ic-conv, conv-relu-ic]
seeds: 3
baseline: {ordering: baseline}
exclude: [{block: basic, depth: 56}, {block: bottleneck, depth: 20}]
"""
BASE = {("basic", 20): 0.80, ("bottleneck", 56): 0.90}
EFFECT = {"relu-ic-conv": 0.05, "conv-relu-ic": -0.02}


def curve(config: RunConfig) -> list[float]:
    seed = (0, 1, 2)[config.seed] if config.dropout is None else (1, 2, 0)[config.seed]
    final = BASE[config.block, config.depth] + EFFECT.get(config.ordering, 0) + 0.001 * seed
    return rising(final)


def words(folder: Path, text: str) -> list[tuple[str, str]]:
    file = folder / "words.yaml"
    file.write_text(text)
    return [(c.treatment, c.stratum) for c in contrasts(grid.load(file))]


def test_treatments_and_places_are_named_by_what_differs(tmp_path: Path) -> None:
    assert words(tmp_path, TABLE1) == [
        ("relu-ic-conv", "digits, basic-20"),
        ("conv-relu-ic", "digits, basic-20"),
        ("relu-ic-conv", "digits, bottleneck-56"),
        ("conv-relu-ic", "digits, bottleneck-56"),
    ]
    rates = """
recipe: digits
fixed: {dataset: digits, depth: 8}
grid: {ordering: [baseline, relu-ic-conv], dropout: [0, 0.1], norm: [batch, {name: group, groups: 4}]}
baseline: {ordering: baseline, norm: batch}
exclude: [{ordering: baseline, norm: group}]
"""
    assert words(tmp_path, rates) == [
        ("relu-ic-conv, dropout 0", "digits, basic-8"),
        ("relu-ic-conv, norm group groups=4, dropout 0", "digits, basic-8"),
        ("relu-ic-conv, dropout 0.1", "digits, basic-8"),
        ("relu-ic-conv, norm group groups=4, dropout 0.1", "digits, basic-8"),
    ]
    two = rates.replace("{name: group, groups: 4}", "{name: group, groups: 4}, {name: group, groups: 8}")
    assert words(tmp_path, two)[1:3] == [
        ("relu-ic-conv, norm group groups=4, dropout 0", "digits, basic-8"),
        ("relu-ic-conv, norm group, dropout 0", "digits, basic-8"),
    ]


def test_treatments_beside_the_net_are_named_without_their_usual_options(tmp_path: Path) -> None:
    text = """
recipe: digits
fixed: {dataset: digits, depth: 8, ordering: relu-ic-conv}
include:
- {dropout: 0.05}
- {weight: {name: svb, every: 23}}
- {procedures: [{name: svb, every: 23}]}
- {activation: snn}
- {procedures: [{name: warm-up, epochs: 5}, {name: svb, every: 23}]}
baseline: {weight: plain, activation: relu, procedures: []}
"""
    assert words(tmp_path, text) == [
        ("weight svb every=23", "digits, basic-8"),
        ("procedures svb every=23", "digits, basic-8"),
        ("snn", "digits, basic-8"),
        ("procedures svb every=23 + warm-up", "digits, basic-8"),
    ]


def test_places_whose_baselines_differ_in_ordering_and_more_have_names_of_their_own(tmp_path: Path) -> None:
    text = """
recipe: digits
fixed: {dataset: digits}
grid: {depth: [8, 14], ordering: [relu-ic-conv, conv-relu-ic], dropout: [0, 0.05]}
baseline: {dropout: 0}
"""
    assert words(tmp_path, text) == [
        ("dropout 0.05", f"digits, basic-{depth}, {ordering}")
        for depth in (8, 14)
        for ordering in ("relu-ic-conv", "conv-relu-ic")
    ]


def test_treatments_are_pooled_over_places(tmp_path: Path) -> None:
    found = compare(make(tmp_path, TABLE1, curve))
    assert [(c.treatment, len(c.pairs), c.seeds) for c in found.pooled] == [
        ("relu-ic-conv", 2, (3, 3)),
        ("conv-relu-ic", 2, (3, 3)),
    ]
    for comparison in found.pooled:
        assert comparison.final.value == pytest.approx(EFFECT[comparison.treatment])
        assert comparison.iqm.value == pytest.approx(EFFECT[comparison.treatment])
    better, worse = found.pooled
    assert better.improvement.value == 1
    assert worse.improvement.value == 0
    assert (
        better.p == 2 / math.comb(6, 3) ** 2
    )  # no other way to deal out the values is as extreme, but its mirror image
    assert [c.p_holm for c in found.pooled] == pytest.approx(2 * np.array([better.p, worse.p]))


def test_a_cell_is_compared_by_welch_and_holm(tmp_path: Path) -> None:
    found = compare(make(tmp_path, TABLE1, curve))
    assert len(found.single) == 4
    raw = []
    for comparison in found.single:
        config = comparison.pairs[0].cell.config
        baseline = replace(config, ordering="baseline-v1", dropout=None)
        treated, control = ([curve(replace(c, seed=s))[-1] for s in range(3)] for c in (config, baseline))
        raw.append(scipy_stats.ttest_ind(treated, control, equal_var=False).pvalue)
    assert [c.p for c in found.single] == pytest.approx(raw)
    assert [c.p_holm for c in found.single] == pytest.approx(stats.holm(raw).tolist())


ONE = """
recipe: digits
fixed: {dataset: digits, depth: 8}
grid: {ordering: [baseline, relu-ic-conv]}
seeds: 4
baseline: {ordering: baseline}
"""


def test_speed_against_the_baseline_s_median(tmp_path: Path) -> None:
    """Baselines end at 0.8, 0.8, 0.9, 0.9 (target 0.8), there at epochs 4 and 2; treated ones at 2, 1, 1 and never."""
    curves = {
        "baseline-v1": [[0.5, 0.6, 0.7, 0.8], [0.5, 0.6, 0.7, 0.8], [0.5, 0.9, 0.9, 0.9], [0.5, 0.9, 0.9, 0.9]],
        "relu-ic-conv": [[0.5, 0.8, 0.9, 0.9], [0.8, 0.7, 0.7, 0.7], [0.8, 0.9, 0.9, 0.9], [0.1, 0.1, 0.1, 0.1]],
    }
    text = ONE.replace("recipe: digits", "recipe: {name: digits, epochs: 4}")
    evidence = make(tmp_path, text, lambda c: curves[c.ordering][c.seed])
    cells = {cell.config.ordering: cell.cell_id for cell in evidence.sweep.cells}
    assert set(evidence.targets.values()) == {0.8}
    assert evidence.of(cells["relu-ic-conv"], "epochs_to_target").tolist() == [2, 1, 1, math.inf]
    assert evidence.of(cells["relu-ic-conv"], "seconds_to_target").tolist() == [2, 1, 1, math.inf]
    assert evidence.of(cells["relu-ic-conv"], "images_to_target").tolist() == [2000, 1000, 1000, math.inf]
    comparison = compare(evidence).pooled[0]
    assert comparison.never == (1, 4, 0, 4)
    ratios = [t / b for t in (2, 1, 1, math.inf) for b in (4, 4, 2, 2)]
    assert comparison.epochs_ratio.value == pytest.approx(np.median(ratios))
    higher = make(tmp_path, text, lambda c: curves[c.ordering][c.seed], target=0.9)
    assert compare(higher).pooled[0].never == (2, 4, 2, 4)


def test_unequal_and_missing_seeds(tmp_path: Path) -> None:
    def some(config: RunConfig) -> list[float] | None:
        missing = config.seed >= (4 if config.ordering == "baseline-v1" else 2)
        return None if missing else rising(0.8 + 0.01 * config.seed)

    comparison = compare(make(tmp_path, ONE, some)).pooled[0]
    assert comparison.seeds == (2, 4)
    expected = scipy_stats.ttest_ind([0.8, 0.81], [0.8, 0.81, 0.82, 0.83], equal_var=False)
    assert comparison.final.p == pytest.approx(expected.pvalue)
    assert comparison.final[1:3] == pytest.approx(expected.confidence_interval())


def test_a_missing_baseline_leaves_nothing_to_compare(tmp_path: Path) -> None:
    found = compare(make(tmp_path, ONE, lambda c: None if c.ordering == "baseline-v1" else rising(0.8)))
    assert (found.single, found.pooled, found.profiles) == ((), (), None)
    assert [c.treatment for c in found.unfinished] == ["relu-ic-conv"]
    assert math.isnan(found.pairing.correlation)


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    comparison = compare(make(tmp_path, ONE.replace("seeds: 4", "seeds: 1"), lambda c: rising(0.8))).pooled[0]
    assert np.isnan(comparison.final[1:]).all()
    assert comparison.epochs_ratio == (1, 0, math.inf)
    assert math.isnan(comparison.seed_deviation)


def test_a_cell_that_all_diverged(tmp_path: Path) -> None:
    """It counts with what it ended with, never reaches the target, and has no figure of stability."""
    text = ONE.replace("recipe: digits", "recipe: {name: digits, epochs: 40}")
    evidence = make(
        tmp_path,
        text,
        lambda c: rising(0.8 + 0.01 * c.seed, 40, 0.01, c.seed) if c.ordering == "baseline-v1" else [0.1, 0.1],
    )
    comparison = compare(evidence).pooled[0]
    assert comparison.diverged == (4, 4, 0, 4)
    assert comparison.never[:2] == (4, 4)
    assert comparison.final.value == pytest.approx(0.1 - np.mean(evidence.of(evidence.sweep.cells[0].cell_id, "final")))
    assert comparison.final.high < 0
    assert math.isnan(comparison.deviation.value)
    assert comparison.epochs_ratio.value == math.inf
    assert comparison.area.value < -0.5


def test_pairs_are_used_only_where_they_go_together(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shared, own = random.normal(0, 0.02, 12), random.normal(0, 0.02, (2, 12))
    text = ONE.replace("seeds: 4", "seeds: 12")

    def finals(together: float, config: RunConfig) -> float:
        side = int(config.ordering == "relu-ic-conv")
        return 0.8 + 0.01 * side + together * shared[config.seed] + (1 - together) * own[side, config.seed]

    apart = compare(make(tmp_path, text, lambda c: rising(finals(0, c))))
    assert not apart.pairing.used
    assert apart.single[0].final.p == pytest.approx(
        scipy_stats.ttest_ind(*_sides(lambda s: finals(0, s), tmp_path, text), equal_var=False).pvalue
    )
    together = compare(make(tmp_path, text, lambda c: rising(finals(0.9, c))))
    assert together.pairing.used
    assert together.pairing.correlation > 0.9
    treated, control = _sides(lambda s: finals(0.9, s), tmp_path, text)
    assert together.single[0].final.p == pytest.approx(scipy_stats.ttest_rel(treated, control).pvalue)
    # A baseline that several treatments share is no more evidence for it than one: chance alone would be, eight times.
    one, many = (
        compare(make(tmp_path, grid_text, lambda c: rising(finals(0.3, replace(c, ordering=c.ordering, dropout=None)))))
        for grid_text in (
            text,
            text.replace("[baseline, relu-ic-conv]", "[baseline, relu-ic-conv], dropout: [0.1, 0.2]"),
        )
    )
    assert many.pairing.p == pytest.approx(one.pairing.p)
    incomplete = compare(make(tmp_path, text, lambda c: None if c.seed == 0 and c.dropout else rising(finals(0.9, c))))
    assert not incomplete.pairing.used


def _sides(final, folder: Path, text: str) -> tuple[list[float], list[float]]:  # type: ignore[no-untyped-def]
    file = folder / "sides.yaml"
    file.write_text(text)
    control, treated = grid.load(file).cells
    return [final(c) for _, c in treated.runs()], [final(c) for _, c in control.runs()]


def test_test_images(tmp_path: Path) -> None:
    """Of 1,000 images, treated runs get 900 right, controls the first 850 of these: 50 ± 1.96 sqrt(50 * .95)."""

    def evidence(forgotten: int | None) -> Evidence:
        def kept(config: RunConfig) -> dict[str, bytes | None]:
            bits = np.packbits(np.arange(1000) < (900 if config.dropout else 850)).tobytes()
            return {"test_correct": None if config.seed == forgotten and config.dropout else bits}

        return make(tmp_path, ONE, lambda c: rising(0.9 if c.dropout else 0.85), conditions=kept)

    found = compare(evidence(None)).single[0].images
    assert found.value == pytest.approx(0.05)
    assert (found.low, found.high) == pytest.approx((0.05 - 1.96 * 0.00689, 0.05 + 1.96 * 0.00689), abs=0.002)
    assert math.isnan(compare(evidence(0)).single[0].images.value)


def test_profiles_over_shared_places(tmp_path: Path) -> None:
    found = compare(make(tmp_path, TABLE1, curve)).profiles
    assert found is not None
    assert found.contestants == ("relu-ic-conv", "conv-relu-ic", "baseline")
    assert found.workloads == ("digits, basic-20", "digits, bottleneck-56")
    assert found.times.shape == (3, 2)
    assert found.scores[0] == 1  # the fastest in every place
    assert found.scores[1] == 0  # never gets there


def test_stability_is_measured_before_the_learning_rate_drops(tmp_path: Path) -> None:
    """Of 20 epochs at the full rate the second half: what comes before and after does not matter."""
    text = ONE.replace("recipe: digits", "recipe: {name: digits, epochs: 30, learning_rate_steps: [[20, 0.1]]}")
    random = np.random.default_rng(1)
    curves = random.uniform(0.5, 0.6, (8, 30))
    other = curves.copy()
    other[:, :10] = 0.9
    other[:, 20:] = 0.1
    for measure in ("deviation", "drawdown", "spikes"):
        one, two = (
            make(tmp_path, text, lambda c, rows=rows: list(rows[c.seed + 4 * bool(c.dropout)])).measures[measure]
            for rows in (curves, other)
        )
        assert np.isfinite(one).all()
        assert one.tolist() == two.tolist()
    window = curves[0, 10:20]
    fitted = np.polyval(np.polyfit(np.arange(10), window, 1), np.arange(10))
    evidence = make(tmp_path, text, lambda c: list(curves[c.seed + 4 * bool(c.dropout)]))
    first = evidence.position[evidence.sweep.run_ids[0]]
    assert evidence.measures["deviation"][first] == pytest.approx(math.sqrt(((window - fitted) ** 2).sum() / 8))
    assert evidence.measures["area"][first] == pytest.approx(curves[0, :20].mean())


def test_runs_without_their_epochs_are_an_error(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(TABLE1)
    sweep = grid.load(file)
    run_id, config = next(iter(sweep.runs()))
    run, epochs = made_run(run_id, config, [0.5] * config.recipe.epochs)
    runs = pa.Table.from_pylist([run], schema=results.schema("runs"))
    lost = pa.Table.from_pylist(epochs[1:], schema=results.schema("epochs"))
    with pytest.raises(IcbenchError, match="10 epochs together, the table of epochs has 9"):
        evidence.gather(sweep, runs, lost, {})
