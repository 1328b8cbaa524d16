"""Bias and spread of the estimators of dependence, for docs/theory.md: python tests/dependence_simulation.py.

Pairs of standard normals of a known correlation, gated; the truth is p^2 times the information of their bins, by
integration. 300 pairs of 2,000 samples each, 100 of 10,000; then factors as a layer's of the probe, of 64 pairs
together. About a minute on one core.
"""

from math import isqrt

import numpy as np
from test_theory import binned_information, gaussians

from icbench import theory

_COLUMNS = ["p", "N", "r", "truth", "bias", "deviation", "error"] + 2 * ["factor", "deviation", "error"]


def row(keep: float, count: int, correlation: float) -> str:
    """The information behind the gates: its truth, bias, deviation and mean standard error; then its factor to that
    before, plain and gate-aware.
    """
    x, pairs = gaussians(correlation, count, 300 if count == 2000 else 100, seed=count)
    opened = np.random.default_rng(1).random(x.shape) < keep
    fine = theory.codes(x, 16 * keep)
    binned = theory.codes(x * opened, like=fine)
    before = theory.estimate_mutual_information(fine, pairs)
    blind = theory.estimate_mutual_information(binned, pairs)
    aware = theory.estimate_mutual_information(binned, pairs, opened)
    truth = keep**2 * binned_information(correlation, round(16 * keep))
    figures = [truth, blind.value.mean() - truth, blind.value.std(ddof=1), blind.standard_error.mean()]
    for each in (blind, aware):
        # Of less information than that a ratio of single pairs has no moments to speak of.
        if keep < 1 and correlation >= 0.3:
            factor = each.over(before)
            figures += [factor.value.mean(), factor.value.std(ddof=1), factor.standard_error.mean()]
    cells = [f"{keep:g}", f"{count:,}", f"{correlation:g}", *(f"{round(figure, 4) + 0.0:.4f}" for figure in figures)]
    return "| " + " | ".join(cells + [""] * (13 - len(cells))) + " |"


def of_a_layer(keep: float, count: int, correlation: float, layers: int = 40) -> str:
    """The information factor of 64 pairs together, in per cent of p^2: its mean over so many layers, +- its error."""
    factors = []
    for seed in range(layers):
        x, pairs = gaussians(correlation, count, 64, seed=seed)
        opened = np.random.default_rng([1, seed]).random(x.shape) < keep
        fine = theory.codes(x, min(16, isqrt(count // 8)) * keep)  # as the probe has them
        before = theory.estimate_mutual_information(fine, pairs)
        after = theory.estimate_mutual_information(theory.codes(x * opened, like=fine), pairs)
        factors.append(after.value.mean() / before.value.mean() / keep**2)
    return f"{100 * np.mean(factors):.1f} ± {100 * np.std(factors, ddof=1) / layers**0.5:.1f}"


if __name__ == "__main__":
    print("| " + " | ".join(_COLUMNS) + " |\n" + "|---" * len(_COLUMNS) + "|")
    for keep in (1.0, 0.95, 0.5):
        for count in (2000, 10000):
            for correlation in (0.0, 0.3, 0.5, 0.8):
                print(row(keep, count, correlation))
    correlations = (0.1, 0.15, 0.25, 0.5)
    print("\n| p | N |", " | ".join(f"r = {each:g}" for each in correlations), "|\n" + "|---" * 6 + "|")
    for keep in (0.95, 0.6):
        for count in (1438, 2048):
            cells = (of_a_layer(keep, count, correlation) for correlation in correlations)
            print(f"| {keep:g} | {count:,} |", " | ".join(cells), "|")
