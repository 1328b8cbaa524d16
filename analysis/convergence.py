"""How fast the treatments of a sweep train: epochs and seconds to the target, whether they get there at all, and area
under the learning curve, by treatment and by cell; with effects, learning curves and performance profiles as figures.
"""

import sys

from icbench.report import script

SPEED = ("epochs_ratio", "seconds_ratio", "never", "area")
TABLES = {"treatments": ("treatment", "size", *SPEED), "contrasts": ("stratum", "treatment", "seeds", *SPEED)}
FIGURES = ("effects", "learning-curves", "performance-profiles")

if __name__ == "__main__":
    sys.exit(script.main(__doc__, TABLES, FIGURES, lambda report: report.target_in_words))
