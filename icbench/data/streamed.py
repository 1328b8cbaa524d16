"""Images streamed from shards: read nearly in sequence, decoded and cropped by threads, normalised on the device."""

import math
import os
import random
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice, starmap
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode
from torchvision.transforms.v2 import functional

from icbench.config import Augmentation
from icbench.data.shards import Images, Integers, source_of
from icbench.errors import UserError
from icbench.machine import cores

# An epoch goes through the shards in chunks of so many neighbouring images, in random order, and mixes the images of so
# many chunks: at ImageNet's 35 kB an image, 4.5 MB are read in one go, and the files' cache in memory, which the
# workers of a machine share, needs to hold two windows of 290 MB.
CHUNK = 128
WINDOW = 64 * CHUNK

_BATCHES_AHEAD = 2
_IMAGES_AHEAD = 8  # at least, for each thread
_ASPECTS = (3 / 4, 4 / 3)
_ATTEMPTS = 10
# What lies between two images to be read, such as a held-out one, is read with them.
_GAP_BYTES = 2**20
_PIXEL_MAXIMUM = 255
# What torchvision.io.decode_jpeg calls, which itself warns each time, since 0.29, that TorchCodec will have it one day.
# Pillow's pixels are the same, in 1.4 times the time.
_DECODE = torch.ops.image.decode_jpeg


class StreamPlan(NamedTuple):
    """What an epoch does with each training image, in order; both (N,). seeds: of each one's augmentation, if any."""

    order: Integers
    seeds: Integers | None


class StreamedData:
    """The training and test images of one split, ready for one augmentation; shape: (H, W, 3) of what a net sees.

    Pixels are normalised to x / 255 or, with `means` and `deviations` of channels, to (x / 255 - mean) / deviation.
    Everything about an epoch is in its plan, so that batches hang neither on threads nor on what was asked for before.
    Images are decoded ahead of their batch: `_BATCHES_AHEAD` batches of 150 kB an image of 224 x 224.
    """

    evaluation_batch = 250

    def __init__(
        self,
        train: Images,
        test: Images,
        *,
        shape: tuple[int, int, int],
        means: tuple[float, ...] = (),
        deviations: tuple[float, ...] = (),
        augmentation: Augmentation,
        device: torch.device,
        threads: int | None = None,
    ):
        self.augmentation = augmentation
        self.device = device
        self.shape = shape
        self.test_labels = torch.from_numpy(test.labels).to(device)
        self._train_labels = torch.from_numpy(train.labels)
        height, width, channels = shape
        deviation = torch.tensor(deviations or (1.0,) * channels, dtype=torch.float64, device=device)
        mean = torch.tensor(means or (0.0,) * channels, dtype=torch.float64, device=device)
        # A line of pixels each: three numbers at a time would be too few for a processor's vectors.
        self._scale = (1 / (_PIXEL_MAXIMUM * deviation)).repeat(width)
        self._offset = (-mean / deviation).repeat(width)
        self._threads = threads or cores()
        self._pool = _pool(self._threads)
        self._train, self._test = (_Loader(images, (height, width), augmentation) for images in (train, test))
        self._epoch: tuple[StreamPlan, _Ahead] | None = None
        self._test_plan = StreamPlan(np.arange(len(test)), None)
        self._testing = self._ahead(self._test, self._test_plan)
        weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    @property
    def train_count(self) -> int:
        return len(self._train_labels)

    def plan_epoch(self, generator: torch.Generator) -> StreamPlan:
        """Draw the order and the augmentation of an epoch from a CPU generator."""
        order = local_permutation(self.train_count, generator)
        seeds = torch.randint(2**63 - 1, (self.train_count,), generator=generator)
        return StreamPlan(order.numpy(), seeds.numpy())

    def plan_unchanged(self, generator: torch.Generator) -> StreamPlan:
        """An order drawn from a CPU generator, of images as they are: cut out of the middle."""
        return StreamPlan(local_permutation(self.train_count, generator).numpy(), None)

    def expect(self, ranges: Iterable[tuple[int, int]], plan: StreamPlan | None = None) -> None:
        """As of `Source`; ranges may be a generator, which is asked for no more than is decoded ahead."""
        rows = chain.from_iterable(starmap(range, ranges))
        if plan is None:
            self._testing.cancel()
            self._testing = self._ahead(self._test, self._test_plan, rows)
        else:
            self._follow(plan, rows)

    def train_batch(
        self, plan: StreamPlan, start: int, stop: int, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W), channels_last in memory, and labels (B,), of rows start..stop of the plan.

        Raises UserError, which names the shard and the row, for an image that cannot be decoded.
        """
        if self._epoch is None or self._epoch[0] is not plan:
            self._follow(plan)
        assert self._epoch is not None
        pictures = self._epoch[1].take(range(start, stop))
        labels = self._train_labels[torch.from_numpy(plan.order[start:stop])]
        return self._on_device(pictures, dtype), labels.to(self.device, non_blocking=True)

    def test_batch(self, start: int, stop: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """As `train_batch`, of test images start..stop, cut out of the middle."""
        stop = min(stop, len(self.test_labels))
        return self._on_device(self._testing.take(range(start, stop)), dtype), self.test_labels[start:stop]

    def _follow(self, plan: StreamPlan, rows: Iterator[int] | None = None) -> None:
        if self._epoch is not None:
            self._epoch[1].cancel()
        self._epoch = plan, self._ahead(self._train, plan, rows)

    def _ahead(self, loader: "_Loader", plan: StreamPlan, rows: Iterator[int] | None = None) -> "_Ahead":
        return _Ahead(loader, plan, self._pool, self._threads * _IMAGES_AHEAD, rows)

    def _on_device(self, pictures: list[Tensor], dtype: torch.dtype) -> Tensor:
        """Normalised images (B, 3, H, W), channels_last, of (H, W, 3) uint8 ones, which travel as they are."""
        height, width, channels = self.shape
        pinned = self.device.type == "cuda"
        whole = torch.empty((len(pictures), height, width, channels), dtype=torch.uint8, pin_memory=pinned)
        torch.stack(pictures, out=whole)
        images = whole.to(self.device, non_blocking=True).flatten(2).to(dtype)
        images.mul_(self._scale.to(dtype)).add_(self._offset.to(dtype))
        return images.view(-1, height, width, channels).permute(0, 3, 1, 2)


def local_permutation(count: int, generator: torch.Generator, chunk: int = CHUNK, window: int = WINDOW) -> Tensor:
    """A random order of `count` images (count,) by a CPU generator, which goes through them nearly in sequence.

    Chunks of neighbours are shuffled, then the images within each window of what comes out.
    """
    chunks = torch.randperm(-(-count // chunk), generator=generator) * chunk
    images = (chunks[:, None] + torch.arange(chunk)).flatten()
    images = images[images < count]
    keys = torch.rand(count, generator=generator, dtype=torch.float64) + torch.arange(count) // window
    return images[keys.argsort(stable=True)]


def random_crop(height: int, width: int, least_area: float, draw: Callable[[], float]) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random resized crop, distributed as those of torchvision's RandomResizedCrop.

    Of `least_area` to all of the image's area, and of aspect ratio 3/4 to 4/3, uniform in its logarithm; if ten such do
    not fit into the image, as much of its middle as has such an aspect ratio. `draw`: uniform in [0, 1).
    """
    low, high = map(math.log, _ASPECTS)
    for _ in range(_ATTEMPTS):
        area = height * width * (least_area + (1 - least_area) * draw())
        aspect = math.exp(low + (high - low) * draw())
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top, left = int((height - crop_height + 1) * draw()), int((width - crop_width + 1) * draw())
            return top, left, crop_height, crop_width
    crop_width = min(width, round(height * _ASPECTS[1]))
    crop_height = min(height, round(width / _ASPECTS[0]))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


class _Loader:
    """Makes pictures (H, W, 3) uint8 of a split's images; from any thread."""

    def __init__(self, images: Images, size: tuple[int, int], augmentation: Augmentation):
        self._images = images
        self._size = list(size)
        self._augmentation = augmentation
        self._descriptors = [os.open(file, os.O_RDONLY) for file in images.files]
        weakref.finalize(self, _close, self._descriptors)

    def picture(self, index: int, seed: int | None) -> Tensor:
        """An image, augmented as `seed` has it, or cut out of the middle."""
        image = self._decoded(index)[None]  # channels_last is for four dimensions
        picture: Tensor = functional.center_crop(image, self._size) if seed is None else self._augmented(image, seed)
        return picture[0].permute(1, 2, 0).contiguous()

    def advise(self, indices: Integers) -> None:
        """Have the system read these images into memory, in as few pieces as there are, without waiting for it."""
        images = self._images
        indices = indices[np.lexsort((images.begin[indices], images.file[indices]))]
        file, begin = images.file[indices], images.begin[indices]
        end = begin + images.length[indices]
        cuts = np.flatnonzero((np.diff(file) != 0) | (begin[1:] - end[:-1] > _GAP_BYTES)) + 1
        for first, last in zip([0, *cuts], [*cuts, len(indices)], strict=True):
            span = int(begin[first]), int(end[last - 1] - begin[first])
            os.posix_fadvise(self._descriptors[file[first]], *span, os.POSIX_FADV_WILLNEED)

    def _augmented(self, image: Tensor, seed: int) -> Tensor:
        height, width = image.shape[-2:]
        draw = random.Random(seed).random
        if self._augmentation.crop_area < 1:
            crop = functional.crop(image, *random_crop(height, width, self._augmentation.crop_area, draw))
            # A copy without gaps is resized in half the time, and what comes out is laid out as what went in.
            crop = crop.contiguous(memory_format=torch.channels_last)
            picture: Tensor = functional.resize(crop, self._size, antialias=True)
        else:
            picture = functional.center_crop(image, self._size)
        flip = self._augmentation.flip and draw() < 0.5
        return functional.horizontal_flip(picture) if flip else picture

    def _decoded(self, index: int) -> Tensor:
        """(3, height, width) uint8, each pixel's three channels side by side in memory."""
        images = self._images
        number, length = images.file[index], int(images.length[index])
        content = bytearray(length)
        if os.preadv(self._descriptors[number], [content], int(images.begin[index])) != length:
            raise self._damaged(index, "the shard is too short")
        try:
            image: Tensor = _DECODE(torch.frombuffer(content, dtype=torch.uint8), ImageReadMode.RGB.value)
        except RuntimeError as error:
            raise self._damaged(index, str(error).split("\n", 1)[0]) from None
        return image

    def _damaged(self, index: int, reason: str) -> UserError:
        file, row = self._images.files[self._images.file[index]], int(self._images.row[index])
        return UserError(
            f"row {row}, {_source_of(file, row)}, cannot be decoded: {reason}.",
            "Prepare the data set again.",
            file=file,
        )


class _Ahead:
    """Has the pool make pictures of a plan's rows before they are asked for, so far as is foreseen: `rows`, in order;
    by default, all from the first that is asked for on. least: how many pictures to be ahead at least.
    """

    def __init__(
        self, loader: _Loader, plan: StreamPlan, pool: ThreadPoolExecutor, least: int, rows: Iterator[int] | None
    ):
        self._loader = loader
        self._plan = plan
        self._pool = pool
        self._least = least
        self._rows = rows or iter(())
        self._futures: dict[int, Future[Tensor]] = {}
        self._advised = 0

    def take(self, wanted: range) -> list[Tensor]:
        """The pictures of some rows."""
        for row in [row for row in self._futures if row < wanted.start]:  # skipped
            self._futures.pop(row).cancel()
        self._begin(len(wanted))
        if any(row not in self._futures for row in wanted):  # nobody foresaw these
            self.cancel()
            self._rows = iter(range(wanted.start, len(self._plan.order)))
            self._begin(len(wanted))
        return [self._futures.pop(row).result() for row in wanted]

    def cancel(self) -> None:
        for future in self._futures.values():
            future.cancel()
        self._futures.clear()

    def _begin(self, wanted: int) -> None:
        """Have so many pictures made, and those ahead of them."""
        enough = wanted + max(self._least, _BATCHES_AHEAD * wanted)
        for row in islice(self._rows, max(0, enough - len(self._futures))):
            self._look_ahead(row)
            order, seeds = self._plan
            seed = None if seeds is None else int(seeds[row])
            self._futures[row] = self._pool.submit(self._loader.picture, int(order[row]), seed)

    def _look_ahead(self, row: int) -> None:
        """Have the window of a row and the next one read."""
        first = max(self._advised, row // WINDOW)
        for window in range(first, row // WINDOW + 2):
            indices = self._plan.order[window * WINDOW : (window + 1) * WINDOW]
            if len(indices) and hasattr(os, "posix_fadvise"):
                self._pool.submit(self._loader.advise, indices)
            self._advised = window + 1


def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads each of which computes alone: torch would have every one of them start others for its larger tensors."""
    own, begun = torch.get_num_threads(), threading.Barrier(threads + 1)
    pool = ThreadPoolExecutor(threads, "decode", initializer=_compute_alone)
    for _ in range(threads):
        pool.submit(begun.wait)
    begun.wait()
    torch.set_num_threads(own)  # the number is a thread's own, but later threads begin with what was last set by any
    return pool


def _compute_alone() -> None:
    torch.get_num_threads()  # what it is at first would else be set later, at the thread's first computation
    torch.set_num_threads(1)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _source_of(file: Path, row: int) -> str:
    try:
        return source_of(file, row)
    except (OSError, ValueError):  # of a damaged shard
        return "of a source unknown"
