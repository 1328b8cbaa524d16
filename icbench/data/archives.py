"""Reading the CIFAR archives, in their python and binary versions, packed or unpacked."""

import io
import pickle
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from icbench.errors import UserError

Arrays = dict[str, np.ndarray[Any, Any]]
_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


@dataclass(frozen=True)
class Archives:
    """The files of a data set's archives; the torchvision class that downloads them; how their names begin."""

    torchvision_class: str
    prefix: str
    python_train: tuple[str, ...]
    python_test: tuple[str, ...]
    python_labels: str
    binary_train: tuple[str, ...]
    binary_test: tuple[str, ...]
    binary_label_bytes: int


def read(archives: Archives, source: Path, tell: Callable[[str], None]) -> Arrays:
    """All images and labels found in `source`: a directory or a .tar.gz, python or binary version.

    x_*: (N, 32, 32, 3) uint8; y_*: (N,) int64. `tell` hears of each file read. Raises UserError when files are missing
    or are not what they should be.
    """
    with _opened(source) as files:
        for train, test, parse in (
            (archives.python_train, archives.python_test, _parse_python),
            (archives.binary_train, archives.binary_test, _parse_binary),
        ):
            if all(name in files for name in (*train, *test)):
                parts = {}
                for split, names in (("train", train), ("test", test)):
                    pairs = []
                    for name in names:
                        tell(f"reading {name}")
                        with _explained(source, name), files[name]() as file:
                            pairs.append(parse(archives, file.read()))
                    parts[f"x_{split}"] = np.concatenate([x for x, _ in pairs])
                    parts[f"y_{split}"] = np.concatenate([y for _, y in pairs])
                return parts
    wanted = f"{', '.join((*archives.python_train, *archives.python_test))} (python version) or "
    wanted += f"{', '.join((*archives.binary_train, *archives.binary_test))} (binary version)"
    raise UserError("the files of the data set are not all there.", f"Needed: {wanted}.", file=source)


def _parse_python(archives: Archives, content: bytes) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    batch = _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    labels = np.asarray(batch[archives.python_labels], dtype=np.int64)
    return _images(np.asarray(batch["data"], dtype=np.uint8)), labels


def _parse_binary(archives: Archives, content: bytes) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    records = np.frombuffer(content, np.uint8).reshape(-1, archives.binary_label_bytes + _PIXELS)
    labels = records[:, archives.binary_label_bytes - 1].astype(np.int64)
    return _images(records[:, archives.binary_label_bytes :]), labels


def _images(planes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(N, 3 * 32 * 32), channel by channel, to (N, 32, 32, 3)."""
    return np.ascontiguousarray(planes.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))


class _PlainUnpickler(pickle.Unpickler):
    """Loads what the python archives hold, NumPy arrays in plain containers, and calls nothing else."""

    _ALLOWED = (
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("_codecs", "encode"),
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR archive does")
        if module == "numpy.core.multiarray":  # where NumPy 1, which wrote the archives, kept it
            module = "numpy._core.multiarray" if int(np.__version__.split(".")[0]) >= 2 else module
        return super().find_class(module, name)


@contextmanager
def _explained(source: Path, name: str) -> Iterator[None]:
    """Turn what a damaged file makes the parsers raise into an error that names it."""
    try:
        yield
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        tarfile.TarError,
    ) as error:
        raise UserError(f"{name} cannot be read: {error}.", "Fetch the archive again.", file=source) from None


@contextmanager
def _opened(source: Path) -> Iterator[dict[str, Callable[[], IO[bytes]]]]:
    """The files in a directory (at any depth) or a tar archive, by base name."""
    if source.is_dir():
        found = (path for path in sorted(source.rglob("*")) if path.is_file())
        yield {path.name: (lambda path=path: path.open("rb")) for path in found}  # type: ignore[misc]
        return
    try:
        with tarfile.open(source) as archive:
            members = [member for member in archive.getmembers() if member.isfile()]
            yield {
                PurePosixPath(member.name).name: (lambda member=member: archive.extractfile(member))  # type: ignore[misc]
                for member in members
            }
    except (tarfile.TarError, EOFError, OSError):
        remedy = "Give a directory, a .tar.gz or a .npz."
        raise UserError("this is no readable tar archive.", remedy, file=source) from None
