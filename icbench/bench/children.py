"""Processes that are measured: each makes one object and calls its methods when asked, several at the same time.

A process of its own for each side keeps their memory apart, lets several train at once, and waits, without being at
work, while it is the others' turn.
"""

import importlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icbench.errors import IcbenchError
from icbench.files import last_words

_COMMAND = [sys.executable, "-P", "-c", "from icbench.bench.children import main; main()"]


def main() -> None:
    """A child. On standard input, pickled: what makes its object, then method after method; answers are JSON lines."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    place, arguments = pickle.load(sys.stdin.buffer)
    measured = named(place)(*arguments)
    while True:
        try:
            method, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        print(json.dumps(getattr(measured, method)(*arguments)), file=answers, flush=True)


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
        self._count = count
        self._environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self._request = (place, arguments)
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Group":
        self._folder = tempfile.TemporaryDirectory()
        try:
            for index in range(self._count):
                with self._said(index).open("wb") as said:
                    child = subprocess.Popen(
                        _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=self._environment
                    )
                self._children.append(child)
                self._send(index, self._request)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.kill()
        for child in self._children:
            child.wait()
            for stream in (child.stdin, child.stdout):
                assert stream is not None
                stream.close()
        self._folder.cleanup()

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """What each child's object answers; they work at the same time. Raises IcbenchError if one dies."""
        for index in range(self._count):
            self._send(index, (method, arguments))
        return [self._answer(index) for index in range(self._count)]

    def _send(self, index: int, request: object) -> None:
        stream = self._children[index].stdin
        assert stream is not None
        try:
            pickle.dump(request, stream)
            stream.flush()
        except BrokenPipeError:
            raise self._death(index) from None

    def _answer(self, index: int) -> Any:
        stream = self._children[index].stdout
        assert stream is not None
        line = stream.readline()
        if not line.endswith(b"\n"):
            raise self._death(index)
        return json.loads(line)

    def _death(self, index: int) -> IcbenchError:
        code = self._children[index].wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return IcbenchError(f"a process that was measured {how}. The last it said:\n{last_words(self._said(index))}")

    def _said(self, index: int) -> Path:
        return Path(self._folder.name, f"{index}.txt")
