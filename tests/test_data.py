"""Data sets: the shipped digits, making CIFAR files, and what happens to images on the device."""

import io
import pickle
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Icbench
from sklearn.datasets import load_digits

from icbench import catalog
from icbench.config import Augmentation
from icbench.data import store
from icbench.data.device import DeviceData
from icbench.data.prepare import prepare
from icbench.errors import IcbenchError, UserError

Arrays = dict[str, np.ndarray[Any, Any]]


def test_digits_are_scikit_learns() -> None:
    arrays = store.load("digits", None)
    original = load_digits()

    def key(images: Any, labels: Any) -> list[tuple[bytes, int]]:
        return sorted(
            (image.astype(np.uint8).tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
        )

    ours = key(arrays["x_train"], arrays["y_train"]) + key(arrays["x_test"], arrays["y_test"])
    assert sorted(ours) == key(original.images, original.target)
    test, every = np.bincount(arrays["y_test"]), np.bincount(original.target)
    assert (test == np.round(every / 5)).all()


@pytest.mark.parametrize("name", catalog.names("datasets"))
def test_every_data_set_is_described(name: str) -> None:
    dataset = catalog.load("datasets", name)
    height, width, channels = dataset.SHAPE
    assert height % 4 == width % 4 == 0  # three stages, each half the size of the last
    assert channels in (1, 3)
    assert min(dataset.CLASSES, dataset.PIXEL_MAXIMUM, dataset.TRAIN_IMAGES, dataset.TEST_IMAGES) > 1
    assert sum(hasattr(dataset, source) for source in ("BUNDLED", "ARCHIVES", "SHARDED_SIDE")) == 1


def test_the_held_out_split_never_sees_the_test_images() -> None:
    arrays = store.load("digits", None)
    x, y, x_held, y_held = store.split(arrays, "heldout")
    again = store.split(arrays, "heldout")
    assert all(np.array_equal(a, b) for a, b in zip((x, y, x_held, y_held), again, strict=True))
    assert len(x) + len(x_held) == len(arrays["x_train"])
    images = sorted([image.tobytes() for image in x] + [image.tobytes() for image in x_held])
    assert images == sorted(image.tobytes() for image in arrays["x_train"])
    assert (np.bincount(y_held) == np.round(np.bincount(arrays["y_train"]) / 10)).all()


def device_data(
    shift: int, fill: str, flip: bool, *, subtract_mean: bool = True, standardize: bool = False, n: int = 40
) -> tuple[DeviceData, Any]:
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (n, 8, 6, 3), dtype=np.uint8)
    y = random.integers(0, 10, n)
    data = DeviceData(
        (x, y, x[:7], y[:7]),
        pixel_maximum=255,
        subtract_mean=subtract_mean,
        standardize_channels=standardize,
        augmentation=Augmentation(shift, fill, flip),
        device=torch.device("cpu"),
    )
    return data, (x, y)


@pytest.mark.parametrize("subtract_mean", [True, False])
@pytest.mark.parametrize(
    ("shift", "fill", "flip"), [(0, "zero", False), (2, "zero", False), (2, "edge", True), (1, "zero", True)]
)
def test_augmentation_is_the_plain_one(shift: int, fill: str, flip: bool, subtract_mean: bool) -> None:
    """Against the obvious loop: normalise, pad, crop, flip, image by image."""
    data, (x, y) = device_data(shift, fill, flip, subtract_mean=subtract_mean)
    plan = data.plan_epoch(torch.Generator().manual_seed(1))
    images, labels = data.train_batch(plan, 3, 40)
    mean = x.mean(axis=0) / 255 if subtract_mean else 0
    normal = x / 255 - mean
    for row, (image, label) in enumerate(zip(images, labels, strict=True), start=3):
        index, down, right = int(plan.order[row]), int(plan.shift_down[row]), int(plan.shift_right[row])
        padded = np.pad(
            normal[index], ((shift, shift), (shift, shift), (0, 0)), mode="edge" if fill == "edge" else "constant"
        )
        crop = padded[down : down + 8, right : right + 6]
        expected = crop[:, ::-1] if plan.flip[row] else crop
        np.testing.assert_allclose(image.permute(1, 2, 0).numpy(), expected, atol=1e-6)
        assert label == y[index]


@pytest.mark.parametrize("fill", ["zero", "edge"])
def test_channels_are_standardised(fill: str) -> None:
    """By the training images' mean and deviation of each channel; before the shift, so that a zero is the mean."""
    data, (x, _) = device_data(2, fill, True, subtract_mean=False, standardize=True)
    normal = (x / 255 - (x / 255).mean(axis=(0, 1, 2))) / (x / 255).std(axis=(0, 1, 2))
    plan = data.plan_epoch(torch.Generator().manual_seed(1))
    images, _ = data.train_batch(plan, 0, 40)
    for image, index, down, right, flip in zip(images, *plan, strict=True):
        padded = np.pad(normal[index], ((2, 2), (2, 2), (0, 0)), mode="edge" if fill == "edge" else "constant")
        crop = padded[int(down) : int(down) + 8, int(right) : int(right) + 6]
        expected = crop[:, ::-1] if flip else crop
        np.testing.assert_allclose(image.permute(1, 2, 0).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(data.test_batch(0, 7)[0].permute(0, 2, 3, 1), normal[:7], atol=1e-5)


def test_an_epoch_shows_every_image_once_and_every_shift() -> None:
    data, _ = device_data(1, "zero", True, n=2000)
    plan = data.plan_epoch(torch.Generator().manual_seed(0))
    assert sorted(plan.order.tolist()) == list(range(2000))
    assert np.bincount(plan.shift_down * 3 + plan.shift_right).min() > 150  # of 222 expected
    assert 850 < int(plan.flip.sum()) < 1150
    still, _ = device_data(0, "zero", False)
    assert not still.plan_epoch(torch.Generator().manual_seed(0)).flip.any()


def test_batches_are_channels_last_and_normalised() -> None:
    data, (x, y) = device_data(2, "edge", True)
    images, labels = data.test_batch(0, 100)
    assert images.shape == (7, 3, 8, 6)
    assert images.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(images.permute(0, 2, 3, 1), x[:7] / 255 - x.mean(axis=0) / 255, atol=1e-6)
    assert labels.tolist() == y[:7].tolist()
    assert data.train_images.dtype == torch.uint8


def cifar(name: str) -> Arrays:
    """Images and labels of the right number and shape, of noise."""
    dataset, random = catalog.load("datasets", name), np.random.default_rng(0)
    arrays: Arrays = {}
    for split, count in (("train", dataset.TRAIN_IMAGES), ("test", dataset.TEST_IMAGES)):
        arrays[f"x_{split}"] = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % dataset.CLASSES
    return arrays


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR of a hundredth of its images, for what runs in this process."""
    for name in ("cifar10", "cifar100"):
        monkeypatch.setattr(catalog.load("datasets", name), "TRAIN_IMAGES", 500)
        monkeypatch.setattr(catalog.load("datasets", name), "TEST_IMAGES", 100)


def quiet(_: str) -> None:
    pass


def pieces(
    arrays: Arrays, train: tuple[str, ...], test: tuple[str, ...]
) -> Iterator[tuple[str, np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Each file of an archive with its share of the images and labels."""
    for split, names in (("train", train), ("test", test)):
        images, labels = (np.array_split(arrays[f"{kind}_{split}"], len(names)) for kind in "xy")
        yield from zip(names, images, labels, strict=True)


def python_files(name: str, arrays: Arrays) -> dict[str, bytes]:
    """As the official archives hold them: pickled dictionaries with planes of pixels."""
    parts = catalog.load("datasets", name).ARCHIVES
    files = {}
    for file, x, y in pieces(arrays, parts.python_train, parts.python_test):
        planes = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        files[file] = pickle.dumps(
            {"data": planes, parts.python_labels: y.tolist(), "coarse_labels": [0] * len(y)}, protocol=2
        )
    return files


def binary_files(name: str, arrays: Arrays) -> dict[str, bytes]:
    """As the official binary version: labels, then planes of pixels, one record after another."""
    parts = catalog.load("datasets", name).ARCHIVES
    files = {}
    for file, x, y in pieces(arrays, parts.binary_train, parts.binary_test):
        records = np.zeros((len(x), parts.binary_label_bytes + 3072), np.uint8)
        records[:, parts.binary_label_bytes - 1] = y
        records[:, parts.binary_label_bytes :] = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        files[file] = records.tobytes()
    return files


def as_folder(files: dict[str, bytes], at: Path) -> Path:
    at.mkdir(parents=True)
    for name, content in files.items():
        (at / name).write_bytes(content)
    return at


def as_archive(files: dict[str, bytes], at: Path, folder: str) -> Path:
    with tarfile.open(at, "w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return at


Files = Callable[[str, Arrays], dict[str, bytes]]


@pytest.mark.parametrize(
    ("name", "files", "packed"),
    [
        ("cifar10", python_files, True),
        ("cifar10", binary_files, False),
        ("cifar100", python_files, False),
        ("cifar100", binary_files, True),
    ],
)
@pytest.mark.usefixtures("small")
def test_prepare_reads_the_archives(name: str, files: Files, packed: bool, tmp_path: Path) -> None:
    arrays = cifar(name)
    folder = f"cifar-{10 if name == 'cifar10' else 100}-batches"
    (tmp_path / "from").mkdir()
    if packed:
        as_archive(files(name, arrays), tmp_path / "from" / f"{folder}.tar.gz", folder)
    else:
        as_folder(files(name, arrays), tmp_path / "from" / folder)
    told: list[str] = []
    assert prepare(name, tmp_path / "from", tmp_path / "sets", told.append) == tmp_path / "sets" / f"{name}.npz"
    assert "checking 500 training and 100 test images" in told
    loaded = store.load(name, tmp_path / "sets")
    assert all(np.array_equal(loaded[key], arrays[key]) for key in arrays)
    assert [path.name for path in (tmp_path / "sets").iterdir()] == [f"{name}.npz"]


def test_prepare_copies_and_checks_an_npz(icbench: Icbench, tmp_path: Path) -> None:
    """At full size, from the command line."""
    arrays = cifar("cifar10")
    np.savez(tmp_path / "cifar10.npz", **arrays)
    done = icbench("data", "prepare", "cifar10", "--from", "cifar10.npz")
    assert (done.code, done.out) == (0, "cifar10 is ready: data/cifar10.npz\n"), done.err
    assert "checking 50000 training and 10000 test images" in done.err
    loaded = store.load("cifar10", tmp_path / "data")
    assert all(np.array_equal(loaded[key], arrays[key]) for key in arrays)
    again = icbench("data", "prepare", "cifar10")
    assert (again.code, again.err) == (0, "it is there already; --from makes it again\n")
    np.savez(tmp_path / "cifar10.npz", **{**arrays, "x_test": arrays["x_test"][:-1]})
    done = icbench("data", "prepare", "cifar10", "--from", ".", "--data", "other")
    assert done.code == 2
    assert "x_test is uint8[9999, 32, 32, 3], not uint8[10000, 32, 32, 3]" in done.err
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("small")
def test_prepare_names_what_is_wrong(icbench_here: Icbench, tmp_path: Path) -> None:
    files = python_files("cifar10", cifar("cifar10"))
    as_folder({name: files[name] for name in ("data_batch_1", "test_batch")}, tmp_path / "some")
    as_folder(files | {"data_batch_3": b"\x80\x02cos\nsystem\nq\x00."}, tmp_path / "evil")
    as_folder(files | {"data_batch_3": files["data_batch_3"][:1000]}, tmp_path / "cut")
    (tmp_path / "torn.tar.gz").write_bytes(b"\x1f\x8b\x08\x00nonsense")
    cases = {
        "some": "the files of the data set are not all there. Needed: data_batch_1, data_batch_2",
        "evil": "data_batch_3 cannot be read: it asks for os.system, which no CIFAR archive does",
        "cut": "data_batch_3 cannot be read",
        "torn.tar.gz": "no readable tar archive",
        "nowhere": "there is no such file or directory",
    }
    for source, words in cases.items():
        done = icbench_here("data", "prepare", "cifar10", "--from", source)
        assert done.code == 2, done.err
        assert f"icbench: {source}: " in done.err
        assert words in done.err
        assert "Traceback" not in done.err
    assert "there is no dataset 'cifar'. Did you mean 'cifar10'?" in icbench_here("data", "prepare", "cifar").err
    assert "it ships with icbench" in icbench_here("data", "prepare", "digits").err
    assert not (tmp_path / "data").exists()


def test_a_missing_data_set_says_what_to_type(
    icbench_here: Icbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "grid.yaml").write_text("recipe: chen2019\nfixed: {dataset: cifar100, depth: 20, ordering: baseline}")
    for arguments, remedy in (((), ""), (("--data", "sets"), " --data sets")):
        done = icbench_here("sweep", "grid.yaml", *arguments)
        assert done.code == 2
        assert done.err.endswith(f"Fetch it with: icbench data prepare cifar100{remedy}\n")
    monkeypatch.setenv("ICBENCH_DATA", "elsewhere")
    assert "elsewhere/cifar100.npz does not exist" in icbench_here("sweep", "grid.yaml").err
    assert [path.name for path in tmp_path.iterdir()] == ["grid.yaml"]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "cifar10.npz").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(UserError, match=r"cifar10.npz: this is no readable .npz file.*icbench data prepare cifar10"):
        store.load("cifar10", tmp_path)


@pytest.mark.usefixtures("small")
def test_prepare_downloads_through_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's real download, from a server on this machine, and what is said when there is none."""
    import functools
    import hashlib
    import http.server
    import threading

    from torchvision.datasets import CIFAR10

    arrays = cifar("cifar10")
    meta = {"batches.meta": pickle.dumps({"label_names": list("abcdefghij")})}
    files = python_files("cifar10", arrays) | meta
    archive = as_archive(files, tmp_path / CIFAR10.filename, CIFAR10.base_folder)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{CIFAR10.filename}")
        monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
        monkeypatch.setattr(CIFAR10, "train_list", [[name, md5[name]] for name, _ in CIFAR10.train_list])
        monkeypatch.setattr(CIFAR10, "test_list", [[name, md5[name]] for name, _ in CIFAR10.test_list])
        monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5["batches.meta"]})
        prepare("cifar10", None, tmp_path / "sets", quiet)
        server.shutdown()
    loaded = store.load("cifar10", tmp_path / "sets")
    assert all(np.array_equal(loaded[key], arrays[key]) for key in arrays)
    with pytest.raises(IcbenchError, match=r"the download failed: .* --from ARCHIVE.tar.gz"):
        prepare("cifar10", None, tmp_path / "more", quiet)
    assert not (tmp_path / "more").exists()
