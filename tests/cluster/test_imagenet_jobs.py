"""ImageNet's training over the nodes of a real SLURM, on few and small photos: from their folder to the results."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from harness import PROFILE, Cluster
from photos import KINDS, write_photo

import icbench as package

# As many classes as it takes for top-5 accuracy; numbers of images that neither batches nor ranks share evenly.
CLASSES, TRAINED, TESTED = 100, 203, 101
SMALL = f"""
SHAPE = (32, 32, 3)
SHARDED_SIDE = 40
CLASSES = {CLASSES}
TRAIN_IMAGES = {TRAINED}
TEST_IMAGES = {TESTED}
"""
# Statistics over the whole batch, or of each image by itself; no dropout: then the number of ranks cannot matter, but
# for rounding. Batches of 49 and one of 7.
GRID = """
recipe: {name: imagenet-chen2019, epochs: 2, batch_size: 49, sync_batch_norm: true}
fixed:
  dataset: imagenet
  depth: 18
  width: 4
  ordering: ic-conv-relu
  dropout: 0
  precision: float64
  procedures: [warm-up]
grid: {norm: [batch, layer]}
"""
TWO_NODES = PROFILE.replace("gpus_per_node: 2", "nodes: 2\ngpus_per_node: 1\ngpus_per_run: 2")
COLUMNS = ["train_loss", "train_accuracy", "test_loss", "test_accuracy", "test_top5_accuracy"]
# Appended to the module that reads images: each process writes down which it trains on, an epoch a line.
NOTES = """

_train_batch, _noted = StreamedData.train_batch, None


def _note(self, plan, start, stop, *dtype):
    global _noted
    with open(f"{folder}/{os.environ.get('SLURMD_NODENAME', 'alone')}-{os.getpid()}", "a") as file:
        file.write(("" if _noted is plan else "\\n") + " ".join(map(str, plan.order[start:stop])) + " ")
    _noted = plan
    return _train_batch(self, plan, start, stop, *dtype)


StreamedData.train_batch = _note
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where an icbench is whose ImageNet is small, and this one, prepared."""
    folder = tmp_path_factory.mktemp("imagenet")
    tree, photos = folder / "tree" / "icbench", folder / "photos"
    shutil.copytree(REPOSITORY / "icbench", tree, ignore=shutil.ignore_patterns("__pycache__"))
    with (tree / "data" / "sets" / "imagenet.py").open("a") as file:
        file.write(SMALL)
    with (tree / "data" / "streamed.py").open("a") as file:
        file.write(NOTES.replace("{folder}", str(folder / "noted")))
    (folder / "noted").mkdir()
    random = np.random.default_rng(0)
    for split, count in (("train", TRAINED), ("val", TESTED)):
        for number in range(count):
            image = photos / split / f"n{number % CLASSES:08}" / f"{number}.JPEG"
            image.parent.mkdir(parents=True, exist_ok=True)
            write_photo(image, KINDS[number % len(KINDS)], random)
    done = here(Cluster(Path("none"), folder), folder).icbench("data", "prepare", "imagenet", "--from", "photos")
    assert done.code == 0, done.out + done.err
    return folder


@pytest.fixture(scope="module")
def place(prepared: Path) -> Path:
    """The same, with the results of GRID in one process."""
    alone = here(Cluster(Path("none"), prepared), prepared)
    alone.write(GRID, "workers: 1")
    done = alone.icbench("sweep", "grid.yaml", "--no-build")
    assert done.code == 0, done.out + done.err
    return prepared


def here(cluster: Cluster, place: Path) -> Cluster:
    cluster.tree = place / "tree"
    cluster.variables = {"ICBENCH_DATA": str(place / "data")}
    return cluster


def sweep(cluster: Cluster, place: Path, grid: str, profile: str = TWO_NODES) -> pd.DataFrame:
    """The rows of a sweep over two nodes, each there once; its epochs are those of one process, but for rounding."""
    here(cluster, place).write(grid, profile)
    done = cluster.sweep("--wait", "--no-build")
    assert done.code == 0, done.out + done.err + cluster.logs()
    runs, ours, alone = cluster.runs(), package.load_epochs(cluster.results), package.load_epochs(place / "results")
    assert runs["world_size"].eq(2).all()
    assert runs["attempts"].eq(1).all()
    assert runs["run_id"].is_unique
    theirs = alone[alone["run_id"].isin(runs["run_id"])]
    assert ours[["run_id", "epoch"]].values.tolist() == theirs[["run_id", "epoch"]].values.tolist()
    assert len(ours) == 2 * len(runs)
    np.testing.assert_allclose(ours[COLUMNS], theirs[COLUMNS], rtol=1e-10)
    return runs


def test_two_nodes_are_one_process(cluster: Cluster, place: Path) -> None:
    """Each trains on a part of every epoch, and between them on each image once."""
    for file in (place / "noted").iterdir():
        file.unlink()
    runs = sweep(cluster, place, GRID)
    assert len(runs) == 2
    assert runs["test_top5_accuracy"].gt(runs["test_accuracy"]).all()
    first, second = (noted(place, node) for node in ("n1", "n2"))
    assert len(first) == len(second) == 4
    for parts in zip(first, second, strict=True):
        assert tuple(map(len, parts)) == (104, 99)
        assert sorted(parts[0] + parts[1]) == list(range(TRAINED))


def test_a_canary_decodes(cluster: Cluster, place: Path) -> None:
    here(cluster, place).write(GRID, TWO_NODES)
    done = cluster.icbench("plan", "grid.yaml", "--profile", "profile.yaml", "--no-build", "--canary")
    assert done.code == 0, done.err
    assert "It comes from 2 canaries of 2 of its 2 nets on cpu (" in done.out


def noted(place: Path, node: str) -> list[list[int]]:
    """The images that a node's process trained on, of each epoch."""
    (file,) = (place / "noted").glob(f"{node}-*")
    return [[int(image) for image in line.split()] for line in file.read_text().splitlines()[1:]]


def test_batches_in_parts_on_two_nodes(cluster: Cluster, place: Path) -> None:
    """A share of 25 images is done in two parts, as that of 24 is."""
    runs = sweep(cluster, place, GRID.replace("[batch, layer]", "[layer]"), TWO_NODES + "images_at_once: 24\n")
    assert runs["images_at_once"].tolist() == [24]


def test_a_trial_build_knows_the_held_out_images(prepared: Path, tmp_path: Path) -> None:
    """One of two or three of each class, so that 103 are left to train on: two batches of 51 and one of 1."""
    held_out = GRID.replace("batch_size: 49", "batch_size: 51").replace(
        "dropout: 0\n", "dropout: 0\n  split: heldout\n"
    )
    user = Cluster(Path("none"), tmp_path, tree=prepared / "tree")
    user.write(held_out)
    for data, code in ((prepared / "data", 2), (tmp_path, 0)):
        done = user.icbench("plan", "grid.yaml", "--data", data)
        assert done.code == code, done.out + done.err
        assert ("be trained on a batch of 1: " in done.err) == bool(code)
