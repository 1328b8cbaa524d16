"""Searches on a real SLURM: whatever happens to controllers, jobs, workers and trials, each trial is done, and once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY, wait_for
from harness import PROFILE, Cluster

from icbench.layout import Layout

QUICK = """
recipe: {name: digits, epochs: 2}
fixed: {dataset: digits, depth: 8, width: 4, ordering: relu-ic-conv}
search: {parameters: {dropout: {low: 0.0, high: 0.5}}, trials: 6, sampler: random}
"""
# Some 2 s a run on a core of its own.
SLOW = QUICK.replace("epochs: 2", "epochs: 8").replace("width: 4", "width: 16")
ONE_GPU = PROFILE.replace("gpus_per_node: 2", "gpus_per_node: 1")


@dataclass
class Controller:
    """An `icbench search` in a terminal."""

    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    def wait(self, code: int = 0, seconds: float = 200) -> str:
        """What it has said, once it has ended, with this exit code."""
        assert self.process.wait(seconds) == code, self.said
        return self.said

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


@dataclass
class Searches:
    """Searches of one file on the cluster."""

    cluster: Cluster

    def write(self, search: str, profile: str = PROFILE) -> None:
        (self.cluster.folder / "search.yaml").write_text(search)
        (self.cluster.folder / "profile.yaml").write_text(profile)

    @property
    def words(self) -> list[str]:
        return ["search", "search.yaml", "--profile", "profile.yaml", "--no-build"]

    @contextmanager
    def controller(self, *more: str) -> Iterator[Controller]:
        """One that is killed in the end, unless it has ended by then."""
        log = self.cluster.folder / f"{len(list(self.cluster.folder.glob('*.log')))}.log"
        command = [sys.executable, "-m", "icbench", *self.words, *more]
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, cwd=self.cluster.folder, env=self.cluster.environment, stdout=file, stderr=subprocess.STDOUT
            )
        controller = Controller(process, log)
        try:
            yield controller
        finally:
            controller.kill()

    def trials(self) -> list[dict[str, Any]]:
        return list(pq.read_table(self.cluster.results / "sweeps" / "search" / "trials.parquet").to_pylist())

    def states(self) -> Counter[str]:
        return Counter(trial["state"] for trial in self.trials())

    def begun(self) -> Counter[str]:
        """How often each run was begun."""
        return Counter(event["run_id"] for event in self.cluster.events() if event["event"] == "begin")

    def finished(self) -> set[str]:
        return {file.stem for file in self.cluster.results.glob("runs/*.parquet")}

    def jobs(self) -> list[str]:
        """Those in the queue, elements of arrays one by one."""
        return self.cluster.slurm("squeue", "--noheader", "--array", "--format=%i").split()


@pytest.fixture
def searches(cluster: Cluster) -> Searches:
    return Searches(cluster)


def assert_ordinary(searches: Searches, states: dict[str, int]) -> None:
    """So many trials are in each state; the runs of the complete ones, and of no others, are finished, with one
    attempt each, on held-out images.
    """
    assert searches.states() == states
    runs = searches.cluster.runs().set_index("run_id")
    complete = {run_id for trial in searches.trials() if trial["state"] == "complete" for run_id in trial["run_ids"]}
    assert set(runs.index) >= complete
    assert set(runs["split"]) == {"heldout"}
    assert (runs["attempts"] == 1).all()
    assert set(searches.begun().values()) == {1}


def test_over_two_nodes_with_a_pruner(cluster: Cluster, searches: Searches) -> None:
    """Four slots on two nodes; pruned runs end early and are recorded as such; no job outlives the search for long."""
    rates = "dropout: 0.1}\nsearch: {parameters: {learning_rate: {low: 1.0e-6, high: 1.0e-2, log: true}}, trials: 9"
    median = "pruner: {name: median, n_startup_trials: 3, n_warmup_steps: 1}, sampler: random"
    text = SLOW.split("ordering")[0] + f"ordering: relu-ic-conv, {rates}, {median}}}\n"
    searches.write(text, PROFILE.replace("gpus_per_node: 2", "nodes: 2\ngpus_per_node: 2"))
    with searches.controller() as controller:
        wait_for(lambda: len(cluster.workers()) == 4, 60)
        status = cluster.status()
        said = controller.wait()
    wait_for(lambda: not searches.jobs(), 15)
    assert "submitted " in said
    assert "pruned at" in said
    assert status["jobs_running"] == 1
    assert status["total"] >= 4
    states = searches.states()
    assert states["complete"] + states["pruned"] == 9
    pruned = {run_id for trial in searches.trials() if trial["state"] == "pruned" for run_id in trial["run_ids"]}
    early = pruned - set(cluster.runs()["run_id"])
    assert early  # one that is pruned in its last epoch is finished nevertheless
    for run_id in early:
        assert json.loads(Layout(cluster.results).run(run_id).pruned.read_text())["search"] == "search"
    assert_ordinary(searches, states)
    after = cluster.status()
    assert (after["finished"], after["pruned"], after["queued"]) == (len(cluster.runs()), len(early), 0)
    assert {event["node"] for event in cluster.events() if event["event"] == "start"} == {"n1", "n2"}


def test_a_controller_killed(cluster: Cluster, searches: Searches) -> None:
    """kill -9, twice: the same command takes the jobs over; where they are gone, submits others, which go on."""
    searches.write(SLOW)
    with searches.controller() as controller:
        cluster.wait_for_checkpoints(2)
        controller.kill()
    jobs = searches.jobs()
    finished = len(searches.finished())
    wait_for(lambda: len(searches.finished()) == finished + 2, 60)  # they go on
    with searches.controller() as controller:
        wait_for(lambda: len(searches.begun()) >= finished + 3, 60)
        assert f"took over {jobs[0]}" in controller.said
        assert "submitted" not in controller.said
        assert set(searches.begun().values()) == {1}
        controller.kill()
    wait_for(cluster.checkpoints, 60)
    cluster.slurm("scancel", *jobs)
    with searches.controller() as controller:
        said = controller.wait()
    assert "submitted" in said
    assert "took over" not in said
    assert cluster.submissions() == 2
    assert searches.states() == {"complete": 6}
    runs = cluster.runs()
    assert len(runs) == 6
    assert set(runs["attempts"]) == {1, 2}
    assert "goes on from its checkpoint" in cluster.logs()


def test_workers_and_jobs_that_end(cluster: Cluster, searches: Searches) -> None:
    """kill -9 of a worker; SLURM's signal before the time limit: each trial is completed all the same."""
    searches.write(SLOW.replace("trials: 6", "trials: 4"))
    with searches.controller() as controller:
        cluster.wait_for_checkpoints(2)
        cluster.kill(cluster.workers()[:1])
        wait_for(lambda: "a worker died in" in controller.said, 30)
        wait_for(lambda: len(cluster.checkpoints()) >= 2 and len(cluster.workers()) == 2, 60)
        (job,) = searches.jobs()
        cluster.slurm("scancel", "--signal=USR2", job)
        said = controller.wait()
    assert cluster.restarts(job) == 1
    assert "FAILED" not in said
    assert searches.states() == {"complete": 4}
    assert len(searches.begun()) == 4
    assert cluster.submissions() == 1


def a_run_cancelled(cluster: Cluster) -> list[str]:
    """The run that has a checkpoint, unless it ends before it can be cancelled, as one that diverges does."""
    for checkpoint in cluster.checkpoints():
        if cluster.icbench("cancel", checkpoint.parent.name).code == 0:
            return [checkpoint.parent.name]
    return []


def test_trials_that_diverge_or_fail(cluster: Cluster, searches: Searches) -> None:
    """One that diverges has the worst value; one that fails is replaced."""
    searches.write(SLOW.replace("parameters: {", "parameters: {learning_rate: [1.0e-3, 1.0e+30], "), ONE_GPU)
    cancelled: list[str] = []
    with searches.controller() as controller:
        wait_for(lambda: cancelled.extend(a_run_cancelled(cluster)) or cancelled, 120)
        (victim,) = cancelled
        said = controller.wait()
    assert f"FAILED, run {victim} failed: somebody cancelled it" in said
    assert searches.states() == {"complete": 6, "failed": 1}
    (failed,) = (trial for trial in searches.trials() if trial["state"] == "failed")
    assert failed["run_ids"] == [victim]
    diverged = [trial for trial in searches.trials() if trial["diverged"]]
    assert diverged
    for trial in diverged:
        assert json.loads(trial["parameters"])["learning_rate"] == "1e+30"
        assert (trial["state"], trial["values"], trial["diverged"]) == ("complete", [0.0], 1)
    assert set(searches.begun().values()) == {1}


def test_cancelled_in_a_terminal(cluster: Cluster, searches: Searches) -> None:
    searches.write(SLOW)
    with searches.controller() as controller:
        cluster.wait_for_checkpoints(1)
        assert "cancelled" in cluster.icbench("cancel", "search.yaml").out
        said = controller.wait(130, 30)
    assert "The jobs of search were cancelled." in said
    cluster.finish(30)
    assert cluster.submissions() == 1
    assert "Nothing of search is under way" in cluster.icbench("cancel", "search").out


def test_jobs_cancelled_by_hand(cluster: Cluster, searches: Searches) -> None:
    searches.write(SLOW)
    with searches.controller() as controller:
        cluster.wait_for_checkpoints(1)
        cluster.slurm("scancel", *searches.jobs())
        said = controller.wait(130, 60)
    assert "The jobs of search were cancelled." in said
    assert cluster.submissions() == 1
    assert not searches.jobs()


def controllers(cluster: Cluster) -> list[int]:
    """Those that are jobs."""
    return cluster.processes(b"-m icbench search")


def test_detached(cluster: Cluster, searches: Searches) -> None:
    """A job does the search, however it is killed; a second one is not submitted beside it."""
    searches.write(SLOW)
    done = cluster.icbench(*searches.words, "--detach", "--json")
    assert done.code == 0, done.err
    job = done.json()["job"]
    assert f"job {job} does the search already" in cluster.icbench(*searches.words, "--detach").out
    searches.write("no search any more", "")
    cluster.wait_for_checkpoints(1)
    (first,) = controllers(cluster)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: controllers(cluster) and controllers(cluster) != [first], 30)
    wait_for(lambda: "took over" in cluster.logs(), 30)
    cluster.slurm("scontrol", "requeue", job)
    cluster.finish()
    assert cluster.submissions() == 2
    assert_ordinary(searches, {"complete": 6})
    assert f"Requeued job {job}" not in cluster.logs()
    assert len(list((cluster.results / "code").iterdir())) == 1


def test_a_detached_search_cancelled(cluster: Cluster, searches: Searches) -> None:
    """Controller and jobs end, and nobody submits new ones. Before its time is over, it puts itself into the queue."""
    searches.write(SLOW)
    assert cluster.icbench(*searches.words, "--detach").code == 0
    cluster.wait_for_checkpoints(1)
    job = searches.jobs()[0]
    cluster.slurm("scancel", "--signal=USR2", job)
    wait_for(lambda: cluster.restarts(job) == 1, 30)
    wait_for(lambda: cluster.logs().count("took over") == 1, 60)
    cancelled = cluster.icbench("cancel", "search")
    assert cancelled.out.count("cancelled") == 1
    wait_for(lambda: not searches.jobs(), 30)
    assert not controllers(cluster)
    assert cluster.submissions() == 2
    assert searches.states()["complete"] < 6


def test_two_controllers(cluster: Cluster, searches: Searches) -> None:
    searches.write(SLOW, PROFILE.replace("at_once: 1", "at_once: 2"))
    with searches.controller() as first, searches.controller() as second:
        assert "submitted" in first.wait()
        assert "submitted" in second.wait()
    states = searches.states()
    states.pop("failed", None)
    assert states == {"complete": 6}
    assert len(cluster.runs()) == 6
    assert set(searches.begun().values()) == {1}
    wait_for(lambda: not searches.jobs(), 15)


def test_jobs_that_are_not_needed_end(cluster: Cluster, searches: Searches) -> None:
    """Of two jobs the one that waits for nothing ends while the other does the last trial."""
    searches.write(SLOW.replace("trials: 6", "trials: 3"), ONE_GPU.replace("at_once: 1", "at_once: 2"))
    with searches.controller() as controller:
        wait_for(lambda: len(searches.begun()) == 3 and len(searches.finished()) == 2, 100)
        (last,) = searches.begun().keys() - searches.finished()
        worker = json.loads(Layout(cluster.results).run(last).progress.read_text())["pid"]
        os.kill(worker, signal.SIGSTOP)
        wait_for(lambda: len(searches.jobs()) == 1, 30)
        os.kill(worker, signal.SIGCONT)
        assert last not in searches.finished()
        controller.wait()
    assert_ordinary(searches, {"complete": 3})


def test_ranks_wait(cluster: Cluster, searches: Searches) -> None:
    """Ctrl-C, and the two ranks of a run wait until somebody hands out more."""
    cluster.tree = cluster.folder.parent / "tree"
    shutil.copytree(REPOSITORY / "icbench", cluster.tree / "icbench", ignore=shutil.ignore_patterns("__pycache__"))
    worker = cluster.tree / "icbench" / "work" / "worker.py"
    often = worker.read_text().replace("_STILL_HERE_SECONDS = 30.0", "_STILL_HERE_SECONDS = 0.2")
    assert "_STILL_HERE_SECONDS = 0.2" in often
    worker.write_text(often)
    searches.write(QUICK.replace("trials: 6", "trials: 3"), PROFILE + "gpus_per_run: 2\n")
    with searches.controller() as controller:
        wait_for(searches.begun, 60)
        controller.process.send_signal(signal.SIGINT)
        said = controller.wait(130)
    assert "Its jobs go on with the runs that they have. To end them too:\n  icbench cancel search" in said
    wait_for(lambda: len(searches.finished()) == 1, 60)
    time.sleep(3)  # 15 times that the first rank says so
    with searches.controller() as controller:
        assert "took over" in controller.wait()
    assert_ordinary(searches, {"complete": 3})
    assert set(cluster.runs()["world_size"]) == {2}
    assert "parted" not in cluster.logs()


def test_a_dry_run_and_mistakes(cluster: Cluster, searches: Searches) -> None:
    searches.write(QUICK)
    shown = cluster.icbench(*searches.words, "--dry-run", "--json")
    assert shown.code == 0, shown.err
    assert shown.json()["runs"] == 6
    assert not cluster.results.exists()
    searches.write(QUICK, PROFILE.replace("partition: main", "partition: nowhere"))
    refused = cluster.icbench(*searches.words)
    assert refused.code == 1
    assert "sbatch refused: " in refused.err
    assert cluster.icbench(*searches.words, "--detach").code == 1
    automatic = PROFILE.replace("gpus_per_node: 2", "gpus_per_node: 2\nruns_per_gpu: auto")
    searches.write(QUICK, automatic.replace("device: cpu", "device: cuda"))
    assert "runs_per_gpu: auto is measured by sweeps" in cluster.icbench(*searches.words).err
    local = cluster.icbench("search", "search.yaml", "--detach", "--no-build")
    assert (local.code, "--detach needs a cluster" in local.err) == (2, True)
    searches.write(QUICK)
    done = cluster.icbench(*searches.words, "--json")
    assert done.code == 0, done.err
    (study,) = done.json()["studies"]
    assert study["trials"]["COMPLETE"] == 6
