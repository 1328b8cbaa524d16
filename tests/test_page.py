"""The report's page in a real browser: headless Chromium, from a file, with nothing else at hand."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from synthetic import make_report, rising

from icbench.config import RunConfig
from icbench.monitor import Failure
from icbench.report.document import Report

_BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
_REQUIRED = os.environ.get("ICBENCH_REQUIRE_BROWSER")

GRID = """
question: Does <it> help & how much?
recipe: {name: digits, epochs: 24}
fixed: {dataset: digits}
grid: {depth: [8, 14], ordering: [baseline, relu-ic-conv, ic-conv-relu], dropout: [0.05, 0.1]}
seeds: 3
baseline: {ordering: baseline}
"""


def curve(config: RunConfig) -> list[float] | None:
    if config.ordering == "ic-conv-relu" and config.dropout == 0.1 and config.depth == 14:
        return None if config.seed == 0 else [0.2, 0.1]
    offset = 0.02 * (config.ordering == "relu-ic-conv") + 0.003 * ((7 * config.seed + config.depth) % 3)
    return rising(0.9 + offset, 24, 0.005, config.seed + config.depth)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    failure = Failure("", "gpu-oom", "CUDA out of memory", "")
    folder = tmp_path_factory.mktemp("grid")
    first = make_report(folder, GRID, curve)
    failed = next(i for i, c in first.sweep.runs() if curve(c) is None)
    return make_report(folder, GRID, curve, failures={failed: failure})


@pytest.fixture(scope="module")
def page(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.write(tmp_path_factory.mktemp("report"))


def test_the_page_needs_nothing_else(page: Path) -> None:
    html = page.read_text()
    outside = [link for link in re.findall(r'(?:src|href)="([^"#][^"]*)"', html) if not link.startswith("data:")]
    assert all((page.parent / link).is_file() for link in outside), outside
    assert "http://" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", html)
    assert "https://" not in html
    assert "Does &lt;it&gt; help &amp; how much?" in html
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    for reference in re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', html):
        assert reference in ids


def test_what_is_not_as_wanted_is_counted(page: Path, report: Report) -> None:
    html = page.read_text()
    assert "29 of 30 runs are finished, 0 missing, 1 failed (gpu-oom 1); 2 of the finished diverged, and" in html
    assert " of 29 never reached the target." in html
    states = {record["state"]: record for record in report.tables["not-as-wanted"].records()}
    assert set(states) == {"diverged", "failed"}
    assert states["failed"]["message"] == "CUDA out of memory"
    assert "CUDA out of memory" in html


def test_the_files_beside_the_page(page: Path, report: Report) -> None:
    import pandas as pd

    folder = page.parent
    for name, table in report.tables.items():
        read = pd.read_csv(folder / "tables" / f"{name}.csv")
        assert len(read) == len(table.rows)
        latex = (folder / "tables" / f"{name}.tex").read_text()
        assert latex.count(r"\\") == len(table.rows) + 1
        assert not re.search(r"(?<!\\)[%_]", latex)
    contrasts = pd.read_csv(folder / "tables" / "contrasts.csv")
    assert contrasts["final"].tolist() == pytest.approx([c.final.value for c in report.comparisons.single])
    assert (contrasts["final_low"] <= contrasts["final"]).all()
    drawn = {path.name for path in (folder / "figures").iterdir()}
    assert {"effects.png", "effects.svg", "learning-curves.png", "stability.svg"} <= drawn
    for path in (folder / "figures").glob("*.png"):
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


PROBE = """
<script>
window.addEventListener("load", () => {
  const table = document.querySelector("#contrasts table"), texts = () => [...table.tBodies[0].rows].map(
    (row) => [row.cells[1].textContent, row.cells[4].dataset.key]);
  const button = (index) => table.tHead.rows[0].cells[index].querySelector("button");
  const told = { before: texts() };
  button(4).click(); told.up = texts(); told.aria = table.tHead.rows[0].cells[4].getAttribute("aria-sort");
  button(4).click(); told.down = texts();
  button(1).click(); told.words = texts();
  button(0).click(); told.places = [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
  const search = document.getElementById("search");
  search.value = "basic-14 RELU-IC-CONV"; search.dispatchEvent(new Event("input"));
  told.shown = [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.textContent);
  search.value = ""; search.dispatchEvent(new Event("input"));
  told.figures = [...document.querySelectorAll("figure svg")].map((svg) => {
    const box = svg.getBoundingClientRect(); return [box.width, box.height]; });
  told.wide = document.documentElement.scrollWidth <= window.innerWidth;
  told.ink = getComputedStyle(document.querySelector("figure svg text")).fill;
  const out = document.createElement("script"); out.type = "application/json"; out.id = "told";
  out.textContent = JSON.stringify(told); document.body.append(out);
});
</script></body>
"""


def browse(page: Path, folder: Path, *options: str) -> tuple[dict, str]:  # type: ignore[type-arg]
    """What the page's probe told, and what the browser's console said."""
    if _BROWSER is None:
        assert not _REQUIRED, "Chromium is required here and is not installed"
        pytest.skip("there is no Chromium here")
    probed = page.with_name("probed.html")
    probed.write_text(page.read_text().replace("</body>", PROBE))
    command = [
        _BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-extensions", f"--user-data-dir={folder}",
        "--enable-logging=stderr", "--window-size=1300,900", "--virtual-time-budget=5000", *options,
        "--dump-dom", probed.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'id="told">(.*?)</script>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(found[1]), "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def test_in_a_browser(page: Path, tmp_path: Path) -> None:
    told, console = browse(page, tmp_path)
    assert console == ""
    numbers = [float(key) for _, key in told["before"]]
    assert len(numbers) == 8
    assert [float(key) for _, key in told["up"]] == sorted(numbers) != numbers
    assert [float(key) for _, key in told["down"]] == sorted(numbers, reverse=True)
    assert told["aria"] == "ascending"
    assert [words for words, _ in told["words"]] == sorted(words for words, _ in told["before"])
    assert told["places"] == ["digits, basic-8"] * 4 + ["digits, basic-14"] * 4
    assert len(told["shown"]) == 2
    assert all("basic-14" in text and "relu-ic-conv" in text for text in told["shown"])
    assert len(told["figures"]) >= 5
    assert all(width > 200 and height > 100 for width, height in told["figures"])
    assert told["wide"]


def test_figures_have_no_ground_of_their_own(page: Path) -> None:
    """In the dark, ink is pale: on white it would not be seen."""
    for svg in re.findall(r"<figure.*?</svg>", page.read_text(), re.DOTALL):
        assert not re.search(r"fill: (#ffffff|white)", svg)


def test_latex_of_whatever_a_run_said(tmp_path: Path) -> None:
    first = make_report(tmp_path, GRID, curve)
    failed = next(i for i, c in first.sweep.runs() if curve(c) is None)
    message = 'KeyError: {"a": 1} $x_1^2 50% #3 & C:\\new ~ <p>'
    report = make_report(tmp_path, GRID, curve, failures={failed: Failure("", "error", message, "")})
    line = next(line for line in report.tables["not-as-wanted"].latex().splitlines() if "KeyError" in line)
    escaped = r"""\{"a": 1\} \$x\_1\textasciicircum{}2 50\% \#3 \& C:\textbackslash{}new \textasciitilde{} $<$p$>$"""
    assert line.endswith(rf"KeyError: {escaped} \\")


def test_in_the_dark(page: Path, tmp_path: Path) -> None:
    light, _ = browse(page, tmp_path / "light")
    dark, console = browse(page, tmp_path / "dark", "--blink-settings=preferredColorScheme=0")
    assert console == ""
    brightness = [sum(map(int, re.findall(r"\d+", told["ink"])[:3])) for told in (light, dark)]
    assert brightness[0] < 200 < 550 < brightness[1]
