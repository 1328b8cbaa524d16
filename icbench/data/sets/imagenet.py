"""1.33 million photos in 1,000 classes, 1.28 to train (ILSVRC 2012); `icbench data prepare imagenet --from DIR`."""

SHAPE = (224, 224, 3)
CLASSES = 1000
PIXEL_MAXIMUM = 255
TRAIN_IMAGES = 1281167
TEST_IMAGES = 50000
# Read from packed shards as it is trained on; the images' short side there.
SHARDED_SIDE = 256
# Of the pixels of each channel over the training images, as everybody has them since Torch's ResNets.
CHANNEL_MEANS = (0.485, 0.456, 0.406)
CHANNEL_DEVIATIONS = (0.229, 0.224, 0.225)
# Which shape nets have: the stem, the pooling and the stages of He et al. 2015, table 1.
NETS = "imagenet"
