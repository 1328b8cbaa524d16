"""Making `DIR/NAME.npz` from torchvision's download, from the official archives, or from another .npz; or the shards
`DIR/NAME/` from a folder of images.
"""

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from icbench import catalog
from icbench.data import archives, imagefolder, store
from icbench.errors import IcbenchError, UserError
from icbench.files import write_whole

Tell = Callable[[str], None]


def prepare(name: str, source: Path | None, data: Path | None, tell: Tell) -> Path:
    """Make the data set's file, checked and whole or not at all; return it. `tell` hears of the progress.

    A sharded data set's is its manifest.

    Where it is whole already and no source is named, nothing is done. Raises UserError: unknown or bundled data set,
    a source that is not the data set; IcbenchError: no download.
    """
    dataset = catalog.load("datasets", name)
    if hasattr(dataset, "BUNDLED"):
        raise UserError(f"the data set {name} needs no preparing: it ships with icbench.")
    target = store.file_of(name, data)
    if source is None and _is_whole(name, target):
        tell("it is there already; --from makes it again")
        return target
    if store.is_sharded(name):
        _pack(name, source, target.parent, tell)
        return target
    arrays = _arrays(name, dataset.ARCHIVES, source, tell)
    tell(f"checking {len(arrays['y_train'])} training and {len(arrays['y_test'])} test images")
    store.check(name, arrays, source or target)
    tell(f"writing {target}")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
    return target


def _is_whole(name: str, file: Path) -> bool:
    try:
        store.verify_file(name, file)
    except UserError:
        return False
    return True


def _pack(name: str, source: Path | None, folder: Path, tell: Tell) -> None:
    dataset = catalog.load("datasets", name)
    shape = (
        f"It should have train/ and val/, each with a folder for each of the {dataset.CLASSES} classes, of "
        f"{dataset.TRAIN_IMAGES} and {dataset.TEST_IMAGES} images in all."
    )
    if source is None:
        problem = f"{name} cannot be downloaded by everybody, so that icbench cannot fetch it."
        raise UserError(problem, f"Give the folder of its images with --from DIR. {shape}")
    tell(f"looking for images in {source}")
    train, test = imagefolder.find(source, shape)
    for split, count in ((train, dataset.TRAIN_IMAGES), (test, dataset.TEST_IMAGES)):
        if len(split.classes) != dataset.CLASSES:
            raise UserError(f"there are {len(split.classes)} folders, not {dataset.CLASSES}.", shape, file=split.folder)
        if len(split.images) != count:
            problem = f"there are {len(split.images)} images, not {count}.{_odd_classes(split, count)}"
            raise UserError(problem, shape, file=split.folder)
    tell(f"resizing {len(train.images)} training and {len(test.images)} test images to {folder}/")
    imagefolder.pack(train, test, folder, dataset.SHARDED_SIDE, tell)


def _odd_classes(split: imagefolder.Labelled, count: int) -> str:
    """A sentence on the classes that have other numbers of images than they should; empty where that cannot be told:
    where not all should have as many, or most have not.
    """
    each, rest = divmod(count, len(split.classes))
    counts = Counter(label for _, label in split.images)
    odd = [f"{name} has {counts[label]}" for label, name in enumerate(split.classes) if counts[label] != each]
    if rest or 2 * len(odd) > len(split.classes):
        return ""
    return f" Each class should have {each}; {', '.join(odd[:5])}{', ...' if len(odd) > 5 else '.'}"


def _arrays(name: str, parts: archives.Archives, source: Path | None, tell: Tell) -> archives.Arrays:
    if source is None:
        with tempfile.TemporaryDirectory() as folder:
            _download(parts.torchvision_class, Path(folder), tell)
            return archives.read(parts, Path(folder), tell)
    if not source.exists():
        raise UserError("there is no such file or directory.", file=source)
    if source.is_dir() and (source / f"{name}.npz").is_file():
        source = source / f"{name}.npz"
    if source.suffix == ".npz":
        tell(f"reading {source}")
        return store.read_npz(name, source)
    return archives.read(parts, _narrowed(source, parts.prefix), tell)


def _narrowed(source: Path, prefix: str) -> Path:
    """The place in a directory that holds several data sets where this one's files are: its folder or its archive."""
    inside = sorted(source.glob(f"{prefix}*")) if source.is_dir() else []
    archive = next((path for path in inside if path.name.endswith(".tar.gz")), source)
    return next((path for path in inside if path.is_dir()), archive)


def _download(torchvision_class: str, folder: Path, tell: Tell) -> None:
    """Have torchvision fetch the archive, check its md5 sum and unpack it; it shows its own progress bar."""
    import torchvision

    tell("downloading through torchvision")
    try:
        getattr(torchvision.datasets, torchvision_class)(folder, download=True)
    except (OSError, RuntimeError) as error:
        remedy = "Fetch the archive elsewhere and add: --from ARCHIVE.tar.gz"
        raise IcbenchError(f"the download failed: {error}. {remedy}") from None
