"""Data parallel training over the nodes of a real SLURM."""

from pathlib import Path

import numpy as np
import pytest
from conftest import sweep_here, wait_for
from harness import PROFILE, Cluster

import icbench as package

# Statistics over the whole batch, no dropout: then the world's size cannot matter, but for rounding.
SHARED = """
recipe: {name: digits, epochs: 4, sync_batch_norm: true}
fixed: {dataset: digits, depth: 8, width: 8, precision: float64, ordering: relu-ic-conv, dropout: 0}
seeds: 2
"""
# Two nodes of two ranks each train one run.
FOUR_RANKS = PROFILE.replace("gpus_per_node: 2", "nodes: 2\ngpus_per_node: 2\ngpus_per_run: 4")
COLUMNS = ["train_loss", "train_accuracy", "test_loss", "test_accuracy"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of SHARED in one process with the same global batch."""
    return sweep_here(tmp_path_factory.mktemp("alone"), SHARED)


def assert_equal_but_for_rounding(results: Path, alone: Path) -> None:
    """To 1e-10 relative, in float64: sums of four parts are rounded otherwise than of one."""
    ours, theirs = package.load_epochs(results), package.load_epochs(alone)
    assert ours["run_id"].tolist() == theirs["run_id"].tolist()
    np.testing.assert_allclose(ours[COLUMNS], theirs[COLUMNS], rtol=1e-10)


def test_two_nodes_of_two_ranks_are_one_process(cluster: Cluster, alone: Path) -> None:
    cluster.write(SHARED, FOUR_RANKS)
    done = cluster.sweep("--wait")
    assert done.code == 0, done.out + done.err + cluster.logs()
    assert "in 1 job of 1 slot each" in done.out
    runs = cluster.runs()
    assert runs["world_size"].tolist() == [4, 4]
    assert_equal_but_for_rounding(cluster.results, alone)


def test_a_rank_killed(cluster: Cluster, alone: Path) -> None:
    """All ranks of the run begin anew from its checkpoint, in the same job."""
    cluster.write(SHARED, FOUR_RANKS)
    cluster.submit()
    cluster.wait_for_checkpoints(1)
    cluster.kill(cluster.workers()[-1:])
    cluster.finish()
    assert "parted: another rank of this run is lost" in cluster.logs()
    assert_equal_but_for_rounding(cluster.results, alone)
    assert cluster.runs()["attempts"].max() == 2


def test_requeued_ranks(cluster: Cluster, alone: Path) -> None:
    """The ranks stop at one step and go on from there."""
    cluster.write(SHARED, FOUR_RANKS)
    job = cluster.submit()
    cluster.wait_for_checkpoints(1)
    cluster.slurm("scontrol", "requeue", job)
    wait_for(lambda: not cluster.workers(), 60)
    assert "stopped; the checkpoint is stored" in cluster.logs()
    cluster.finish()
    assert_equal_but_for_rounding(cluster.results, alone)


def test_packed_runs_of_several_ranks_do_not_meet(cluster: Cluster, alone: Path) -> None:
    """Two slots of two ranks on one node, at the same time: each has ports of its own."""
    cluster.write(SHARED, PROFILE.replace("gpus_per_node: 2", "gpus_per_node: 4\ngpus_per_run: 2"))
    done = cluster.sweep("--wait")
    assert done.code == 0, done.out + done.err + cluster.logs()
    assert "in 1 job of 2 slots each" in done.out
    assert cluster.runs()["world_size"].tolist() == [2, 2]
    assert_equal_but_for_rounding(cluster.results, alone)


def test_a_batch_too_small_for_its_gpus(cluster: Cluster) -> None:
    cluster.write(SHARED.replace("epochs: 4", "epochs: 4, batch_size: 1437"), FOUR_RANKS)
    refused = cluster.sweep()
    assert refused.code == 2
    assert "4 GPUs cannot share a batch of 1: 1438 training images in batches of 1437" in refused.err
    assert not cluster.results.exists()
