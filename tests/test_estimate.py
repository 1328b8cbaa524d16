"""How long trainings take: against simulated logs with a known law, closed forms, schedules found by trying all."""

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, Icbench
from scipy import stats

from icbench import console, estimate, grid, ledger, plan, profile, timings
from icbench.commands import estimating
from icbench.errors import UserError
from icbench.estimate import Features, Group, Interval, Observation, Place
from icbench.layout import Layout

WriteGrid = Callable[..., Path]
PLACE = Place("a device", 1, 1, 1.0, "eager", None)
RNG = np.random.default_rng


def net(depth: int = 20, width: int = 16, norm: str = "batch", ordering: str = "ic-conv-relu") -> Features:
    return Features("cifar10", "basic", depth, width, ordering, norm, "plain", "relu", "", True, "float32", 64, "Adam")


def test_what_a_pace_hangs_on(write_grid: WriteGrid) -> None:
    """Of a configuration and of what results keep of it the same; not its seed, rates and number of epochs."""
    text = """
        fixed: {dataset: digits, depth: 8, ordering: relu-ic-conv}
        grid:
          dropout: [0.1, 0.5]
          recipe: [{name: digits, epochs: 3}, {name: digits, learning_rate: 0.5}]
          norm: [batch, {name: group, groups: 4}, {name: group, groups: 8}]
          precision: [float32, float64]
        seeds: 2
    """
    runs = grid.load(write_grid(text)).runs()
    found = {estimate.features_of(config) for _, config in runs}
    assert len(found) == 6
    assert {estimate.features(json.loads(config.canonical_json())) for _, config in runs} == found
    grouping = estimate.Grouping()
    numbers = grouping.add(config for _, config in runs)
    assert sorted(group.runs for group in grouping.groups()) == [4] * 12  # 6 nets of 3 epochs and of more
    for (_, config), number in zip(runs, numbers, strict=True):
        group = grouping.groups()[number]
        assert group.features == estimate.features_of(config)
        assert group.operations == plan.cost(config)


def test_runs_are_told_apart_when_others_lay_where_they_lie(write_grid: WriteGrid) -> None:
    """Configurations that nobody keeps, whose recipes are made one after another in the same place of memory."""
    text = "recipe: digits\nfixed: {dataset: digits, depth: 8, ordering: relu-ic-conv}"
    ((_, config),) = grid.load(write_grid(text)).runs()
    grouping = estimate.Grouping()
    for epochs in sorted(2 * [*range(1, 50)]):  # the second of two is like one that is kept, and is not kept
        number = grouping.of(replace(config, recipe=replace(config.recipe, epochs=epochs)))
        assert grouping.groups()[number].operations == epochs * estimate.operations(config) / config.recipe.epochs


def test_operations_follow_the_split(write_grid: WriteGrid) -> None:
    text = "recipe: chen2019\nfixed: {dataset: cifar10, depth: 20, ordering: baseline}\ngrid: {split: [test, heldout]}"
    test, heldout = (estimate.operations(config) for _, config in grid.load(write_grid(text)).runs())
    assert test / heldout == pytest.approx((3 * 50000 + 10000) / (3 * 45000 + 5000))


def test_a_net_that_was_measured_is_known_by_that() -> None:
    found = estimate.paces([net()], PLACE, "cpu", [Observation(net(), PLACE, 3e-11, 50, 49 * 0.02**2)])
    assert found.medians[0] == pytest.approx(3e-11, rel=0.02)
    assert found.run == pytest.approx(math.sqrt((4 * 0.1**2 + 49 * 0.02**2) / 53))
    low, high = np.quantile(found.draws[:, 0], [0.05, 0.95])
    assert low < 3e-11 < high < 1.4 * low


def test_where_nothing_is_known_it_is_the_prior() -> None:
    """A usual net's pace without any observation: Student's t, with the deviations of what is not usual added up."""
    found = estimate.paces([net()], PLACE, "cpu", [])
    assert found.medians[0] == pytest.approx(1 / 2e10)
    deviations = estimate._DEVIATIONS
    effects = ("dataset", "depth", "width", "ordering", "dropout", "batch_size", "recipe")
    scale = math.sqrt(0.7**2 + estimate._NET**2 + sum(deviations[name] ** 2 for name in effects))
    upper = scale * stats.t.ppf(0.95, estimate._PRIOR_COUNT)
    assert np.log(np.quantile(found.draws[:, 0], 0.95) * 2e10) == pytest.approx(upper, rel=0.12)
    elsewhere = [Observation(net(), replace_device("another"), 1e-9)]
    assert np.array_equal(estimate.paces([net()], PLACE, "cpu", elsewhere).draws, found.draws)


def replace_device(name: str) -> Place:
    return PLACE._replace(device=name)


def test_the_posterior_is_that_of_the_joint_normal_distribution() -> None:
    """Two nets that share all but their norm, one measured once: closed form of the conditional median."""
    found = estimate.paces([net(norm="layer")], PLACE, "cpu", [Observation(net(norm="lp"), PLACE, 8e-11)])
    values = estimate._DEVIATIONS
    shared = 0.7**2 + sum(
        values[name] ** 2 for name in ("dataset", "depth", "width", "ordering", "dropout", "batch_size", "recipe")
    )
    own = values["norm"] ** 2 + estimate._NET**2 + estimate._RUN**2 + estimate._OCCASION**2
    expected = math.log(1 / 2e10) + shared / (shared + own) * math.log(8e-11 * 2e10)
    assert math.log(found.medians[0]) == pytest.approx(expected)


def test_what_resembles_measured_nets_is_known_better() -> None:
    def factor(*seen: Features) -> float:
        observations = [Observation(each, PLACE, 5e-11, 3) for each in seen]
        found = estimate.paces([net(56)], PLACE, "cpu", observations)
        return estimate.forecast([Group(net(56), 1e15, 3)], found, 1, 0).seconds.factor

    near, far, none = factor(net(44), net(110)), factor(net(44, 4, "zca"), net(20, 64, "lp")), factor()
    assert near < 1.5 < far < none


def test_other_threads_and_sharing_help_by_anything_up_to_their_ratio() -> None:
    measured = [Observation(net(), PLACE, 4e-13, 20)]
    for place, shift in ((PLACE._replace(threads=4), -math.log(4)), (PLACE._replace(sharing=8.0), math.log(8))):
        draws = np.log(estimate.paces([net()], place, "cuda", measured).draws[:, 0] / 4e-13)
        assert np.median(draws) == pytest.approx(shift / 2, abs=0.1)
        assert draws.std() == pytest.approx(abs(shift) / math.sqrt(12), rel=0.3)


def test_what_gpus_are_believed_to_do() -> None:
    """ResNets of large images are ten times as efficient; four GPUs do 3.6 times as much as one."""
    large = net()._replace(dataset="imagenet", block="bottleneck", depth=50)
    found = estimate.paces([net(), large], PLACE, "cuda", [])
    assert found.medians == pytest.approx([1 / 3e12, 1 / 3e13])
    many = estimate.paces([net()], PLACE._replace(ranks=4), "cuda", [])
    assert found.medians[0] / many.medians[0] == pytest.approx(3.6)


def test_canaries_count_where_there_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_MOST_OBSERVED", 3)
    runs = [Observation(net(width=width), PLACE, 5e-11) for width in (8, 32, 64)]
    ours = Observation(net(), PLACE, 2e-10, is_canary=True)
    (found,) = estimate.paces([net()], PLACE, "cpu", [*runs, ours]).medians
    assert found == estimate.paces([net()], PLACE, "cpu", [ours, *runs[:2]]).medians[0]


def test_runs_that_share_a_core_take_turns(small_sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight times the time, surely; and runs of a sweep that had more workers than cores are known as such."""
    shared = PLACE._replace(sharing=8.0)
    alone, turns = (
        estimate.paces([net()], place, "cpu", [Observation(net(), PLACE, 4e-11, 20)]).draws for place in (PLACE, shared)
    )
    assert np.median(turns) / np.median(alone) == pytest.approx(8, rel=0.05)
    assert np.log(turns).std() == pytest.approx(np.log(alone).std(), rel=0.1)
    shutil.copytree(small_sweep, tmp_path / "results")
    layout = Layout(tmp_path / "results")
    (entry,) = ledger.entries(layout)
    ledger.write(layout, replace(entry, profile=entry.profile | {"workers": 6, "threads": 2}))
    monkeypatch.setattr(profile, "cores", lambda: 4)
    assert {each.place.sharing for each in timings.read(layout, ()).observations} == {3.0}


def test_what_another_engine_did_tells_little() -> None:
    """Of a net that cannot be recorded as a graph, what it was measured by is what it will be trained by."""
    graphs, expected = PLACE._replace(engine="graph"), {"batch": math.log(4), "zca": 0.0}
    for norm, deviation in expected.items():
        alike, other = (
            estimate.paces([net(norm=norm)], place, "cuda", [Observation(net(norm=norm), PLACE, 4e-13, 20)])
            for place in (PLACE, graphs)
        )
        added = np.log(other.draws[:, 0]).var() - np.log(alike.draws[:, 0]).var()
        assert added == pytest.approx(deviation**2, rel=0.7, abs=0.01)
    (same, alike) = (
        estimate.source([net(norm=norm)], [Observation(net(norm=norm), PLACE, 1e-12)], graphs) for norm in expected
    )
    assert (same["runs"], same["nets_measured_otherwise"]) == (0, 1)
    assert (alike["runs"], alike["nets_measured_otherwise"]) == (1, 0)


def test_a_canary_without_decoding_tells_less() -> None:
    photos = net()._replace(dataset="imagenet")
    whole = Observation(photos, PLACE, 4e-13, is_canary=True, from_shards=True)
    rest = whole._replace(from_shards=False)
    spreads = [np.log(estimate.paces([photos], PLACE, "cuda", [each]).draws[:, 0]).var() for each in (whole, rest)]
    assert spreads[1] - spreads[0] == pytest.approx(0.5**2, rel=0.5)
    for observations, words in (
        ([whole], "a canary"),
        ([rest], "a canary without decoding"),
        ([rest, rest], "2 canaries without decoding"),
        ([whole, rest], "2 canaries (1 of them without decoding)"),
    ):
        assert estimating._canaries(estimate.source([photos], observations, PLACE)) == words
    assert not Observation(net(), PLACE, 1e-12, is_canary=True).lacks_decoding


@pytest.mark.parametrize(("measured", "slots"), [((0.0,), 1), ((0.3, 0.7), 3), ((1.0,), 2)])
def test_intervals_hold_the_truth_as_often_as_they_say(measured: tuple[float, ...], slots: int) -> None:
    """400 simulated logs whose effects are drawn with deviations from half to one and a half times those believed."""
    random = RNG(1)
    held = [_simulated(random, random.choice(measured), slots) for _ in range(400)]
    total, finish = np.mean(held, axis=0)
    assert 0.86 <= total <= 0.97
    assert 0.86 <= finish <= 0.97


def _simulated(random: np.random.Generator, measured: float, slots: int) -> tuple[bool, bool]:
    """One log and what came after it: whether total and finish lie in their intervals."""
    wild = random.uniform(0.5, 1.5)
    orderings, norms, depths, widths = "ab", ["batch", "layer", "none", "zca"], (8, 20, 56, 110), (8, 16, 32)
    sizes = {"ordering": orderings, "norm": norms, "depth": depths, "width": widths}
    effect = {
        (field, value): random.normal(0, wild * estimate._DEVIATIONS[field])
        for field, values in sizes.items()
        for value in values
    }
    device = math.log(1 / 2e10) + random.normal(0, 0.7 * wild)
    every = [net(d, w, n, o) for o, n, d, w in product(orderings, norms, depths, widths)]
    nets = [every[index] for index in random.choice(len(every), random.integers(2, 12), replace=False)]
    pace = {
        each: device
        + sum(effect[field, getattr(each, field)] for field in sizes)
        + random.normal(0, estimate._NET * wild)
        for each in nets
    }
    run, past, today = 0.08 * wild, *random.normal(0, estimate._OCCASION * wild, 2)
    log = []
    for each in nets:
        if random.random() < measured:
            logs = pace[each] + past + random.normal(0, run, random.integers(1, 6))
            squares = float(((logs - logs.mean()) ** 2).sum())
            log.append(Observation(each, PLACE, float(np.exp(logs.mean())), len(logs), squares))
    groups = [Group(each, random.uniform(1e13, 1e15), int(random.integers(1, 8))) for each in nets]
    forecast = estimate.forecast(groups, estimate.paces(nets, PLACE, "cpu", log), slots, 0)
    runs = [
        group.operations * math.exp(pace[group.features] + today + random.normal(0, run))
        for group in groups
        for _ in range(group.runs)
    ]
    end = estimate.makespan([(seconds, 1) for seconds in runs], slots)
    seconds, finish = forecast.seconds, forecast.finish
    return seconds.low <= sum(runs) <= seconds.high, finish.low <= end <= finish.high


def test_what_runs_share_is_not_averaged_away() -> None:
    """The noise of single runs is lost in the sum of 1,000; what is unknown of their net's pace is not."""
    found = estimate.paces([net()], PLACE, "cpu", [Observation(net(), PLACE, 5e-11, 60, 59 * 0.4**2)])
    one, many = (estimate.forecast([Group(net(), 1e12, runs)], found, 1, 0).seconds for runs in (1, 1000))
    assert many.estimate == pytest.approx(1000 * one.estimate)
    pace = np.quantile(found.draws[:, 0], 0.95) / found.medians[0]
    assert 1.1 < many.factor < 1.1 * pace
    assert one.factor > math.exp(1.6 * 0.4 * 0.9)


def test_the_same_is_estimated_twice(icbench: Icbench, write_grid: WriteGrid) -> None:
    write_grid(SMALL)
    one, two = (
        icbench("plan", "grid.yaml", "--no-build", "--json", PYTHONHASHSEED=seed).json()["estimate"]["hours"]
        for seed in ("1", "2")
    )
    assert one == two


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_the_longest_first_comes_near_the_best_schedule(slots: int) -> None:
    """Against all schedules: no better, and within the bound of longest-first lists, 4/3 - 1/(3 slots)."""
    random = RNG(slots)
    for _ in range(20):
        seconds = random.uniform(1, 10, 6).round(2).tolist()
        best = min(
            max(sum(s for s, where in zip(seconds, choice, strict=True) if where == slot) for slot in range(slots))
            for choice in product(range(slots), repeat=6)
        )
        found = estimate.makespan([(s, 1) for s in seconds], slots)
        assert best - 1e-9 <= found <= (4 / 3 - 1 / (3 * slots)) * best + 1e-9
    assert estimate.makespan([(2.0, 3), (1.0, 2)], 2) == 4.0


def test_packs_are_of_equal_time(write_grid: WriteGrid) -> None:
    """Three long runs and three short ones: the long ones are dealt first."""
    text = (
        "recipe: digits\nfixed: {dataset: digits, ordering: baseline, depth: 8}\ngrid: {norm: [batch, zca]}\nseeds: 3"
    )
    runs = grid.load(write_grid(text)).runs()
    packs = plan.packs(runs, 2, lambda config: 5.0 if config.norm.name == "zca" else 1.0)
    assert [[config.norm.name for _, config in pack] for pack in packs] == [["zca", "zca"], ["zca", *["batch"] * 3]]


GIGABYTE = 2**30


@pytest.mark.parametrize(
    ("peaks", "memory", "cores", "runs"),
    [
        ([2 * GIGABYTE], 80 * GIGABYTE, None, 16),  # 28 would fit
        ([2 * GIGABYTE, 7.5 * GIGABYTE], 80 * GIGABYTE, None, 9),  # 72 / 8
        ([2 * GIGABYTE], 80 * GIGABYTE, 6, 6),
        ([2 * GIGABYTE], 10 * GIGABYTE, None, 3),
        ([100 * GIGABYTE], 80 * GIGABYTE, None, 1),
    ],
)
def test_how_many_runs_fit_on_a_gpu(peaks: list[float], memory: float, cores: int | None, runs: int) -> None:
    assert estimate.runs_that_fit(peaks, memory, cores) == runs


def canary(features: Features, hardware: str, memory: int, device: str = "H100") -> timings.Canary:
    place = Place(device, 1, 1, 1.0, "graph", None)
    return timings.Canary(
        1e-4, 2e-5, 0.1, memory, 80 * GIGABYTE, 9, False, "2", features, "test", place, hardware, "1", "h", ""
    )


def test_a_profile_that_leaves_runs_per_gpu_open(write_grid: WriteGrid, icbench_here: Icbench, tmp_path: Path) -> None:
    """Known canaries of its nets there decide; until then it is one."""
    write_grid("recipe: chen2019\nfixed: {dataset: cifar10, depth: 20}\ngrid: {ordering: [baseline, relu-ic-conv]}")
    write_grid("executor: slurm\ntime_limit: 60\nruns_per_gpu: auto\ngpu_type: h100\nmax_jobs_at_once: 1", "c.yaml")
    machine = profile.load(str(tmp_path / "c.yaml"))
    assert isinstance(machine, profile.Slurm)
    assert (machine.runs_per_gpu, machine.automatic, machine.slots) == (1, True, 1)
    before = icbench_here("plan", "grid.yaml", "--profile", "c.yaml", "--no-build").out
    assert "One run a GPU: how many have room there no canary has measured yet." in before
    where = "device=cuda partition=None constraint=None gpu_type=h100"
    nets = [estimate.features_of(config) for _, config in grid.load(tmp_path / "grid.yaml").runs()]
    found = [canary(each, where, peak * GIGABYTE) for each, peak in zip(nets, (3, 11), strict=True)]
    timings.write_canaries(Layout(tmp_path / "results"), found)
    after = icbench_here("plan", "grid.yaml", "--profile", "c.yaml", "--no-build", "--json").json()
    assert after["estimate"]["runs_per_gpu"].startswith("6 runs a GPU: the largest net measured had 11.0 of its 80 GiB")
    assert after["estimate"]["source"]["device"] == "H100"
    assert [len(pack) for pack in after["packs"]] == [1, 1]  # two of the six slots
    decided = machine.shared(6)
    assert (decided.runs_per_gpu, decided.cpus_per_gpu, decided.automatic, decided.slots) == (6, 6, False, 6)
    assert profile.resource(decided) == ("gpu", 1 / 6)
    write_grid("executor: slurm\ntime_limit: 60\nruns_per_gpu: auto\ngpu_type: a100", "c.yaml")
    other = icbench_here("plan", "grid.yaml", "--profile", "c.yaml", "--no-build").out
    assert "no canary has measured yet" in other


def test_auto_is_for_gpus(write_grid: WriteGrid) -> None:
    auto = "executor: slurm\ntime_limit: 60\nruns_per_gpu: auto\n"
    on_cpu = write_grid(auto + "device: cpu", "cpu.yaml")
    with pytest.raises(UserError, match="auto goes by GPUs' memory"):
        profile.load(str(on_cpu))
    parallel = write_grid(auto + "gpus_per_node: 2\ngpus_per_run: 2", "parallel.yaml")
    with pytest.raises(UserError, match="several runs cannot share a GPU"):
        profile.load(str(parallel))


def test_workers_of_a_local_gpu(monkeypatch: pytest.MonkeyPatch, write_grid: WriteGrid) -> None:
    monkeypatch.setattr(profile, "visible_gpus", lambda: ("0", "1"))
    monkeypatch.setattr(profile, "cores", lambda: 12)
    machine = profile.load("local")
    assert machine.automatic
    assert (machine.cores_a_gpu, machine.sharing, profile.resource(machine)) == (6, 1.0, ("gpu", 1.0))
    assert machine.shared(4).packs(100) == 8
    assert not profile.load(str(write_grid("workers: 4", "w.yaml"))).automatic


@pytest.mark.parametrize(
    ("text", "hours"), [("200core-hours", 200), ("30 core-hours", 30), ("1.5Core-hours", 1.5), ("1core-hour", 1)]
)
def test_budgets(text: str, hours: float) -> None:
    local = profile.Local(2, 1, (), 10.0)
    assert estimating.parse_budget(text, local) == estimating.Budget(hours, "core")


@pytest.mark.parametrize("text", ["200", "gpu-hours", "200 core-minutes", "-3 core-hours", "30h", "1e9 core-hours", ""])
def test_what_is_no_budget(text: str, icbench_here: Icbench, write_grid: WriteGrid) -> None:
    write_grid(SMALL)
    for command in ("plan", "sweep"):
        done = icbench_here(command, "grid.yaml", "--no-build", f"--budget={text}")
        assert done.code == 2
        assert "is no amount of time on GPUs or cores. Write a number and gpu-hours or core-hours" in done.err


def test_a_budget_of_what_is_not_used(icbench_here: Icbench, write_grid: WriteGrid) -> None:
    write_grid(SMALL)
    write_grid("device: cpu", "cpu.yaml")
    done = icbench_here("plan", "grid.yaml", "--no-build", "--profile", "cpu.yaml", "--budget", "3gpu-hours")
    assert done.code == 2
    assert "the profile trains on the CPU. Give the budget in core-hours." in done.err


@pytest.mark.parametrize("command", [("plan", "--no-build"), ("sweep", "--no-build"), ("sweep", "--dry-run")])
def test_what_exceeds_its_budget_is_not_begun(
    command: tuple[str, ...], icbench_here: Icbench, write_grid: WriteGrid, tmp_path: Path
) -> None:
    write_grid("recipe: digits\nfixed: {dataset: digits, depth: 8, ordering: baseline}\nseeds: 1000")
    done = icbench_here(*command, "grid.yaml", "--budget", "0.01core-hours")
    assert done.code == 2
    assert "the 1,000 missing runs need about" in done.err
    assert re.search(r"which is \d+(\.\d)? times the budget of 0\.010 core-hours\. Nothing was begun", done.err)
    assert "for a better one: icbench plan GRID --canary" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["grid.yaml"]
    whole = icbench_here("plan", "--no-build", "grid.yaml", "--json").json()["estimate"]["hours"]["estimate"]
    fit = int(done.err.split("Of these runs the first ")[1].split(",")[0])
    assert fit == int(0.01 / (whole / 1000))
    assert "None of them fits." in icbench_here(*command, "grid.yaml", "--budget", "0.000000001core-hours").err


@pytest.mark.parametrize(
    ("hours", "words"),
    [(2.001, "exceeds"), (3.0, "is 50% more than"), (10.0, "is 5.0 times"), (80.0, "is 40 times")],
)
def test_by_how_much_a_budget_is_exceeded(hours: float, words: str) -> None:
    assert estimating._excess(hours, 2.0) == words


def test_amounts_and_durations_that_are_little_or_long() -> None:
    assert estimating._amount(Interval(1 / 3600, 0.5 / 3600, 2 / 3600), "gpu") == "1.0 gpu-seconds (0.50 to 2.0)"
    assert estimating._amount(Interval(2.0, 1.0, 3.0), "gpu") == "2.0 gpu-hours (1.0 to 3.0)"
    assert console.duration(3.1e7) == "358 d 19 h"
    assert console.duration(4e7) == "1.3 years"
    assert console.duration(4e10) == "1,268 years"


def test_what_may_exceed_its_budget_is_told(icbench_here: Icbench, write_grid: WriteGrid) -> None:
    write_grid("recipe: digits\nfixed: {dataset: digits, depth: 8, ordering: baseline}\nseeds: 1000")
    hours = icbench_here("plan", "--no-build", "grid.yaml", "--json").json()["estimate"]["hours"]
    between = f"{(hours['estimate'] + hours['high']) / 2:.3f}core-hours"
    done = icbench_here("plan", "--no-build", "grid.yaml", "--budget", between)
    assert done.code == 0
    assert "they may exceed the budget" in done.err
    enough = icbench_here("plan", "--no-build", "grid.yaml", "--budget", f"{hours['high'] + 1:.3f}core-hours")
    assert (enough.code, enough.err) == (0, "")


def test_a_finished_sweep_s_estimate_and_its_truth(
    small_sweep: Path, tmp_path: Path, icbench_here: Icbench, write_grid: WriteGrid
) -> None:
    """By the times of its runs, and what its ledger says; without an entry of the kind, no estimate was made."""
    shutil.copytree(small_sweep, tmp_path / "results")
    write_grid(SMALL)
    layout = Layout(tmp_path / "results")
    record = icbench_here("plan", "grid.yaml", "--no-build", "--json").json()["estimate"]
    (entry,) = ledger.entries(layout)
    assert entry.estimate is not None
    past, share = record["finished"], entry.estimate["share"]
    assert past["runs"] == 10
    expected = sum(map(sum, entry.estimate["seconds"])) * share / 3600
    known = timings.read(layout, entry.run_ids)
    assert past["hours"]["estimate"] == pytest.approx(expected)
    assert past["took"] == pytest.approx(sum(known.seconds.values()) / 3600)
    assert past["error"] == pytest.approx(expected / past["took"] - 1)
    assert 0 < past["hours"]["low"] < expected < past["hours"]["high"]
    shown = icbench_here("plan", "grid.yaml", "--no-build").out
    assert "10 finished runs: estimated " in shown
    assert f"{past['error']:+.0%}." in shown

    ledger.write(layout, replace(entry, estimate=None))
    without = icbench_here("plan", "grid.yaml", "--no-build").out
    assert "No estimate was made of the finished runs." in without

    write_grid(SMALL.replace("seeds: 2", "seeds: 4"))
    more = icbench_here("plan", "grid.yaml", "--no-build").out
    assert "It comes from 10 runs of 3 of its 3 nets on cpu (" in more
    file = next((tmp_path / "results" / "sweeps").glob("*/ledger/*.json"))
    old = json.loads(file.read_text())
    del old["estimate"]
    file.write_text(json.dumps(old))
    assert next(iter(ledger.entries(layout))).estimate is None


def test_a_directory_that_is_not_there_tells_nothing(tmp_path: Path) -> None:
    assert timings.read(Layout(tmp_path / "none"), ["0" * 12]) == timings.Timings()


def test_a_canary_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    one = canary(net(), "here", 5)
    layout = Layout(tmp_path)
    timings.write_canaries(layout, [one])
    timings.write_canaries(layout, [one, canary(net(56), "here", 6)])
    (layout.canaries / "damaged.json").write_text("{")
    (layout.canaries / "older.json").write_text('{"features": {"dataset": "digits"}}')
    known = timings.read(layout, ())
    assert len(known.observations) == 2
    assert known.memory["here", net()] == (5, 80 * GIGABYTE)
    seconds = 50000 * 1e-4 + 10000 * 2e-5 + 0.1
    operations = 2 * 41e6 * (3 * 50000 + 10000)  # PERFORMANCE: about 41 M multiply-adds
    assert min(each.pace for each in known.observations if each.features == net()) == pytest.approx(
        seconds / operations, rel=0.02
    )


def test_an_interval() -> None:
    assert Interval(2.0, 1.0, 3.0).times(2) == (4.0, 2.0, 6.0)
    assert Interval(2.0, 1.0, 3.0).factor == 2.0
