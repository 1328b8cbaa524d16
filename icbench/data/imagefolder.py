"""Making shards from an ImageFolder: train/CLASS/* and val/CLASS/*, images of any size in any format that Pillow reads.

Each image is resized as torchvision's `Resize(side)` does it with Pillow's antialiasing, so that its short side is
`side`; a smaller one is enlarged, since every image must be large enough for a centre crop. It is then stored as an RGB
JPEG. A JPEG that is RGB and of that short side already is stored byte for byte.
"""

import io
import multiprocessing
import os
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from icbench import __version__
from icbench.console import duration, plural
from icbench.data import shards
from icbench.data.shards import Row, Shard
from icbench.errors import IcbenchError, UserError
from icbench.locks import Lock, is_free
from icbench.machine import cores

Tell = Callable[[str], None]

# What it costs a photo of 256 pixels is below what a crop's resampling does to it; 95 would be half as large again to
# read and a third slower to decode.
QUALITY = 90
_TEST_FOLDERS = ("val", "validation", "test")
# As torchvision's ImageFolder has them.
_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_TELL_SECONDS = 10.0
_NAMED = 20  # of the images that cannot be packed
_LONGEST = 65500  # side of a JPEG that Pillow's library writes
_LOCK = "lock"  # held by who fills a folder


@dataclass(frozen=True)
class _Task:
    """A shard to make. images: files with their labels, all within `folder`."""

    file: str
    folder: Path
    images: Sequence[tuple[Path, int]]
    side: int

    def do(self, target: Path) -> Shard | list[UserError]:
        """Write the shard into the folder `target`; or what is wrong with its images, of all that cannot be packed."""
        rows, wrong = [], []
        for image, label in self.images:
            try:
                rows.append(Row(resized(image, self.side), label, image.relative_to(self.folder).as_posix()))
            except UserError as error:
                wrong.append(error)
        return wrong or shards.write(target / self.file, rows)


class Labelled(NamedTuple):
    """The images of a split: (file, label) of each, sorted by class and name as torchvision's ImageFolder does it."""

    folder: Path
    classes: tuple[str, ...]
    images: list[tuple[Path, int]]


def find(source: Path, shape: str) -> tuple[Labelled, Labelled]:
    """The training and the test images of an ImageFolder. Raises UserError, saying the `shape` it should have."""
    if source.is_file():
        raise UserError("this is a file; unpack it into a directory.", shape, file=source)
    if not source.is_dir():
        raise UserError("there is no such directory.", shape, file=source)
    test = next((source / name for name in _TEST_FOLDERS if (source / name).is_dir()), source / _TEST_FOLDERS[0])
    for folder in (source / "train", test):
        if not folder.is_dir():
            raise UserError(f"there is no {folder.name}/ in it.", shape, file=source)
    train, test_images = _labelled(source / "train", shape), _labelled(test, shape)
    if train.classes != test_images.classes:
        odd = sorted(set(train.classes) ^ set(test_images.classes))
        names = ", ".join(odd[:5]) + (", ..." if len(odd) > 5 else "")
        raise UserError(f"train/ and {test.name}/ have not the same classes: {names}.", shape, file=source)
    return train, test_images


def pack(train: Labelled, test: Labelled, target: Path, side: int, tell: Tell, processes: int | None = None) -> None:
    """Write both splits' shards into the folder `target`, whole or not at all, in so many processes (default: all
    cores). Raises UserError for images that cannot be packed, once all have been tried.
    """
    # Whoever reads neighbours together must not get a single class. RandomState's stream is frozen by NumPy for good.
    order = np.random.RandomState(0).permutation(len(train.images))
    training = _tasks("train", train.folder, [train.images[i] for i in order], side)
    testing = _tasks("test", test.folder, test.images, side)
    with _replacing(target) as folder:
        made = _all_done([*training, *testing], folder, processes or cores(), tell)
        manifest = shards.Manifest(side, QUALITY, train.classes, made[: len(training)], made[len(training) :])
        manifest.write(folder, __version__)


def resized(file: Path, side: int) -> bytes:
    """An image file as an RGB JPEG of that short side. Raises UserError, which names it, where it is damaged."""
    try:
        return _packed(file.read_bytes(), side)
    except UnidentifiedImageError:  # whose own words name no file here
        reason = "it is no image that Pillow knows"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's, of damaged files
        reason = str(error)
    raise UserError(f"this image cannot be packed: {reason}.", "Fetch it again.", file=file)


def _packed(content: bytes, side: int) -> bytes:
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        if (image.format, image.mode, min(image.size)) == ("JPEG", "RGB", side):
            return content
        whole = image.convert("RGB")
    short = min(whole.size)
    # Cut down to whole pixels, as torchvision does.
    width, height = (side * length // short for length in whole.size)
    if max(width, height) > _LONGEST:  # told before gigabytes are filled with it
        raise ValueError(f"of {width} x {height} pixels, once it is resized, it is too long for a JPEG")
    stream = io.BytesIO()
    whole.resize((width, height), Image.Resampling.BILINEAR).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def _labelled(folder: Path, shape: str) -> Labelled:
    classes = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not _is_hidden(path.name)))
    if not classes:
        flat = next((path.name for path in sorted(folder.iterdir()) if _is_image(path.name)), None)
        problem = f"images such as {flat} lie in it side by side" if flat else "it is empty"
        remedy = f"They must be sorted into a folder for each class first. {shape}" if flat else shape
        raise UserError(f"there are no folders of classes here: {problem}.", remedy, file=folder)
    images = []
    for label, name in enumerate(classes):
        found = sorted(_images_in(folder / name), key=lambda file: (str(file.parent), file.name))
        if not found:
            raise UserError(
                "there are no images of this class.", f"Known by: {', '.join(_ENDINGS)}.", file=folder / name
            )
        images += [(file, label) for file in found]
    return Labelled(folder, classes, images)


def _images_in(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        yield from (Path(place, file) for file in files if _is_image(file))


def _is_image(name: str) -> bool:
    return name.lower().endswith(_ENDINGS) and not _is_hidden(name)


def _is_hidden(name: str) -> bool:
    """What systems leave beside one's own files, such as macOS's ._photo.JPEG."""
    return name.startswith(".")


def _tasks(split: str, folder: Path, images: Sequence[tuple[Path, int]], side: int) -> list[_Task]:
    return [
        _Task(f"{split}-{number:05d}.arrow", folder, images[start : start + shards.ROWS], side)
        for number, start in enumerate(range(0, len(images), shards.ROWS))
    ]


def _all_done(tasks: Sequence[_Task], folder: Path, processes: int, tell: Tell) -> tuple[Shard, ...]:
    """Do tasks in so many processes; their shards, in order. Tells now and then how far it is.

    Raises UserError for images that cannot be packed, after all tasks: who mends one needs to know of the others.
    """
    began = told = time.monotonic()
    done, images, failed = 0, sum(len(task.images) for task in tasks), False
    others = set(multiprocessing.active_children())
    # Not forked: whoever calls this may have threads, torch's for instance.
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(tasks)), fresh, initializer=_end_with_parent) as pool:
        futures = {pool.submit(task.do, folder): task for task in tasks}
        try:
            for future in as_completed(futures):
                done += len(futures[future].images)
                if isinstance(wrong := future.result(), list) and not failed:
                    failed = True
                    tell(f"{wrong[0]} The others are tried too, so that all such images are found; then it ends.")
                now = time.monotonic()
                if now - told >= _TELL_SECONDS and done < images:
                    told, left = now, (now - began) * (images - done) / done
                    tell(f"{done:,} of {images:,} images; about {duration(left)} left")
        except BaseException as error:
            for process in set(multiprocessing.active_children()) - others:  # else it waits until shards are whole
                process.terminate()
            if isinstance(error, BrokenProcessPool):
                raise IcbenchError("a process that packs images was killed, perhaps for want of memory.") from None
            raise
    outcomes = [future.result() for future in futures]
    if wrong := [error for each in outcomes if isinstance(each, list) for error in each]:
        raise _all_wrong(wrong)
    return tuple(each for each in outcomes if isinstance(each, Shard))


def _all_wrong(errors: Sequence[UserError]) -> UserError:
    """One error of all of them, which are of images."""
    if len(errors) == 1:
        return errors[0]
    named = sorted(f"{error.file}: {error.problem.partition('packed: ')[2]}" for error in errors)
    more = [f"and {len(named) - _NAMED:,} more."] if len(named) > _NAMED else []
    lines = [f"{plural(len(errors), 'image')} cannot be packed:", *named[:_NAMED], *more, "Fetch them again."]
    return UserError("\n".join(lines))


def _end_with_parent() -> None:
    """Have this process end when its parent does, even by kill -9: the pool's own would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to answer

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A folder to fill, which then takes the place of `target`. What killed ones have left behind is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f".tmp-{target.name}-*"):
        if is_free(leftover / _LOCK):
            shutil.rmtree(leftover, ignore_errors=True)
    temporary = target.with_name(f".tmp-{target.name}-{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        with Lock.wait(temporary / _LOCK, told=lambda: None):
            yield temporary
            (temporary / _LOCK).unlink()
            if target.exists():
                target.rename(temporary.with_name(f"{temporary.name}-old"))
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(temporary.with_name(f"{temporary.name}-old"), ignore_errors=True)
