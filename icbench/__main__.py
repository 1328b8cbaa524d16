"""`python -m icbench`: the same as the command `icbench`."""

import sys

from icbench.cli import main

sys.exit(main())
