"""icbench: does normalisation + dropout right before each weight layer (the IC layer) train deep networks better?"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icbench.results import load_epochs as load_epochs
    from icbench.results import load_probes as load_probes
    from icbench.results import load_runs as load_runs

__version__ = "0.1.0"

_LAZY = ("load_epochs", "load_probes", "load_runs")


def __getattr__(name: str) -> Any:
    """Import the readers of results on first use, so that `import icbench` (and the CLI) stays free of pandas."""
    if name in _LAZY:
        return getattr(importlib.import_module("icbench.results"), name)
    raise AttributeError(f"module 'icbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
