"""A process of icbench's own that is asked with pickles and answers with lines of JSON: both its ends."""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any

from icbench.errors import IcbenchError


class Child:
    """The process, as who starts it sees it. As a context: it runs `main` of `module` at once; leaving kills it.

    environment: what it has besides this process's. what: what it is, in the message of its death; remedy: a sentence
    that ends it; lines: how much of what the process said last it tells.
    """

    def __init__(self, module: str, environment: Mapping[str, str], what: str, *, remedy: str = "", lines: int = 1):
        program = f"from icbench import imports\nwith imports.kept():\n    from {module} import main\nmain()"
        self._command = [sys.executable, "-P", "-c", program]
        self._environment = os.environ | environment
        self._what, self._remedy, self._lines = what, remedy, lines

    def __enter__(self) -> "Child":
        self._said: IO[bytes] = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, env=self._environment
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):  # of a request that it did not live to read
            self._requests.close()
        self._answers.close()
        self._said.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, request: object) -> None:
        """Ask it for something. That it is dead already is told where an answer is waited for."""
        with suppress(BrokenPipeError):
            pickle.dump(request, self._requests)
            self._requests.flush()

    def answer(self) -> Any:
        """Its next. Raises IcbenchError if it ends before."""
        line = self._answers.readline()
        if not line.endswith(b"\n"):
            raise IcbenchError(self._death())
        return json.loads(line)

    def _death(self) -> str:
        code = self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        self._said.seek(0)
        said = [line for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        words = "\n".join(said[-self._lines :]).strip() or "(nothing)"
        told = f"{self._what} {how}. The last it said:{chr(10) if chr(10) in words else ' '}{words}"
        return f"{told}\n{self._remedy}" if self._remedy else told


def answers() -> Callable[[object], None]:
    """In the process, at its beginning: what sends an answer. What anything else prints goes to standard error."""
    stream = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return lambda answer: print(json.dumps(answer), file=stream, flush=True)
