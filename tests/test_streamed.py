"""Data streamed from shards, against Pillow and torchvision: what an epoch shows, whatever threads and ranges."""

import gc
import io
import math
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPOSITORY, assert_same_rows, environment, wait_for
from photos import TINY, prepare_tiny, tiny_registered, write_photos
from PIL import Image
from scipy import stats
from torchvision import transforms

from icbench import load_runs
from icbench.config import Augmentation
from icbench.data import store, streamed
from icbench.data.source import Source
from icbench.data.streamed import StreamedData, local_permutation, random_crop
from icbench.errors import UserError

IGNORED = shutil.ignore_patterns("__pycache__")
MEANS, DEVIATIONS = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
CROPPED = Augmentation(shift=0, fill="zero", flip=True, crop_area=0.2)
LEVEL = 1 / (255 * min(DEVIATIONS)) + 1e-6  # a pixel that is rounded otherwise


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("streamed")
    with tiny_registered(folder):
        yield prepare_tiny(folder)


def opened(data: Path, split: str = "test", augmentation: Augmentation = CROPPED, **options: Any) -> StreamedData:
    standard = {"means": MEANS, "deviations": DEVIATIONS}
    return StreamedData(
        *store.locate("tiny", data, split),
        shape=(32, 32, 3),
        augmentation=augmentation,
        device=torch.device("cpu"),
        **({"threads": 2} | standard | options),
    )


def plan_of(data: StreamedData, seed: int = 1) -> streamed.StreamPlan:
    return data.plan_epoch(torch.Generator().manual_seed(seed))


def stored(data: Path, split: str) -> list[tuple[Image.Image, int]]:
    """The images of a split, decoded by Pillow from shards that pandas has read, and their labels."""
    table = pd.concat(map(pd.read_feather, sorted((data / "tiny").glob(f"{split}-*.arrow"))))
    return [(Image.open(io.BytesIO(row.image)), row.label) for row in table.itertuples()]


NORMALISE = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEANS, DEVIATIONS)])


def test_test_images_are_torchvisions_centre_crops(data: Path) -> None:
    ours: Source = opened(data)
    images, labels = ours.test_batch(0, 1000)
    assert images.is_contiguous(memory_format=torch.channels_last)
    expected = [(transforms.CenterCrop(32)(image), label) for image, label in stored(data, "test")]
    assert labels.tolist() == ours.test_labels.tolist() == [label for _, label in expected]
    torch.testing.assert_close(images, torch.stack([NORMALISE(image) for image, _ in expected]), atol=LEVEL, rtol=0)


def test_training_images_are_torchvisions_resized_crops(data: Path) -> None:
    """Each by the crop and the flip that its seed draws."""
    ours, theirs = opened(data), stored(data, "train")
    plan = plan_of(ours)
    images, labels = ours.train_batch(plan, 0, 48)
    assert plan.seeds is not None
    flipped = 0
    for image, label, index, seed in zip(images, labels, plan.order, plan.seeds, strict=True):
        picture, expected = theirs[index]
        assert label == expected
        draw = random.Random(int(seed)).random
        box = random_crop(picture.height, picture.width, 0.2, draw)
        cropped = transforms.functional.resized_crop(picture, *box, [32, 32], antialias=True)
        flipped += (flip := draw() < 0.5)
        wanted = NORMALISE(transforms.functional.hflip(cropped) if flip else cropped)
        torch.testing.assert_close(image, wanted, atol=1.5 * LEVEL, rtol=0)
    assert 10 < flipped < 38


def test_without_augmentation(data: Path) -> None:
    """Neither cropped nor flipped by the recipe; or for once, as a reference is."""
    plain = opened(data, augmentation=Augmentation(shift=0, fill="zero", flip=False), means=(), deviations=())
    theirs = [transforms.ToTensor()(transforms.CenterCrop(32)(image)) for image, _ in stored(data, "train")]
    for ours, plan in (
        (plain, plan_of(plain)),
        (plain, plain.plan_unchanged(torch.Generator().manual_seed(1))),
        (opened(data, means=(), deviations=()), plain.plan_unchanged(torch.Generator().manual_seed(2))),
    ):
        images, _ = ours.train_batch(plan, 0, 48)
        expected = torch.stack([theirs[index] for index in plan.order])
        torch.testing.assert_close(images, expected, atol=1 / 255 + 1e-6, rtol=0)
        assert sorted(plan.order) == list(range(48))
    double, _ = plain.train_batch(plan_of(plain), 0, 8, torch.float64)
    assert double.dtype == torch.float64
    assert ((255 * double) - (255 * double).round()).abs().max() < 1e-12


@pytest.mark.parametrize(("height", "width"), [(256, 341), (256, 256), (400, 256), (40, 300)])
def test_crops_are_distributed_as_torchvisions(height: int, width: int) -> None:
    draw = random.Random(0).random
    image = torch.empty(3, height, width)
    torch.manual_seed(0)
    n = 3000
    ours = np.array([random_crop(height, width, 0.08, draw) for _ in range(n)])
    theirs = np.array([transforms.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(n)])
    areas = [boxes[:, 2] * boxes[:, 3] for boxes in (ours, theirs)]
    aspects = [boxes[:, 3] / boxes[:, 2] for boxes in (ours, theirs)]
    for our, their in (*zip(ours.T, theirs.T, strict=True), areas, aspects):
        # Smooth, since sizes are whole numbers; six quantities of four shapes are compared.
        assert stats.ks_2samp(our, their).pvalue > 0.05 / 24
    assert ((ours[:, :2] >= 0) & (ours[:, :2] + ours[:, 2:] <= (height, width))).all()


@pytest.mark.parametrize(("height", "width"), [(256, 25000), (25000, 256), (1, 100)])
def test_where_no_crop_fits_it_is_torchvisions_middle(height: int, width: int) -> None:
    theirs = transforms.RandomResizedCrop.get_params(torch.empty(3, height, width), [0.9, 1.0], [3 / 4, 4 / 3])
    assert random_crop(height, width, 0.9, random.Random(0).random) == theirs


def test_where_no_crop_fits_into_an_image_of_a_usual_shape_it_is_the_whole() -> None:
    tall = 0.0  # of the narrowest aspect, ten times
    assert random_crop(50, 49, 1.0, lambda: tall) == (0, 0, 50, 49)


def test_an_order_is_random_and_goes_through_the_shards_nearly_in_sequence() -> None:
    generator = torch.Generator().manual_seed(0)
    count, chunk, window = 10_007, 16, 128
    order = local_permutation(count, generator, chunk, window)
    assert sorted(order.tolist()) == list(range(count))
    for part in order.split(window):
        # As many chunks as a window has, and two cut through, of which the short last chunk may move the edges.
        assert len(set((part // chunk).tolist())) <= window // chunk + 2
    assert local_permutation(count, generator, chunk, window).tolist() != order.tolist()
    assert local_permutation(count, torch.Generator().manual_seed(0), chunk, window).tolist() == order.tolist()
    chunks = [(part // chunk).unique().tolist() for part in order.split(window)]
    assert np.corrcoef(np.arange(len(chunks)), [np.mean(each) for each in chunks])[0, 1] ** 2 < 0.1


def test_within_a_window_every_order_is_as_likely() -> None:
    generator = torch.Generator().manual_seed(0)
    orders = Counter(tuple(local_permutation(4, generator, 2, 8).tolist()) for _ in range(4800))
    assert len(orders) == math.factorial(4)
    assert stats.chisquare(list(orders.values())).pvalue > 0.001


RANGES = {
    "parts": [(0, 5), (5, 6), (6, 48)],
    "backwards": [(40, 48), (10, 40), (0, 10)],
    "jumps": [(30, 34), (0, 16), (34, 48), (16, 30)],
    "again": [(0, 20), (0, 48)],
}


@pytest.mark.parametrize("ranges", RANGES.values(), ids=RANGES)
def test_batches_hang_neither_on_threads_nor_on_ranges(data: Path, ranges: list[tuple[int, int]]) -> None:
    whole = opened(data, threads=1)
    expected, labels = whole.train_batch(plan_of(whole), 0, 48)
    ours = opened(data, threads=3)
    plan = plan_of(ours)
    other = plan_of(ours, seed=2)
    for start, stop in ranges:
        images, own = ours.train_batch(plan, start, stop)
        assert torch.equal(images, expected[start:stop])
        assert torch.equal(own, labels[start:stop])
        ours.train_batch(other, 3, 9)
        ours.test_batch(2, 4)
    tested = whole.test_batch(0, 12)[0]
    for start, stop in ((8, 12), (0, 3), (3, 8)):
        assert torch.equal(ours.test_batch(start, stop)[0], tested[start:stop])


def test_only_what_is_expected_is_decoded_and_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ahead of being asked for: as the second of two ranks, which trains on the batches' second halves."""
    monkeypatch.setattr(streamed, "_IMAGES_AHEAD", 1)
    made: list[int] = []
    picture = streamed._Loader.picture

    def counted(self: streamed._Loader, index: int, seed: int | None) -> torch.Tensor:
        made.append(index)
        return picture(self, index, seed)

    monkeypatch.setattr(streamed._Loader, "picture", counted)
    ours = opened(data)
    plan = plan_of(ours)
    shares = [(4, 8), (12, 16), (20, 24), (28, 32), (36, 40), (44, 48)]
    ours.expect(iter(shares), plan)
    for number, (start, stop) in enumerate(shares):
        ours.train_batch(plan, start, stop)
        foreseen = [plan.order[row] for share in shares[: number + 3] for row in range(*share)]
        wait_for(lambda foreseen=foreseen: len(made) == len(foreseen))  # type: ignore[misc]
        assert sorted(made) == sorted(foreseen)
    made.clear()
    ours.expect([(6, 9), (0, 3)])
    for start, stop in ((6, 9), (0, 3)):
        ours.test_batch(start, stop)
    assert sorted(made) == [0, 1, 2, 6, 7, 8]
    made.clear()
    plan = plan_of(ours)
    for start in range(0, 48, 8):
        ours.train_batch(plan, start, start + 8)
    assert sorted(made) == list(range(48))


def test_what_was_made_and_skipped_is_let_go_of(data: Path) -> None:
    ours = opened(data)
    plan = plan_of(ours)
    for start in range(0, 48, 8):
        ours.train_batch(plan, start, start + 4)
        assert ours._epoch is not None
        assert min(ours._epoch[1]._futures) == start + 4


def test_a_resumed_epoch_is_that_of_one_never_stopped(data: Path) -> None:
    first = opened(data)
    whole = [first.train_batch(plan_of(first), start, start + 6)[0] for start in range(0, 48, 6)]
    again = opened(data, threads=1)
    plan = plan_of(again)
    again.expect([(start, start + 6) for start in range(30, 48, 6)], plan)
    for start in range(30, 48, 6):
        assert torch.equal(again.train_batch(plan, start, start + 6)[0], whole[start // 6])
    assert not torch.equal(again.train_batch(plan_of(again, seed=2), 0, 6)[0], whole[0])


def test_the_held_out_split_is_tested_on_training_images(data: Path) -> None:
    ours, all_of_it = opened(data, "heldout"), opened(data)
    assert (ours.train_count, len(ours.test_labels)) == (44, 4)
    assert sorted(ours.test_labels.tolist()) == [0, 1, 2, 3]
    unchanged = all_of_it.plan_unchanged(torch.Generator())
    every = {image.numpy().tobytes() for image in all_of_it.train_batch(unchanged, 0, 48)[0]}
    trained = ours.train_batch(ours.plan_unchanged(torch.Generator()), 0, 44)[0]
    parts = [{image.numpy().tobytes() for image in images} for images in (trained, ours.test_batch(0, 4)[0])]
    assert parts[0] | parts[1] == every
    assert len(parts[0]) + len(parts[1]) == len(every)


def test_a_damaged_image_is_named(data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data, tmp_path / "data")
    images, _ = store.locate("tiny", folder, "test")
    index = 27
    file, begin = images.files[images.file[index]], int(images.begin[index])
    content = bytearray(file.read_bytes())
    content[begin : begin + 100] = bytes(100)
    file.write_bytes(content)
    ours = opened(folder)
    plan = plan_of(ours)
    row = int(np.flatnonzero(plan.order == index)[0])
    source = pd.read_feather(file)["source"][7]
    with pytest.raises(UserError, match=rf"train-00001.arrow: row 7, {source}, cannot be decoded: .*Prepare"):
        ours.train_batch(plan, 0, 48)
    for start, stop in ((row + 1, 48), (0, row)):
        assert len(ours.train_batch(plan, start, stop)[0]) == stop - start
    file.write_bytes(content[: begin + 50])
    with pytest.raises(UserError, match=r"row 7, .*, cannot be decoded: the shard is too short"):
        ours.train_batch(plan_of(ours), row, row + 1)


def decoders() -> int:
    return sum(thread.name.startswith("decode") for thread in threading.enumerate())


def test_threads_compute_alone_and_end_with_their_data(data: Path) -> None:
    before, found = torch.get_num_threads(), []
    try:
        torch.set_num_threads(2)
        gc.collect()
        wait_for(lambda: decoders() == 0)
        ours = opened(data, threads=3)
        assert decoders() == 3
        assert {
            ours._pool.submit(lambda: (time.sleep(0.01), torch.get_num_threads())[1]).result() for _ in range(9)
        } == {1}
        assert torch.get_num_threads() == 2
        later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert found == [2]
        ours.train_batch(plan_of(ours), 0, 4)
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        del ours
        wait_for(lambda: decoders() == 0)
        assert len(list(Path("/proc/self/fd").iterdir())) == descriptors - 4
    finally:
        torch.set_num_threads(before)


GRID = """
recipe:
  name: digits
  epochs: 40
  batch_size: 10
  augmentation: {shift: 0, fill: zero, flip: true, crop_area: 0.3}
  subtract_pixel_mean: false
  standardize_channels: true
fixed: {dataset: tiny, depth: 8, width: 4, ordering: relu-ic-conv}
"""


def test_a_data_set_of_photos_from_preparing_to_results(tmp_path: Path) -> None:
    """A new data set is one new file. Its preparing and its sweep are killed, and go on as if they had not been."""
    package = shutil.copytree(REPOSITORY / "icbench", tmp_path / "code" / "icbench", ignore=IGNORED)
    (package / "data" / "sets" / "tiny.py").write_text(TINY, encoding="utf-8")
    write_photos(tmp_path / "photos")
    (tmp_path / "grid.yaml").write_text(GRID)
    (tmp_path / "one.yaml").write_text("workers: 1")

    def started(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "icbench", *arguments],
            cwd=tmp_path,
            env=environment(PYTHONPATH=str(tmp_path / "code")),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def ended(process: subprocess.Popen[str]) -> str:
        with process:
            said = process.communicate(timeout=120)[0]
        assert process.returncode == 0, said
        return said

    def killed(process: subprocess.Popen[str]) -> None:
        """By kill -9, and what it has started has ended by itself."""
        with process:
            process.kill()
        wait_for(lambda: not of_session(process.pid))

    prepare = ("data", "prepare", "tiny", "--from", "photos")
    preparing = started(*prepare)
    wait_for(lambda: len(of_session(preparing.pid)) > 2)
    killed(preparing)
    assert "tiny is ready: data/tiny/manifest.json" in ended(started(*prepare))
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["tiny"]

    sweep = ("sweep", "grid.yaml", "--profile", "one.yaml", "--no-build")
    undisturbed = started(*sweep, "--results", "undisturbed")
    sweeping = started(*sweep)
    wait_for(lambda: list(tmp_path.glob("results/**/checkpoint.pt")))
    killed(sweeping)
    assert not list(tmp_path.glob("results/runs/*"))
    ended(started(*sweep))
    ended(undisturbed)
    assert_same_rows(tmp_path / "results", tmp_path / "undisturbed")
    assert load_runs(tmp_path / "results")["attempts"].tolist() == [2]


def of_session(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            state, _, _, its = stat.read_text().rsplit(")", 1)[1].split()[:4]
            found += [int(stat.parent.name)] if int(its) == session and state != "Z" else []
    return found
