"""A canary on the real SLURM: a job of its own, what it leaves, and how it is cancelled."""

import json
import signal
import subprocess
import sys
from functools import partial

from conftest import wait_for
from harness import PROFILE, Cluster

QUICK = """
recipe: {name: digits, epochs: 2}
fixed: {dataset: digits, depth: 8, width: 4}
grid: {ordering: [baseline, relu-ic-conv]}
seeds: 2
"""


def test_a_canary_s_job(cluster: Cluster) -> None:
    """It measures as many runs at once as share a node, and its results serve the next plan."""
    cluster.write(QUICK, PROFILE.replace("gpus_per_node: 2", "gpus_per_node: 0\nruns_per_node: 2"))
    arguments = ("plan", "grid.yaml", "--no-build", "--profile", "profile.yaml")
    done = cluster.icbench(*arguments, "--canary")
    assert done.code == 0, done.err + cluster.logs()
    assert "submitted job " in done.err
    assert "which measures 2 nets; Ctrl-C cancels it" in done.err
    assert "It comes from 2 canaries of 2 of its 2 nets on cpu (" in done.out
    assert "without waiting in the queue" in done.out
    files = list((cluster.results / "canaries").iterdir())
    assert len(files) == 2  # and no job's folder
    content = json.loads(files[0].read_text())
    assert content["hardware"] == "device=cpu partition=main constraint=None gpu_type=None"
    again = cluster.icbench(*arguments, "--json").json()["estimate"]
    assert again["source"]["canaries"] == 2
    assert again["finish_seconds"]["low"] < again["finish_seconds"]["high"]

    swept = cluster.sweep("--wait")
    assert swept.code == 0, swept.err
    assert "Estimate: 4 runs, " in swept.out
    after = cluster.icbench(*arguments).out
    assert "4 finished runs: estimated " in after


def test_ctrl_c_cancels_the_job(cluster: Cluster) -> None:
    cluster.write(QUICK)
    with cluster.closed():
        command = [sys.executable, "-m", "icbench", "plan", "grid.yaml", "--no-build", "--profile", "profile.yaml"]
        waiting = subprocess.Popen(
            [*command, "--canary"],
            cwd=cluster.folder,
            env=cluster.environment,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )
        wait_for(lambda: "icbench-canary." in cluster.slurm("squeue", "--noheader", "--format=%j"), 60, every=0.3)
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=60)
        assert waiting.returncode == 130, said
        wait_for(lambda: not cluster.slurm("squeue", "--noheader"), 30, every=0.3)


def test_a_job_that_ends_early_says_why(cluster: Cluster) -> None:
    cluster.write(QUICK, PROFILE + 'setup: ["false"]\n')
    done = cluster.icbench("plan", "grid.yaml", "--no-build", "--profile", "profile.yaml", "--canary", timeout=120)
    assert done.code == 1
    assert "of the canaries ended early. The last it said:" in done.err
    assert "this line of the profile's setup failed: false" in done.err
