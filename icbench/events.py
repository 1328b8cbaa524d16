"""What workers tell: JSON objects, one a line, in a file that each writes alone and others follow."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class Teller:
    """Appends to a file of events. As a context: closes it."""

    def __init__(self, file: Path):
        self._stream = file.open("ab", buffering=0)  # each line in one write, so that a full disk leaves nothing behind
        self._torn = self._stream.tell() > 0 and not file.read_bytes().endswith(b"\n")

    def __enter__(self) -> "Teller":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __call__(self, event: str, **more: object) -> None:
        line = json.dumps({"event": event, **more}).encode() + b"\n"
        if self._torn:
            line = b"\n" + line
        # The start of a line that did not get to its end is skipped by readers, if the next begins on its own.
        self._torn = self._stream.write(line) < len(line)


class Follower:
    """Reads a file of events from `position` on; lines that were torn by a death are skipped."""

    def __init__(self, file: Path, position: int = 0):
        self._file = file
        self._position = position

    def read(self) -> Iterator[Event]:
        """The whole lines that were written since the last look. There need not be a file yet."""
        try:
            with self._file.open("rb") as stream:
                stream.seek(self._position)
                content = stream.read()
        except FileNotFoundError:
            return
        for line in content.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                return
            self._position += len(line)
            try:
                event = json.loads(line)
            except ValueError:
                continue
            yield event
