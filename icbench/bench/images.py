"""The images that are trained on while it is measured: a data set's own, or random ones of its shape and size."""

from pathlib import Path
from typing import Any

import numpy as np

from icbench import catalog
from icbench.data import store

Arrays = tuple[Any, Any, Any, Any]


def arrays(dataset: str, folder: Path | None, train: int, test: int) -> Arrays:
    """x_train, y_train, x_test, y_test: (N, H, W, C) uint8 and (N,) int64, of at most so many images each."""
    if store.file_of(dataset, folder).is_file():
        x_train, y_train, x_test, y_test = store.split(store.load(dataset, folder), "test")
        return x_train[:train], y_train[:train], x_test[:test], y_test[:test]
    about = catalog.load("datasets", dataset)
    random = np.random.default_rng(0)

    def drawn(count: int) -> tuple[Any, Any]:
        pixels = random.integers(0, about.PIXEL_MAXIMUM + 1, (count, *about.SHAPE), dtype=np.uint8)
        return pixels, np.arange(count, dtype=np.int64) % about.CLASSES

    return (*drawn(min(train, about.TRAIN_IMAGES)), *drawn(min(test, about.TEST_IMAGES)))


def described(dataset: str, folder: Path | None) -> str:
    """Which images they are, in words."""
    if store.file_of(dataset, folder).is_file():
        return "the images are its own"
    return "the images are random, of its shape and number, which are as quick: its file is not there"
