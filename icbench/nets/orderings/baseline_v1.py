"""Conv-BN-ReLU-Conv-BN, add, ReLU: the original ResNet, no dropout (He et al. 2015, arXiv 1512.03385)."""

from icbench.nets.ordering import CONV, NORM, RELU, Ordering

ORDERING = Ordering(stem=(CONV, NORM, RELU), layer=(CONV, NORM, RELU), after_add=(RELU,))
