"""IC-Conv-ReLU: the IC layer first, the activation last; ordering 2 (Chen et al. 2019, section 4, figure 3b)."""

from icbench.nets.ordering import CONV, IC, RELU, Ordering

ORDERING = Ordering(stem=(CONV,), layer=(IC, CONV, RELU), last=(IC,))
