"""The statistics that the theory page shows and holds against speed, in the words of the probes' docstrings."""

from dataclasses import dataclass

import numpy as np

from icbench.config import Cell
from icbench.metrics import Floats
from icbench.report.theory.measured import Key, Measured


@dataclass(frozen=True)
class Statistic:
    """key: as the probes table has it. title: for axes. log: its layers differ by factors, so means are geometric."""

    key: Key
    title: str
    log: bool = False

    def mean(self, values: Floats) -> float:
        """Over the layers of one run that have a value, (layers,); geometric unless one is 0 or below."""
        known = values[np.isfinite(values)]
        if self.log and (known > 0).all():
            return float(np.exp(np.log(known).mean()))
        return float(known.mean())


SHOWN = (
    Statistic(("dependence", "mutual_information"), "mutual information of inputs (nats)"),
    Statistic(("dependence", "correlation"), "correlation of inputs (root mean square)"),
    Statistic(("dependence", "zero_share"), "P(x = 0) of inputs"),
    Statistic(
        ("conditioning", "second_moment_condition_number"), "condition number, second moment of inputs", log=True
    ),
    Statistic(("conditioning", "covariance_condition_number"), "condition number, covariance of inputs", log=True),
    Statistic(("conditioning", "fisher_effective_rank"), "effective rank, Fisher block"),
    Statistic(("conditioning", "fisher_largest_eigenvalue"), "largest eigenvalue, Fisher block", log=True),
    Statistic(("zigzag", "position_sign_agreement"), "sign agreement, positions"),
    Statistic(("zigzag", "image_sign_agreement"), "sign agreement, images"),
    Statistic(("zigzag", "batch_sign_agreement"), "sign agreement, batches"),
    Statistic(("zigzag", "batch_gradient_cosine"), "cosine of batch and full gradient"),
    Statistic(("zigzag", "update_cosine"), "cosine of successive updates"),
    Statistic(("zigzag", "path_over_displacement"), "path over displacement"),
    Statistic(("smoothness", "loss_range"), "range of the loss along the step (nats)", log=True),
    Statistic(("smoothness", "relative_gradient_change"), "relative change of the gradient along the step"),
    Statistic(("smoothness", "beta_smoothness"), "effective beta-smoothness", log=True),
    Statistic(("sharpness", "hessian_largest_eigenvalue"), "largest eigenvalue of the Hessian", log=True),
    Statistic(("sharpness", "hessian_trace"), "trace of the Hessian"),
    Statistic(("effective-lr", "effective_learning_rate"), "effective learning rate", log=True),
    Statistic(("effective-lr", "relative_update"), "relative update", log=True),
    Statistic(("magnitudes", "input_rms"), "input (root mean square)", log=True),
    Statistic(("magnitudes", "output_gradient_rms"), "gradient by outputs (root mean square)", log=True),
    Statistic(("magnitudes", "weight_gradient_rms"), "gradient by filters (root mean square)", log=True),
)


def of_seeds(measured: Measured, statistic: Statistic, cell: Cell, epoch: int) -> Floats:
    """(seeds,): each measured seed's mean over its layers."""
    values, _ = measured.of_cell(statistic.key, cell, epoch)
    return np.array([statistic.mean(each) for each in values])


def shown(measured: Measured) -> list[Statistic]:
    """Those that were measured; of a probe that is not among the known ones its first statistic."""
    known = {statistic.key[0] for statistic in SHOWN}
    others: dict[str, Statistic] = {}
    for key in measured.values:
        if key[0] not in known:
            others.setdefault(key[0], Statistic(key, f"{key[0]}: {key[1].replace('_', ' ')}"))
    return [statistic for statistic in SHOWN if statistic.key in measured.values] + list(others.values())
