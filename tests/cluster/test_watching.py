"""status, logs, cancel, doctor on a real SLURM."""

import json
import signal
import subprocess
import sys

from conftest import wait_for
from harness import PROFILE, SLOW, Cluster

from icbench import grid

LONG = SLOW.replace("epochs: 12", "epochs: 300")


def test_status_of_jobs_that_run_and_wait(cluster: Cluster) -> None:
    """Two runs under way, with epoch and time left; two queued; the scheduler asked once, the accounting not at all."""
    cluster.write(LONG)
    job = cluster.submit()
    cluster.wait_for_checkpoints(2)

    def known() -> bool:
        beats = cluster.status()["running"]
        return len(beats) == 2 and all(beat["seconds_left"] for beat in beats)

    wait_for(known, 60, every=0.5)
    status = cluster.status()
    assert (status["total"], status["finished"], status["queued"], status["waiting"]) == (4, 0, 2, 0)
    assert (status["jobs_running"], status["jobs_pending"]) == (1, 0)
    assert [beat["job"] for beat in status["running"]] == [job, job]
    assert all(0 < beat["done"] < beat["epochs"] == 300 for beat in status["running"])
    shown = cluster.icbench("status").out
    assert "1 running, 0 pending" in shown
    assert " left, on " in shown


def test_status_without_accounting(cluster: Cluster) -> None:
    """What is queued is known; how jobs ended is not, and status says so."""
    cluster.write()
    cluster.submit()
    cluster.wait_for_checkpoints(1)
    cluster.devcluster("stop-accounting")
    try:
        assert cluster.status()["jobs_running"] == 1
        assert cluster.icbench("cancel", "grid").code == 0
        wait_for(lambda: not cluster.slurm("squeue", "--noheader"), 60, every=0.2)
        done = cluster.icbench("status")
        assert done.code == 0
        assert "How jobs ended is not known: sacct failed" in done.out
        assert "interrupted 2 runs in job " in done.out
        doctor = cluster.icbench("doctor", "--profile", "profile.yaml")
        assert "warning accounting: sacct failed" in doctor.out
        assert cluster.sweep("--wait").code == 0  # and it needs none
    finally:
        cluster.devcluster("start-accounting")


def test_jobs_that_end_before_they_begin_a_run(cluster: Cluster) -> None:
    """A setup line that fails ends the job; status, --wait and logs say which."""
    cluster.write(SLOW, PROFILE + 'setup: ["true", "module load no-such-thing"]')
    done = cluster.sweep("--wait")
    assert done.code == 1
    assert "the jobs have ended, but 4 runs of grid are not done" in done.err
    wait_for(lambda: cluster.status()["jobs_ended"], 30, every=0.5)
    said = "icbench: this line of the profile's setup failed: module load no-such-thing"
    (ended,) = cluster.status()["jobs_ended"]
    assert (ended["state"], ended["kind"], ended["said"]) == ("FAILED 76:0", "setup", said)
    assert f"ended: FAILED 76:0, setup: {said}" in cluster.icbench("status").out
    run_id = grid.load(cluster.folder / "grid.yaml").run_ids[0]
    assert said in cluster.icbench("logs", run_id).out


def test_status_where_squeue_does_not_answer(cluster: Cluster) -> None:
    cluster.write()
    with cluster.closed():
        cluster.submit()
        fake = cluster.folder / "bin" / "squeue"
        fake.parent.mkdir()
        fake.write_text("#!/bin/sh\necho 'squeue: error: Socket timed out' >&2\nexit 1\n")
        fake.chmod(0o755)
        cluster.path = fake.parent
        shown = cluster.icbench("status").out
        assert "What was submitted to SLURM counts as queued here, since the queue is not known: " in shown
        assert cluster.status()["queued"] == 4
        refused = cluster.sweep()
        assert refused.code == 1
        assert "squeue failed: Socket timed out" in refused.err
        assert cluster.submissions() == 1
        cluster.path = None
        assert cluster.icbench("cancel").code == 0


def test_status_watches_until_all_is_done(cluster: Cluster) -> None:
    cluster.write(SLOW.replace("epochs: 12", "epochs: 2"))
    cluster.submit()
    watched = cluster.icbench("status", "--watch", timeout=120)
    assert watched.code == 0
    first, *_, last = watched.out.split("\n\n")
    assert "1 running, 0 pending" in first or "0 running, 1 pending" in first
    assert "pending" not in last
    assert cluster.status()["finished"] == 4


def test_logs(cluster: Cluster) -> None:
    cluster.write()
    cluster.submit()
    cluster.wait_for_checkpoints(1)
    run_id = cluster.checkpoints()[0].parent.name
    followed = cluster.icbench("logs", run_id, "--follow")
    assert followed.code == 0
    assert "attempt 1 of conv-relu-ic digits" in followed.out or "attempt 1 of ic-conv-relu digits" in followed.out
    assert "epoch 12: train loss" in followed.out
    assert "finished with test accuracy" in followed.out
    cluster.finish()
    assert cluster.icbench("logs", run_id[:8]).out == followed.out
    assert cluster.icbench("logs", "zzz").code == 2


def test_logs_of_a_run_whose_job_was_lost(cluster: Cluster) -> None:
    """What the job said, too."""
    cluster.write()
    job = cluster.submit()
    cluster.wait_for_checkpoints(1)
    cluster.slurm("scancel", job)
    cluster.finish()
    run_id = cluster.checkpoints()[0].parent.name
    shown = cluster.icbench("logs", run_id).out
    assert "stopped; the checkpoint is stored" in shown
    assert f"{job}_0_log.err" in shown
    assert "CANCELLED" in shown


def test_cancel_one_run(cluster: Cluster) -> None:
    """Its worker notices, stores a checkpoint and goes on to the next; it is tried again only when asked for."""
    cluster.write(SLOW.replace("epochs: 12", "epochs: 200"), PROFILE.replace("gpus_per_node: 2", "gpus_per_node: 1"))
    cluster.submit()
    cluster.wait_for_checkpoints(1)
    run_id = cluster.checkpoints()[0].parent.name
    assert cluster.icbench("cancel", run_id[:10]).code == 0
    assert cluster.icbench("cancel", run_id).code == 2  # twice
    wait_for(lambda: len(cluster.checkpoints()) > 1, 60)
    assert "cancelled; the checkpoint is stored" in cluster.logs()
    (failure,) = cluster.status()["failures"]
    assert (failure["run_id"], failure["kind"]) == (run_id, "cancelled")
    assert cluster.icbench("cancel", "grid.yaml").code == 0
    cluster.finish()
    retried = cluster.sweep("--retry-failed=cancelled")
    assert "submitted 4 runs" in retried.out
    wait_for(lambda: "goes on from its checkpoint" in cluster.logs(), 60, every=0.2)


def test_cancel_says_what_it_cannot_find(cluster: Cluster) -> None:
    cluster.write()
    assert cluster.icbench("cancel").code == 2  # no results yet
    cluster.results.mkdir()
    assert "no sweep 'grid' was ever begun" in cluster.icbench("cancel", "grid.yaml").err
    assert "begins with 'abc'" in cluster.icbench("cancel", "abc").err
    assert "Nothing of any sweep is under way" in cluster.icbench("cancel").out


def test_cancel_a_local_sweep(cluster: Cluster) -> None:
    """As Ctrl-C would, from another terminal."""
    cluster.write(LONG)
    command = [sys.executable, "-m", "icbench", "sweep", "grid.yaml"]
    with subprocess.Popen(
        command, cwd=cluster.folder, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as sweep:
        cluster.wait_for_checkpoints(1)
        assert cluster.status()["queued"] >= 1
        assert f"process {sweep.pid}" in cluster.icbench("cancel", "grid").out
        _, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 130
    assert "Nothing is lost" in err


def test_waiting_is_not_the_jobs_life(cluster: Cluster) -> None:
    """Ctrl-C of `--wait` leaves the jobs alone, and says so."""
    cluster.write()
    command = [sys.executable, "-m", "icbench", "sweep", "grid.yaml", "--profile", "profile.yaml", "--wait"]
    wrapper = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", wrapper, *command],
        cwd=cluster.folder,
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as sweep:
        cluster.wait_for_checkpoints(1)
        sweep.send_signal(signal.SIGINT)
        _, err = sweep.communicate(timeout=30)
    assert sweep.returncode == 130
    assert "What was submitted goes on" in err
    cluster.finish()
    assert len(cluster.runs()) == 4


def test_out_of_the_node_s_memory(cluster: Cluster) -> None:
    """An allocation that nothing can hold: host-oom, by its kind, with its last line."""
    cluster.write(
        "recipe: {name: digits, epochs: 1}\nfixed: {dataset: digits, depth: 8, ordering: baseline, width: 1000000}"
    )
    done = cluster.sweep("--wait")
    assert done.code == 1
    (failure,) = cluster.status()["failures"]
    assert failure["kind"] == "host-oom"
    shown = cluster.icbench("status").out
    assert f"failed {failure['run_id']} (host-oom): " in shown
    assert "failed by kind: host-oom 1" in shown


def test_doctor(cluster: Cluster) -> None:
    cluster.write()
    healthy = cluster.icbench("doctor", "--profile", "profile.yaml")
    assert healthy.code == 0, healthy.out
    lines = healthy.out.splitlines()
    for what in ("results", "free space", "locks", "data set digits", "torch", "SLURM's commands", "controller",
                 "accounting", "submit limit", "MaxArraySize: 5", "preemption", "partition: main: 2 nodes", "gres",
                 "a job of this profile"):  # fmt: skip
        assert any(line.startswith(f"ok      {what}") for line in lines), (what, healthy.out)
    assert "warning data set cifar10: the data set cifar10 is not there" in healthy.out
    assert not cluster.results.exists()

    cluster.write(SLOW, PROFILE.replace("gpus_per_node: 2", "gpus_per_node: 8"))
    greedy = cluster.icbench("doctor", "--profile", "profile.yaml", "--json")
    assert greedy.code == 1
    failed = {
        finding["what"]: finding["remedy"] for finding in json.loads(greedy.out) if finding["verdict"] == "failed"
    }
    assert failed.keys() == {"gres", "a job of this profile"}
    assert failed["gres"] == "Write gpus_per_node: 4."

    cluster.slurm("scontrol", "update", "PartitionName=scavenger", "MaxTime=5")
    scavenger = PROFILE.replace("partition: main", "partition: scavenger")
    cluster.write(SLOW, scavenger.replace("gpus_per_node: 2", "gpus_per_node: 2\ncpus_per_gpu: 9"))
    never = cluster.icbench("doctor", "--profile", "profile.yaml")
    cluster.slurm("scontrol", "update", "PartitionName=scavenger", "MaxTime=INFINITE")
    assert "failed  time_limit: 10 min is more than the partition's 5 min. Write time_limit: 5" in never.out
    assert "failed  cores: a job wants 18 on each node, but none has more than 16" in never.out

    cluster.write(SLOW, PROFILE.replace("partition: main", "partition: mein"))
    lost = cluster.icbench("doctor", "--profile", "profile.yaml")
    assert "failed  partition: there is no partition 'mein'. Partitions: main scavenger urgent." in lost.out


def test_a_sweep_typed_inside_a_job(cluster: Cluster) -> None:
    """The variables of the job around it are no options of the jobs that it submits."""
    cluster.write(SLOW.replace("epochs: 12", "epochs: 1"))
    command = f"{sys.executable} -m icbench sweep grid.yaml --profile profile.yaml"
    script = cluster.folder / "inside.sh"
    script.write_text(
        f"#!/bin/sh\n#SBATCH --ntasks=3 --output={cluster.folder}/inside.out\ncd {cluster.folder}\n{command}\n"
    )
    cluster.slurm("sbatch", "--wait", script)
    assert "submitted 4 runs in 1 job of 2 slots each" in (cluster.folder / "inside.out").read_text()
    cluster.finish()
    assert len(cluster.runs()) == 4
    assert sorted(set(cluster.runs()["gpu"])) == ["0", "1"]
    assert set(grid.load(cluster.folder / "grid.yaml").run_ids) == set(cluster.runs()["run_id"])
