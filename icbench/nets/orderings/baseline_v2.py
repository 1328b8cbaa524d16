"""BN-ReLU-Conv: the pre-activation ResNet, no dropout (He et al. 2016, arXiv 1603.05027)."""

from icbench.nets.ordering import CONV, NORM, RELU, Ordering

ORDERING = Ordering(
    stem=(CONV, NORM, RELU),
    layer=(NORM, RELU, CONV),
    first_unit_without=(NORM, RELU),
    last=(NORM, RELU),
)
