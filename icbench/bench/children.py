"""Processes that are measured: each makes one object and calls its methods when asked, several at the same time.

A process of its own for each side keeps their memory apart, lets several train at once, and waits, without being at
work, while it is the others' turn.
"""

import importlib
import pickle
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from icbench.child import Child, answers

_LINES = 15  # of what one said last: where in the bench it was


def main() -> None:
    """A child (icbench/child.py), told what makes its object, then asked for method after method."""
    answer = answers()
    place, arguments = pickle.load(sys.stdin.buffer)
    measured = named(place)(*arguments)
    while True:
        try:
            method, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answer(getattr(measured, method)(*arguments))


def named(place: str) -> Callable[..., Any]:
    """What "package.module.name" means; imports the module."""
    module, _, name = place.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


class Group:
    """So many children that hold the same object, made by `place` ("package.module.name") called with `arguments`.

    As a context: they start at once; leaving it ends them. Each has so many CPU threads.
    """

    def __init__(self, count: int, threads: int, place: str, *arguments: Any):
        environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        what = "a process that was measured"
        self._children = [Child(__name__, environment, what, lines=_LINES) for _ in range(count)]
        self._request = (place, arguments)

    def __enter__(self) -> "Group":
        with ExitStack() as stack:
            for child in self._children:
                stack.enter_context(child).send(self._request)
            self._running = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """What each child's object answers; they work at the same time. Raises IcbenchError if one dies."""
        for child in self._children:
            child.send((method, arguments))
        return [child.answer() for child in self._children]
