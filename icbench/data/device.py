"""A data set on the device: all images there as uint8; crop, flip and normalisation vectorised; no DataLoader."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from icbench.config import Augmentation


class EpochPlan(NamedTuple):
    """What an epoch does with each training image, in order: all (N,), on the device."""

    order: Tensor
    shift_down: Tensor
    shift_right: Tensor
    flip: Tensor

    def rows(self, start: int, stop: int) -> "EpochPlan":
        return EpochPlan(*(column[start:stop] for column in self))

    def at(self, index: Tensor) -> "EpochPlan":
        """The rows that `index`, on the device, says."""
        return EpochPlan(*(column[index] for column in self))


class DeviceData:
    """The training and test images of one split, ready for one augmentation.

    Images are normalised to x / pixel_maximum - mean, where mean is the per-pixel mean of the training images or 0.
    The mean is subtracted before an image is shifted or flipped, as Keras' example and He et al. 2016 do, so pixels
    that a shift brings in are the repeated edge of the normalised image (`edge`) or 0 (`zero`). With
    `standardize_channels`, the mean of each channel is subtracted instead, and the rest divided by its deviation.
    """

    # How many images are evaluated at once.
    evaluation_batch = 1000

    def __init__(
        self,
        arrays: tuple[Any, Any, Any, Any],
        *,
        pixel_maximum: int,
        subtract_mean: bool,
        standardize_channels: bool = False,
        augmentation: Augmentation,
        device: torch.device,
    ):
        x_train, y_train, x_test, y_test = arrays
        shape = x_train.shape[1:]
        mean = x_train.mean(axis=0, dtype=np.float64) if subtract_mean else np.zeros(shape)
        mean = (mean / pixel_maximum).astype(np.float32)
        self.scale: float | Tensor = 1 / pixel_maximum
        if standardize_channels:
            assert not subtract_mean
            mean, deviation = (
                np.broadcast_to(of, shape).astype(np.float32) for of in _of_channels(x_train, pixel_maximum)
            )
            mean = mean / deviation
            self.scale = torch.from_numpy(1 / (pixel_maximum * deviation)).to(device)
        self.augmentation = augmentation
        self.device = device
        self.train_images = torch.from_numpy(self._padded(x_train)).to(device)
        self.train_mean = torch.from_numpy(self._padded(mean[None])[0]).to(device)
        self.train_labels = torch.from_numpy(y_train).to(device)
        self.test_images = torch.from_numpy(x_test).to(device)
        self.test_mean = torch.from_numpy(mean).to(device)
        self.test_labels = torch.from_numpy(y_test).to(device)
        self._crops = crops(self.train_images, *shape[:2])
        self._mean_crops = crops(self.train_mean, *shape[:2])

    @property
    def train_count(self) -> int:
        return len(self.train_labels)

    def plan_epoch(self, generator: torch.Generator) -> EpochPlan:
        """Draw the order and the augmentation of an epoch from a CPU generator."""
        count, shift = self.train_count, self.augmentation.shift
        order = torch.randperm(count, generator=generator)
        shifts = torch.randint(0, 2 * shift + 1, (2, count), generator=generator)
        flip = torch.randint(0, 2, (count,), generator=generator).bool() & self.augmentation.flip
        return EpochPlan(*(column.to(self.device) for column in (order, shifts[0], shifts[1], flip)))

    def plan_unchanged(self, generator: torch.Generator) -> EpochPlan:
        """An order drawn from a CPU generator, of images as they are: neither shifted nor flipped."""
        order = torch.randperm(self.train_count, generator=generator).to(self.device)
        centred = torch.full_like(order, self.augmentation.shift)
        return EpochPlan(order, centred, centred, torch.zeros_like(order, dtype=torch.bool))

    def expect(self, ranges: Iterable[tuple[int, int]], plan: EpochPlan | None = None) -> None:
        """As of `Source`: all is ready."""

    def train_batch(
        self, plan: EpochPlan, start: int, stop: int, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W), channels_last in memory, and labels (B,), of rows start..stop of the plan."""
        return self.augmented(plan.rows(start, stop), dtype)

    def augmented(self, rows: EpochPlan, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """As `train_batch`, of rows of a plan."""
        pixels = self._crops[rows.order, rows.shift_down, rows.shift_right]
        images = pixels.to(dtype).mul_(self.scale).sub_(self._mean_crops[rows.shift_down, rows.shift_right])
        images = torch.where(rows.flip[:, None, None, None], images.flip(2), images)
        return images.permute(0, 3, 1, 2), self.train_labels[rows.order]

    def test_batch(self, start: int, stop: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """As `train_batch`, of test images start..stop, without augmentation."""
        images = self.test_images[start:stop].to(dtype).mul_(self.scale).sub_(self.test_mean)
        return images.permute(0, 3, 1, 2), self.test_labels[start:stop]

    def _padded(self, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """(N, H, W, C) with `shift` more pixels on each side."""
        shift = self.augmentation.shift
        margins = ((0, 0), (shift, shift), (shift, shift), (0, 0))
        return np.pad(images, margins, mode="edge" if self.augmentation.fill == "edge" else "constant")


def crops(images: Tensor, height: int, width: int) -> Tensor:
    """All crops of (..., H, W, C), by their upper left corner, as a view: (..., corners down, right, height, width, C).

    Indexed by corners it copies whole rows, several times as fast as pixels by their places.
    """
    *lead, down, right, channel = images.stride()
    corners = images.shape[-3] - height + 1, images.shape[-2] - width + 1
    sizes = (*images.shape[:-3], *corners, height, width, images.shape[-1])
    return images.as_strided(sizes, (*lead, down, right, down, right, channel))


def _of_channels(images: np.ndarray[Any, Any], pixel_maximum: int) -> tuple[Any, Any]:
    """Mean and standard deviation of each channel, both (C,), of images (N, H, W, C) divided by `pixel_maximum`."""
    values = np.arange(pixel_maximum + 1) / pixel_maximum
    # How often each value is there is exact, and takes a tenth of the time and memory of sums in float64.
    channels = torch.from_numpy(images).unbind(3)
    shares = [channel.flatten().bincount(minlength=len(values)).numpy() / channel.numel() for channel in channels]
    mean = np.array([share @ values for share in shares])
    variance = [share @ (values - middle) ** 2 for share, middle in zip(shares, mean, strict=True)]
    return mean, np.sqrt(variance)
