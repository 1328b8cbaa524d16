"""How steadily the treatments of a sweep train before the learning rate first drops: deviation about a line, largest
fall, spikes, divergence, and the spread between seeds, against the baseline; as a table and a figure.
"""

import sys

from icbench.report import script

if __name__ == "__main__":
    sys.exit(script.main(__doc__, {"stability": ()}, ["stability"], lambda report: report.short_windows))
