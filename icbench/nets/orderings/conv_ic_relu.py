"""Conv-IC-ReLU: the IC layer where batch norm usually stands, before the activation (as studied by Li et al. 2018)."""

from icbench.nets.ordering import CONV, IC, RELU, Ordering

ORDERING = Ordering(stem=(CONV, IC, RELU), layer=(CONV, IC, RELU))
