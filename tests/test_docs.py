"""What the documents show works as they show it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from conftest import REPOSITORY, environment

from icbench import grid, profile
from icbench.search import settings


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of a language in a document."""
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def test_links_lead_somewhere() -> None:
    for document in (
        "README.md",
        "CONTRIBUTING.md",
        *(f"docs/{file.name}" for file in (REPOSITORY / "docs").glob("*.md")),
    ):
        text = (REPOSITORY / document).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^):#]+)\)", text):
            assert ((REPOSITORY / document).parent / target).exists(), (document, target)


def test_the_readme_s_grid_search_and_profile(tmp_path: Path) -> None:
    text, searched, probed, cluster = blocks("README.md", "yaml")
    file = tmp_path / "any.yaml"
    file.write_text(text)
    assert len(grid.load(file).run_ids) == 39
    file.write_text(searched)
    search = settings.load(file)
    assert [search.trials_of(cell) for cell in search.cells] == [20] * 4
    assert [len(cell.space.parameters) for cell in search.cells] == [1, 2, 2, 2]
    file.write_text(text + probed)
    recording = grid.load(file).recording
    assert [each.probe.name for each in recording.probes] == ["dependence", "zigzag", "conditioning"]
    assert recording.keep.of(20) == [0, 20]
    file.write_text(cluster)
    assert profile.load(str(file)).packs(1000) == 16 * 8


def test_the_readme_s_ways_to_read_results(small_sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small_sweep.parent)
    (program,) = blocks("README.md", "python")
    names: dict[str, object] = {}
    exec(program, names)
    assert len(names["curves"]) == 10 * 3  # type: ignore[arg-type]
    (query,) = blocks("README.md", "sql")
    rows = duckdb.sql(query).fetchall()
    treated = [(ordering, dropout, 2) for ordering in ("ic-conv-relu", "relu-ic-conv") for dropout in (0.05, 0.1)]
    assert [(row[0], row[1], row[3]) for row in rows] == [("baseline-v1", None, 2), *treated]


def test_contributing_s_new_norm_is_one_new_file(tmp_path: Path) -> None:
    """In a copy of the package: the list, the grid, a run and the contract tests know the norm at once."""
    (norm,) = blocks("CONTRIBUTING.md", "python")
    shutil.copytree(REPOSITORY / "icbench", tmp_path / "icbench", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "icbench" / "nets" / "norms" / "rms.py").write_text(norm)

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(tmp_path), str(REPOSITORY / "tests")])
        command = [sys.executable, "-m", *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, env=environment(PYTHONPATH=path), capture_output=True, text=True, timeout=120
        )

    tiny = "recipe: {name: digits, epochs: 1}\nfixed: {dataset: digits, depth: 8, ordering: relu-ic-conv, norm: "
    (tmp_path / "good.yaml").write_text(tiny + "{name: rms, epsilon: 1e-3}}")
    (tmp_path / "bad.yaml").write_text(tiny + "{name: rms, epsilon: 0}}")
    assert "Zhang and Sennrich 2019" in run("icbench", "list", "norms").stdout
    done = run("icbench", "sweep", "good.yaml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cells"][0]["norm"] == {"name": "rms", "epsilon": 1e-3}
    assert (
        "bad.yaml:2: the option 'epsilon' of 'rms': 0 should be a number above 0"
        in run("icbench", "plan", "bad.yaml").stderr
    )
    files = [REPOSITORY / "tests" / f"test_{name}.py" for name in ("nets", "norms", "variants")]
    contracts = run("pytest", "-p", "no:cacheprovider", *files, "-k", "rms")
    assert contracts.returncode == 0, contracts.stdout
    assert int(re.findall(r"(\d+) passed", contracts.stdout)[0]) > 50
