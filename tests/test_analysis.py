"""The scripts and notebooks of analysis/, for real, on the results of a real sweep."""

import json
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from conftest import REPOSITORY, SMALL, Finished, environment
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient import NotebookClient
from synthetic import made_run, rising

from icbench import grid, report, results
from icbench.errors import UserError
from icbench.layout import Layout
from icbench.report import document, notebook
from icbench.report.published import published

ANALYSIS = REPOSITORY / "analysis"
NOTEBOOKS = sorted((ANALYSIS / "notebooks").glob("*.ipynb"))
PNG = b"\x89PNG\r\n\x1a\n"
# Rows of each table that a script writes, and its figures, on the results of SMALL: four treatments and a baseline.
WRITTEN = {
    "convergence": (
        {"treatments": 4, "contrasts": 4},
        ["effects", "learning-curves"],
    ),
    "stability": ({"stability": 4}, ["stability"]),
    "accuracy": ({"cells": 5, "contrasts": 4, "published": 0}, ["by-dropout"]),
}
CIFAR = """
recipe: {name: chen2019, epochs: 5}
fixed: {dataset: cifar10, depth: 110}
grid: {ordering: [baseline, relu-ic-conv]}
seeds: 3
baseline: {ordering: baseline}
"""


Analyse = Callable[..., Finished]


@pytest.fixture
def analyse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Analyse:
    """Run a script in this process, which has imported already what scripts take."""

    def run(script: str, *arguments: object) -> Finished:
        file = str(ANALYSIS / f"{script}.py")
        monkeypatch.setattr(sys, "argv", [file, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(file, run_name="__main__")
        return Finished(int(str(ended.value.code)), *capsys.readouterr())

    return run


def analyse_by_itself(script: str, *arguments: object) -> Finished:
    """Run a script as one does who types it."""
    command = [sys.executable, ANALYSIS / f"{script}.py", *map(str, arguments)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    return Finished(done.returncode, done.stdout, done.stderr)


def whole(table: str, row: dict[str, Any]) -> dict[str, Any]:
    return dict.fromkeys(results.schema(table).names) | row


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a sweep on CIFAR-10, with accuracies made up for it."""
    layout = Layout(tmp_path_factory.mktemp("cifar") / "results")
    layout.sweep("made").grid.parent.mkdir(parents=True)
    layout.sweep("made").grid.write_text(CIFAR)
    for run_id, config in grid.load(layout.sweep("made").grid).runs():
        curve = rising(0.94 if config.dropout else 0.92, epochs=5, noise=0.001, seed=config.seed)
        run, epochs = made_run(run_id, config, curve)
        results.write_run(layout, whole("runs", run), [whole("epochs", epoch) for epoch in epochs])
    return layout.root


@pytest.mark.parametrize("script", WRITTEN)
def test_a_script_s_files(script: str, small_sweep: Path, analyse: Analyse, tmp_path: Path) -> None:
    """One of them typed; the others in this process."""
    tables, figures = WRITTEN[script]
    run = analyse_by_itself if script == "accuracy" else analyse
    done = run(script, small_sweep, "--out", tmp_path / "a" / "b")
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    folder = tmp_path / "a" / "b"
    wanted = {f"tables/{name}.{suffix}" for name in tables for suffix in ("csv", "tex")}
    wanted |= {f"figures/{name}.{suffix}" for name in figures for suffix in ("png", "svg")}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} == wanted
    assert all(str(folder / name) in done.out for name in wanted)
    for name, rows in tables.items():
        frame = pd.read_csv(folder / "tables" / f"{name}.csv")
        assert len(frame) == rows, name
        assert len(frame.columns) > 5
        latex = (folder / "tables" / f"{name}.tex").read_text(encoding="utf-8")
        assert latex.count(r" \\") == rows + 1
    for name in figures:
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(PNG)
        assert "</svg>" in (folder / "figures" / f"{name}.svg").read_text(encoding="utf-8")
    assert "small: Does a small sweep make a report?" in done.out
    if script != "stability":
        assert done.out.count("relu-ic-conv, dropout 0.1") >= 1


def test_a_cell_that_was_published_stands_beside_it(cifar: Path, analyse: Analyse, tmp_path: Path) -> None:
    done = analyse("accuracy", cifar, "--out", tmp_path)
    assert done.code == 0, done.err
    frame = pd.read_csv(tmp_path / "tables" / "published.csv").set_index(["cell", "source"])
    paper = frame.xs("Chen et al. 2019, table 1", level="source")
    assert len(frame) == 4
    assert paper["published"].tolist() == [0.9292, 0.9361]
    assert paper["published_effect"].iloc[1] == pytest.approx(0.0069)
    assert (tmp_path / "figures" / "published.png").read_bytes().startswith(PNG)
    assert "5 epochs, theirs 200" in done.out


def test_a_sweep_without_a_baseline_has_accuracies(small_sweep: Path, analyse: Analyse, tmp_path: Path) -> None:
    file = tmp_path / "free.yaml"
    file.write_text(SMALL.replace("baseline: {ordering: baseline}", "").replace("name: small", ""))
    done = analyse("accuracy", small_sweep, "--sweep", file, "--out", tmp_path)
    assert done.code == 0, done.err
    assert "The grid names no baseline" in done.out
    assert len(pd.read_csv(tmp_path / "tables" / "cells.csv")) == 5
    assert_one_paragraph(
        analyse("convergence", small_sweep, "--sweep", file, "--out", tmp_path / "none"),
        "convergence.py: free: The grid names no baseline",
        "--sweep GRID.yaml",
    )
    assert not (tmp_path / "none").exists()


def assert_one_paragraph(done: Finished, start: str, *words: str) -> None:
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(start)
    assert done.err.count("\n") == 1
    assert all(word in done.err for word in words), done.err


def test_mistakes(small_sweep: Path, analyse: Analyse, tmp_path: Path) -> None:
    out = tmp_path / "out"
    absent = analyse("accuracy", tmp_path / "nosuch", "--out", out)
    assert_one_paragraph(
        absent, f"accuracy.py: {tmp_path}/nosuch: there is no such results directory.", "icbench sweep"
    )
    unknown = analyse("stability", small_sweep, "--sweep", "smal", "--out", out)
    assert_one_paragraph(unknown, "stability.py: there is no sweep 'smal' in ", "Did you mean 'small'?")
    (tmp_path / "later.yaml").write_text(SMALL.replace("seeds: 2", "seeds: [7]"))
    unfinished = analyse("convergence", small_sweep, "--sweep", tmp_path / "later.yaml", "--out", out)
    assert_one_paragraph(unfinished, "convergence.py: no run of small is finished in ", "icbench sweep")
    (tmp_path / "file").touch()
    in_the_way = analyse("accuracy", small_sweep, "--out", tmp_path / "file")
    assert_one_paragraph(in_the_way, f"accuracy.py: {tmp_path}/file: this is not a directory.", "--out DIR")
    assert not out.exists()


def test_scripts_say_what_they_do(analyse: Analyse) -> None:
    done = analyse("convergence", "--help")
    assert done.code == 0
    assert "usage: convergence.py [-h] [--out DIR] [--sweep NAME] RESULTS" in done.out
    assert "learning curves" in done.out


def test_the_same_results_give_the_same_files(small_sweep: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        found = report.load(small_sweep)
        document.write_files(tmp_path / name, found.tables.values(), found.figures())
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    assert len(files) == 6 * 2 + 4 * 2
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


class Kernel(AsyncKernelManager):
    """ipykernel in this very interpreter, whatever kernels are installed; it talks through files of a folder."""

    kernel_spec = KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], language="python"
    )


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with tempfile.TemporaryDirectory(prefix="icbench-") as folder:  # short: the paths of sockets are
        yield Kernel(transport="ipc", connection_file=f"{folder}/kernel.json")


def execute(file: Path, kernel: Kernel, folder: Path, **more: str) -> list[nbformat.NotebookNode]:
    """The outputs of a notebook that runs in `folder`; nbclient raises if one of its cells does."""
    book = nbformat.read(file, as_version=4)
    client = NotebookClient(book, km=kernel, timeout=100, resources={"metadata": {"path": str(folder)}})
    private = {"IPYTHONDIR": str(Path(kernel.connection_file).parent), "PYTHONWARNINGS": "error::FutureWarning"}
    client.execute(env=environment(**private, **more), cleanup_kc=True)
    return [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]


def texts(outputs: list[nbformat.NotebookNode]) -> str:
    return "".join(output.get("text", "") for output in outputs)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_from_top_to_bottom(file: Path, small_sweep: Path, kernel: Kernel, tmp_path: Path) -> None:
    """Somewhere below the folder that the results are in; it writes nothing there."""
    below = tmp_path / "analysis" / "notebooks"
    below.mkdir(parents=True)
    (tmp_path / "results").symlink_to(small_sweep)
    outputs = execute(file, kernel, below)
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert [output for output in outputs if "image/png" in output.get("data", {})]
    assert [output for output in outputs if "text/html" in output.get("data", {})]
    assert "small: Does a small sweep make a report?" in texts(outputs)
    assert ("That is not in the paper" in texts(outputs)) == file.stem.startswith("03")
    assert ("Nothing was measured in this sweep" in texts(outputs)) == file.stem.startswith("04")
    assert not list(below.iterdir())


def test_ours_stand_beside_the_paper_s(cifar: Path, kernel: Kernel) -> None:
    outputs = execute(NOTEBOOKS[2], kernel, REPOSITORY, ICBENCH_RESULTS=str(cifar))
    assert "not in the paper" not in texts(outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert any("5 epochs, theirs 200" in output.get("data", {}).get("text/html", "") for output in outputs)


def test_what_probes_measured_stands_beside_theory(probed_sweep: Path, kernel: Kernel) -> None:
    outputs = execute(NOTEBOOKS[3], kernel, REPOSITORY, ICBENCH_RESULTS=str(probed_sweep))
    assert "Nothing was measured" not in texts(outputs)
    tables = [table for output in outputs if (table := output.get("data", {}).get("text/html", ""))]
    assert any("relu-ic-conv" in table and "mutual information factor" in table for table in tables)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_notebooks_are_stored_without_what_running_them_left(file: Path) -> None:
    book = json.loads(file.read_text(encoding="utf-8"))
    nbformat.validate(nbformat.from_dict(book))
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    assert [cell["id"] for cell in book["cells"]] == [
        f"{file.stem[:2]}-{n:02d}" for n in range(1, len(book["cells"]) + 1)
    ]
    for cell in book["cells"]:
        assert cell["metadata"] == {}
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


def test_where_notebooks_find_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICBENCH_RESULTS", "elsewhere")
    assert notebook.results() == Path("elsewhere")
    monkeypatch.delenv("ICBENCH_RESULTS")
    here = tmp_path / "a" / "b"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    with pytest.raises(UserError, match=r"make quickstart.*ICBENCH_RESULTS"):
        notebook.results()
    (tmp_path / "results").mkdir()
    assert notebook.results().samefile(tmp_path / "results")


def test_published_effects_are_differences_to_the_baseline_of_the_same_net() -> None:
    effects = {(p.source, p.dataset, p.block, p.depth, p.ordering): p.effect for p in published()}
    assert effects["chen2019", "cifar10", "basic", 110, "conv-relu-ic"] == pytest.approx(0.0116)
    assert effects["choudhury2021", "cifar10", "basic", 164, "relu-ic-conv"] == pytest.approx(-0.0107)
    assert effects["chen2019", "cifar100", "basic", 110, "baseline"] is None
