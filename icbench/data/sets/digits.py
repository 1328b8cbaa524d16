"""1,797 8x8 grey digits in 10 classes, 1,438 to train; shipped with icbench (UCI, scikit-learn's copy)."""

from pathlib import Path

SHAPE = (8, 8, 1)
CLASSES = 10
PIXEL_MAXIMUM = 16
TRAIN_IMAGES = 1438
TEST_IMAGES = 359
BUNDLED = Path(__file__).with_name("digits.npz")
