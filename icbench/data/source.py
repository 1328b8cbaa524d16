"""What a training asks of its data: whether they live on the device (device.py) or come from shards (streamed.py)."""

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from icbench.config import Augmentation


class Source(Protocol):
    """The training and test images of one split, ready for one augmentation.

    A plan is what an epoch does with each training image, in order; what is in it is its source's own affair. A batch
    is images (B, C, H, W), channels_last in memory, and labels (B,), both on `device`.
    """

    @property
    def augmentation(self) -> Augmentation: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def train_count(self) -> int: ...

    @property
    def test_labels(self) -> Tensor:
        """(test images,) on the device."""

    @property
    def evaluation_batch(self) -> int:
        """How many images to evaluate on at a time."""

    def plan_epoch(self, generator: torch.Generator) -> Any:
        """Draw the order and the augmentation of an epoch from a CPU generator."""

    def plan_unchanged(self, generator: torch.Generator) -> Any:
        """An order drawn from a CPU generator, of images as they are: not augmented."""

    def expect(self, ranges: Iterable[tuple[int, int]], plan: Any = None) -> None:
        """Say which rows of the plan, or which test images, this process will ask for, in order: (start, stop) of each.

        Any may be asked for all the same. Without this, what follows the last ones asked for is made ready.
        """

    def train_batch(
        self, plan: Any, start: int, stop: int, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """The batch of rows start..stop of the plan."""

    def test_batch(self, start: int, stop: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """The batch of test images start..stop, without augmentation."""
