"""60,000 32x32 colour images in 10 classes, 50,000 to train (Krizhevsky 2009); `icbench data prepare cifar10`."""

from icbench.data.archives import Archives

SHAPE = (32, 32, 3)
CLASSES = 10
PIXEL_MAXIMUM = 255
TRAIN_IMAGES = 50000
TEST_IMAGES = 10000
ARCHIVES = Archives(
    torchvision_class="CIFAR10",
    prefix="cifar-10-",
    python_train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    python_test=("test_batch",),
    python_labels="labels",
    binary_train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    binary_test=("test_batch.bin",),
    binary_label_bytes=1,
)
