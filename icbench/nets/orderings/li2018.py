"""The net's baseline with one dropout layer, right before the classifier (Li et al. 2018, arXiv 1801.05134)."""

from dataclasses import replace

from icbench.nets.ordering import DROPOUT
from icbench.nets.orderings import baseline_v1, baseline_v2

ORDERING = replace(
    baseline_v1.ORDERING,
    head=(DROPOUT,),
    where_v2=replace(baseline_v2.ORDERING, head=(DROPOUT,)),
)
