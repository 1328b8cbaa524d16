"""Packs, slots and arrays on a real SLURM of two nodes with four "GPUs" each."""

import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import REPOSITORY, assert_same_rows, sweep_here, wait_for
from harness import PROFILE, SLOW, Cluster

from icbench import grid

QUICK = """
recipe: {name: digits, epochs: 2}
fixed: {dataset: digits, depth: 8, width: 4}
grid: {ordering: [baseline, relu-ic-conv]}
seeds: 12
"""


def test_every_slot_on_the_device_it_was_given(cluster: Cluster, tmp_path: Path) -> None:
    """24 runs over 2 nodes x 4 GPUs, two runs a GPU: 16 slots, each on its GPU of its node; a local sweep's rows."""
    whole = "nodes: 2\ngpus_per_node: 4\nruns_per_gpu: 2\ncpus_per_gpu: 4"
    cluster.write(QUICK, PROFILE.replace("gpus_per_node: 2", whole))
    done = cluster.sweep("--wait")
    assert done.code == 0, done.err + cluster.logs()
    assert re.search(r"submitted 24 runs in 1 job of 16 slots each, grid\.[0-9a-f]{8}: \d+\n", done.out)
    assert "[24/24]" in done.out
    assert "baseline-v1" in done.out.rpartition("[24/24]")[2]  # the table

    places = {}
    for event in cluster.events():
        if event["event"] == "start":
            slot = (event["node"], event["gpu"])
            places[event["pid"]] = slot
    assert Counter(places.values()) == {(node, str(gpu)): 2 for node in ("n1", "n2") for gpu in range(4)}
    runs = cluster.runs()
    assert len(runs) == 24
    assert set(zip(runs["node"], runs["gpu"], strict=True)) <= set(places.values())
    (job,) = set(runs["slurm_job_id"])
    assert f": {job}\n" in done.out
    step = ("sacct", "--noheader", "--parsable2", f"--jobs={job}.0", "--format=NTasks,AllocCPUS")
    wait_for(lambda: cluster.slurm(*step) == "16|32", 30, every=0.5)  # each with its two of a GPU's four cores
    assert (runs["attempts"] == 1).all()

    assert_same_rows(cluster.results, sweep_here(tmp_path, QUICK))
    assert "0 of 24 runs" not in cluster.sweep().out  # nothing missing: the table again, nothing submitted
    assert cluster.submissions() == 1


def test_arrays_of_at_most_five_jobs(cluster: Cluster) -> None:
    """12 jobs in three arrays, of which never more than two run at a time."""
    one_gpu = PROFILE.replace("gpus_per_node: 2", "gpus_per_node: 1")
    cluster.write(QUICK, one_gpu.replace("max_jobs_at_once: 1", "max_jobs_at_once: 2\njobs: 12"))
    done = cluster.sweep()
    assert done.code == 0, done.err
    arrays = re.findall(r"(\d+)_\[0-(\d)\]", done.out)
    assert [int(last) for _, last in arrays] == [4, 4, 1]
    most, deadline = 0, time.monotonic() + 200
    while cluster.slurm("squeue", "--noheader"):
        running = cluster.slurm("squeue", "--noheader", "--array", "--states=RUNNING").splitlines()
        most = max(most, len(running))
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert most == 2
    assert len(cluster.runs()) == 24
    assert cluster.status()["finished"] == 24


def test_two_sweeps_at_once(cluster: Cluster, undisturbed: Path) -> None:
    """Typed in the same moment, they submit each run once."""
    cluster.write()
    command = [sys.executable, "-m", "icbench", "sweep", "grid.yaml", "--profile", "profile.yaml", "--wait"]
    both = [
        subprocess.Popen(
            command,
            cwd=cluster.folder,
            env=cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outs = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    assert sum("submitted 4 runs in 1 job" in out for out, _ in outs) == 1
    assert sum("4 of these are in live jobs already" in out for out, _ in outs) == 1
    assert cluster.submissions() == 1
    began = [event["run_id"] for event in cluster.events() if event["event"] == "begin"]
    assert len(began) == len(set(began)) == 4
    assert_same_rows(cluster.results, undisturbed)


def test_only_what_is_not_in_a_live_job_is_submitted(cluster: Cluster) -> None:
    """Another grid that shares runs with one in the queue adds only its own."""
    cluster.write()
    with cluster.closed():
        cluster.submit()
        (cluster.folder / "more.yaml").write_text(SLOW.replace("seeds: 2", "seeds: 3"))
        more = cluster.icbench("sweep", "more.yaml", "--profile", "profile.yaml")
        assert "4 of these are in live jobs already" in more.out
        assert "submitted 2 runs" in more.out
        again = cluster.icbench("sweep", "more.yaml", "--profile", "profile.yaml")
        assert "submitted" not in again.out
        statuses = cluster.icbench("status", "--json").json()
        assert [(status["name"], status["queued"], status["jobs_pending"]) for status in statuses] == [
            ("grid", 4, 1),
            ("more", 6, 1),
        ]
        assert "cancelled" in cluster.icbench("cancel").out


def test_the_submit_limit(cluster: Cluster) -> None:
    """Fewer jobs are submitted where the user's limit says so; they do all runs. At the limit: an error."""
    user = cluster.slurm("id", "-un")
    cluster.write(QUICK, PROFILE.replace("gpus_per_node: 2", "gpus_per_node: 1").replace("at_once: 1", "at_once: 6"))
    cluster.slurm("sacctmgr", "--immediate", "modify", "user", user, "set", "MaxSubmitJobs=3")
    try:
        done = cluster.sweep()
        assert done.code == 0, done.err
        assert "the cluster takes 3 of 6 jobs now; they will do all runs between them" in done.out
        assert "submitted 24 runs in 3 jobs" in done.out
        (cluster.folder / "other.yaml").write_text(QUICK.replace("seeds: 12", "seeds: [77]"))
        refused = cluster.icbench("sweep", "other.yaml", "--profile", "profile.yaml")
        assert refused.code == 1
        assert "sbatch refused: " in refused.err
        assert "Wait for some of your jobs to end, or cancel some." in refused.err
        cluster.finish()
    finally:
        cluster.slurm("sacctmgr", "--immediate", "modify", "user", user, "set", "MaxSubmitJobs=-1")
    assert len(cluster.runs()) == 24


def test_max_jobs_at_once_holds_over_all_submissions(cluster: Cluster) -> None:
    """What is submitted beside live jobs that use it up waits for them."""
    cluster.write()
    (cluster.folder / "other.yaml").write_text(SLOW.replace("seeds: 2", "seeds: [7]"))
    with cluster.closed():
        first = cluster.submit()
        other = cluster.icbench("sweep", "other.yaml", "--profile", "profile.yaml")
        assert "submitted 2 runs in 1 job" in other.out
        waiting = cluster.slurm("squeue", "--noheader", "--format=%i %E")
        assert f"afterany:{first}" in waiting
        assert cluster.icbench("cancel").code == 0


def test_variables_change_no_job(cluster: Cluster) -> None:
    """A profile is all that decides; what sbatch and squeue find in the environment does not."""
    cluster.write()
    cluster.variables = {"SBATCH_PARTITION": "urgent", "SBATCH_TIMELIMIT": "5", "SQUEUE_STATES": "RUNNING"}
    with cluster.closed():
        job = cluster.submit()
        assert "4 of these are in live jobs already" in cluster.sweep().out
        cluster.variables = {}
        assert cluster.slurm("squeue", "--noheader", "--format=%i %P %l") == f"{job} main 10:00"
        assert cluster.icbench("cancel").code == 0


def test_a_percent_sign_in_the_results_path(cluster: Cluster) -> None:
    """SLURM would replace it in the names of its files."""
    cluster.write()
    refused = cluster.sweep("--results", "100%a")
    assert refused.code == 2
    assert "cannot have a % in its path" in refused.err
    assert sorted(path.name for path in cluster.folder.iterdir()) == ["grid.yaml", "profile.yaml"]


def test_a_cluster_that_takes_only_the_first_array(cluster: Cluster) -> None:
    """sbatch fails at the second: what the first has taken is known, and does everything."""
    one_gpu = PROFILE.replace("gpus_per_node: 2", "gpus_per_node: 1")
    cluster.write(SLOW.replace("seeds: 2", "seeds: 3"), one_gpu.replace("at_once: 1", "at_once: 6"))
    wrapper = cluster.folder / "bin" / "sbatch"
    wrapper.parent.mkdir()
    wrapper.write_text(
        f"#!/bin/sh\nif [ -e {wrapper}.called ]; then\n"
        "echo 'sbatch: error: Resource temporarily unavailable' >&2; exit 1\n"
        f'fi\ntouch {wrapper}.called\nexec {shutil.which("sbatch")} "$@"\n'
    )
    wrapper.chmod(0o755)
    cluster.path = wrapper.parent
    done = cluster.sweep()
    assert done.code == 0, done.err
    assert "the cluster takes 5 of 6 jobs now (sbatch refused: Resource temporarily unavailable.)" in done.out
    assert "6 of these are in live jobs already" in cluster.sweep().out
    cluster.finish()
    assert len(cluster.runs()) == 6


def test_what_sbatch_refuses_is_said(cluster: Cluster) -> None:
    cluster.write(SLOW, PROFILE.replace("partition: main", "partition: mein"))
    refused = cluster.sweep()
    assert refused.code == 1
    assert "sbatch refused: " in refused.err
    assert "invalid partition" in refused.err
    assert "Traceback" not in refused.err
    assert cluster.status()["waiting"] == 4


def test_jobs_run_the_code_of_their_submission(cluster: Cluster, tmp_path: Path) -> None:
    """The working tree is broken while the job waits; the job does not notice, and its rows have the old version."""
    tree = tmp_path / "tree"
    shutil.copytree(REPOSITORY / "icbench", tree / "icbench", ignore=shutil.ignore_patterns("__pycache__"))
    version = tree / "icbench" / "__init__.py"
    version.write_text(re.sub(r'__version__ = "[^"]*"', '__version__ = "0.0.0.test"', version.read_text()))
    cluster.write(SLOW.replace("epochs: 12", "epochs: 1"))
    with cluster.closed():
        cluster.tree = tree
        cluster.submit()
        (tree / "icbench" / "work" / "worker.py").write_text("raise SystemExit('changed since')")
    cluster.finish()
    runs = cluster.runs()
    assert set(runs["run_id"]) == set(grid.load(cluster.folder / "grid.yaml").run_ids), cluster.logs()
    assert set(runs["icbench_version"]) == {"0.0.0.test"}


@pytest.mark.parametrize("arguments", [("--json",), ()])
def test_a_second_sweep_while_the_first_waits(cluster: Cluster, arguments: tuple[str, ...]) -> None:
    cluster.write()
    with cluster.closed():
        job = cluster.submit()
        again = cluster.sweep(*arguments)
        assert again.code == 0
        assert job in again.out
        assert cluster.submissions() == 1
        assert cluster.icbench("cancel", "grid.yaml").code == 0
    cluster.finish()
