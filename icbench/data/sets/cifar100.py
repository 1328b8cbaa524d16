"""60,000 32x32 colour images in 100 classes, 50,000 to train (Krizhevsky 2009); `icbench data prepare cifar100`."""

from icbench.data.archives import Archives

SHAPE = (32, 32, 3)
CLASSES = 100
PIXEL_MAXIMUM = 255
TRAIN_IMAGES = 50000
TEST_IMAGES = 10000
ARCHIVES = Archives(
    torchvision_class="CIFAR100",
    prefix="cifar-100-",
    python_train=("train",),
    python_test=("test",),
    python_labels="fine_labels",
    binary_train=("train.bin",),
    binary_test=("test.bin",),
    binary_label_bytes=2,  # the coarse label, then the fine one
)
