"""ReLU-IC-Conv: both activation and IC before the weights; ordering 1 (Chen et al. 2019, section 4, figure 3a)."""

from icbench.nets.ordering import CONV, IC, RELU, Ordering

ORDERING = Ordering(stem=(CONV,), layer=(RELU, IC, CONV), last=(RELU, IC))
