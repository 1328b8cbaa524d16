"""The verdicts' figures in docs/theory.md: python tests/theory_verdicts.py prints them from docs/results/theory.

Pooled over IC orderings, layers, epochs and seeds; each layer counts by the precision of its factor, in the prediction
too. Means of sign agreement are over layers, without the first, whose inputs are images.
"""

import sys
from pathlib import Path

import pandas as pd

import icbench

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "theory"
FACTORS = {
    "mutual_information_factor": "predicted_mutual_information_factor",
    "mutual_information_gate_aware_factor": "predicted_mutual_information_factor",
    "correlation_factor": "predicted_correlation_factor",
}
AGREEMENTS = ("position_sign_agreement", "image_sign_agreement", "batch_sign_agreement")
WHOLE = ("path_over_displacement", "update_cosine")


def pooled(layers: pd.DataFrame) -> pd.Series:
    """layers: one a row; columns (value or standard_error, statistic)."""
    found = {"P(x = 0)": f"{layers['value', 'zero_share_before'].mean():.2f}"}
    for factor, prediction in FACTORS.items():
        known = layers[layers["standard_error", factor] > 0]
        weight = known["standard_error", factor] ** -2
        measured, predicted = ((known["value", each] * weight).sum() / weight.sum() for each in (factor, prediction))
        found |= {factor: f"{measured:.4f} ± {weight.sum() ** -0.5:.4f}", prediction: f"{predicted:.4f}"}
    return pd.Series(found)


def factors(rows: pd.DataFrame) -> pd.DataFrame:
    """By norm and rate."""
    chosen = rows[(rows["dropout"] > 0) & rows["statistic"].isin([*FACTORS, *FACTORS.values(), "zero_share_before"])]
    keys = ["norm", "dropout", "run_id", "epoch", "layer"]
    table = chosen.pivot(index=keys, columns="statistic", values=["value", "standard_error"])
    return table.groupby(["norm", "dropout"]).apply(pooled)


def directions(rows: pd.DataFrame) -> pd.DataFrame:
    """By epoch, statistic, norm and ordering; over rates and seeds."""
    inner = rows["statistic"].isin(AGREEMENTS) & ~rows["layer"].str.startswith("stem")
    chosen = rows[inner | (rows["statistic"].isin(WHOLE) & (rows["layer"] == ""))]
    return chosen.groupby(["epoch", "statistic", "norm", "ordering"])["value"].mean().unstack().round(3)


def main() -> None:
    pd.set_option("display.width", 220, "display.max_columns", None, "display.max_rows", None)
    runs = icbench.load_runs(RESULTS)
    rows = icbench.load_probes(RESULTS).merge(runs[["run_id", "dataset", "norm", "ordering", "dropout"]])
    for dataset, own in rows.groupby("dataset"):
        sys.stdout.write(f"\n{dataset}\n\n{factors(own).to_string()}\n\n{directions(own).to_string()}\n")


if __name__ == "__main__":
    main()
