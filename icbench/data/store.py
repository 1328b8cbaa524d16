"""Where a data set's file is, and what it holds: `digits` ships with icbench, others are `DIR/NAME.npz`, whose arrays
are loaded whole, or shards in `DIR/NAME/` (see shards.py), which are read as they are needed.
"""

import os
import shlex
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from icbench import catalog
from icbench.data import shards
from icbench.data.archives import Arrays
from icbench.data.shards import Images
from icbench.errors import UserError

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_HELD_OUT = 10  # one in so many training images of each class


def directory(data: Path | None) -> Path:
    """`--data DIR`, else $ICBENCH_DATA, else ./data."""
    return data or Path(os.environ.get("ICBENCH_DATA") or "data")


def is_sharded(name: str) -> bool:
    """Whether the data set is read from shards, rather than loaded whole."""
    return hasattr(catalog.load("datasets", name), "SHARDED_SIDE")


def file_of(name: str, data: Path | None) -> Path:
    """The .npz file of a data set, or the manifest of a sharded one, whether it is there or not."""
    bundled: Path | None = getattr(catalog.load("datasets", name), "BUNDLED", None)
    whole = directory(data) / (f"{name}/{shards.MANIFEST}" if is_sharded(name) else f"{name}.npz")
    return bundled or whole


def require(name: str, data: Path | None) -> None:
    """Raise UserError, saying what to type, unless the data set's file is there."""
    file = file_of(name, data)
    if not file.is_file():
        problem = f"the data set {name} is not there ({file} does not exist)."
        raise UserError(problem, f"{'Make' if is_sharded(name) else 'Fetch'} it with: {_command(name, data)}")


def verify(name: str, data: Path | None) -> None:
    """Raise UserError, saying what to type, unless the data set is there and whole, as far as shards' sizes tell."""
    require(name, data)
    verify_file(name, file_of(name, data), _again(name, data))


def verify_file(name: str, file: Path, remedy: str = "") -> None:
    """Raise UserError with `remedy` unless `file` is the whole data set `name`, or its manifest."""
    if is_sharded(name):
        shards.read_manifest(name, file.parent, remedy)
    else:
        read_npz(name, file, remedy)


def load(name: str, data: Path | None) -> Arrays:
    """x_train, x_test: (N, H, W, C) uint8; y_train, y_test: (N,) int64. Raises UserError: missing, damaged."""
    require(name, data)
    return read_npz(name, file_of(name, data), _again(name, data))


def locate(name: str, data: Path | None, which: str) -> tuple[Images, Images]:
    """The training and the test images of a split of a sharded data set. Raises UserError: missing, damaged."""
    require(name, data)
    folder, remedy = file_of(name, data).parent, _again(name, data)
    manifest = shards.read_manifest(name, folder, remedy)
    train = shards.locate(folder, manifest.train, remedy)
    if which == "test":
        return train, shards.locate(folder, manifest.test, remedy)
    mask = held_out(train.labels)
    return train.where(~mask), train.where(mask)


def train_count(name: str, data: Path | None, which: str) -> int:
    """How many training images a split has. Raises UserError: missing, damaged."""
    if is_sharded(name):
        return len(locate(name, data, which)[0])
    return len(split(load(name, data), which)[0])


def read_npz(name: str, file: Path, remedy: str = "") -> Arrays:
    """Read and check a data set's .npz. Raises UserError with `remedy` if it is not whole."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in _KEYS if key in archive}
    except (ValueError, zipfile.BadZipFile, OSError, EOFError):
        raise UserError("this is no readable .npz file.", remedy, file=file) from None
    for key in ("y_train", "y_test"):  # Keras, for one, has (N, 1) uint8
        if key in arrays and arrays[key].dtype.kind in "iu":
            arrays[key] = arrays[key].reshape(-1).astype(np.int64)
    check(name, arrays, file, remedy)
    return arrays


def check(name: str, arrays: Arrays, source: Path, remedy: str = "") -> None:
    """Raise UserError unless `arrays` are the whole data set `name`: keys, shapes, types, labels, pixels."""
    dataset = catalog.load("datasets", name)

    def fail(problem: str) -> None:
        raise UserError(f"this is not the whole data set {name}: {problem}.", remedy, file=source)

    for key in _KEYS:
        if key not in arrays:
            fail(f"the array {key} is missing")
    for split, count in (("train", dataset.TRAIN_IMAGES), ("test", dataset.TEST_IMAGES)):
        x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if x.shape != (count, *dataset.SHAPE) or x.dtype != np.uint8:
            fail(f"x_{split} is {x.dtype}{list(x.shape)}, not uint8{[count, *dataset.SHAPE]}")
        if y.shape != (count,) or y.dtype != np.int64:
            fail(f"y_{split} is {y.dtype}{list(y.shape)}, not int64{[count]}")
        if not np.array_equal(np.unique(y), np.arange(dataset.CLASSES)):
            fail(f"the labels y_{split} are not the classes 0 to {dataset.CLASSES - 1}")
        if x.max() > dataset.PIXEL_MAXIMUM or x.max() == x.min():
            fail(f"the pixels x_{split} run from {x.min()} to {x.max()}, not from 0 to {dataset.PIXEL_MAXIMUM}")


def split(arrays: Arrays, which: str) -> tuple[Any, Any, Any, Any]:
    """(x_train, y_train, x_test, y_test) of a split.

    test: as the data set has them. heldout: of each class, a fixed tenth of the training images is tested on and the
    rest trained on; the test images are not touched.
    """
    x, y = arrays["x_train"], arrays["y_train"]
    if which == "test":
        return x, y, arrays["x_test"], arrays["y_test"]
    mask = held_out(y)
    return x[~mask], y[~mask], x[mask], y[mask]


def held_out(labels: Any) -> Any:
    """Which of the training images, by their labels (N,), the split heldout tests on: (N,) bool."""
    mask = np.zeros(len(labels), dtype=bool)
    random = np.random.RandomState(0)  # its stream is frozen by NumPy for good
    for label in range(int(labels.max()) + 1):
        members = np.flatnonzero(labels == label)
        mask[random.permutation(members)[: max(1, round(len(members) / _HELD_OUT))]] = True
    return mask


def _again(name: str, data: Path | None) -> str:
    return f"Make it again with: {_command(name, data)}"


def _command(name: str, data: Path | None) -> str:
    source = " --from DIR" if is_sharded(name) else ""
    option = f" --data {shlex.quote(str(data))}" if data else ""
    return f"icbench data prepare {name}{source}{option}"
