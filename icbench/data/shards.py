"""Data sets of photos as packed shards: JPEGs of one short side, their labels and their names, many to a file.

A sharded data set is a folder: `train-00000.arrow`, ..., `test-00000.arrow`, ..., and `manifest.json`, written last.
A shard is an Arrow IPC file of one record batch with the columns image (a JPEG), bytes (how many it has), label and
source (the path of the original within its folder). The training images stand in a fixed random order, so that
neighbours are of any class; the test images stand in the order of their classes and names.

Why Arrow: pyarrow is needed anyway, pandas, DuckDB and Polars read the files too, and each image's place is known: any
range of any epoch is read directly, neighbours in one go. A WebDataset is tars, read from the beginning: a resumed run
would read up to its place. FFCV, last released in 2023, has to be compiled against OpenCV. MosaicML's streaming and
litdata bring shards from object stores to a local disk, and order and resume an epoch their own way; here they lie on a
file system, whose cache in memory a machine's workers share, and the order is the run's.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from icbench import catalog
from icbench.errors import UserError
from icbench.files import write_json, write_whole

MANIFEST = "manifest.json"
# Images of a shard, the last one's apart. Of ImageNet some 150 MB: few files, and little for a process to hold.
ROWS = 4096
SCHEMA = pa.schema([("image", pa.binary()), ("bytes", pa.int32()), ("label", pa.int32()), ("source", pa.string())])
_FORMAT = 1

Integers = np.ndarray[Any, np.dtype[np.integer[Any]]]


class Row(NamedTuple):
    """An image: a JPEG, its class's number, and where it came from."""

    image: bytes
    label: int
    source: str


@dataclass(frozen=True)
class Shard:
    """A shard's file, within its folder; how many images and bytes it has; at which byte the first image begins. The
    others follow it without gaps.
    """

    file: str
    rows: int
    bytes: int
    begin: int


@dataclass(frozen=True)
class Manifest:
    """What a sharded data set holds. side: the images' short side. classes: their names, sorted; labels count them."""

    side: int
    quality: int
    classes: tuple[str, ...]
    train: tuple[Shard, ...]
    test: tuple[Shard, ...]

    def write(self, folder: Path, icbench_version: str) -> None:
        write_json(folder / MANIFEST, {"format": _FORMAT, "icbench_version": icbench_version} | asdict(self))


@dataclass(frozen=True)
class Images:
    """Where the images of one split are, each of (N,): the number of its file among `files`, its row there, the first
    byte of its JPEG in the file and how many there are; and its label.
    """

    files: tuple[Path, ...]
    file: Integers
    row: Integers
    begin: Integers
    length: Integers
    labels: Integers

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> "Images":
        """Those that the mask (N,) has."""
        columns = (self.file, self.row, self.begin, self.length, self.labels)
        return Images(self.files, *(column[mask] for column in columns))


def write(file: Path, rows: Sequence[Row]) -> Shard:
    """Write a shard, whole or not at all."""
    images, labels, sources = zip(*rows, strict=True)
    columns = (images, [len(image) for image in images], labels, sources)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]

    def fill(stream: Any) -> None:
        with pa.ipc.new_file(stream, SCHEMA) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA))

    write_whole(file, fill)
    with pa.memory_map(str(file)) as mapped:
        whole = mapped.read_buffer()
        _, _, content = pa.ipc.open_file(whole).get_batch(0)["image"].buffers()
        return Shard(file.name, len(rows), whole.size, content.address - whole.address)


def read_manifest(name: str, folder: Path, remedy: str = "") -> Manifest:
    """A sharded data set's manifest, checked against the data set and the sizes of the files.

    Raises UserError with `remedy` where they are not the whole data set.
    """
    dataset = catalog.load("datasets", name)

    def fail(problem: str, file: Path = folder / MANIFEST) -> UserError:
        return UserError(problem, remedy, file=file)

    try:
        manifest = _parsed(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        raise fail("this is no readable manifest of a sharded data set.") from None
    held = (manifest.side, len(manifest.classes), _count(manifest.train), _count(manifest.test))
    due = (dataset.SHARDED_SIDE, dataset.CLASSES, dataset.TRAIN_IMAGES, dataset.TEST_IMAGES)
    for what, has, should in zip(("short side", "classes", "training images", "test images"), held, due, strict=True):
        if has != should:
            raise fail(f"this is not the whole data set {name}: {what} {has}, not {should}.")
    for shard in (*manifest.train, *manifest.test):
        file = folder / shard.file
        if not file.is_file():
            raise fail(f"this shard of the data set {name} is missing.", file)
        if file.stat().st_size != shard.bytes:
            raise fail(f"this shard of {name} has {file.stat().st_size} bytes, not {shard.bytes}.", file)
    return manifest


def locate(folder: Path, shards: Sequence[Shard], remedy: str = "") -> Images:
    """The images of so many shards, one after another. Raises UserError with `remedy` where a shard is damaged."""
    parts = []
    for number, shard in enumerate(shards):
        try:
            columns = _read(folder / shard.file, "bytes", "label")
        except (pa.ArrowInvalid, KeyError) as error:
            raise UserError(f"this is no readable shard: {error}.", remedy, file=folder / shard.file) from None
        lengths, labels = (np.array(column, np.int64) for column in columns)
        if len(labels) != shard.rows:
            raise UserError(f"this shard has {len(labels)} images, not {shard.rows}.", remedy, file=folder / shard.file)
        rows = np.arange(shard.rows, dtype=np.int32)
        begin = shard.begin + np.cumsum(lengths) - lengths
        parts.append((np.full_like(rows, number), rows, begin, lengths, labels))
    files = tuple(folder / shard.file for shard in shards)
    return Images(files, *(np.concatenate(column) for column in zip(*parts, strict=True)))


def source_of(file: Path, row: int) -> str:
    """Where an image of a shard came from."""
    (sources,) = _read(file, "source")
    return str(sources[row])


def _read(file: Path, *names: str) -> list[Any]:
    """Some columns of a shard, without reading the others.

    Shards are not memory-mapped: where a disk fails, that is an OSError, and not a signal that kills the process.
    """
    options = pa.ipc.IpcReadOptions(included_fields=[SCHEMA.get_field_index(name) for name in names])
    with pa.OSFile(str(file)) as stream:
        batch = pa.ipc.open_file(stream, options=options).get_batch(0)
        return [batch[name] for name in names]


def _parsed(content: Any) -> Manifest:
    if content["format"] != _FORMAT:
        raise ValueError(content["format"])
    train, test = (tuple(Shard(**shard) for shard in content[split]) for split in ("train", "test"))
    return Manifest(content["side"], content["quality"], tuple(content["classes"]), train, test)


def _count(shards: Sequence[Shard]) -> int:
    return sum(shard.rows for shard in shards)
