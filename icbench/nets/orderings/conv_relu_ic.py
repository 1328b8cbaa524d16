"""Conv-ReLU-IC: each layer hands on independent components; ordering 3 (Chen et al. 2019, section 4, figure 3c)."""

from icbench.nets.ordering import CONV, IC, RELU, Ordering

ORDERING = Ordering(stem=(CONV, RELU, IC), layer=(CONV, RELU, IC))
