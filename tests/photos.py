"""A small ImageFolder with all that is odd about ImageNet's files, and the sharded data set `tiny` that it makes."""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icbench import catalog
from icbench.data import shards
from icbench.data.prepare import prepare

TINY = '''"""Sixty photos in four classes, of noise; for tests."""

SHAPE = (32, 32, 3)
CLASSES = 4
PIXEL_MAXIMUM = 255
TRAIN_IMAGES = 48
TEST_IMAGES = 12
SHARDED_SIDE = 40
CHANNEL_MEANS = (0.5, 0.4, 0.3)
CHANNEL_DEVIATIONS = (0.2, 0.25, 0.3)
'''
CLASSES = ("n02", "n03", "n10", "n1")  # sorted otherwise than they are counted
# Size, mode, format: enlarged ones, ones as they should be, the greys, CMYKs and PNGs that ImageNet calls JPEG.
KINDS = (
    ((64, 48), "RGB", "JPEG"),
    ((40, 57), "RGB", "JPEG"),
    ((45, 91), "L", "JPEG"),
    ((20, 14), "RGB", "JPEG"),
    ((70, 60), "CMYK", "JPEG"),
    ((80, 50), "P", "PNG"),
    ((40, 40), "RGB", "PNG"),
    ((300, 41), "RGB", "JPEG"),
)


def write_photos(folder: Path, test: str = "val", each: tuple[int, int] = (12, 3)) -> Path:
    """An ImageFolder with so many images of each class in train/ and in the other folder."""
    random = np.random.default_rng(0)
    for split, count in zip(("train", test), each, strict=True):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                write_photo(folder / split / name / f"{name}_{number}.JPEG", KINDS[number % len(KINDS)], random)
    (folder / "train" / CLASSES[0] / "readme.txt").write_text("no image")
    return folder


def write_photo(file: Path, kind: tuple[tuple[int, int], str, str], random: Any) -> None:
    """An image as smooth as a photo, so that what resizing and JPEG do to it can be told from mistakes."""
    size, mode, form = kind
    grains = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    grains.resize(size, Image.Resampling.BICUBIC).convert(mode).save(file, form)


@contextmanager
def tiny_registered(folder: Path) -> Iterator[ModuleType]:
    """Have the catalogue know `tiny` too, whose file is written into `folder`."""
    file = folder / "tiny.py"
    file.write_text(TINY, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("icbench.data.sets.tiny", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    load, source = catalog.load, catalog._source
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        patch.setattr(catalog, "load", lambda kind, name: module if name == "tiny" else load(kind, name))
        patch.setattr(catalog, "_source", lambda kind, name: ast.parse(TINY) if name == "tiny" else source(kind, name))
        yield module


def prepare_tiny(folder: Path, rows: int = 20) -> Path:
    """A directory with `tiny` prepared, in shards of so many images; called where the catalogue knows it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "ROWS", rows)
        prepare("tiny", write_photos(folder / "photos"), folder / "data", lambda _: None)
    return folder / "data"
