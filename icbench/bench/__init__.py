"""What this machine does, measured: `icbench bench`. A bench is a file here whose name stands in NAMES.

It has a docstring, whose first line the command shows; a frozen dataclass `Settings`; `SHORT` and `QUICK`, settings
for a look at everything and for tests; `add_options(parser)`, options named like fields of the settings, without
defaults; `check(settings)`, which raises UserError; `expected_seconds(settings)`; and `measure(settings, tell)`, which
returns Findings and tells of its progress. None of these files imports torch when it is imported: what is measured runs
in processes of its own. `possible()`, where there is one, says whether there is anything for it to measure here.
"""

import importlib
from types import ModuleType

NAMES = ("train", "data", "analysis", "launch", "search", "gpu", "whitening")


def possible_names() -> list[str]:
    """Those that this machine has something for."""
    return [name for name in NAMES if getattr(load(name), "possible", lambda: True)()]


def load(name: str) -> ModuleType:
    """The bench of a name in NAMES."""
    return importlib.import_module(f"icbench.bench.{name}")
