"""The honest peer: a plain eager loop, as public CIFAR trainers write it, with nothing slower than they have it.

Images stay PIL images and go through torchvision's transforms in a DataLoader; nets and batches are NCHW; the optimiser
is torch.optim.Adam as it comes; the loss and the hits are read back with `.item()` in each step. What is icbench's is
the maths, so that both sides train the same thing: the net, the recipe's decay by group, its shifts and flips, and the
precision: under float32 on a GPU its convolutions are IEEE's, where torch's default is TF32 (measure tf32 for that). In
shape it is kuangliu/pytorch-cifar and akamaster/pytorch_resnet_cifar10; `train` yields after each step, to be timed.
"""

from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from icbench.bench.images import Arrays
from icbench.config import Augmentation

TEST_BATCH = 100


class Images(Dataset[Any]):
    """As torchvision.datasets.CIFAR10 keeps them: arrays in memory, a PIL image when one is asked for."""

    def __init__(self, images: Any, labels: Any, transform: Any):
        self.images = images.squeeze(-1) if images.shape[-1] == 1 else images
        self.labels = labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def loaders(
    arrays: Arrays, augmentation: Augmentation, statistics: tuple[Any, Any], batch: int, workers: int, pin: bool
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Of the training and the test images. statistics: means and deviations of the channels to normalise with."""
    x_train, y_train, x_test, y_test = arrays
    plain = [transforms.ToTensor(), transforms.Normalize(*statistics)]
    augmented = [transforms.RandomCrop(x_train.shape[1:3], padding=augmentation.shift)] if augmentation.shift else []
    if augmentation.flip:
        augmented.append(transforms.RandomHorizontalFlip())
    train = Images(x_train, y_train, transforms.Compose([*augmented, *plain]))
    test = Images(x_test, y_test, transforms.Compose(plain))
    return (
        DataLoader(train, batch_size=batch, shuffle=True, num_workers=workers, pin_memory=pin),
        DataLoader(test, batch_size=TEST_BATCH, shuffle=False, num_workers=workers, pin_memory=pin),
    )


def train(
    net: nn.Module, loader: DataLoader[Any], optimizer: Optimizer, device: torch.device, *, amp: bool
) -> Iterator[float]:
    """An epoch; after each step, its loss. amp: in bfloat16 where torch's autocast has it so."""
    net.train()
    criterion = nn.CrossEntropyLoss()
    running_loss, correct, total = 0.0, 0, 0
    for inputs, targets in loader:
        inputs, targets = inputs.to(device), targets.to(device)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            outputs = net(inputs)
            loss = criterion(outputs, targets)
        loss.backward()
        optimizer.step()

        last_loss = loss.item()
        running_loss += last_loss
        predicted = outputs.argmax(dim=1)
        total += targets.size(0)
        correct += predicted.eq(targets).sum().item()
        yield last_loss


def evaluate(net: nn.Module, loader: DataLoader[Any], device: torch.device, *, amp: bool) -> tuple[float, float]:
    """The mean loss over batches and the accuracy."""
    net.eval()
    criterion = nn.CrossEntropyLoss()
    loss, correct, total = 0.0, 0, 0
    with torch.no_grad():
        for inputs, targets in loader:
            inputs, targets = inputs.to(device), targets.to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                outputs = net(inputs)
                loss += criterion(outputs, targets).item()
            total += targets.size(0)
            correct += outputs.argmax(dim=1).eq(targets).sum().item()
    return loss / len(loader), correct / total
