"""How fast photos become batches to train on, against torchvision's ImageFolder and DataLoader, as everybody uses them.

Both get the same JPEGs, of ImageNet's usual 500 x 375 pixels and 100 kB, and make random resized crops of 224 x 224,
flipped and standardised, in float32. The peer is what torchvision's own training script does by default. Ours reads
shards of them, made before the clock starts. They take turns, so that what else the machine does hits both.
"""

import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from icbench.config import Augmentation
from icbench.data import shards
from icbench.data.imagefolder import resized
from icbench.data.streamed import StreamedData
from icbench.machine import cores

_WIDTH, _HEIGHT = 500, 375
_SIDE, _CROP = 256, 224
_MEANS, _DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLASSES = 8
# Standard deviations of noise, by how many pixels a grain of it has: the spectrum of photos falls about so, and the
# last makes it 100 kB.
_GRAINS = ((100, 0.2), (25, 0.09), (8, 0.045), (3, 0.04), (1, 0.074))


@dataclass(frozen=True)
class Throughput:
    """Images a second on so many cores, in each round."""

    cores: int
    peer: list[float]
    ours: list[float]


def measure(
    images: int = 512,
    *,
    batch_size: int = 64,
    rounds: int = 5,
    numbers_of_cores: Sequence[int] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> list[Throughput]:
    """Measure on one core and on all, or on those `numbers_of_cores`; all epochs are of so many synthetic images."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tell(f"making {images} photos")
        write_photos(folder / "photos", images)
        packed = _packed(folder / "photos", folder)
        found = []
        for number in numbers_of_cores or sorted({1, cores()}):
            tell(f"decoding on {number} of {cores()} cores")
            with _bound_to(number):
                peer = _peer(folder / "photos", batch_size, number)
                ours = _ours(packed, batch_size, number)
                turns = [(images / _seconds(peer), images / _seconds(ours)) for _ in range(rounds + 1)]
            theirs, own = zip(*turns[1:], strict=True)  # in the first, workers start
            found.append(Throughput(number, list(theirs), list(own)))
        return found


def write_photos(folder: Path, count: int) -> None:
    """An ImageFolder of synthetic JPEGs, whose sizes in bytes and pixels are about ImageNet's."""
    random = np.random.default_rng(0)
    for number in range(count):
        file = folder / f"class-{number % _CLASSES}" / f"{number}.jpeg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_photo(random))


def _packed(photos: Path, folder: Path) -> shards.Images:
    files = sorted(photos.glob("*/*.jpeg"))
    rows = [shards.Row(resized(file, _SIDE), int(file.parent.name.removeprefix("class-")), file.name) for file in files]
    return shards.locate(folder, [shards.write(folder / "packed.arrow", rows)])


def _photo(random: np.random.Generator) -> bytes:
    pixels = np.full((_HEIGHT, _WIDTH, 3), 0.45, np.float32)
    for grain, deviation in _GRAINS:
        # Half of it in all channels alike, as light and shade are.
        noise = random.normal(0, deviation, (_HEIGHT // grain + 2, _WIDTH // grain + 2, 4)).astype(np.float32)
        for channel in range(3):
            grains = Image.fromarray((noise[..., channel] + noise[..., 3]) / 2**0.5)
            pixels[..., channel] += np.asarray(grains.resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC))
    stream = io.BytesIO()
    Image.fromarray((255 * pixels.clip(0, 1)).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


_Epoch = Callable[[], Iterator[Tensor]]


def _peer(folder: Path, batch_size: int, number: int) -> _Epoch:
    """On one core the peer decodes within the loop, since a worker beside it would be one process too many."""
    steps = [
        transforms.RandomResizedCrop(_CROP),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(_MEANS, _DEVIATIONS),
    ]
    loader = DataLoader(
        datasets.ImageFolder(folder, transforms.Compose(steps)),
        batch_size,
        shuffle=True,
        num_workers=number if number > 1 else 0,
        persistent_workers=number > 1,
    )
    return lambda: (images for images, _ in loader)


def _ours(packed: shards.Images, batch_size: int, number: int) -> _Epoch:
    data = StreamedData(
        packed,
        packed,
        shape=(_CROP, _CROP, 3),
        means=_MEANS,
        deviations=_DEVIATIONS,
        augmentation=Augmentation(shift=0, fill="zero", flip=True, crop_area=0.08),
        device=torch.device("cpu"),
        threads=number,
    )
    generator = torch.Generator().manual_seed(0)

    def epoch() -> Iterator[Tensor]:
        plan = data.plan_epoch(generator)
        for start in range(0, len(packed), batch_size):
            yield data.train_batch(plan, start, min(start + batch_size, len(packed)))[0]

    return epoch


def _seconds(epoch: _Epoch) -> float:
    began = time.perf_counter()
    for _ in epoch():
        pass
    return time.perf_counter() - began


@contextmanager
def _bound_to(number: int) -> Iterator[None]:
    """Have this thread, and the threads and processes that it starts, compute on so many cores."""
    threads, allowed = torch.get_num_threads(), os.sched_getaffinity(0)
    torch.set_num_threads(1)
    os.sched_setaffinity(0, sorted(allowed)[:number])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
        torch.set_num_threads(threads)
