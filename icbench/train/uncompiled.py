"""torch's optimisers without its compiler, whose import at the first step takes a worker longer than torch itself."""

import inspect
from functools import cache
from typing import Any

import torch
from torch.optim import Optimizer


@cache
def uncompiled(kind: type[Optimizer]) -> Any:
    """The same optimiser, whose methods are torch's as written.

    Those of torch are wrapped so that its compiler knows how to trace them; the wrappers import it to say so. Nothing
    here traces an optimiser: of a compiled net only the units are.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)
