"""`icbench report` on searches: what is said of them, the tables and figures, the page; on made and on real trials."""

import io
import math
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
from conftest import Icbench, environment, made_once
from scipy.stats import ttest_ind
from synthetic_search import Row, drawn, load, report, trial

from icbench import results
from icbench.config import RunConfig
from icbench.report.evidence import Evidence
from icbench.report.searches.confirmed import Verdict
from icbench.report.searches.document import SearchReport
from icbench.report.searches.page import page
from icbench.search.settings import SearchCell

FIXED = "recipe: {name: digits, epochs: 4}\nfixed: {dataset: digits, depth: 8, width: 4}\n"
TWO = (
    FIXED
    + """
grid: {ordering: [baseline, relu-ic-conv, ic-conv-relu]}
seeds: 4
baseline: {ordering: baseline}
search: {parameters: {dropout: {low: 0.0, high: 0.5, step: 0.025}}, trials: 9, seeds: 2}
"""
)
# What such a search has confirmed, if the best rates are 0.1 and 0.05.
CONFIRM = (
    FIXED
    + """
grid: {ordering: [baseline, relu-ic-conv, ic-conv-relu], dropout: [0.05, 0.1]}
exclude: [{ordering: ic-conv-relu, dropout: 0.1}]
seeds: 4
baseline: {ordering: baseline}
"""
)
BEST = {"relu-ic-conv": 0.1, "ic-conv-relu": 0.05}


def parabolas(cell: SearchCell) -> list[Row]:
    """Nine rates, the best of which is BEST of the ordering."""
    if not cell.space.dimensions:
        return [trial(cell, 0, {}, [[0.8], [0.82]])]
    best, random = BEST[cell.config.ordering], np.random.default_rng(1)
    rates = [0.3, 0.0, 0.4, best, 0.2, 0.5, 0.25, 0.15, best]
    seen = {rate: (0.9 - (rate - best) ** 2 + 0.002 * random.normal(size=(2, 1))).tolist() for rate in rates}
    return [trial(cell, number, {"dropout": rate}, seen[rate]) for number, rate in enumerate(rates)]


def finals(by_arm: Mapping[tuple[str, float | None], float], seeds: int = 4) -> Callable[[RunConfig], Any]:
    """Curves that end where their arm does, a little scattered between seeds."""

    def curve(config: RunConfig) -> list[float] | None:
        if config.seed >= seeds:
            return None
        shift = 2 * (config.dropout == 0.1) + (config.ordering == "baseline-v1")
        bump = [0.002, -0.003, 0.001, 0.0][(config.seed + shift) % 4]
        return synthetic.rising(by_arm[config.ordering, config.dropout] + bump, 4)

    return curve


def made(folder: Path, evidence: Evidence | None, text: str = TWO) -> SearchReport:
    return report(folder, load(folder, text), parabolas, evidence)


def confirming(folder: Path, best: float, papers: float, seeds: int = 4) -> Evidence:
    arms = {
        ("baseline-v1", None): 0.8,
        ("relu-ic-conv", 0.1): best,
        ("relu-ic-conv", 0.05): papers,
        ("ic-conv-relu", 0.05): 0.85,
    }
    return synthetic.make(folder, CONFIRM, finals(arms, seeds), name="made-confirm")


def test_the_best_and_what_led_to_it(tmp_path: Path) -> None:
    found = made(tmp_path, None).found[1]
    assert [each.parameters["dropout"] for each in found.best] == [0.1]
    assert found.best[0].number == 3  # the first of both with these values
    assert (found.repeated, found.trials[8].repeats, len(found.different)) == (1, 3, 8)
    numbers, values = found.best_so_far(0)
    assert numbers == list(range(9))
    assert values == np.maximum.accumulate([each.values[0] for each in found.trials]).tolist()


@pytest.mark.parametrize(
    ("best", "papers", "verdict", "words"),
    [
        (0.86, 0.84, Verdict.BETTER, "dropout 0.1 beats the paper's 0.05 by 2.00 ["),
        (0.84, 0.86, Verdict.WORSE, "dropout 0.1 does worse than the paper's 0.05 by 2.00 ["),
        (0.85, 0.85, Verdict.UNTOLD, "dropout 0.1 is not told from the paper's 0.05: +0.00 ["),
    ],
)
def test_verdicts(tmp_path: Path, best: float, papers: float, verdict: Verdict, words: str) -> None:
    found = made(tmp_path, confirming(tmp_path, best, papers))
    of_cell = [found.confirmations.of(each)[0] for each in found.found]
    assert [each.verdict for each in of_cell] == [Verdict.ALONE, verdict, Verdict.SAME]
    assert words in found.verdicts[1]
    assert "on held-out images" in found.verdicts[1]
    assert "dropout 0.05, so the best rate found is the paper's 0.05 itself, and is +5.00" in found.verdicts[2]
    assert found.verdicts[0].startswith("baseline-v1 digits basic-8 width 4: as it is, with nothing to search for; the")
    difference = of_cell[1].less_papers
    assert difference is not None
    evidence = found.confirming
    assert evidence is not None
    sides = [
        evidence.of(cell.cell_id, "final") for cell in evidence.sweep.cells if cell.config.ordering == "relu-ic-conv"
    ]
    assert difference.tested.value == pytest.approx(sides[1].mean() - sides[0].mean())
    assert not found.confirmations.papers.used
    if verdict is not Verdict.UNTOLD:
        assert difference.tested.p == pytest.approx(ttest_ind(*sides, equal_var=False).pvalue)


def test_holm_over_the_cells(tmp_path: Path) -> None:
    text = CONFIRM.replace("exclude: [{ordering: ic-conv-relu, dropout: 0.1}]\n", "")

    def curve(config: RunConfig) -> list[float]:
        bump = np.random.default_rng([config.seed, len(config.ordering), config.dropout == 0.1]).normal(0, 0.004)
        return synthetic.rising(0.85 + 0.01 * (config.dropout == 0.1) + bump + (config.seed % 3) * 0.001, 4)

    evidence = synthetic.make(tmp_path, text, curve, name="made-confirm")

    def rows(cell: SearchCell) -> list[Row]:
        return [trial(cell, 0, {"dropout": 0.1} if cell.space.dimensions else {}, [[0.9], [0.9]])]

    found = report(tmp_path, load(tmp_path, TWO), rows, evidence)
    differences = [d for each in found.confirmations.every if (d := each.less_papers)]
    p = sorted(each.tested.p for each in differences)
    assert sorted(each.p_holm for each in differences) == pytest.approx([min(1, 2 * p[0]), max(p[1], min(1, 2 * p[0]))])


def test_answers(tmp_path: Path) -> None:
    better = made(tmp_path, confirming(tmp_path, 0.86, 0.84)).answer
    assert better == (
        "On test images, of 2 cells, what was found beats the paper's 0.05 in 1 and is the paper's 0.05 itself in 1: "
        "+2.00 [1.63, 2.37] points (relu-ic-conv digits basic-8 width 4, dropout 0.1)."
    )
    unfinished = made(tmp_path, confirming(tmp_path, 0.86, 0.84, seeds=3))
    assert "(3 of 4 seeds so far)" in unfinished.verdicts[1]
    few = made(tmp_path, confirming(tmp_path, 0.86, 0.84, seeds=1))
    assert few.confirmations.of(few.found[1])[0].verdict is Verdict.UNTESTED
    none = made(tmp_path, confirming(tmp_path, 0.86, 0.84, seeds=0))
    none.layout.sweep("made").confirmation.write_text("")
    assert none.answer.startswith("Not confirmed on test images yet: icbench sweep ")
    assert f"made/confirm.yaml --results {tmp_path}/results. On held-out images, relu-ic-conv" in none.answer
    assert made(tmp_path, None).confirmations.every[1].verdict is Verdict.UNCONFIRMED


def test_a_search_that_is_not_finished_says_so(tmp_path: Path) -> None:
    search = load(tmp_path, TWO.replace("trials: 9", "trials: 12"))
    found = report(tmp_path, search, parabolas)
    assert found.left == 6
    assert "The search is not finished: 6 trials to go, 0 under way." in found.counts_in_words
    assert "what is best may still change" in page(found, [], "")
    assert found.record()["trials"] == {
        "wanted": 25, "complete": 19, "pruned": 0, "running": 0, "failed": 0, "repeated": 2, "diverged_runs": 0,
    }  # fmt: skip


def test_trials_that_all_failed_are_shown(tmp_path: Path) -> None:
    def rows(cell: SearchCell) -> list[Row]:
        return [
            trial(cell, i, v, state="failed", reason="run x failed: <OOM>")
            for i, v in enumerate(drawn(search, cell, 3))
        ]

    search = load(tmp_path, TWO)
    found = report(tmp_path, search, rows)
    assert found.answer == "No trial is complete yet."
    assert found.verdicts[1].endswith("all 3 trials failed, the last one: run x failed: <OOM>.")
    assert "run x failed: &lt;OOM&gt;" in found.write(tmp_path / "page").read_text()
    lost = report(tmp_path, search, lambda cell: [trial(cell, 0, {}, state="failed")])
    assert "0 failed" in lost.counts_in_words


def test_trials_that_all_diverged_have_no_best(tmp_path: Path) -> None:
    """Nor a flat optimum, since all are equally bad."""

    def rows(cell: SearchCell) -> list[Row]:
        every = drawn(search, cell, 8)
        return [trial(cell, i, values, [[0.0], [0.0]], diverged=2) for i, values in enumerate(every)]

    search = load(tmp_path, TWO)
    found = report(tmp_path, search, rows)
    assert found.verdicts[1].endswith("every run of 8 complete trials diverged, so none is best.")
    assert found.curves == []
    assert "flat" not in found.answer


def test_the_command_that_confirms_is_shown_until_it_is_done(tmp_path: Path) -> None:
    for seeds in (0, 3, 4):
        found = made(tmp_path, confirming(tmp_path, 0.86, 0.84, seeds))
        found.layout.sweep("made").confirmation.write_text("")
        assert ("What was found is confirmed on test images by" in page(found, [], "")) == (seeds < 4)


def test_several_objectives_have_a_front(tmp_path: Path) -> None:
    text = TWO.replace("seeds: 2}", "seeds: 1, objective: [accuracy, {name: epochs-to-target, target: 0.8}]}")
    values = {0.1: (0.9, 5), 0.2: (0.85, 3), 0.3: (0.84, 4), 0.0: (0.9, 6), 0.4: (0.7, 2), 0.5: (0.9, 5)}

    def rows(cell: SearchCell) -> list[Row]:
        every = values if cell.space.dimensions else {0.1: (0.8, 4)}
        named = [{"dropout": rate} if cell.space.dimensions else {} for rate in every]
        return [trial(cell, i, name, [pair]) for i, (name, pair) in enumerate(zip(named, every.values(), strict=True))]

    def curve(config: RunConfig) -> list[float]:
        if config.dropout == 0.1:
            return [0.5, 0.85, 0.85, 0.85 - 0.001 * config.seed]
        return [0.5, 0.6, 0.6, 0.7 + config.seed / 100]

    confirm = CONFIRM.replace("[0.05, 0.1]", "[0.05, 0.1, 0.2, 0.4]").replace(
        "exclude: [{ordering: ic-conv-relu, dropout: 0.1}]\n", ""
    )
    found = report(tmp_path, load(tmp_path, text), rows, synthetic.make(tmp_path, confirm, curve, name="made-confirm"))
    cell = found.found[1]
    assert [each.parameters["dropout"] for each in cell.best] == [0.1, 0.2, 0.4]  # 0.5 is as good as 0.1, and later
    by_epochs = found.confirmations.of(cell, 1)[0]
    assert by_epochs.best is not None
    assert by_epochs.best.value == 2  # epochs to 80 % on test images
    assert by_epochs.papers is not None
    assert 4 < by_epochs.papers.value < 8  # never: between once and twice its epochs
    assert by_epochs.verdict is Verdict.BETTER  # fewer
    assert {"front", "history-accuracy", "history-epochs-to-target-80", "rates-accuracy"} <= set(found.figures())
    assert (
        "3 trials that no other beats in all objectives; on test images, by accuracy: 1 better, 2" in found.verdicts[1]
    )
    table = pd.DataFrame(found.tables["confirmed"].records())
    assert table.groupby("objective").size().tolist() == [7, 7]


SHAPES = {
    "one": (1, "search: {parameters: {dropout: {low: 0, high: 0.5}}, trials: 1}"),
    "three": (3, "search: {parameters: {dropout: {low: 0, high: 0.5}, batch_size: [32, 64]}, trials: 3, seeds: 2}"),
    "forty": (
        40,
        "search: {parameters: {dropout: {low: 0, high: 0.5}, learning_rate: {low: 0.001, high: 1, log: true}, "
        "batch_size: {low: 16, high: 128}}, trials: 40, seeds: 2, pruner: median}",
    ),
    "choices": (
        12,
        "search: {parameters: {norm: [batch, layer, {name: group, groups: 2}], activation: [relu, snn]}, trials: 12}",
    ),
    "rates as choices": (20, "search: {parameters: {dropout: [0, 0.05, 0.1, 0.2, 0.3]}, trials: 20, seeds: 2}"),
    "logarithmic": (15, "search: {parameters: {dropout: {low: 0.001, high: 0.5, log: true}}, trials: 15}"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_figures_of_all_shapes(tmp_path: Path, name: str) -> None:
    count, section = SHAPES[name]
    search = load(tmp_path, FIXED + "grid: {ordering: [relu-ic-conv, ic-conv-relu]}\n" + section)
    expected = {"history"}
    expected |= {"parallel"} if len(search.parameters) > 1 else set()
    expected |= {"rates"} if count > 5 and name != "choices" else set()
    expected |= {"importance"} if name == "forty" else set()
    expected |= {"trial-curves"} if name == "forty" else set()

    def rows(cell: SearchCell) -> list[Row]:
        random, made_rows = np.random.default_rng(0), []
        for number, values in enumerate(drawn(search, cell, count)):
            by_seed = (0.9 - 0.3 * random.random() + 0.01 * random.normal(size=(len(search.seeds), 1))).tolist()
            state = "pruned" if number % 3 == 2 and name == "forty" else "complete"
            steps = list(range(1, 3 if state == "pruned" else 5)) if name == "forty" else []
            more = {"steps": steps, "reported": [0.2 * step for step in steps]}
            made_rows.append(trial(cell, number, values, by_seed, state, **more))
        return made_rows

    found = report(tmp_path, search, rows)
    assert set(found.figures()) == expected
    assert len(pd.read_csv(io.StringIO(found.tables["trials"].csv()))) == 2 * count


def test_importance_finds_what_matters(tmp_path: Path) -> None:
    search = load(
        tmp_path,
        FIXED
        + "fixed: {ordering: relu-ic-conv}\n".replace("fixed: ", "grid: ").replace("relu-ic-conv", "[relu-ic-conv]")
        + SHAPES["forty"][1],
    )

    def rows(cell: SearchCell) -> list[Row]:
        every = drawn(search, cell, 40)
        return [trial(cell, i, v, [[0.9 - v["dropout"] + 1e-4 * v["batch_size"]]] * 2) for i, v in enumerate(every)]

    first, *rest = report(tmp_path, search, rows).importances
    assert first.parameter == "dropout"
    assert first.value > 0.9
    assert math.isclose(first.value + sum(each.value for each in rest), 1)


SEARCH = """
name: tiny
question: Which rate?
recipe: {name: digits, epochs: 2}
fixed: {dataset: digits, depth: 8, width: 4}
grid: {ordering: [baseline, relu-ic-conv]}
seeds: 2
baseline: {ordering: baseline}
search: {parameters: {dropout: {low: 0.0, high: 0.4, step: 0.1}}, trials: 4, sampler: random}
"""


def _search(folder: Path) -> None:
    (folder / "tiny.yaml").write_text(SEARCH)
    (folder / "one.yaml").write_text("workers: 1")
    command = [
        sys.executable,
        "-m",
        "icbench",
        "search",
        "tiny.yaml",
        "--profile",
        "one.yaml",
        "--no-build",
        "--confirm",
    ]
    subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True, timeout=300)


@pytest.fixture(scope="session")
def tiny_search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a real search of two cells, confirmed."""
    return made_once(tmp_path_factory, "tiny-search", _search) / "results"


def test_a_real_search(tiny_search: Path, tmp_path: Path, icbench_here: Icbench) -> None:
    done = icbench_here("report", "--results", tiny_search)
    assert done.code == 0, done.err
    assert "tiny: Which rate?\n" in done.out
    assert "5 of 5 trials have ended: 5 complete, 0 pruned; 0 failed" in done.out
    index = (tmp_path / "report" / "index.html").read_text()
    assert 'href="tiny/index.html"' in index
    assert 'href="tiny-confirm/index.html"' in index
    html = (tmp_path / "report" / "tiny" / "index.html").read_text()
    assert 'href="../tiny-confirm/index.html"' in html
    outside = [link for link in re.findall(r'(?:src|href)="([^"#][^"]*)"', html) if not link.startswith("data:")]
    assert all((tmp_path / "report" / "tiny" / link).is_file() for link in outside), outside
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    for reference in re.findall(r'href="#([^"]+)"', html):
        assert reference in ids
    confirmed = pd.read_csv(tmp_path / "report" / "tiny" / "tables" / "confirmed.csv").set_index("cell")
    best = confirmed.loc["relu-ic-conv digits basic-8 width 4"]
    runs = results.load_runs(tiny_search)
    rate = float(best["parameters"].removeprefix("dropout "))
    test = (
        runs[(runs["split"] == "test") & (runs["ordering"] == "relu-ic-conv")]
        .groupby("dropout")["test_accuracy"]
        .mean()
    )
    assert best["best"] == pytest.approx(test[rate])
    assert best["papers"] == pytest.approx(test[0.05])
    assert best["less_papers"] == pytest.approx(test[rate] - test[0.05])


def test_as_json_by_name_and_by_file(tiny_search: Path, tmp_path: Path, icbench_here: Icbench) -> None:
    (record,) = icbench_here("report", "--results", tiny_search, "--sweep", "tiny", "--json").json()
    assert record["trials"]["complete"] == 5
    assert len(record["verdicts"]) == 2
    assert {"confirmed", "best", "rates", "importance", "trials"} == set(record["tables"])
    by_file = icbench_here("report", "--results", tiny_search, "--sweep", tiny_search.parent / "tiny.yaml", "--json")
    assert by_file.json() == [record]
    assert "code" in (tmp_path / "report" / "index.html").read_text()
    wrong = icbench_here("report", "--results", tiny_search, "--sweep", "tinny")
    assert wrong.code == 2
    assert "Did you mean 'tiny'?" in wrong.err


def test_a_search_without_trials(tmp_path: Path, icbench_here: Icbench) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "tiny.yaml").write_text(SEARCH)
    done = icbench_here("report", "--sweep", "tiny.yaml")
    assert done.code == 2
    assert "no trial of tiny is known in results/. Search with: icbench search tiny.yaml" in done.err
