"""The main job, through real subprocesses: sweeps that are killed, interrupted, doubled, that fail and are retried.

Runs are tiny but whole; a sweep's workers need some seconds to import torch, so each test makes the most of one. Most
leave out the trial build, whose process imports it once more.
"""

import json
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Icbench, assert_same_rows, environment, made_once, sweep_here, wait_for

import icbench as package
from icbench import grid, profile
from icbench.layout import Layout
from icbench.locks import Lock

WriteGrid = Callable[..., Path]
SIX = """
question: Do six runs end?
recipe: {name: digits, epochs: 2}
fixed: {dataset: digits, depth: 8, width: 4}
grid: {ordering: [baseline, relu-ic-conv]}
seeds: 3
baseline: {ordering: baseline}
"""
ONE = """
recipe: {name: digits, epochs: 2}
fixed: {dataset: digits, depth: 8, width: 4, ordering: baseline}
"""
# Long enough to be killed in the middle: 1.5 s a run or so.
SLOW = """
recipe: {name: digits, epochs: 5, learning_rate: 1e-3}
fixed: {dataset: digits, depth: 8, width: 16, dropout: 0.2}
grid: {ordering: [conv-relu-ic, ic-conv-relu]}
seeds: 2
"""
# One run that ends well, one that no memory can hold, one that diverges.
ODD = """
fixed: {dataset: digits, depth: 8, ordering: relu-ic-conv}
grid: {recipe: [{name: digits, epochs: 2}], width: [4, 1000000]}
include: [{width: 4, norm: none, recipe: {name: digits, epochs: 2, learning_rate: 1e12}}]
"""


@contextmanager
def started(*arguments: object, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """An `icbench` command under way; killed at the latest when the test ends."""
    # As in a terminal, also where the tests run in the background with SIGINT ignored, or under nohup with SIGHUP.
    heard = "signal.signal(signal.SIGINT, signal.SIG_DFL); signal.signal(signal.SIGHUP, signal.SIG_DFL)"
    wrapper = f"import os, signal, sys; {heard}; os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", wrapper, sys.executable, "-m", "icbench", *map(str, arguments)]
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            for line in Path("/proc").glob("[0-9]*/stat"):
                try:  # all of the session: the sweep, submitit's controllers, the workers
                    fields = line.read_text().rsplit(")", 1)[1].split()
                    if int(fields[3]) == process.pid:
                        os.kill(int(line.parent.name), signal.SIGKILL)
                except (OSError, IndexError):
                    pass


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The process ids of a sweep's workers: submitit's tasks, not their controllers."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            session = int(stat.read_text().rsplit(")", 1)[1].split()[3])
            command = (stat.parent / "cmdline").read_bytes().split(b"\0")
        except (OSError, IndexError):
            continue
        if session == process.pid and b"submitit.core._submit" in command:
            found.append(int(stat.parent.name))
    return found


@contextmanager
def under_way(*arguments: object, cwd: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A sweep in `results` of `cwd` that has stored a checkpoint, and its workers."""
    before = checkpoints(cwd / "results")
    with started(*arguments, cwd=cwd) as sweep:
        wait_for(lambda: checkpoints(cwd / "results") - before)
        workers = workers_of(sweep)
        assert workers
        yield sweep, workers


def checkpoints(results: Path) -> set[tuple[Path, int]]:
    """The checkpoints there, each with when it was stored."""
    found = set()
    for file in results.glob("work/*/checkpoint.pt"):
        with suppress(FileNotFoundError):  # its run has ended meanwhile
            found.add((file, file.stat().st_mtime_ns))
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of SLOW, never disturbed."""
    return made_once(tmp_path_factory, "undisturbed", lambda folder: sweep_here(folder, SLOW)) / "results"


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a finished sweep of SIX, and what it printed."""

    def make(folder: Path) -> None:
        (folder / "six.yaml").write_text(SIX)
        command = [sys.executable, "-m", "icbench", "sweep", "six.yaml"]
        done = subprocess.run(
            command, cwd=folder, env=environment(), check=True, capture_output=True, text=True, timeout=120
        )
        assert done.stderr == ""
        (folder / "printed.txt").write_text(done.stdout, encoding="utf-8")

    folder = made_once(tmp_path_factory, "six", make)
    return folder, (folder / "printed.txt").read_text(encoding="utf-8")


@pytest.fixture
def in_six(six: tuple[Path, str], icbench_here: Icbench, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The JSON that a command prints in the folder of the finished sweep."""
    monkeypatch.chdir(six[0])

    def run(*arguments: str) -> Any:
        done = icbench_here(*arguments, "--json")
        assert done.code == 0, done.err
        return done.json()

    return run


def test_a_dry_run_writes_nothing(icbench_here: Icbench, write_grid: WriteGrid, tmp_path: Path) -> None:
    write_grid(SIX, "six.yaml")
    dry = icbench_here("sweep", "six.yaml", "--dry-run")
    assert dry.code == 0
    assert "0 finished, 6 missing, 0 failed" in dry.out
    assert [path.name for path in tmp_path.iterdir()] == ["six.yaml"]


def test_a_sweep_says_what_it_does(six: tuple[Path, str]) -> None:
    lines = six[1].splitlines()
    workers = min(6, profile.load("local").workers)
    assert lines[0] == f"six: 6 of 6 runs to do, {workers} at a time. Results: results/"
    ended = re.compile(r"\[\d/6\] [0-9a-f]{12} .* digits basic-8 .*: accuracy 0\.\d{4} \(\d")
    assert sum(bool(ended.match(line)) for line in lines) == 6
    assert "six: Do six runs end?" in lines
    assert sum("±" in line and "0.05" in line for line in lines) == 1
    assert "icbench show" in six[1]


def test_the_rows_of_a_sweep(six: tuple[Path, str]) -> None:
    sweep = grid.load(six[0] / "six.yaml")
    runs, epochs = package.load_runs(six[0] / "results"), package.load_epochs(six[0] / "results")
    assert set(runs["run_id"]) == set(sweep.run_ids)
    assert set(runs["cell_id"]) == {cell.cell_id for cell in sweep.cells}
    for column, value in {"epochs": 2, "attempts": 1, "threads": 1, "world_size": 1, "diverged": False}.items():
        assert (runs[column] == value).all()
    assert [json.loads(config)["seed"] for config in runs["config"]] == runs["seed"].tolist()
    assert (runs["finished_at"] > runs["started_at"]).all()

    assert len(epochs) == 12
    by_run, figures = epochs.groupby("run_id"), runs.set_index("run_id")
    assert figures["test_accuracy"].equals(by_run["test_accuracy"].last())
    assert figures["test_accuracy_last10"].to_dict() == pytest.approx(by_run["test_accuracy"].mean().to_dict())
    assert figures["train_seconds"].to_dict() == pytest.approx(by_run["seconds"].sum().to_dict())
    hits = [np.unpackbits(np.frombuffer(bits, np.uint8)) for bits in runs["test_correct"]]
    assert [len(each) for each in hits] == [360] * 6  # 359 images, and a bit to fill the byte
    assert runs["test_accuracy"].tolist() == pytest.approx([each.sum() / 359 for each in hits])
    speed = 2 * 1438 / figures["train_seconds"]
    assert figures["images_per_second"].to_dict() == pytest.approx(speed.to_dict())


def test_what_a_sweep_leaves_behind(six: tuple[Path, str]) -> None:
    results = six[0] / "results"
    for folder in (results / "work").iterdir():
        assert sorted(path.name for path in folder.iterdir()) == ["lock", "log.txt"]
    files = Layout(results).sweep("six")
    assert files.grid.read_text() == SIX
    (entry,) = files.ledger.iterdir()
    packs = json.loads(entry.read_text())["packs"]
    assert sorted(run_id for pack in packs for run_id in pack) == sorted(grid.load(six[0] / "six.yaml").run_ids)


def test_the_same_sweep_again_runs_nothing(six: tuple[Path, str], in_six: Callable[..., Any]) -> None:
    cells = in_six("sweep", "six.yaml")["cells"]
    assert [cell["ordering"] for cell in cells] == ["baseline-v1", "relu-ic-conv"]
    runs = package.load_runs(six[0] / "results")
    expected = runs[runs["ordering"] == "relu-ic-conv"]["test_accuracy"].mean()
    assert cells[1]["accuracy"]["value"] == pytest.approx(expected)
    assert len(list(Layout(six[0] / "results").sweep("six").ledger.iterdir())) == 1


def test_what_to_type_next_can_be_typed(six: tuple[Path, str]) -> None:
    """Where the environment is not active, activating it is the first of the next steps."""
    scripts = []
    for path in (os.defpath, f"{Path(sys.executable).parent}:{os.defpath}"):
        command = [sys.executable, "-m", "icbench", "sweep", "six.yaml"]
        done = subprocess.run(
            command, cwd=six[0], env=environment(PATH=path), check=True, capture_output=True, text=True, timeout=60
        )
        scripts.append(done.stdout.partition("Next:\n")[2])
    first, _, rest = scripts[0].partition("\n")
    assert "bin/activate" in first
    assert rest == scripts[1]
    typed = subprocess.run(
        ["bash", "-ec", scripts[0]],
        cwd=six[0],
        env=environment(PATH=os.defpath),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert typed.returncode == 0, typed.stderr
    assert "test_accuracy" in typed.stdout


def test_looking_at_a_finished_sweep(in_six: Callable[..., Any], icbench_here: Icbench) -> None:
    (status,) = in_six("status")
    assert (status["name"], status["total"], status["finished"], status["waiting"]) == ("six", 6, 6, 0)
    plan = in_six("plan", "six.yaml", "--no-build")
    assert (plan["runs"], len(plan["finished"]), plan["missing"], plan["packs"]) == (6, 6, [], [])
    run_id = plan["finished"][0]
    shown = in_six("show", run_id[:6])
    assert shown["run_id"] == run_id
    assert [row["epoch"] for row in shown["epoch_rows"]] == [1, 2]
    assert "test_accuracy" in icbench_here("show", run_id).out
    assert "begins with ''" in icbench_here("show", "").err
    assert in_six("compact")["runs"] == 6
    assert len(package.load_runs("results")) == 6


def test_workers_killed_at_random_moments(undisturbed: Path, write_grid: WriteGrid, tmp_path: Path) -> None:
    """kill -9, again and again; each kill costs its run some epochs; the rows are those of an undisturbed sweep."""
    write_grid(SLOW, "slow.yaml")
    chance = random.Random(0)
    deaths = 0
    with started("sweep", "slow.yaml", "--no-build", cwd=tmp_path) as sweep:
        progress = tmp_path / "results" / "work"
        while deaths < 4 and sweep.poll() is None:
            # A run is given up after three deaths without an epoch between: let each get somewhere.
            wait_for(lambda: sweep.poll() is not None or any(progress.glob("*/progress.json")))
            time.sleep(chance.uniform(0, 1.2))
            workers = workers_of(sweep)
            if workers and sweep.poll() is None:
                os.kill(chance.choice(workers), signal.SIGKILL)
                deaths += 1
            for beat in progress.glob("*/progress.json"):
                beat.unlink(missing_ok=True)
        out, err = sweep.communicate(timeout=120)
    assert deaths >= 2  # how many find a worker at work depends on the machine
    assert sweep.returncode == 0, out + err
    assert "a worker died in" in out
    assert_same_rows(tmp_path / "results", undisturbed)
    assert package.load_runs(tmp_path / "results")["attempts"].sum() > 4


def test_interrupted_and_killed(
    undisturbed: Path, icbench: Icbench, icbench_here: Icbench, write_grid: WriteGrid, tmp_path: Path
) -> None:
    """By Ctrl-C, a terminal that closes, SIGTERM and kill -9, one after another; then it goes on to the same rows.

    Its worker notices each time and ends: one, so that the runs last until the fourth time.
    """
    one = write_grid("workers: 1", "one.yaml").name
    command = ("sweep", write_grid(SLOW, "slow.yaml").name, "--profile", one, "--no-build")
    stops = 0
    for ask, sent in (os.killpg, signal.SIGINT), (os.killpg, signal.SIGHUP), (os.kill, signal.SIGTERM):
        with under_way(*command, cwd=tmp_path) as (sweep, workers):
            ask(sweep.pid, sent)  # what a terminal sends, it sends to every process
            _, err = sweep.communicate(timeout=30)
            assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
        assert sweep.returncode == 130, sent
        assert "Nothing is lost" in err
        assert err.endswith("To go on:\n  icbench sweep slow.yaml --profile one.yaml --no-build\n")
        (status,) = icbench_here("status", "--json").json()
        assert (status["running"], status["failures"]) == ([], [])
        assert len(status["interrupted"]) >= 1
        assert len(status["interrupted"]) + status["finished"] + status["waiting"] == 4
        logs = "".join(path.read_text() for path in (tmp_path / "results").glob("work/*/log.txt"))
        stops, earlier = logs.count("stopped; the checkpoint is stored"), stops
        assert stops > earlier, sent
    with under_way(*command, cwd=tmp_path) as (sweep, workers):
        sweep.kill()
        sweep.wait()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 20)
    assert len(package.load_runs(tmp_path / "results")) < 4
    resumed = icbench(*command)
    assert resumed.code == 0
    assert_same_rows(tmp_path / "results", undisturbed)
    logs = "".join(path.read_text() for path in (tmp_path / "results").glob("work/*/log.txt"))
    assert logs.count("goes on from its checkpoint") >= 3


def test_two_sweeps_of_one_grid_at_once(six: tuple[Path, str], write_grid: WriteGrid, tmp_path: Path) -> None:
    """Each run is trained once, by one of them; both end when all is done."""
    one = write_grid("workers: 1", "one.yaml")
    command = ("sweep", write_grid(SIX, "six.yaml"), "--profile", one, "--no-build")
    with started(*command, cwd=tmp_path) as one, started(*command, cwd=tmp_path) as two:
        outs = [sweep.communicate(timeout=120) for sweep in (one, two)]
    assert (one.returncode, two.returncode) == (0, 0), outs
    events = [
        json.loads(line)
        for file in (tmp_path / "results" / "sweeps" / "six" / "submissions").glob("*/worker-*.jsonl")
        for line in file.read_text().splitlines()
    ]
    began = [event["run_id"] for event in events if event["event"] == "begin"]
    assert len(began) == len(set(began)) == 6
    assert_same_rows(tmp_path / "results", six[0] / "results")
    assert (package.load_runs(tmp_path / "results")["attempts"] == 1).all()


def test_a_run_that_another_sweep_dies_on_is_taken_over(write_grid: WriteGrid, tmp_path: Path) -> None:
    sweep = grid.load(write_grid(SIX, "six.yaml"))
    files = Layout(tmp_path / "results").run(sweep.run_ids[0])
    files.folder.mkdir(parents=True)
    lock = Lock.take(files.lock)
    assert lock is not None
    one = write_grid("workers: 1\ndevice: cpu\nengine: graph\nimages_at_once: 40", "one.yaml")
    with started("sweep", "six.yaml", "--profile", one, "--no-build", cwd=tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "waiting for 1 run that another sweep is at" in line:
                break
        assert process.poll() is None
        lock.release()
        process.communicate(timeout=60)
    assert process.returncode == 0
    runs = package.load_runs(tmp_path / "results")
    assert len(runs) == 6
    assert runs[["engine", "images_at_once"]].drop_duplicates().to_numpy().tolist() == [["eager", 40]]
    assert "engine: eager, since there is no GPU" in (files.folder / "log.txt").read_text()


def test_a_run_that_raises_and_a_run_that_diverges(
    icbench: Icbench, icbench_here: Icbench, write_grid: WriteGrid, tmp_path: Path
) -> None:
    """The rest go on; the failure has its traceback; it is tried again only when asked for."""
    sweep = grid.load(write_grid(ODD, "odd.yaml"))
    done = icbench("sweep", "odd.yaml", "--profile", write_grid("workers: 1", "one.yaml"))
    assert done.code == 1, done.out + done.err
    impossible = sweep.run_ids[1]
    assert f"FAILED {impossible}: RuntimeError" in done.out
    assert "To try again: --retry-failed" in done.out
    runs = package.load_runs(tmp_path / "results")
    assert runs.set_index("run_id")["diverged"].to_dict() == {sweep.run_ids[0]: False, sweep.run_ids[2]: True}
    diverged = runs[runs["diverged"]].iloc[0]
    assert diverged["epochs"] == 1
    assert diverged["test_accuracy"] < 0.2
    assert diverged["test_accuracy"] == diverged["test_accuracy_last10"]
    shown = icbench_here("show", impossible)
    assert "Traceback" in shown.out
    assert "can't allocate memory" in shown.out or "not enough memory" in shown.out
    assert icbench_here("show", impossible, "--json").json()["state"] == "failed"
    (status,) = icbench_here("status", "--json").json()
    assert (status["finished"], [f["kind"] for f in status["failures"]]) == (2, ["host-oom"])
    assert "1 failed" in icbench_here("plan", "odd.yaml", "--no-build").out

    ledger = Layout(tmp_path / "results").sweep("odd").ledger
    assert icbench_here("sweep", "odd.yaml").code == 1
    assert len(list(ledger.iterdir())) == 1  # nothing was submitted again
    retried = icbench("sweep", "odd.yaml", "--retry-failed", "--no-build", "--json")
    assert retried.code == 1
    assert [f["run_id"] for f in retried.json()["failed"]] == [impossible]
    assert len(list(ledger.iterdir())) == 2


def test_a_run_whose_sweep_is_killed_is_never_given_up(icbench: Icbench, write_grid: WriteGrid, tmp_path: Path) -> None:
    """Everything killed, more often than a run may kill workers, each time before an epoch ends: a power cut, say."""
    one = SLOW.replace("epochs: 5", "epochs: 1").replace(", ic-conv-relu", "").replace("seeds: 2", "seeds: 1")
    sweep = grid.load(write_grid(one, "slow.yaml"))
    assert len(sweep.run_ids) == 1
    for death in range(4):
        with started("sweep", "slow.yaml", "--no-build", cwd=tmp_path):
            log = Layout(tmp_path / "results").run(sweep.run_ids[0]).log
            wait_for(lambda log=log, death=death: log.exists() and log.read_text().count("attempt ") > death)
    assert icbench("sweep", "slow.yaml", "--no-build").code == 0
    assert package.load_runs(tmp_path / "results")["attempts"].max() == 5


def test_a_reader_that_goes_away_ends_a_sweep(write_grid: WriteGrid, tmp_path: Path) -> None:
    """`icbench sweep ... | head -1`: not done, so not exit code 0; no worker stays behind."""
    write_grid(SLOW, "slow.yaml")
    with started("sweep", "slow.yaml", "--no-build", cwd=tmp_path) as sweep:
        assert sweep.stdout is not None
        sweep.stdout.readline()
        sweep.stdout.close()
        assert sweep.stderr is not None
        sweep.stderr.close()  # as with 2>&1
        assert sweep.wait(60) == 130
        assert not workers_of(sweep)


def test_nohup(write_grid: WriteGrid, tmp_path: Path) -> None:
    """A sweep that was told to outlive its terminal does."""
    write_grid(ONE, "one.yaml")
    command = ["nohup", sys.executable, "-m", "icbench", "sweep", "one.yaml"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as sweep:
        assert sweep.stdout is not None
        sweep.stdout.readline()
        os.killpg(sweep.pid, signal.SIGHUP)
        sweep.communicate(timeout=60)
    assert sweep.returncode == 0
    assert len(package.load_runs(tmp_path / "results")) == 1


def test_a_run_that_kills_its_workers_is_given_up(icbench_here: Icbench, write_grid: WriteGrid, tmp_path: Path) -> None:
    """As the kernel does to one that takes too much memory: three deaths without an epoch, then the next run."""
    sweep = grid.load(write_grid(SLOW.replace("epochs: 5", "epochs: 1, batch_size: 1"), "slow.yaml"))
    one = write_grid("workers: 1", "one.yaml")
    with started("sweep", "slow.yaml", "--profile", one, "--no-build", cwd=tmp_path) as process:
        target = None
        folder = tmp_path / "results" / "sweeps" / "slow" / "submissions"

        def begun() -> list[dict[str, Any]]:
            lines = [
                line for file in folder.glob("*/worker-0.jsonl") for line in file.read_text().splitlines(keepends=True)
            ]
            events = [json.loads(line) for line in lines if line.endswith("\n")]
            return [event for event in events if event["event"] == "begin"]

        for death in range(1, 4):
            wait_for(lambda death=death: len(begun()) >= death)  # type: ignore[misc]
            target = target or begun()[0]["run_id"]
            assert {event["run_id"] for event in begun()} == {target}
            for pid in workers_of(process):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(begun()) > 4)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert target in sweep.run_ids
    shown = icbench_here("show", target, "--json").json()
    assert (shown["state"], shown["kind"]) == ("failed", "died")
    assert "3 workers in a row died on it" in shown["message"]


def test_a_worker_that_cannot_start_is_said(write_grid: WriteGrid, tmp_path: Path) -> None:
    """No endless restarts: the last words of the worker, and exit code 1."""
    write_grid(SIX, "six.yaml")
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('libtorch is broken')")
    command = [sys.executable, "-m", "icbench", "sweep", "six.yaml", "--no-build"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(PYTHONPATH=path), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "icbench: workers end before they begin a run" in done.stderr
    assert "libtorch is broken" in done.stderr


def test_a_live_display_on_a_terminal(write_grid: WriteGrid, tmp_path: Path) -> None:
    write_grid(SIX, "six.yaml")
    write_grid("workers: 1", "one.yaml")
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "icbench", "sweep", "six.yaml", "--profile", "one.yaml", "--no-build"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(TERM="xterm", COLUMNS="150"), stdout=follower, stderr=follower
    ) as sweep:
        os.close(follower)
        shown = b""
        while True:
            try:
                shown += os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
        assert sweep.wait(30) == 0
    os.close(leader)
    text = shown.decode()
    assert "0/6 runs" in text
    assert re.search(r"epoch \d\.\d/2", text)
    assert "elapsed" in text
    assert "[6/6]" in text


def test_a_name_that_was_another_grid_s(
    six: tuple[Path, str], icbench_here: Icbench, write_grid: WriteGrid, tmp_path: Path
) -> None:
    shutil.copytree(six[0] / "results", tmp_path / "results")
    write_grid(SIX.replace("seeds: 3", "seeds: [0]"), "other.yaml")
    assert icbench_here("sweep", "other.yaml").err == ""
    write_grid(SIX.replace("seeds: 3", "seeds: [1]"), "other.yaml")
    assert "other was the name of another grid here" in icbench_here("sweep", "other.yaml").err


def test_two_grids_share_their_runs(
    six: tuple[Path, str], icbench: Icbench, write_grid: WriteGrid, tmp_path: Path
) -> None:
    shutil.copytree(six[0] / "results", tmp_path / "results")
    write_grid(SIX.replace("seeds: 3", "seeds: [2, 3]"), "more.yaml")
    one = write_grid("workers: 1", "one.yaml")
    assert "2 of 4 runs to do" in icbench("sweep", "more.yaml", "--profile", one, "--no-build").out
    assert len(package.load_runs(tmp_path / "results")) == 8
