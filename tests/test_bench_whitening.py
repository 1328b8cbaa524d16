"""What `icbench bench whitening` says of whitening's price follows from what it measured."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Finished, Icbench, environment

from icbench.bench import memory, whitening
from icbench.bench.children import Group
from icbench.bench.findings import Row
from icbench.bench.measure import Spread
from icbench.bench.scaling import PowerLaw, power_law, stays_above
from icbench.bench.whiteners import Ica, Layer, mixed
from icbench.bench.whitening import Settings, curve, growth

WIDTHS = [16, 32, 64, 128, 256, 512, 1024, 2048]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_an_exponent_is_numpy_s_with_its_standard_error() -> None:
    costs = np.random.default_rng(0).lognormal(0, 0.3, 8) * np.array(WIDTHS) ** 1.7
    law = power_law(WIDTHS, costs.tolist())
    (exponent, _), covariance = np.polyfit(np.log(WIDTHS[4:]), np.log(costs[4:]), 1, cov=True)
    assert law == PowerLaw(pytest.approx(exponent), pytest.approx(covariance[0, 0] ** 0.5), 256, 4)


def test_power_laws_of_few_sizes() -> None:
    assert power_law([16, 32, 64, 128], [1.0, 1.0, 8.0, 64.0]) == PowerLaw(
        pytest.approx(3), pytest.approx(0, abs=1e-9), 32, 3
    )
    assert power_law([16, 32], [1.0, 4.0]) == PowerLaw(pytest.approx(2), None, 16, 2)
    assert power_law([16], [1.0]) is None


@pytest.mark.parametrize(
    ("ratios", "level", "size"),
    [
        ([1, 1, 1, 4], 2, 64 * 2**0.5),  # halfway between logarithms
        ([1, 1, 2, 4], 2, 64),
        ([3, 1, 1, 4], 2, 64 * 2**0.5),  # what comes before a dip does not count
        ([2, 3, 2, 4], 2, 16),
        ([1, 1, 4, 1], 2, None),
    ],
)
def test_from_which_size_on_a_ratio_stays(ratios: list[float], level: float, size: float | None) -> None:
    assert stays_above(WIDTHS[:4], ratios, level) == pytest.approx(size)


def steps(layer: str, width: int, forward: float, ratio: tuple[float, float, float]) -> Row:
    """A row of the table; ratio: the median, the least and the most."""
    empty = dict.fromkeys(("backward", "both", "ratio"))
    return {
        "layer": layer, "width": width, "forward": Spread(forward, forward, forward, 3), **empty,
        "forward_ratio": Spread(*ratio, 3), "memory": 4096 * width, "converged": None,
    }  # fmt: skip


def test_verdicts_say_from_where_on_and_how_sure() -> None:
    settings = Settings(layer=("zca", "zca-16"))
    rows = [steps("zca", width, width**2 / 1e6, (width / 64, width / 128, width / 32)) for width in WIDTHS]
    rows += [steps("zca-16", width, width / 1e6, (0.9, 0.5, 3.0)) for width in WIDTHS]
    assert whitening._verdicts(settings, rows) == [
        "zca, forward, takes at least 2 times ic's time from 128 channels (64 to 256) on, "
        "at least 10 times ic's time from 640 channels (320 to 1280) on.",
        "zca-16, forward, takes at least 2 times ic's time at no width up to 2048, "
        "at least 10 times ic's time at no width up to 2048.",
    ]
    law = growth(rows, "zca", "forward")
    assert law
    assert (law.exponent, law.least) == (pytest.approx(2), 256)
    assert curve(rows, "zca", "backward") == ([], [])
    assert growth(rows, "zca", "backward") is None


def test_what_was_cut_off_before_it_converged_has_no_part_in_the_growth_of_time() -> None:
    rows = [steps("ica", width, width**3 / 1e6, (2, 2, 2)) | {"converged": True} for width in WIDTHS[:4]]
    rows += [steps("ica", width, 1.0, (2, 2, 2)) | {"converged": False} for width in WIDTHS[4:]]
    time, memory = growth(rows, "ica", "forward"), growth(rows, "ica", "memory")
    assert time
    assert memory
    assert time.exponent == pytest.approx(3)
    assert memory.least > time.least


def test_sources_are_rotated_and_fastica_finds_them() -> None:
    x = mixed(16, 4096)
    deviations = torch.linalg.eigvalsh(torch.cov(x.T)).sqrt()
    torch.testing.assert_close(deviations, torch.linspace(0.5, 2, 16), atol=0, rtol=0.06)
    assert torch.equal(mixed(16, 4096), x)
    ica = Ica()
    ica.prepare(16, 4096)
    found = ica.fit(60.0)
    assert found["converged"]
    assert 2 < found["iterations"] < 50
    assert found["seconds"] > 0


def test_fastica_is_given_up_in_time() -> None:
    ica = Ica()
    ica.prepare(64, 128)
    found = ica.fit(0.02)
    assert list(found) == ["seconds"]
    assert 0.02 <= found["seconds"] < 2


@pytest.mark.parametrize(("name", "groups"), [("zca", 1), ("zca-16", 2)])
def test_what_is_measured_whitens(name: str, groups: int) -> None:
    layer = Layer(name, "cpu")
    layer.prepare(32, 4096)
    assert layer._x.is_contiguous(memory_format=torch.channels_last)
    output = layer._layer(layer._x).permute(0, 2, 3, 1).reshape(-1, groups, 32 // groups)
    for group in output.detach().unbind(1):
        torch.testing.assert_close(torch.cov(group.T, correction=0), torch.eye(32 // groups), atol=1e-3, rtol=0)
    turns = [layer.turn(seconds) for seconds in (0.0, 0.02)]
    assert all(part > 0 for turn in turns for part in turn)


def test_memory_is_what_a_step_takes() -> None:
    """In maps: the output, the gates and the output's gradient, or the input's, at once; two without gates."""
    size = 4096 * 256 * 4
    taken = {}
    for name in ("ic", "fast-ic"):
        with Group(1, 1, "icbench.bench.whiteners.Layer", name, "cpu") as group:
            group.ask("prepare", 256, 4096)
            (taken[name],) = group.ask("memory")
    assert 2.8 * size < taken["ic"] < 3.2 * size
    assert 1.8 * size < taken["fast-ic"] < 2.4 * size


def test_a_peak_is_forgotten() -> None:
    before = memory.at_rest()
    block = bytearray(100_000_000)
    block[::4096] = b"x" * len(block[::4096])
    assert before is not None
    assert memory.peak() - before > 90_000_000
    del block
    after = memory.at_rest()
    assert after is not None
    assert after - before < 50_000_000


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """A measurement in a hurry, where ICA is given up at the first width."""
    folder = tmp_path_factory.mktemp("whitening")
    arguments = ["--quick", "--ica-seconds", "0.001", "--out", "found.json", "--figure", "found.svg"]
    command = [sys.executable, "-m", "icbench", "bench", "whitening", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment(COLUMNS="200"), capture_output=True, text=True, timeout=300
    )
    return folder, Finished(done.returncode, done.stdout, done.stderr)


def test_a_measurement_s_figures_fit_together(measured: tuple[Path, Finished]) -> None:
    folder, done = measured
    assert done.code == 0, done.err
    found = json.loads((folder / "found.json").read_text())["benches"]["whitening"]
    rows: list[dict[str, Any]] = found["tables"]["whitening"]
    assert [(row["layer"], row["width"]) for row in rows] == [
        (layer, width) for width in (16, 32) for layer in ("ic", "zca", "ica")
    ]
    for row in rows:
        if row["layer"] == "ica":
            continue
        assert row["forward"]["n"] == row["backward"]["n"] == row["ratio"]["n"] == 2
        assert row["forward"]["most"] + row["backward"]["most"] >= row["both"]["most"] * (1 - 1e-5)
        assert row["memory"] is None or row["memory"] > 0  # a map is but four pages
        if row["layer"] == "ic":
            assert row["ratio"]["least"] == row["ratio"]["most"] == row["forward_ratio"]["median"] == 1
    assert found["tables"]["growth"][0]["forward"]["n"] == 2
    assert [each["what"] for each in found["ratios"]] == ["IC beside zca, 32 channels"]


def test_what_was_not_measured_is_a_dash_with_its_reason(measured: tuple[Path, Finished]) -> None:
    folder, done = measured
    rows = json.loads((folder / "found.json").read_text())["benches"]["whitening"]["tables"]["whitening"]
    first, second = (row for row in rows if row["layer"] == "ica")
    assert first["forward"] is first["backward"] is second["forward"] is None
    assert first["remark"] == "not measured: more than 0.001 s"
    assert second["remark"] == "not measured: more than 0.001 s at fewer channels already"
    lines = [line for line in done.out.splitlines() if " ica " in line and "not measured" in line]
    assert len(lines) == 2
    assert all(line.count("–") >= 4 for line in lines)


def test_the_figure_shows_each_layer_with_its_exponent(measured: tuple[Path, Finished]) -> None:
    text = (measured[0] / "found.svg").read_text()
    for words in ("time of a step (ms)", "peak extra memory (MB)", "channels C", "zca: "):
        assert words in text, words


def test_layers_of_a_figure_differ_without_colour() -> None:
    from icbench.bench.whitening_figure import figure

    rows = [steps(layer, width, width / 1e6, (1, 1, 1)) for layer in whitening.LAYERS for width in WIDTHS]
    axes = figure(rows).axes[0]
    lines = [container.lines[0] for container in axes.containers]
    assert len(lines) == len(whitening.LAYERS)
    looks = {(line.get_marker(), line.get_linestyle(), line.get_markerfacecolor() == "white") for line in lines}
    assert len(looks) == len(lines)
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(width) for width in WIDTHS]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--layer", "zac"], "--layer: there is no 'zac' here. Did you mean 'zca'?"),
        (["--width", "1", "--layer", "zca"], "--width 1: whitening begins with 2 channels."),
        (["--width", "24"], "--width 24: zca-16 needs a multiple of 16."),
        (["--rows", "100", "--width", "16"], "--rows 100 should be a multiple of 64"),
        (["--rows", "1024"], "and above 2048, the width, for a covariance that has an inverse."),
        (["--repeats", "0"], "--repeats 0 should be above 0."),
        (["--ica-seconds", "-1"], "--ica-seconds -1.0 should be above 0."),
        (["--threads", "-1"], "--threads -1 should not be negative."),
        (["--figure", "found.gif"], "--figure found.gif: its name should end in one of .pdf, .png, .svg."),
        (["--figure", "nowhere/found.png"], "nowhere: there is no such directory."),
    ],
)
def test_mistakes_are_said_before_anything_is_measured(arguments: list[str], words: str, icbench_here: Icbench) -> None:
    done = icbench_here("bench", "whitening", *arguments)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert "this takes about" not in done.err


def test_defaults_are_16_to_2048_and_fast_dropout_is_for_cpus() -> None:
    assert list(Settings().widths) == WIDTHS
    assert Settings(width=(64, 16, 64)).widths == (16, 64)
    assert Settings(device="cpu").layers == ("ic", "fast-ic", "zca", "zca-16", "iternorm", "ica")
    assert Settings(device="cuda").layers == ("ic", "zca", "zca-16", "iternorm", "ica")
    assert Settings(layer=("zca",)).layers == ("ic", "zca")
