"""Whatever happens to jobs, nodes and processes: the same command completes the grid, with the rows of an undisturbed
sweep, bit for bit.
"""

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY, assert_same_rows, wait_for
from harness import PROFILE, SLOW, Cluster

import icbench as package

# What submitit says of the signal that SLURM sends before its warning, so that it is heard.
WARNED = "Bypassing signal SIGCONT"
ALL_NODES = ("--nodes=2", "--ntasks-per-node=1", "--exclusive", "--output=/dev/null")


def complete(cluster: Cluster, undisturbed: Path) -> None:
    """The same command, once more; then all is done, and as if nothing had happened."""
    done = cluster.sweep("--wait")
    assert done.code == 0, done.out + done.err + cluster.logs()
    assert_same_rows(cluster.results, undisturbed)


def test_preempted_without_notice(cluster: Cluster, undisturbed: Path) -> None:
    """By a job of a higher partition; SLURM puts ours back into the queue, and each slot has stored its checkpoint."""
    cluster.write()
    job = cluster.submit()
    cluster.wait_for_checkpoints(2)
    cluster.slurm("sbatch", "--partition=urgent", *ALL_NODES, "--wrap=sleep 5")
    wait_for(lambda: cluster.state(job) in ("PENDING", "COMPLETING"), 60)
    wait_for(lambda: cluster.logs().count("stopped; the checkpoint is stored") == 2, 20)
    cluster.finish()
    assert cluster.submissions() == 1
    assert cluster.runs()["attempts"].sum() > 4
    complete(cluster, undisturbed)


def test_preempted_with_notice(cluster: Cluster, undisturbed: Path) -> None:
    """SIGTERM some seconds before: the job stores its checkpoints and puts itself back into the queue."""
    cluster.write(SLOW, PROFILE.replace("partition: main", "partition: scavenger"))
    job = cluster.submit()
    cluster.wait_for_checkpoints(2)
    cluster.slurm("sbatch", "--partition=urgent", *ALL_NODES, "--wrap=sleep 5")
    wait_for(lambda: cluster.state(job) in ("PENDING", "COMPLETING"), 60)
    # SLURM may end the job before it has said what it asked for; of what SLURM itself preempts it says another thing.
    wait_for(lambda: any(said in cluster.logs() for said in (f"Requeued job {job}", "DUE TO JOB REQUEUE")), 20)
    assert cluster.logs().count("stopped; the checkpoint is stored") == 2
    cluster.finish()
    assert len(cluster.runs()) == 4
    assert cluster.submissions() == 1
    complete(cluster, undisturbed)


def test_requeued(cluster: Cluster, undisturbed: Path) -> None:
    cluster.write()
    job = cluster.submit()
    cluster.wait_for_checkpoints(2)
    cluster.slurm("scontrol", "requeue", job)
    cluster.finish()
    assert len(cluster.runs()) == 4
    assert "goes on from its checkpoint" in cluster.logs()
    complete(cluster, undisturbed)


def test_a_time_limit_hit_twice(cluster: Cluster, undisturbed: Path) -> None:
    """Jobs of two minutes, warned after 45 to 75 s. Once it has got further, the worker is held up until then, so that
    no run ends the job before its time; a job that gets nowhere would not be put back.
    """
    short = PROFILE.replace("time_limit: 10", "time_limit: 2\nsignal_seconds: 45").replace("node: 2", "node: 1")
    cluster.write(SLOW, short)
    job = cluster.submit()
    for hit in (1, 2):
        epochs = cluster.logs().count("test accuracy")
        wait_for(lambda: logged(cluster, "test accuracy", epochs + 1), 100, every=0.2)  # noqa: B023
        warnings = cluster.logs().count(WARNED)  # not before: requeueing sends that signal as well
        while cluster.state(job) == "RUNNING" and not logged(cluster, WARNED, warnings + 1):
            hold_up(cluster, 1.9)
            time.sleep(0.1)
        wait_for(lambda: cluster.restarts(job) == hit, 60, every=0.2)  # noqa: B023
    cluster.finish()
    assert cluster.submissions() == 1
    assert cluster.logs().count("stopped; the checkpoint is stored") >= 2
    assert len(cluster.runs()) == 4
    complete(cluster, undisturbed)


def logged(cluster: Cluster, words: str, least: int) -> bool:
    return cluster.logs().count(words) >= least


def hold_up(cluster: Cluster, seconds: float) -> None:
    """Have all workers stand still for a while."""
    workers = cluster.workers()
    for number, rest in ((signal.SIGSTOP, seconds), (signal.SIGCONT, 0)):
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        time.sleep(rest)


def test_a_node_lost(cluster: Cluster, undisturbed: Path) -> None:
    """Its slurmd and all that ran there killed; SLURM requeues the job, which goes on from periodic checkpoints."""
    cluster.write()
    job = cluster.submit()
    cluster.wait_for_checkpoints(2)
    node = cluster.slurm("squeue", "--noheader", "--format=%N", f"--jobs={job}")
    cluster.devcluster("kill-node", node)
    try:
        cluster.finish()
    finally:
        cluster.devcluster("start-node", node)
    assert len(cluster.runs()) == 4
    complete(cluster, undisturbed)


def test_a_worker_killed(cluster: Cluster, undisturbed: Path) -> None:
    """kill -9 of what trains in a slot: another takes its place in the same job."""
    cluster.write()
    cluster.submit()
    cluster.wait_for_checkpoints(2)
    cluster.kill(cluster.workers()[:1])
    cluster.finish()
    assert len(cluster.runs()) == 4
    assert sorted(cluster.runs()["attempts"])[-1] == 2
    assert "the worker ended (killed by SIGKILL)" in cluster.logs()
    complete(cluster, undisturbed)


def test_a_slot_killed(cluster: Cluster, undisturbed: Path) -> None:
    """kill -9 of SLURM's own task: its worker notices that it is alone; the other slot does what this one has left."""
    cluster.write()
    cluster.submit()
    cluster.wait_for_checkpoints(2)
    cluster.kill(cluster.tasks(process=1))
    wait_for(lambda: len(cluster.workers()) == 1, 20)
    cluster.finish()
    assert len(cluster.runs()) == 4
    complete(cluster, undisturbed)


def test_cancelled_with_scancel(cluster: Cluster, undisturbed: Path) -> None:
    """The job is not put back into the queue; status says why its runs were left; the same command goes on."""
    cluster.write()
    job = cluster.submit()
    cluster.wait_for_checkpoints(2)
    cluster.slurm("scancel", job)
    wait_for(lambda: not cluster.slurm("squeue", "--noheader"), 60, every=0.2)

    def ended() -> set[tuple[str, str]]:
        return {(each["kind"], each["job"]) for each in cluster.status()["interrupted"]}

    wait_for(lambda: ended() == {("cancelled", job)}, 30, every=0.5)  # the accounting lags behind
    assert "cancelled, somebody cancelled it" in cluster.icbench("status").out
    assert cluster.logs().count("stopped; the checkpoint is stored") == 2
    complete(cluster, undisturbed)
    assert cluster.submissions() == 2


def test_cancelled_while_it_wants_to_be_requeued(cluster: Cluster) -> None:
    """SLURM's signal, and before all slots have stopped, scancel: the job stays away."""
    cluster.write()
    job = cluster.submit()
    cluster.wait_for_checkpoints(2)
    held = cluster.workers()[:1]
    os.kill(held[0], signal.SIGSTOP)
    cluster.slurm("scancel", "--signal=USR2", job)
    wait_for(lambda: logged(cluster, "stopped; the checkpoint is stored", 1), 30)
    cluster.slurm("scancel", job)
    os.kill(held[0], signal.SIGCONT)
    cluster.finish()
    assert "Requeued job" not in cluster.logs()
    assert len(cluster.runs()) < 4


def test_data_lost_on_the_way(cluster: Cluster, undisturbed: Path) -> None:
    """A node that cannot read the data set spoils no run: its job ends and says so."""
    cluster.write()
    with cluster.closed():
        cluster.submit()
        (data,) = cluster.results.glob("code/*/icbench/data/sets/digits.npz")
        data.rename(data.with_suffix(".away"))
    cluster.finish()
    assert "2 workers ended before they began a run" in cluster.logs()
    assert "the data set digits is not there" in cluster.logs()
    status = cluster.status()
    assert (status["finished"], status["failures"]) == (0, [])
    data.with_suffix(".away").rename(data)
    complete(cluster, undisturbed)


def test_a_crash_loop_ends(cluster: Cluster, tmp_path: Path) -> None:
    """A run that kills whoever trains it is given up after three workers; the other is done."""
    tree = tmp_path / "tree"
    shutil.copytree(REPOSITORY / "icbench", tree / "icbench", ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "icbench" / "nets" / "norms" / "deadly.py").write_text(
        '"""Kills the process that builds it."""\n\nimport os\nimport signal\n\nfrom torch import nn\n\n\n'
        "def build(channels: int) -> nn.Module:\n    os.kill(os.getpid(), signal.SIGKILL)\n    return nn.Identity()\n"
    )
    two_norms = "fixed: {dataset: digits, depth: 8, ordering: baseline}\ngrid: {norm: [deadly, batch]}"
    cluster.write(
        f"recipe: {{name: digits, epochs: 1}}\n{two_norms}", PROFILE.replace("gpus_per_node: 2", "gpus_per_node: 1")
    )
    cluster.tree = tree
    done = cluster.sweep("--wait", "--no-build")
    assert done.code == 1
    assert "FAILED, 3 workers in a row died on it without progress (killed by SIGKILL)" in done.out
    status = cluster.status()
    assert (status["finished"], [failure["kind"] for failure in status["failures"]]) == (1, ["died"])
    assert cluster.sweep().code == 1  # not tried again unasked
    assert cluster.submissions() == 1
    assert "submitted" not in cluster.sweep("--retry-failed=gpu-oom").out
    assert "submitted 1 run " in cluster.sweep("--retry-failed=died", "--no-build").out


def test_jobs_that_get_nowhere_leave_the_queue(cluster: Cluster) -> None:
    """A time limit too short to do a step in: after three stays without progress the job is not requeued."""
    cluster.write()
    job = cluster.submit()
    for _ in range(3):
        # Of both slots: one that has just begun does not hear the signal yet, and dies of it.
        wait_for(lambda: len(cluster.workers()) == 2, 60, every=0.2)
        cluster.slurm("scancel", "--signal=USR2", job)  # as before the end of a job's time, before there was a step
        wait_for(lambda: not cluster.workers(), 60)
    cluster.finish()
    assert "not put back into the queue: 3 stays in a row on its nodes made no progress" in cluster.logs()
    status = cluster.status()
    assert (status["finished"], status["queued"], status["failures"]) == (0, 0, [])


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a small file system")
def test_a_full_disk(cluster: Cluster, undisturbed: Path) -> None:
    """Results on a small file system that fills up: nothing is corrupt, the job says so, the same command goes on."""
    cluster.write()
    cluster.results.mkdir()
    # Room for the code that jobs run, compiled too (3 MiB), and two checkpoints with their successors.
    cluster.slurm("mount", "-t", "tmpfs", "-o", "size=12m", "none", cluster.results)
    try:
        cluster.submit()
        cluster.wait_for_checkpoints(2)
        ballast = cluster.results / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 4096)
            except OSError:
                pass
        cluster.finish()
        assert len(cluster.runs()) < 4  # and they can be read
        wait_for(lambda: {each["kind"] for each in cluster.status()["interrupted"]} == {"disk"}, 30, every=0.5)
        said = cluster.icbench("status").out
        assert "no space" in said.lower(), said
        refused = cluster.sweep()
        assert refused.code == 1
        assert "No space left on device" in refused.err
        assert "Traceback" not in refused.err
        ballast.unlink()
        complete(cluster, undisturbed)
        package.load_epochs(cluster.results)
    finally:
        cluster.slurm("umount", "--lazy", cluster.results)
