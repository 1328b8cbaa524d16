"""Spare a worker that compiles nothing the import of torch's compiler.

torch's optimisers, from 2.x on, import `torch._dynamo` in their first step only to tell it to keep away; that import
takes 4 s (torch 2.15, 2 cores), more than a whole run on the digits.
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_NAME = "torch._dynamo"


class _LazyDynamo(ModuleType):
    """Answers what the optimisers ask as the real module does where nothing is compiled; becomes it for all else."""

    @staticmethod
    def disable(fn: Callable[..., Any], *_: object, **__: object) -> Callable[..., Any]:
        return fn

    @staticmethod
    def graph_break(*_: object, **__: object) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(_NAME) is self:
            del sys.modules[_NAME]
        return getattr(importlib.import_module(_NAME), name)


def defer() -> None:
    """Put off the import of torch's compiler until something really needs it."""
    if _NAME not in sys.modules:
        sys.modules[_NAME] = _LazyDynamo(_NAME)
