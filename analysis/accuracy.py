"""What accuracy a sweep ends with: each cell, each cell against its baseline, and beside the published numbers; as
figures by dropout rate, norm, depth and width, where the sweep has several, and beside the published effects.
"""

import sys

from icbench.report import script

TABLES = {
    "cells": ("cell", "seeds", "seeds_wanted", "failed", "diverged", "accuracy", "last10"),
    "contrasts": ("stratum", "treatment", "seeds", "final", "p", "p_holm", "improvement", "images"),
    "published": (),
}
FIGURES = ("sensitivity", "published")

if __name__ == "__main__":
    sys.exit(
        script.main(
            __doc__, TABLES, FIGURES, lambda report: f"{report.answer} {report.pairing_in_words}", compares=False
        )
    )
